"""The pages are true, and the check notices where they are not."""

from pathlib import Path

import pytest

from motorcade.docs import broken_links, check, command_lines
from motorcade.docs_commands import commands, refusal
from motorcade.examples import ExampleCommand, ExampleGroup

ROOT = Path(__file__).resolve().parents[2]


def test_the_docs_of_this_checkout_are_true() -> None:
    assert check(ROOT) == []


def test_a_missing_page_is_noticed(tmp_path: Path) -> None:
    assert any("docs/commands.md" in fault for fault in check(tmp_path))


def test_broken_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, indeed\n")
    text = (
        "[a](there.md) [b](absent.md) [c](there.md#a-heading-indeed) [d](there.md#none) "
        "[e](https://example.org/x)"
    )
    faults = list(broken_links(tmp_path / "page.md", text))
    assert faults == [
        "link to absent.md: no such file",
        "link to there.md#none: no such heading",
    ]


def test_command_lines_come_from_shell_blocks_only() -> None:
    text = (
        "motorcade a\n```console\n$ motorcade b \\\n  --c   # why\nmake demo\n```\n"
        "```python\nmotorcade d\n```\n"
    )
    assert [line.split() for line in command_lines(text)] == [["motorcade", "b", "--c", "#", "why"]]


@pytest.mark.parametrize(
    "line",
    [
        "motorcade watch alerts --json | head -3",
        "motorcade --config x.toml simulate --vehicles 3  # a comment",
        "motorcade stack --help",
    ],
)
def test_commands_that_would_be_accepted(line: str) -> None:
    assert refusal(line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "motorcade fly",
        "motorcade stack sideways",
        "motorcade simulate --vehicels 3",
        "motorcade simulate --vehicles many",
        "motorcade stack logs",
    ],
)
def test_commands_that_would_be_refused(line: str) -> None:
    assert refusal(line) != ""


def test_every_example_would_be_accepted() -> None:
    for name, command in commands():
        assert isinstance(command, ExampleCommand | ExampleGroup), name
        lines = [line for line in command.example.splitlines() if line.startswith("motorcade ")]
        assert lines, f"{name} has no example"
        assert [refusal(line) for line in lines] == [""] * len(lines), name
        assert name == "motorcade" or any(line.startswith(name) for line in lines), name
