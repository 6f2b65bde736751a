"""What a benchmark run measures: one frozen spec whose defaults are the only defaults. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 -- settle_types reads the annotations

from vaeguard.errors import UsageError
from vaeguard.settings.checks import settle_types

BENCHMARKS = {
    "one-class-out": "each class in turn anomalous, all others normal",
    "one-class": "each class in turn normal, all others anomalous",
    "ood": "one image set normal, another anomalous",
    "tables": "the 17 tables of PyOD's benchmark, by PyOD's protocol",
    "defects": "surface defects with pixel masks: magnetic tiles, circuit boards",
}
FITS = {
    "one-class-out": ("guided", "unlabelled"),
    "one-class": ("unlabelled",),
    "ood": ("guided", "unlabelled"),
    "tables": ("vaeguard",),
    "defects": ("patches", "unlabelled"),
}
"""How our own method can be fitted in each benchmark."""
DEFAULT_FITS = {"defects": ("patches",)}
"""Which of them are measured by default; where not named, every one."""

SEEDS = {"tables": 10}
DEFAULT_SEEDS = 3
DEFAULT_DATA = {
    "one-class-out": "mnist",
    "one-class": "mnist",
    "ood": "fashion-mnist:mnist,mnist:fashion-mnist,mnist:notmnist,mnist:omniglot",
    "defects": "magnetic-tile,deeppcb-77000",
}
DEFAULT_SIZES = {"magnetic-tile": (168, 144), "deeppcb-77000": (320, 320)}
"""Half of the median tile, whose sizes differ, and half of a board: what tells a defect then lies within 16 pixels."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """What a benchmark run measures.

    Attributes
    ----------
    name : str
        A key of `BENCHMARKS`.
    data : str or None
        `one-class-out`, `one-class`: a data set with train and test part and classes. `ood`: pairs
        `normal:anomalous`, separated by commas. `tables`: names of tables. `defects`: names of sets. None takes the
        default ones.
    classes : str or None
        `one-class-out`, `one-class`: which classes take their turn, `"0-3"` or names; None means all.
    seeds : int or None
        Repetitions with seeds 0, 1, ...; None means 10 for `tables`, else 3.
    fits : tuple of str
        Ways to fit our own method, `guided`, `unlabelled`, `patches`; empty means the benchmark's default.
    baselines : bool
        Also measure simple methods on the same split.
    limit : int or None
        At most so many training and so many test examples: for trying out, and reported as a trial.
    size : (H, W) or None
        `defects`: images are scaled to this height and width in pixels; None takes each set's own.
    data_dir : path or None
        Where named data lies; None takes $VAEGUARD_DATA, else `data`.
    download : bool
        Fetch named image sets that are missing.
    """

    name: str
    data: str | None = None
    classes: str | None = None
    seeds: int | None = None
    fits: tuple[str, ...] = ()
    baselines: bool = True
    limit: int | None = None
    size: tuple[int, int] | None = None
    data_dir: str | Path | None = None
    download: bool = False

    def __post_init__(self) -> None:
        settle_types(self)
        if self.name not in BENCHMARKS:
            raise UsageError(f"no benchmark {self.name!r}; known are {', '.join(BENCHMARKS)}")
        for fit in self.fits:
            if fit not in FITS[self.name]:
                raise UsageError(f"--fit {fit!r} is none of benchmark {self.name}: {', '.join(FITS[self.name])}")
        for option, value, least in (("--seeds", self.seeds, 1), ("--limit", self.limit, 2)):
            if value is not None and value < least:
                raise UsageError(f"{option} must be at least {least}, not {value}")
        if self.size is not None and self.name != "defects":
            raise UsageError(f"--size does not apply to benchmark {self.name}; leave it out")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"--size takes a height and a width in pixels, both above 0, not {self.size}")
        if self.classes is not None and not self.name.startswith("one-class"):
            raise UsageError(f"--classes does not apply to benchmark {self.name}; leave it out")

    @property
    def data_names(self) -> tuple[str, ...]:
        """The items of `data`, or of the default; empty for all tables."""
        text = DEFAULT_DATA.get(self.name, "") if self.data is None else self.data
        return tuple(item.strip() for item in text.split(",") if item.strip())

    @property
    def repetitions(self) -> int:
        """How many seeds."""
        return self.seeds or SEEDS.get(self.name, DEFAULT_SEEDS)

    @property
    def fit_names(self) -> tuple[str, ...]:
        """How our own method is fitted."""
        return self.fits or DEFAULT_FITS.get(self.name, FITS[self.name])
