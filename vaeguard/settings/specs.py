"""Specs of models and of training as JSON values, and back."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from vaeguard.errors import UsageError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.overrides import settings_of
from vaeguard.settings.training import PLACES, TrainSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Spec = TypeVar("Spec", ModelSpec, TrainSpec)


def fit_specs(
    model: ModelSpec | None, training: TrainSpec | None, settings: Mapping[str, Any]
) -> tuple[ModelSpec, TrainSpec]:
    """The specs of a fit, by default those of all defaults, with single `settings` of either replaced.

    Raises
    ------
    UsageError
        A spec is of another type, a setting is unknown (the nearest known one is suggested), or a value cannot work.
    """
    model, training = model or ModelSpec(), training or TrainSpec()
    for name, spec, kind, example in (
        ("model", model, ModelSpec, "kind='conv'"),
        ("training", training, TrainSpec, "epochs=10"),
    ):
        if not isinstance(spec, kind):
            given = f"`{name}` is a {type(spec).__name__}"
            raise UsageError(f"{given}; give a vaeguard.{kind.__name__}, or single settings such as {example}")
    known = [settings_of(kind) for kind in (ModelSpec, TrainSpec)]
    for name in settings:
        if not any(name in names for names in known):
            raise UsageError(f"unknown setting {name!r}{_nearest(name, [*known[0], *known[1]])}")
    chosen = [{name: value for name, value in settings.items() if name in names} for names in known]
    return replace(model, **chosen[0]), replace(training, **chosen[1])


def to_dict(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return `spec` as values that JSON can hold."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}


def changed(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return the settings of `spec` that differ from the default."""
    defaults = to_dict(type(spec)())
    return {name: value for name, value in to_dict(spec).items() if value != defaults[name]}


def without_places(training: dict[str, Any]) -> dict[str, Any]:
    """The settings of a fit, by name, without those that say where it runs."""
    return {name: value for name, value in training.items() if name not in PLACES}


def from_dict(kind: type[Spec], values: dict[str, Any]) -> Spec:
    """Build a spec from the values of `to_dict`.

    Raises
    ------
    UsageError
        A key is unknown (the nearest known key is suggested), or a value cannot work.
    """
    known = [item.name for item in fields(kind)]
    for name in values:
        if name not in known:
            raise UsageError(f"unknown setting {name!r} for {kind.__name__}{_nearest(name, known)}")
    return kind(**values)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the settings are {', '.join(known)}"
