"""The record of a denoiser's file: typed, and read only here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError
from vaeguard.settings.checks import check_not_negative, check_one_of, check_positive, settle_types
from vaeguard.settings.restoration import STRIDES

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("photo", "colour", "document")
GRIDS = (1, 2, 4, 8)
LARGEST_HALO = 240
"""A tile of 1024 pixels holds two halos of this size and as many pixels again."""
LONGEST_REASON = 200


@dataclass(frozen=True)
class LadderRecord:
    """The shape of a ladder VAE: channels of its layers and of its latents, and the reach of a pixel."""

    width: int
    latent: tuple[int, ...]
    halo: int

    def __post_init__(self) -> None:
        settle_types(self)
        for value in (self.width, *self.latent):
            check_positive("latent", value)
        if len(self.latent) != len(STRIDES):
            raise UsageError(f"`latent` has {len(self.latent)} sizes; it must have {len(STRIDES)}")
        _check_halo(self.halo)


@dataclass(frozen=True)
class DenoiserRecord:
    """What the file of a denoiser says of its networks; see `Denoiser`.

    `grain` is the width of a collection's grain and the deviation of its noise relative to the finest noise.
    `noise_map` says whether the network takes a map of noise instead of one number.
    """

    kind: str
    halo: int
    grid: int
    interval: float
    grain: tuple[float, ...] | None = None
    planes: int = 1
    noise_map: bool = False
    estimates: bool = False
    ladder: LadderRecord | None = None

    def __post_init__(self) -> None:
        settle_types(self)
        check_one_of("kind", self.kind, KINDS)
        check_one_of("grid", self.grid, GRIDS)
        check_one_of("planes", self.planes, (1, 3))
        check_positive("interval", self.interval)
        _check_halo(self.halo)
        if self.grain is not None and not (len(self.grain) == 2 and all(map(math.isfinite, self.grain))):
            raise UsageError(f"`grain` is {self.grain}; it must be two finite numbers")

    @property
    def levels(self) -> int:
        """The number of deviations that describe the noise."""
        return 1 if self.planes == 1 else 2


def read_denoiser_record(values: Mapping[str, Any], name: str) -> DenoiserRecord:
    """The record of a denoiser from the JSON of its file; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The file lacks a value, or has a value of another type or size.
    """
    try:
        settings, _ = values["denoiser"], {**values["card"]}
        known = {field.name: settings[field.name] for field in fields(DenoiserRecord) if field.name in settings}
        ladder = LadderRecord(**settings["ladder"]) if "ladder" in settings else None
        return DenoiserRecord(**{**known, "ladder": ladder, "estimates": "estimator" in settings})
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise RefusedError(
            f"the denoiser {name!r} does not fit this vaeguard ({error!s:.{LONGEST_REASON}}); fit it anew"
        ) from error


def _check_halo(halo: int) -> None:
    check_not_negative("halo", halo)
    if halo > LARGEST_HALO:
        raise UsageError(f"`halo` is {halo}; it must be at most {LARGEST_HALO}")
