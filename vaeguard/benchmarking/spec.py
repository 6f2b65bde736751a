"""What a benchmark run measures: one frozen spec whose defaults are the only defaults. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 -- settle_types reads the annotations

from vaeguard.benchmarking.protocols import BENCHMARKS, Benchmark
from vaeguard.errors import UsageError
from vaeguard.settings.checks import settle_types
from vaeguard.settings.field import setting


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

    Raises
    ------
    UsageError
        A value is impossible, or does not apply to the benchmark.
    """

    name: str
    data: str | None = setting(
        None, "Data set; ood: pairs normal:anomalous; tables, defects: names.", unset="mnist, or all pairs and names"
    )
    classes: str | None = setting(None, "one-class-out, one-class: which classes take turns.", unset="all")
    seeds: int | None = setting(None, "Repetitions, with seeds 0 to N-1.", unset=f"{Benchmark.seeds}, tables 10")
    fits: tuple[str, ...] = setting((), "guided, unlabelled, patches.", unset="all, for defects patches")
    baselines: bool = setting(True, "Also measure simple methods.")
    limit: int | None = setting(None, "At most so many training and test examples: only for trying out.", unset="all")
    size: tuple[int, int] | None = setting(None, "defects: scale images to this height and width.", unset="each set's")
    data_dir: str | Path | None = None
    download: bool = setting(False, "Fetch named image sets that are missing.")

    def __post_init__(self) -> None:
        settle_types(self)
        if self.name not in BENCHMARKS:
            raise UsageError(f"`name` is {self.name!r}, which is no benchmark; choose {', '.join(BENCHMARKS)}")
        for fit in self.fits:
            if fit not in self.benchmark.fits:
                known = ", ".join(self.benchmark.fits)
                raise UsageError(f"`fits` has {fit!r}, which benchmark {self.name} does not; choose among {known}")
        for parameter, least in (("seeds", 1), ("limit", 2)):
            value = getattr(self, parameter)
            if value is not None and value < least:
                raise UsageError(f"`{parameter}` is {value}; it must be at least {least}")
        for parameter in ("classes", "size"):
            if getattr(self, parameter) is not None and parameter not in self.benchmark.parameters:
                raise UsageError(f"`{parameter}` does not apply to benchmark {self.name}; leave it out")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"`size` is {self.size}; it must be a height and a width in pixels, both above 0")

    @property
    def benchmark(self) -> Benchmark:
        """The protocol."""
        return BENCHMARKS[self.name]

    @property
    def data_names(self) -> tuple[str, ...]:
        """The items of `data`, or of the default."""
        text = self.benchmark.data if self.data is None else self.data
        return tuple(item.strip() for item in text.split(",") if item.strip())

    @property
    def repetitions(self) -> int:
        """How many seeds."""
        return self.seeds or self.benchmark.seeds

    @property
    def fit_names(self) -> tuple[str, ...]:
        """How our own method is fitted."""
        return self.fits or self.benchmark.default_fits or self.benchmark.fits
