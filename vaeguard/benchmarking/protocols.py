"""The benchmarks: the cases of each, and how their training and test examples are made.

All benchmarks fit on normal examples of the official training part (tables excepted, as their protocol has it), test on
the whole official test part, and use the same settings for every class of a data set. `report.SETTINGS_NOTE` and the
protocol of the defects say which anomalies were in view when the settings were chosen.

A new benchmark is an entry of `BENCHMARKS` with the function that makes its cases. That function imports what is slow
to import, since the command line reads the names from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path  # noqa: TC003 -- settle_types reads the annotations
from typing import TYPE_CHECKING, Literal

from vaeguard.errors import UsageError
from vaeguard.settings.checks import settle_types
from vaeguard.settings.field import setting
from vaeguard.wording import brief_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.benchmarking.tasks import Task
    from vaeguard.data.image_set import ImageSet

BASELINES = ("pca", "knn", "isolation_forest", "one_class_svm")
CELL_BASELINES = ("gaussian", "padim", "patchcore")
DEFECT_SIZES = {"magnetic-tile": (168, 144), "deeppcb-77000": (320, 320), "screws": (256, 256)}
"""Height and width in pixels: half of the median tile, since tiles differ in size, half of a board and of a screw.

At these sizes, what tells a defect lies within 16 pixels."""
FEATURE_SIZES = {"magnetic-tile": (256, 224), "deeppcb-77000": (640, 640), "screws": (512, 512)}
"""Height and width in pixels for features, which gain from more pixels than patches do."""


@dataclass(frozen=True, eq=False)
class Case:
    """A class, a pair, a table or a defect set, which is measured by itself.

    Attributes
    ----------
    data, name : str
        The data set and the name of the case.
    task : callable
        Makes the task from the seed.
    split_by_seed : bool
        Whether each seed splits the examples anew, so that methods without randomness are repeated too.
    methods : tuple of str
        The methods that the case is for; empty means all.
    """

    data: str
    name: str
    task: Callable[[int], Task]
    split_by_seed: bool = False
    methods: tuple[str, ...] = ()

    def takes(self, method: str) -> bool:
        """Whether the case is for `method`."""
        return not self.methods or method in self.methods


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A protocol over known data.

    Attributes
    ----------
    about, protocol : str
        A summary in one line, and the making of the examples.
    cases : callable
        Makes the cases of one item of the data from a `BenchmarkSpec` and the item's name. Raises UsageError if the
        data does not suit, and VaeguardError if it is not there.
    fits : tuple of str
        The ways to fit our own method, keys of `methods.METHODS`.
    default_fits : tuple of str
        The fits that are measured by default; empty means all.
    data : str
        The default data, items separated by commas.
    known_data_only : bool
        Whether no other data can be measured.
    seeds : int
        Repetitions by default.
    baselines : tuple of str
        Simple methods, keys of `methods.METHODS`.
    parameters : tuple of str
        The optional parameters of `BenchmarkSpec` that apply to this benchmark.
    fixed_settings : bool
        Whether our own method has fixed settings here, so that `model` and `training` do not apply.
    alarms_note : str
        A remark on the false alarms of this benchmark.
    """

    about: str
    protocol: str
    cases: Callable[[BenchmarkSpec, str], list[Case]]
    fits: tuple[str, ...]
    data: str
    default_fits: tuple[str, ...] = ()
    known_data_only: bool = False
    seeds: int = 3
    baselines: tuple[str, ...] = (*BASELINES, "brightness")
    parameters: tuple[str, ...] = ()
    fixed_settings: bool = False
    alarms_note: str = ""


