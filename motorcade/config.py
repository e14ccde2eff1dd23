"""Settings from one file, the environment and flags.

`motorcade.toml` in the working directory (or where `--config` or MOTORCADE_CONFIG says), under
MOTORCADE_<SECTION>_<KEY> variables, under flags. Every room declares its settings as a frozen
dataclass; this module reads their fields, so a key, its type, default and meaning are declared
once. A key that ends in `password` can come from a file by `<key>_file`. An unknown key is
refused, with its place and the keys there are.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from motorcade.sections import (
    SECTIONS,
    Key,
    Section,
    keys_of,
    secret_files,
    section_named,
    section_of,
)
from motorcade.toml_lines import line_of
from schemas.errors import SettingsError
from transport.limits import fault

T = TypeVar("T")
Values = Mapping[str, Mapping[str, Any]]

_WORD = re.compile(r"\w+")

FILE_NAME = "motorcade.toml"
ENV_PREFIX = "MOTORCADE_"
# Variables with this prefix that are no settings of a section.
OTHER_VARIABLES = frozenset(
    {
        "MOTORCADE_CACHE",
        "MOTORCADE_CONFIG",
        "MOTORCADE_DEBIAN_MIRROR",
        "MOTORCADE_DEBUG",
        "MOTORCADE_FUZZ_SEED",
        "MOTORCADE_MAVEN_MIRROR",
        "MOTORCADE_REQUIRE_PARTS",
        "MOTORCADE_SEED",
    }
)


def is_setting(variable: str) -> bool:
    """Whether a variable is meant for a section, or says which file to read."""
    name = variable.upper()
    return name.startswith(ENV_PREFIX) and (
        name not in OTHER_VARIABLES or name == "MOTORCADE_CONFIG"
    )


def env_name(section: str, key: str) -> str:
    """The variable that sets one key."""
    return f"{ENV_PREFIX}{section}_{key}".upper()


def find_file(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file to read, or None where there is none.

    Raises:
        SettingsError: A file that was asked for by name does not exist.
    """
    asked = explicit or (
        Path(environ["MOTORCADE_CONFIG"]) if "MOTORCADE_CONFIG" in environ else None
    )
    if asked is None:
        here = Path(FILE_NAME)
        return here if here.is_file() else None
    if not asked.is_file():
        raise SettingsError(f"{asked}: no such settings file")
    return asked


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values came from, to name the place of a bad one."""

    file: Path | None
    text: str
    values: Mapping[str, Any]
    flags: Values

    def place(self, path: tuple[str, ...]) -> str:
        """`flag --x`, the variable's name, or `file:line`."""
        if len(path) > 1 and path[1] in self.flags.get(path[0], {}):
            return f"flag for {path[0]}.{path[1]}"
        variable = env_name(path[0], path[1]) if len(path) > 1 else ""
        if variable and variable in {name.upper() for name in os.environ}:
            return variable
        line = line_of(self.text, path)
        return f"{self.file}:{line}" if line else str(self.file or "settings")


class Config:
    """All settings, read and checked; a section becomes its dataclass when asked for."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]], source: _Source) -> None:
        self._given = given
        self._source = source

    @property
    def file(self) -> Path | None:
        """The file that was read, if any."""
        return self._source.file

    def again(self) -> "Config":
        """The same file, the environment and the same flags, read once more. Raises as `load`."""
        return load(self._source.file, self._source.flags)

    def section(self, kind: type[T], **overrides: Any) -> T:
        """The settings of one room part.

        Args:
            kind: The dataclass of the section.
            overrides: Values over all others.

        Raises:
            SettingsError: A key without a default was not given, or values do not fit together.
        """
        section = section_of(kind)
        values = {**self._given.get(section.name, {}), **overrides}
        missing = [key for key in section.required() if key not in values]
        if missing:
            wanted = ", ".join(f"{section.name}.{key}" for key in missing)
            raise SettingsError(f"missing setting: {wanted} (see docs/configuration.md)")
        try:
            return kind(**values)
        except SettingsError as error:
            raise SettingsError(f"{self._places_of(section.name, str(error))}{error}") from error
        except (ValueError, TypeError) as error:
            raise SettingsError(f"[{section.name}] {error}") from error

    def _places_of(self, section: str, text: str) -> str:
        """Where the keys were set that a refusal names."""
        named = set(_WORD.findall(text)) & set(self._given.get(section, {}))
        places = sorted({self._source.place((section, key)) for key in named})
        return "".join(f"{place}: " for place in places)

    def given(self, section: str) -> Mapping[str, Any]:
        """What was set for a section anywhere; defaults are not in it."""
        return dict(self._given.get(section, {}))


def load(
    file: Path | None = None,
    flags: Values | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read file, environment and flags.

    Args:
        file: Settings file asked for by name.
        flags: Section to key to value; over everything else.
        environ: Only for MOTORCADE_CONFIG and the names of variables; default os.environ.

    Raises:
        SettingsError: No such file, no TOML, an unknown key, a value of the wrong type.
    """
    environ = os.environ if environ is None else environ
    path = find_file(file, environ)
    text = path.read_text("utf-8") if path else ""
    source = _Source(path, text, _parse(path, text), flags or {})
    _refuse_unknown_variables(environ)
    try:
        values: dict[str, Any] = {name: dict(keys) for name, keys in source.flags.items()}
        settings = _settings_class(source.values)(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, source)) from error
    given = {section.name: _given(settings, section) for section in SECTIONS}
    _refuse_out_of_range(given, source)
    return Config(given, source)


