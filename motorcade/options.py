"""Flags made from the fields of settings dataclasses, so that none is declared twice."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Collection
from enum import Enum
from pathlib import Path
from typing import Any

import click

from motorcade.config import load
from motorcade.sections import Key, Section, members, section_named

Command = Callable[..., Any]
_SEPARATOR = "__"


def with_settings(
    own: str | None, *shared: str, hide: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command the flags of sections, and call it with a `Config` first.

    Args:
        own: Section whose keys become flags without a prefix: `--vehicles`.
        shared: Sections whose keys become flags with one: `--kafka-bootstrap-servers`.
        hide: Keys, as `section.key`, that this command decides by itself.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(**parameters: Any) -> Any:
            flags = take_flags(parameters)
            context = click.get_current_context()
            config = load(context.find_root().params.get("config"), flags)
            return function(config, **parameters)

        decorated: Command = command
        for option in reversed(_options(own, shared, hide)):
            decorated = option(decorated)
        return decorated

    return decorate


def only(section: str, *keys: str) -> frozenset[str]:
    """What `with_settings` must hide so that a command has flags for these keys alone."""
    names = (key.name for key in section_named(section).settings())
    return frozenset(f"{section}.{name}" for name in names if name not in keys)


def take_flags(parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Move the parameters that are settings out of `parameters`, those that were given."""
    flags: dict[str, dict[str, Any]] = {}
    for name in [name for name in parameters if _SEPARATOR in name]:
        value = parameters.pop(name)
        if value is not None:
            section, _, key = name.partition(_SEPARATOR)
            flags.setdefault(section, {})[key] = value
    return flags


def flag_name(section: str, key: str, own: str | None) -> str:
    """How a key is called on a command line."""
    name = key if section == own else f"{section}_{key}"
    return "--" + name.replace("_", "-")


def _options(own: str | None, shared: tuple[str, ...], hide: Collection[str]) -> list[Command]:
    names = ((own,) if own else ()) + shared
    return [option for name in names for option in _section_options(section_named(name), own, hide)]


def _section_options(section: Section, own: str | None, hide: Collection[str]) -> list[Command]:
    options = [
        _option(section, key, own)
        for key in section.settings()
        if _is_flag(key) and f"{section.name}.{key.name}" not in hide
    ]
    files = [_file_option(section, name, own) for name in section.secret_files()]
    return options + files


def _option(section: Section, key: Key, own: str | None) -> Command:
    flag = flag_name(section.name, key.name, own)
    if bool in members(key.annotation):
        flag = f"{flag}/--no-{flag[2:]}"
    return click.option(
        flag,
        f"{section.name}{_SEPARATOR}{key.name}",
        default=None,
        type=_click_type(key.annotation),
        help=f"{_sentence(key.doc)} {_default_text(key)}".strip(),
    )


def _file_option(section: Section, name: str, own: str | None) -> Command:
    return click.option(
        flag_name(section.name, name, own),
        f"{section.name}{_SEPARATOR}{name}",
        default=None,
        type=click.Path(path_type=Path),
        help=f"File that holds {section.name}.{name.removesuffix('_file')}.",
    )


def _is_flag(key: Key) -> bool:
    return not key.secret and all(
        member in (bool, int, float, str, Path)
        or typing.get_origin(member) is typing.Literal
        or (isinstance(member, type) and issubclass(member, Enum))
        for member in members(key.annotation)
    )


def _click_type(annotation: Any) -> Any:
    member = members(annotation)[0]
    if typing.get_origin(member) is typing.Literal:
        return click.Choice([str(value) for value in typing.get_args(member)])
    if isinstance(member, type) and issubclass(member, Enum):
        return click.Choice([str(value.value) for value in member])
    if member is Path:
        return click.Path(path_type=Path)
    return {bool: click.BOOL, int: click.INT, float: click.FLOAT}.get(member, click.STRING)


def _sentence(doc: str) -> str:
    first, stop, _ = doc.partition(". ")
    return first + ("." if stop else "")


def _default_text(key: Key) -> str:
    if key.default is dataclasses.MISSING:
        return "[required]"
    if key.default is None:
        return ""
    return f"[default: {default_text(key.default)}]"


def default_text(value: Any) -> str:
    """A default as a person would write it."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else '""'