@dataclass(frozen=True)
class BenchmarkSpec:
    """The settings of a benchmark.

    Attributes
    ----------
    name : str
        A key of `BENCHMARKS`.
    data : str or None
        `one-class-out`, `one-class`: a data set with train and test part and classes. `ood`: pairs `normal:anomalous`,
        separated by commas. `tables`: names of tables. `defects`: names of sets. None takes the default data.
    classes : str or None
        `one-class-out`, `one-class`: which classes take their turn, `"0-3"` or names; None means all.
    seeds : int or None
        Number of repetitions, with seeds 0, 1, ...; None means 10 for `tables`, else 3.
    fits : tuple of str
        Ways to fit our own method: `guided`, `unlabelled`, `features`, `patches`; empty means the benchmark's default.
    baselines : bool
        Also measure simple methods on the same split.
    limit : int or None
        At most this many training and this many test examples; the report is then marked as a trial.
    size : (H, W) or None
        `defects`: images are scaled to this height and width in pixels; None takes the default size of each set.
    data_dir : path or None
        The folder of the named data sets; None takes $VAEGUARD_DATA if it is set, else `data`.
    download : bool
        Download missing image sets and weights of networks.

    Raises
    ------
    UsageError
        A value is impossible, or does not apply to the benchmark.
    """

    name: str
    data: str | None = setting(
        None,
        "Data to use. For one-class-out and one-class: a data set, such as digits, mnist or fashion-mnist. For ood:"
        " pairs of data sets, written as normal:anomalous. For tables and defects: names of tables or data sets.",
        unset="mnist; for ood: four pairs; for tables and defects: every table or data set that is known",
    )
    classes: str | None = setting(
        None,
        "For one-class-out and one-class: only these classes take their turn as the anomaly or as the normal class.",
        unset="all",
    )
    seeds: int | None = setting(
        None, "Number of repetitions, with seeds 0 to N-1.", unset=f"{Benchmark.seeds}; for tables: 10"
    )
    fits: tuple[str, ...] = setting(
        (),
        "Kinds of fit to measure: guided (the model learns to tell the normal classes apart), unlabelled (the model"
        " ignores the classes), features (of a pretrained network), patches.",
        unset="every kind that suits the benchmark; for defects: features,patches",
    )
    baselines: bool = setting(True, "For comparison, also measure simple methods.")
    limit: int | None = setting(
        None, "Use at most this many training examples and this many test examples; for trial runs only.", unset="all"
    )
    size: tuple[int, int] | None = setting(
        None, "For defects: scale images to this height and width.", unset="chosen for each data set"
    )
    data_dir: str | Path | None = None
    download: bool = setting(False, "Download data sets and networks that are missing.")

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        if self.name not in BENCHMARKS:
            raise UsageError(f"`name` is {self.name!r}, which is not a benchmark; choose from {', '.join(BENCHMARKS)}")
        self._check_applies()
        self._check_numbers()

    def _check_applies(self) -> None:
        """Refuse settings that the benchmark does not have."""
        for fit in self.fits:
            if fit not in self.benchmark.fits:
                known = ", ".join(self.benchmark.fits)
                raise UsageError(f"`fits` has {fit!r}, which benchmark {self.name} does not know; choose from {known}")
        for parameter in ("classes", "size"):
            if getattr(self, parameter) is not None and parameter not in self.benchmark.parameters:
                raise UsageError(f"`{parameter}` does not apply to benchmark {self.name}; remove it")

    def _check_numbers(self) -> None:
        for parameter, least in (("seeds", 1), ("limit", 2)):
            value = getattr(self, parameter)
            if value is not None and value < least:
                raise UsageError(f"`{parameter}` is {value}; it must be at least {least}")
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
        """The number of seeds."""
        return self.seeds or self.benchmark.seeds

    @property
    def fit_names(self) -> tuple[str, ...]:
        """The ways to fit our own method."""
        return self.fits or self.benchmark.default_fits or self.benchmark.fits


