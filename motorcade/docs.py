"""Reference pages made from the code, and a check that all pages are true.

    python -m motorcade.docs write      make docs/{commands,configuration,metrics,topics}.md
    python -m motorcade.docs check      fail where a page, a link or a command is not true

Checked: the references equal what the code says now; relative links of every Markdown file
lead somewhere; every `motorcade ...` line of a code block is a command that would be accepted.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from motorcade.docs_commands import commands_page, refusal
from motorcade.docs_metrics import metrics_page
from motorcade.docs_reference import configuration_page, topics_page

PAGES: dict[str, Callable[[], str]] = {
    "docs/commands.md": commands_page,
    "docs/configuration.md": configuration_page,
    "docs/metrics.md": metrics_page,
    "docs/topics.md": topics_page,
}
_SKIPPED_FOLDERS = frozenset({"node_modules", "build", "dist"})
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```+|~~~+)\s*(\w*)")
_SHELLS = frozenset({"", "sh", "bash", "console", "shell"})


def write(root: Path) -> list[str]:
    """Write the reference pages; returns what changed."""
    changed = []
    for name, render in PAGES.items():
        path = root / name
        text = render()
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            changed.append(name)
    return changed


def check(root: Path) -> list[str]:
    """What is not true, one line each; empty if all is well."""
    faults = list(_stale_pages(root))
    for path in markdown_files(root):
        text = path.read_text("utf-8")
        name = path.relative_to(root)
        faults += [f"{name}: {fault}" for fault in broken_links(path, text)]
        faults += [f"{name}: {fault}" for fault in refused_commands(text)]
    return faults


def _stale_pages(root: Path) -> Iterator[str]:
    for name, render in PAGES.items():
        path = root / name
        if not path.is_file() or path.read_text("utf-8") != render():
            yield f"{name}: not what the code says; run `python -m motorcade.docs write`"


def markdown_files(root: Path) -> list[Path]:
    """Every Markdown file of the project; hidden folders and installed packages are not its."""
    return sorted(
        path
        for path in root.rglob("*.md")
        if not any(
            part.startswith(".")
            or part in _SKIPPED_FOLDERS
            or (root / part / "pyvenv.cfg").exists()
            for part in path.relative_to(root).parts[:-1]
        )
    )


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Relative links of a page that lead to no file or to no heading."""
    for match in _LINK.finditer(text):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists():
            yield f"link to {target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in _anchors(file.read_text("utf-8")):
            yield f"link to {target}: no such heading"


def _anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+\s+(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def refused_commands(text: str) -> Iterator[str]:
    """`motorcade ...` lines of code blocks that the command line would not accept."""
    for line in command_lines(text):
        if fault := refusal(line):
            yield f"`{line}`: {fault}"


def command_lines(text: str) -> Iterator[str]:
    """Lines of shell code blocks that start with `motorcade`, continuations joined."""
    pending = ""
    for line in shell_lines(text):
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if pending.startswith("motorcade "):
            yield pending
        pending = ""


def shell_lines(text: str) -> Iterator[str]:
    """Lines of the code blocks of a page that are shell, without prompts."""
    fence, language = "", ""
    for line in (line.strip() for line in text.splitlines()):
        opening = _FENCE.match(line)
        if fence and line.startswith(fence):
            fence = ""
        elif fence and language in _SHELLS:
            yield line.removeprefix("$ ")
        elif not fence and opening:
            fence, language = opening.group(1), opening.group(2)


def main(arguments: list[str]) -> int:
    """Run `write` or `check` on the checkout that this file is in."""
    root = Path(__file__).resolve().parent.parent
    if arguments == ["write"]:
        print("\n".join(write(root)) or "nothing to change")
        return 0
    if arguments == ["check"]:
        faults = check(root)
        print("\n".join(faults) or "docs are true")
        return 1 if faults else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
