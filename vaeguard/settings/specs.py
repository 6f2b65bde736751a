"""Specs of models and of training as JSON-able values, and back."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields
from typing import Any, TypeVar

from vaeguard.errors import UsageError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import PLACES, TrainSpec

Spec = TypeVar("Spec", ModelSpec, TrainSpec)


def to_dict(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return `spec` as JSON-able values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}


def changed(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return the settings of `spec` that are not the default."""
    plain = to_dict(type(spec)())
    return {name: value for name, value in to_dict(spec).items() if value != plain[name]}


def without_places(training: dict[str, Any]) -> dict[str, Any]:
    """Settings of a fit, by name, but for those that say where it runs."""
    return {name: value for name, value in training.items() if name not in PLACES}


def from_dict(kind: type[Spec], values: dict[str, Any]) -> Spec:
    """Build a spec from `to_dict`'s form or from a settings file.

    Raises
    ------
    UsageError
        A key is unknown (the nearest known one is suggested) or a value cannot work.
    """
    known = [item.name for item in fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise UsageError(f"unknown setting {name!r} for {kind.__name__}{hint}")
    return kind(**values)