def _classes(spec: BenchmarkSpec, name: str, *, out: bool) -> list[Case]:
    """One case for each class in turn, which is the anomalous one where `out` is set, else the normal one."""
    import numpy as np

    from vaeguard.benchmarking.tasks import ImageTask
    from vaeguard.data.split import normal_numbers

    if len(spec.data_names) != 1:
        raise UsageError(f"`data` is {spec.data!r}; benchmark {spec.name} takes one data set")
    train, test = (_open(spec, name, split) for split in ("train", "test"))
    if train.labels is None or test.labels is None:
        raise UsageError(
            f"data {train.name!r} has no classes, and this benchmark needs them; use a data set with classes"
        )
    if train.fingerprint == test.fingerprint:
        raise UsageError(f"data {train.name!r} has no test part; add folders `train` and `test` to it")
    present = [train.class_names[k] for k in normal_numbers(train, None)]
    turns = present if spec.classes is None else _chosen(spec.classes, train.class_names)
    tested = np.array(test.class_names)[test.labels]

    def case(turn: str) -> Case:
        normal = tuple(other for other in present if (other != turn) == out)
        # The task is made when its turn comes, so that a class without test images fails alone, and once for all seeds.
        task = cache(partial(ImageTask, train, normal, test.images, ~np.isin(tested, normal)))
        return Case(train.name, turn, lambda _: task())

    return [case(turn) for turn in turns]


def _chosen(text: str, class_names: tuple[str, ...]) -> list[str]:
    from vaeguard.settings.classes import parse_classes

    try:
        return [class_names[k] for k in parse_classes(text, class_names)]
    except UsageError as error:
        raise UsageError(str(error).replace("`normal_classes`", "`classes`")) from error


def _pair(spec: BenchmarkSpec, pair: str) -> list[Case]:
    """The case of a pair `normal:anomalous`."""
    import numpy as np

    from vaeguard.benchmarking.other_sets import OTHER_SETS
    from vaeguard.benchmarking.tasks import ImageTask

    normal, colon, other = pair.partition(":")
    if not colon:
        raise UsageError(
            f"`data` has {pair!r}, which is not a pair; write it as normal:anomalous, such as mnist:notmnist"
        )
    train, test = (_open(spec, normal, split) for split in ("train", "test"))
    anomalies = OTHER_SETS[other](spec.data_dir) if other in OTHER_SETS else _open(spec, other, "test")
    anomalies = _limited(anomalies, spec.limit)
    if test.images.shape[1:] != anomalies.images.shape[1:]:
        shapes = f"{test.images.shape[1:]} and {anomalies.images.shape[1:]}"
        raise UsageError(
            f"`data` has {pair!r}, whose images have different shapes (C, H, W): {shapes}; choose a different pair"
        )
    anomalous = np.arange(len(test) + len(anomalies)) >= len(test)
    task = ImageTask(train, None, np.concatenate([test.images, anomalies.images]), anomalous)
    return [Case("image sets", pair, lambda _: task)]


def _table(spec: BenchmarkSpec, name: str) -> list[Case]:
    from vaeguard.benchmarking.odds import FOLDER, read_table, split_table

    table = read_table(name, spec.data_dir)
    return [Case(FOLDER, name, partial(split_table, name, table, limit=spec.limit), split_by_seed=True)]


def _defects(spec: BenchmarkSpec, name: str) -> list[Case]:
    """A set at the size for features and at the one for pixels; the kinds of defects are reported beside them."""
    from vaeguard.benchmarking.defects import DEFECT_SETS, split_surfaces

    cases = []
    for sizes, methods in ((FEATURE_SIZES, FEATURE_METHODS), (DEFECT_SIZES, PIXEL_METHODS)):
        if not set(methods) & set(spec.fit_names):
            continue
        size = spec.size or sizes[name]
        surfaces = DEFECT_SETS[name](spec.data_dir, size)
        task = partial(split_surfaces, surfaces, limit=spec.limit)
        shown = name if sizes is DEFECT_SIZES else f"{name} at {size[0]}x{size[1]}"
        cases.append(Case(shown, "all defects", task, split_by_seed=surfaces.tested is None, methods=methods))
    return cases


