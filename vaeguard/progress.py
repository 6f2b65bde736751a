"""The type of functions that receive the progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with the amount done, the total amount, and a line of text."""
