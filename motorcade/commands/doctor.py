"""`motorcade doctor`."""

import dataclasses
import json

import click

from motorcade.doctor import Finding, examine
from motorcade.examples import ExampleCommand


@click.command(
    cls=ExampleCommand,
    example="motorcade doctor",
    short_help="Say what is missing on this machine, with the fix.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(as_json: bool) -> int:
    """Look at Python, libraries, brokers, ports, disk and memory, and say what to do.

    Exit status 1 if something is missing.
    """
    findings = examine()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo("\n".join(_lines(finding)))
    return 0 if all(finding.ok for finding in findings) else 1


def _lines(finding: Finding) -> list[str]:
    lines = [f"{'ok  ' if finding.ok else 'MISS'}  {finding.name:<16} {finding.text}"]
    if finding.fix:
        lines.append(f"{'':22} fix: {finding.fix}")
    if not finding.ok and finding.needed_for:
        lines.append(f"{'':22} needed for: {finding.needed_for}")
    return lines