def _open(spec: BenchmarkSpec, name: str, split: Literal["train", "test"]) -> ImageSet:
    from vaeguard.data.data_sets import open_images
    from vaeguard.data.named_sets import NAMES

    images = open_images(name, split=split, data_dir=spec.data_dir, download=spec.download and name in NAMES)
    return _limited(images, spec.limit)


def _limited(images: ImageSet, limit: int | None) -> ImageSet:
    import numpy as np

    from vaeguard.benchmarking.tasks import limited_rows

    if limit is None or limit >= len(images):
        return images
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    return images.select(limited_rows(labels, limit))


BENCHMARKS = {
    "one-class-out": Benchmark(
        about="each class in turn is the anomaly, and all others are normal",
        protocol="Fitted on the official training part without the anomalous class; tested on the whole official test"
        " part.",
        cases=partial(_classes, out=True),
        fits=("guided", "unlabelled"),
        data="mnist",
        baselines=("classifier", *BASELINES, "brightness"),
        parameters=("classes",),
    ),
    "one-class": Benchmark(
        about="each class in turn is normal, and all others are anomalies",
        protocol="Fitted on one class of the official training part; tested on the whole official test part.",
        cases=partial(_classes, out=False),
        fits=("unlabelled",),
        data="mnist",
        parameters=("classes",),
    ),
    "ood": Benchmark(
        about="images of one set are normal, and those of a different set are anomalies",
        protocol="Fitted on the official training part of the normal set; tested on its official test part and on that"
        " of the anomalous set.",
        cases=_pair,
        fits=("guided", "unlabelled"),
        data="fashion-mnist:mnist,mnist:fashion-mnist,mnist:notmnist,mnist:omniglot",
        baselines=("classifier", *BASELINES, "brightness"),
    ),
    "tables": Benchmark(
        about="17 tables of PyOD's benchmark, measured by PyOD's protocol",
        protocol="Fitted and standardised on a random 60 % of the rows, including anomalies; tested on the other 40 %.",
        cases=_table,
        fits=("vaeguard",),
        data="arrhythmia,cardio,glass,ionosphere,letter,lympho,mnist,musk,optdigits,pendigits,pima,satellite,"
        "satimage-2,shuttle,vertebral,vowels,wbc",
        known_data_only=True,
        seeds=10,
        baselines=BASELINES,
        fixed_settings=True,
    ),
    "defects": Benchmark(
        about="defects of magnetic tiles, circuit boards and screws",
        protocol="Fitted on defect-free images of half of the groups (tiles) or pairs (boards), a new half for each"
        " seed; tested on all images of the other groups or pairs. The test images of a pair are its template and its"
        " defective board. Images that calibrate the score share no group with images that train the model. Screws"
        " keep their official parts; the sound screws of the test part are brighter than those of the training part."
        " Features are compared with simple methods on the same cells: the score of an image is the mean of its five"
        " most anomalous cells, and heatmaps are smoothed in the same way. The settings of patches and features were"
        " developed with the anomalies of these sets in view, so take the figures as those of a development set.",
        cases=_defects,
        fits=("features", "patches", "unlabelled"),
        default_fits=("features", "patches"),
        baselines=(*CELL_BASELINES, *BASELINES, "brightness"),
        data=",".join(DEFECT_SIZES),
        known_data_only=True,
        parameters=("size",),
        alarms_note="Both intervals treat images as independent; here several images show the same surface, and each"
        " seed has a different test part, so the true intervals are wider.",
    ),
}
FEATURE_METHODS = ("features", *CELL_BASELINES)
PIXEL_METHODS = ("patches", "unlabelled", *BASELINES, "brightness")
OURS = tuple(dict.fromkeys(name for benchmark in BENCHMARKS.values() for name in benchmark.fits))
"""The methods of our own."""