def _refuse_out_of_range(given: Values, source: _Source) -> None:
    """A value of the right type that its key may not have, in whatever section."""
    wrong = [
        f"{source.place((section.name, key.name))}: {section.name}.{text}"
        for section in SECTIONS
        for key in section.settings()
        if (text := fault(section.kind(), key.name, given[section.name].get(key.name))) is not None
    ]
    if wrong:
        raise SettingsError("; ".join(wrong))


def _parse(path: Path | None, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    names = {section.name.upper() for section in SECTIONS}
    for variable in sorted(environ):
        name = variable.upper()
        if not name.startswith(ENV_PREFIX) or name in OTHER_VARIABLES:
            continue
        if name.removeprefix(ENV_PREFIX).partition("_")[0] not in names:
            known = ", ".join(sorted(section.name for section in SECTIONS))
            raise SettingsError(f"{variable}: no such section; sections: {known}")


def _model_of(kind: type[Any]) -> type[BaseModel]:
    """Every key optional, so that defaults stay the dataclass's own."""
    keys = keys_of(kind)
    fields: dict[str, Any] = {key.name: (_field_type(key) | None, None) for key in keys}
    fields |= dict.fromkeys(secret_files(keys), (Path | None, None))
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def _field_type(key: Key) -> Any:
    return _model_of(key.table) if key.table else key.annotation


def _settings_class(file_values: Mapping[str, Any]) -> type[BaseSettings]:
    class Base(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX,
            env_nested_delimiter="_",
            env_nested_max_split=1,
            extra="forbid",
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = InitSettingsSource(settings_cls, init_kwargs=dict(file_values))
            return init_settings, env_settings, file

    fields: dict[str, Any] = {
        section.name: (_model_of(section.kind()) | None, None) for section in SECTIONS
    }
    return create_model("Settings", __base__=Base, **fields)


def _given(settings: BaseSettings, section: Section) -> dict[str, Any]:
    model: BaseModel | None = getattr(settings, section.name)
    return {} if model is None else _values_of(model, section.kind(), section.name)


def _values_of(model: BaseModel, kind: type[Any], name: str) -> dict[str, Any]:
    """What was set in one table; its secrets are read, its own tables are dataclasses."""
    values = {key: getattr(model, key) for key in model.model_fields_set}
    keys = keys_of(kind)
    for file_key in secret_files(keys):
        path = values.pop(file_key, None)
        if path is not None:
            _take_secret(values, name, file_key.removesuffix("_file"), path)
    for key in keys:
        if key.table and isinstance(values.get(key.name), BaseModel):
            inner = _values_of(values[key.name], key.table, f"{name}.{key.name}")
            values[key.name] = key.table(**inner)
    return values


def _take_secret(values: dict[str, Any], section: str, key: str, path: Path) -> None:
    if values.get(key) is not None:
        raise SettingsError(f"{section}.{key} and {section}.{key}_file are both set")
    try:
        values[key] = path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{section}.{key}_file: {path}: {error.strerror}") from error


def _explain(error: ValidationError, source: _Source) -> str:
    return "; ".join(_explain_one(detail, source) for detail in error.errors())


def _explain_one(detail: ErrorDetails, source: _Source) -> str:
    path = tuple(str(part) for part in detail["loc"])
    where = f"{source.place(path)}: {'.'.join(path)}"
    if detail["type"] != "extra_forbidden":
        return f"{where}: {detail['msg'].lower()}, not {detail['input']!r}{_may_be(path)}"
    if len(path) == 1:
        names = sorted(section.name for section in SECTIONS)
        return f"{where}: no such section{_meant(path[0], names)}; sections: {', '.join(names)}"
    keys = _allowed(path)
    return f"{where}: unknown key{_meant(path[-1], keys)}; allowed: {', '.join(keys)}"


def _meant(typed: str, names: list[str]) -> str:
    close = difflib.get_close_matches(typed, names, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _may_be(path: tuple[str, ...]) -> str:
    """What the key of a value of the wrong type may be, where more is known than its type."""
    keys = section_named(path[0]).settings() if len(path) == 2 else ()
    allowed = next((key.allowed for key in keys if key.name == path[1]), "")
    return f"; it may be {allowed}" if allowed else ""


def _allowed(path: tuple[str, ...]) -> list[str]:
    keys = section_named(path[0]).settings()
    for name in path[1:-1]:
        keys = keys_of(next(key.table for key in keys if key.name == name and key.table))
    return sorted([*(key.name for key in keys), *secret_files(keys)])
