"""Settings as text, single ones such as `training.beta=2` or in a TOML file, checked against their specs."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from dataclasses import Field

TABLES = ("model", "training")
"""The tables of a settings file."""
SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def settings_of(spec: type) -> dict[str, Field[Any]]:
    """The fields of a spec that a user may set, by name; the others are filled in from the data."""
    return {item.name: item for item in fields(spec) if "help" in item.metadata}


def parse_setting(spec: type, name: str, text: str) -> Any:
    """The value of a field from text: `0.1`, `true`, `400,400`, or `none` if the field may be None.

    Raises
    ------
    UsageError
        The text is no value of the field's type.
    """
    hint = get_type_hints(spec)[name]
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if NoneType in kinds and text.lower() == "none":
        return settings_of(spec)[name].metadata["none"]
    kind = next(kind for kind in kinds if kind is not NoneType)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(_parsed(name, part.strip(), item) for part in text.split(",") if part.strip())
    return _parsed(name, text.strip(), kind)


def _parsed(name: str, text: str, kind: type) -> Any:
    try:
        return SWITCH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UsageError(f"`{name}` is {text!r}; it must be {WANTED[kind]}") from None


def read_overrides(texts: Iterable[str], specs: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Read settings such as `training.beta=2` into a dict of settings for each section, the name before the dot.

    The section decides only between fields of the same name: `beta=2` means the same, and so does `model.beta=2`.

    Raises
    ------
    UsageError
        A setting has no value, an unknown name (the nearest known name is suggested) or a value that cannot be read.
    """
    overrides: dict[str, dict[str, Any]] = {section: {} for section in specs}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"`set` is {text!r}; write it as name=value, such as {_names(specs)[0]}=...")
        field = name.rpartition(".")[2]
        sections = [section for section, spec in specs.items() if field in settings_of(spec)]
        if len(sections) != 1:
            _check_known(name, specs, "`set`")
            sections = [name.partition(".")[0]]
        section = sections[0]
        overrides[section][field] = parse_setting(specs[section], field, value)
    return overrides


def read_spec_file(path: str | Path, specs: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Read a TOML file with a table of settings for each spec.

    Raises
    ------
    UsageError
        The file cannot be read, or has an unknown table, an unknown setting or a value of another type.
    """
    place = f"`spec` {str(path)!r}"
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{place} is not a TOML file: {error}") from error
    tables = " and ".join(f"[{section}]" for section in specs)
    for section, table in content.items():
        if section not in specs or not isinstance(table, dict):
            raise UsageError(f"{place} has {section!r}, which is not a table of settings; the tables are {tables}")
        for name in table:
            _check_known(f"{section}.{name}", specs, place)
        specs[section](**table)
    return {section: dict(content.get(section, {})) for section in specs}


def _names(specs: Mapping[str, type]) -> list[str]:
    return [f"{section}.{name}" for section, spec in specs.items() for name in settings_of(spec)]


def _check_known(name: str, specs: Mapping[str, type], place: str) -> None:
    known = _names(specs)
    if name in known:
        return
    by_field = {other.partition(".")[2]: other for other in reversed(known)}
    near = difflib.get_close_matches(name.rpartition(".")[2], by_field, n=1)
    hint = f"did you mean {by_field[near[0]]!r}?" if near else f"the settings are {', '.join(known)}"
    raise UsageError(f"{place} has an unknown setting {name!r}; {hint}")


def layered(
    bases: Mapping[str, Any], path: str | Path | None, texts: Iterable[str], given: Mapping[str, Mapping[str, Any]]
) -> list[Any]:
    """The specs `bases` with settings replaced, in this order, by those of a TOML file, of `texts`, and of `given`.

    Raises
    ------
    UsageError
        As by `read_spec_file` and `read_overrides`.
    """
    specs = {section: type(base) for section, base in bases.items()}
    tables = {section: spec for section, spec in specs.items() if section in TABLES}
    read = read_spec_file(path, tables) if path else {}
    typed = read_overrides(texts, specs)
    return [
        replace(base, **{**read.get(section, {}), **typed[section], **given.get(section, {})})
        for section, base in bases.items()
    ]
