"""Drift of a stream of images: one martingale for the p-values and for each property of the images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.statistics.appearance import MEASURES
from vaeguard.statistics.martingale import Martingale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaeguard.engines.inspection import DetectorInfo
    from vaeguard.statistics.martingale import Change

FINENESS = 1000
"""Values of a property are told apart if they differ by a thousandth."""
RANGES = {"brightness": (1e-3, 1.0), "sharpness": (1e-3, 10.0), "size": (1.0, 2.0**32)}
"""The smallest and the largest value that is told from smaller and larger ones; the size is in pixels."""
WORDS = {"brightness": ("darker", "brighter"), "sharpness": ("less sharp", "sharper"), "size": ("smaller", "larger")}
P_CELLS = 2**12
"""The most cells of p-values."""
P_VALUE = "p_value"
NOTABLE = 0.005
"""A smaller relative change of a mean is no shift."""


@dataclass(frozen=True)
class Drift:
    """A change in a stream of images.

    Attributes
    ----------
    what : str
        The quantity that changed: `p_value`, `brightness`, `sharpness` or `size`.
    since : int
        The number of the first image after the change, about, from 1.
    told : int
        The number of the image at which the change was found.
    before, after : float
        Means of the quantity before and after; the former includes normal images of the fit, if they are known.
    """

    what: str
    since: int
    told: int
    before: float
    after: float

    def __str__(self) -> str:
        return f"since about image {self.since:,}: {self._change()}"

    def _change(self) -> str:
        if self.what == P_VALUE:
            means = f"mean p-value {self.after:.2f} instead of {self.before:.2f}"
            stranger = self.after < self.before
            return (
                f"images are {'more anomalous' if stranger else 'suspiciously similar to the training images'}"
                f" ({means})"
            )
        share = self.after / self.before - 1 if self.before else math.inf
        if abs(share) < NOTABLE:
            return f"the {self.what} of the images varies more or less than before"
        size = " (pixels of the files)" if self.what == "size" else ""
        return f"{WORDS[self.what][share > 0]} by {abs(share):.0%}".replace("%", " %") + size

    def to_dict(self) -> dict[str, object]:
        """Return the change as values that JSON can hold."""
        return {**vars(self), "message": str(self)}


class DriftMonitor:
    """Watches the p-values of a stream of images and their brightness, sharpness and size, in constant memory.

    Parameters
    ----------
    info : DetectorInfo
        The model of the p-values; the appearance of its normal images is the reference.
    chance : float
        The chance of any false alarm in the whole stream, of any length, if its images are exchangeable with those
        that calibrated the model. The quantities have equal shares.
    """

    def __init__(self, info: DetectorInfo, chance: float) -> None:
        names = (*((*MEASURES, "size") if info.view.pictures else ()), P_VALUE)
        self.calibrated_on = info.calibrated_on or 0
        self.images = 0
        self.martingales = {name: Martingale(chance / len(names), self._cells(name)) for name in names}
        # Each calibration image lies between two places that a new image may take.
        odd = range(1, 2 * self.calibrated_on, 2)
        middle = [(place + 2) / (2 * self.calibrated_on + 2) for place in odd]
        self.martingales[P_VALUE].refer_to(map(self._p_cell, odd), middle)
        seen = info.record.calibration
        for name in set(names) & {*MEASURES}:
            values = getattr(seen, name)
            self.martingales[name].refer_to((_cell(name, value) for value in values), values)

    def _cells(self, name: str) -> int:
        return self._p_cell(2 * self.calibrated_on) + 1 if name == P_VALUE else _cell(name, math.inf) + 1

    def _p_cell(self, place: int) -> int:
        """The cell of a place among the calibration images, in descending order of p-values."""
        places = 2 * self.calibrated_on + 1
        return place if places <= P_CELLS else place * P_CELLS // places

    def add(self, p_value: float, measured: Mapping[str, float]) -> list[Drift]:
        """Take the p-value and the properties of the next image, and return the changes that these prove."""
        self.images += 1
        values = {**measured, P_VALUE: p_value}
        return [
            self._drift(name, change)
            for name, martingale in self.martingales.items()
            if name in values and (change := self._step(martingale, name, values[name]))
        ]

    def _step(self, martingale: Martingale, name: str, value: float) -> Change | None:
        stranger = round(value * (self.calibrated_on + 1)) - 1
        cell = self._p_cell(2 * stranger) if name == P_VALUE else _cell(name, value)
        return martingale.add(cell, value, _random(name, self.images))

    def _drift(self, name: str, change: Change) -> Drift:
        # A property that is missing for some images has fewer steps.
        missing = self.images - self.martingales[name].steps
        return Drift(name, change.since + missing + 1, self.images, change.before, change.after)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as values that JSON can hold."""
        return {"images": self.images, **{name: item.state() for name, item in self.martingales.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state` of a monitor of the same model and chance."""
        self.images = state["images"]
        for name, item in self.martingales.items():
            item.restore(state[name])


def _cell(name: str, value: float) -> int:
    low, high = RANGES[name]
    return round(FINENESS * math.log(min(max(value, low), high) / low))


def _random(name: str, number: int) -> float:
    """A number in (0, 1), always the same for the same image."""
    digest = hashlib.blake2b(f"{name} {number}".encode(), digest_size=6).digest()
    return (int.from_bytes(digest) + 0.5) / 2**48
