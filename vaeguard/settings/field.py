"""Fields of a spec that carry their help."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, text: str, *, of: tuple[str, ...] | None = None, unset: str = "") -> Any:
    """A setting and its help: one of `of`, if these are given; `unset` says what None means."""
    return field(default=default, metadata={"help": text, "of": of, "unset": unset})
