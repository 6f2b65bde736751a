"""The record of a denoiser's model file: typed, and read and written only here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.engines.record import DENOISER, Checked, reason_of
from vaeguard.errors import RefusedError, UsageError
from vaeguard.settings.checks import check_one_of, check_positive
from vaeguard.settings.restoration import STRIDES

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("photo", "colour", "document")
GRIDS = (1, 2, 4, 8)
LARGEST_HALO = 240
"""A tile of 1024 pixels holds two halos of this size and as many pixels again."""


@dataclass(frozen=True)
class DirectRecord(Checked):
    """The width and depth of the direct denoiser."""

    width: int
    depth: int


@dataclass(frozen=True)
class EstimatorRecord(Checked):
    """The planes whose noise the estimator estimates: 1 for grey, 3 for red, green and blue."""

    planes: int


@dataclass(frozen=True)
class LadderRecord(Checked):
    """The width of the ladder VAE, its channels of latents by scale, and its halo in pixels."""

    width: int
    latent: tuple[int, ...]
    halo: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in (self.width, *self.latent):
            check_positive("latent", size)
        if len(self.latent) != len(STRIDES):
            raise UsageError(f"`latent` has {len(self.latent)} sizes; it must have {len(STRIDES)}")
        _check_halo(self.halo)


@dataclass(frozen=True)
class DenoiserRecord(Checked):
    """The record of a denoiser.

    Attributes
    ----------
    kind : str
        The kind of page that the networks were trained for: `photo`, `colour` or `document`.
    halo : int
        The largest distance in pixels at which a pixel matters to the direct denoiser.
    grid : int
        Height and width are multiples of this.
    interval : float
        The factor from the spread that the network states to half of an interval with nine of ten clean pixels.
    direct, estimator, ladder : records
        The shapes of the networks in the file; None for those that are not in it.
    card : dict
        The origin of the weights.
    planes : int
        1 for grey planes, 3 for red, green and blue.
    noise_map : bool
        Whether the noise is a map, or one number for the image.
    grain : tuple of float or None
        The result of `grain_of` for the collection that the networks were adapted to.
    """

    kind: str
    halo: int
    grid: int
    interval: float
    direct: DirectRecord
    card: dict[str, object]
    planes: int = 1
    noise_map: bool = False
    grain: tuple[float, ...] | None = None
    estimator: EstimatorRecord | None = None
    ladder: LadderRecord | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON can hold, in the order of the file."""
        values = asdict(self)
        order = ("kind", "halo", "grid", "interval", "grain", "direct", "planes", "noise_map", "estimator", "ladder")
        return {DENOISER: {key: values[key] for key in order if values[key] is not None}, "card": values["card"]}


def read_denoiser_record(values: Mapping[str, Any], name: str) -> DenoiserRecord:
    """The record of a denoiser from the JSON of its file; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The file is not a denoiser, lacks a value, or has a value of another type.
    """
    if DENOISER not in values:
        raise RefusedError(f"{name!r} is an anomaly model, not a denoiser; give a denoiser")
    parts = {"direct": DirectRecord, "estimator": EstimatorRecord, "ladder": LadderRecord}
    try:
        own = dict(values[DENOISER])
        own |= {key: part(**own[key]) for key, part in parts.items() if key in own}
        return DenoiserRecord(**own, card=values["card"])
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise RefusedError(
            f"the denoiser {name!r} does not work with this version of vaeguard ({reason_of(error)}); fit the"
            " denoiser again"
        ) from error


def _check_halo(halo: int) -> None:
    if halo > LARGEST_HALO:
        raise UsageError(f"`halo` is {halo}; it must be at most {LARGEST_HALO}")
