"""Where in a TOML file a key stands, so that an error can say `file:line`.

`tomllib` gives values without places. This is no parser: the file was read before, so it only
has to find headers and assignments at the start of lines.
"""

import re

_HEADER = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(
    r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    r"""Number of the line, from 1, that sets `path`, or else that opens its table.

    Example:
        >>> line_of("[mqtt]\nhost = 'a'\nport = 1\n", ("mqtt", "port"))
        3
    """
    table: tuple[str, ...] = ()
    found = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header.group(1))
            if found is None and table == path[: len(table)]:
                found = number
        elif key := _KEY.match(line):
            full = (*table, *_parts(key.group(1)))
            if full == path[: len(full)]:
                return number
    return found
