"""Checks of the types, numbers and names in settings; each raises UsageError with the setting's name."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from vaeguard.errors import UsageError

Value = TypeVar("Value")


def settle_types(spec: Any) -> None:
    """Check the type of every setting of a frozen dataclass; NumPy numbers and lists become numbers and tuples.

    JSON and equality need plain values.

    Raises
    ------
    UsageError
        A value is of another type than its annotation says.
    """
    for name, hint in get_type_hints(type(spec)).items():
        object.__setattr__(spec, name, _typed(name, getattr(spec, name), hint))


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value in the type of an annotation such as `int | None` or `tuple[int, ...]`; an int serves as float."""
    plain = tuple(map(_plain, value)) if isinstance(value, list | tuple) else _plain(value)
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for item in plain if isinstance(plain, tuple) else (plain,):
        check_fits(name, item)
    if any(_is_of(plain, kind) for kind in allowed):
        return plain
    if float in allowed and type(plain) is int:
        return float(plain)
    raise UsageError(f"`{name}` is {value!r}; it must be of type {' or '.join(map(_spelled, allowed))}")


def _is_of(value: Any, hint: Any) -> bool:
    if get_origin(hint) is dict:
        of_key, of_value = get_args(hint)
        return isinstance(value, dict) and all(
            isinstance(k, of_key) and isinstance(v, of_value) for k, v in value.items()
        )
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(type(item) is get_args(hint)[0] for item in value)
    return type(value) is hint or (hint in (str, Path) and isinstance(value, hint))


def _spelled(hint: Any) -> str:
    if hint is NoneType:
        return "None"
    items = f" of {get_args(hint)[0].__name__}" if get_origin(hint) is tuple else ""
    return getattr(hint, "__name__", "") + items


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "shape", None) == () else value


def check_fits(name: str, value: object) -> None:
    """Refuse a whole number of more than 63 bits, which no array and no file can hold."""
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UsageError(f"`{name}` is too large; it must be below 2**63")


def check_one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is none of `choices`."""
    if value not in choices:
        raise UsageError(f"`{name}` is {value!r}; choose from {', '.join(map(str, filter(None, choices)))}")


def check_positive(name: str, value: float | None) -> None:
    """Refuse a number that is not above 0 and finite; None is allowed."""
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"`{name}` is {value}; it must be above 0")


def check_not_negative(name: str, value: float) -> None:
    """Refuse a number that is below 0 or not finite."""
    if not 0 <= value < float("inf"):
        raise UsageError(f"`{name}` is {value}; it must not be negative")


def check_share(name: str, value: float) -> None:
    """Refuse a number outside [0, 1)."""
    if not 0 <= value < 1:
        raise UsageError(f"`{name}` is {value}; it must be at least 0 and below 1")


def check_pixel_range(value: tuple[int, ...] | None) -> None:
    """Refuse a range of pixels that is not a value for black and a larger one for white, both of 16 bits."""
    if value is not None and not (len(value) == 2 and 0 <= value[0] < value[1] <= 65535):
        raise UsageError(
            f"`pixel_range` is {value}; it must be two values from 0 to 65535, those of black and white, such as"
            " 0,4095 for a 12-bit camera"
        )


def settled(name: str, value: Value | None) -> Value:
    """The value of a setting of a resolved spec."""
    if value is None:
        raise ValueError(f"the spec is not resolved: `{name}` is None")
    return value
