"""Which cells each benchmark has, and how their training and test examples are made.

Common to all: the official training part, normal examples only (tables excepted, as their protocol has it), the whole
official test part, and the same settings for every class of a data set. Which anomalies were in view when they were
chosen is said in `report.SETTINGS_NOTE` and, of defects, in `PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from vaeguard.benchmarking.baselines import DETERMINISTIC, SETTINGS
from vaeguard.benchmarking.cells import Cell, Job
from vaeguard.benchmarking.defects import DEFECT_SETS, split_by_group
from vaeguard.benchmarking.methods import (
    measure_baseline,
    measure_classifier,
    measure_fit,
    measure_table,
    table_settings,
)
from vaeguard.benchmarking.odds import FOLDER, TABLES, published_tables, read_table, split_table
from vaeguard.benchmarking.other_sets import OTHER_SETS
from vaeguard.benchmarking.published import Published, published
from vaeguard.benchmarking.spec import DEFAULT_SIZES
from vaeguard.benchmarking.tasks import ImageTask, TableTask, limited_rows
from vaeguard.data.named_sets import NAMES
from vaeguard.data.split import MIN_NORMAL, MIN_PER_CLASS, normal_numbers, split_normal
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.settings.classes import parse_classes
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.specs import changed, from_dict, to_dict, without_places
from vaeguard.settings.training import TrainSpec

if TYPE_CHECKING:
    from vaeguard.benchmarking.methods import Fits, Result
    from vaeguard.benchmarking.spec import BenchmarkSpec
    from vaeguard.data.image_set import ImageSet

COSTS = {"guided": 100, "unlabelled": 100, "patches": 100, "vaeguard": 100, "classifier": 50}
BASELINE_COST = 4
FAULT = "fault"
"""In the place of its settings: why a cell cannot be measured."""

PROTOCOLS = {
    "one-class-out": "Fitted on the official training part without the anomalous class; the whole official test part.",
    "one-class": "Fitted on one class of the official training part; the whole official test part.",
    "ood": "Fitted on the normal set's official training part; its official test part against that of the other set.",
    "tables": "60 % of the rows at random, anomalies among them, to fit on and to standardise by; 40 % to test.",
    "defects": "Fitted on defect-free images of half of the groups (tiles) or pairs (boards), a new half for each seed;"
    " the images of all other groups, defect-free and defective; of a test pair template and defective board. Those"
    " held out from the fit to calibrate by share no group with those trained on. The settings of the patches were"
    " developed with the anomalies of other splits of these very sets in view, so take the figures as those of a"
    " development set.",
}

CaseTasks = Callable[[int], ImageTask | TableTask]
"""Makes a case's task from the seed."""


@dataclass(frozen=True, eq=False)
class BenchmarkPlan:
    """Everything that a benchmark is going to measure.

    Attributes
    ----------
    jobs : tuple of Job
        In the order in which they run: seed by seed, so that a part of the run covers all classes alike.
    skipped : tuple of str
        Data that is not there, a sentence each.
    published : tuple of Published
        What others published on this data.
    protocol : str
        How the examples were made.
    """

    jobs: tuple[Job, ...]
    skipped: tuple[str, ...]
    published: tuple[Published, ...]
    protocol: str


@dataclass(frozen=True, eq=False)
class Case:
    """What takes its turn: a class, a pair, a table or a defect set."""

    data: str
    name: str
    task: CaseTasks
    split_by_seed: bool = False


def make_plan(spec: BenchmarkSpec, model: ModelSpec, training: TrainSpec) -> BenchmarkPlan:
    """Open the data and lay out the cells.

    Raises
    ------
    UsageError
        The data does not suit the benchmark, or none of the fits is possible; where only some are not, their jobs fail.
    VaeguardError
        None of the data is there.
    """
    makers = {"ood": _pairs, "tables": _tables, "defects": _defects}
    plain = (ModelSpec(), TrainSpec())
    if spec.name == "tables" and (model, replace(training, device=plain[1].device)) != plain:
        raise UsageError("--spec does not apply to benchmark tables, whose estimator has settings of its own")
    skipped: list[str] = []
    cases = makers.get(spec.name, _classes)(spec, skipped)
    if not cases:
        raise VaeguardError("; ".join(skipped))
    names = dict.fromkeys(case.data for case in cases)
    others = published_tables(spec.data_dir) if spec.name == "tables" else []
    others += [row for name in names for row in published(spec.name, name)]
    jobs = tuple(_jobs(spec, cases, model, training))
    faults = [job.settings.get(FAULT) for job in jobs if job.cell.method in COSTS]
    if all(faults):
        raise UsageError(str(faults[0]))
    others = [_over(row, [case.name for case in cases if case.data == row.data], spec) for row in others]
    return BenchmarkPlan(jobs, tuple(skipped), tuple(others), PROTOCOLS[spec.name])


def _over(row: Published, cases: list[str], spec: BenchmarkSpec) -> Published:
    """A published result with the mean of the cases that are measured here, where it says them."""
    if row.mean is not None and (set(cases) == set(row.cases) or (not row.cases and spec.classes is None)):
        return row
    known = [row.cases[case] for case in cases if case in row.cases]
    return replace(row, mean=float(np.mean(known)) if known and len(known) == len(cases) else None)


def _jobs(spec: BenchmarkSpec, cases: list[Case], model: ModelSpec, training: TrainSpec) -> Iterator[Job]:
    # Pairs share their normal set, and so its fit; elsewhere no two cases do, and keeping fits would only cost memory.
    fits: Fits | None = {} if spec.name == "ood" else None
    for seed in range(spec.repetitions):
        for case in cases:
            cells = [Cell(spec.name, case.data, case.name, method, seed) for method in _methods(spec, case, seed)]
            try:
                task = case.task(seed)
            except UsageError as error:
                yield from (_failing(cell, str(error)) for cell in cells)
                continue
            for cell in cells:
                if cell.method in SETTINGS:
                    yield _baseline_job(cell, task)
                else:
                    yield _fit_job(cell, task, (model, replace(training, seed=seed)), spec.limit, fits)


def _methods(spec: BenchmarkSpec, case: Case, seed: int) -> Iterator[str]:
    yield from spec.fit_names
    if not spec.baselines:
        return
    if "guided" in spec.fit_names:
        yield "classifier"
    for name in SETTINGS:
        repeated = case.split_by_seed or name not in DETERMINISTIC
        if (seed == 0 or repeated) and not (name == "brightness" and spec.name == "tables"):
            yield name


def _failing(cell: Cell, fault: str) -> Job:
    """A job in the place of one that cannot be laid out: it fails when its turn comes, and the others go on."""

    def fail(_: object) -> NoReturn:
        raise VaeguardError(fault)

    return Job(cell, {FAULT: fault}, fail, cost=1)


def _fit_job(
    cell: Cell, task: ImageTask | TableTask, specs: tuple[ModelSpec, TrainSpec], limit: int | None, fits: Fits | None
) -> Job:
    (model, training), fit = specs, cell.method
    if isinstance(task, TableTask):
        settings = {"task": task.sha256, "estimator": table_settings()}
        return Job(cell, settings, lambda _: measure_table(task, training.seed, training.device), COSTS[fit])
    kept = () if fits is None or fit == "classifier" else (fits,)
    measure: Callable[..., Result] = measure_classifier if fit == "classifier" else measure_fit
    if fit == "patches":
        model, training = _for_patches(model, training)
    model = replace(model, guided=fit == "guided")
    try:
        fit_split = _fit_split(task, training)
    except UsageError as error:
        return _failing(cell, _too_few(error, limit))
    settings = {
        "task": task.sha256,
        "fit_split": fit_split,
        "model": to_dict(model.sized()),
        "training": without_places(to_dict(training)),
    }
    return Job(cell, settings, lambda progress: measure(task, model, training, progress, *kept), COSTS[fit])


def _for_patches(model: ModelSpec, training: TrainSpec) -> tuple[ModelSpec, TrainSpec]:
    """The settings that find small defects, with those that differ from the library's defaults kept."""
    chosen = PRESETS["patches"]
    model = from_dict(ModelSpec, to_dict(chosen.model) | changed(model))
    return model, from_dict(TrainSpec, to_dict(chosen.training) | changed(training))


def _fit_split(task: ImageTask, training: TrainSpec) -> str:
    normal = normal_numbers(task.train, task.normal_classes)
    shares = {"validation": training.validation, "calibration": training.calibration}
    return split_normal(task.train, normal, **shares, seed=training.seed, groups=task.groups or None).digest()


def _too_few(error: UsageError, limit: int | None) -> str:
    """The fact that `split_normal` found, with advice that a benchmark can follow."""
    fact = str(error).partition(";")[0]
    return (
        f"{fact}; a fit needs at least {MIN_NORMAL} normal images and {MIN_PER_CLASS} of every normal class, so"
        f" {'add images' if limit is None else 'raise --limit'}"
    )


def _baseline_job(cell: Cell, task: ImageTask | TableTask) -> Job:
    settings = {"task": task.sha256, "baseline": SETTINGS[cell.method]}
    return Job(cell, settings, lambda _: measure_baseline(task, cell.method, cell.seed), BASELINE_COST)


def _classes(spec: BenchmarkSpec, _: list[str]) -> list[Case]:
    """One case per class that takes its turn."""
    if len(spec.data_names) != 1:
        raise UsageError(f"--data {spec.data!r}: benchmark {spec.name} takes one data set")
    train, test = (_open(spec, spec.data_names[0], split) for split in ("train", "test"))
    if train.labels is None or test.labels is None:
        raise UsageError(f"data {train.name!r} has no classes to take turns; give a set with classes")
    if train.fingerprint == test.fingerprint:
        raise UsageError(f"data {train.name!r} has no test part of its own; give folders `train` and `test` in it")
    present = [train.class_names[k] for k in normal_numbers(train, None)]
    turns = present if spec.classes is None else _chosen(spec.classes, train.class_names)
    tested = np.array(test.class_names)[test.labels]
    out = spec.name == "one-class-out"

    def case(name: str) -> Case:
        normal = tuple(other for other in present if (other != name) == out)
        # Made when its turn comes, so that a class without test images takes no other along, and once for all seeds.
        task = cache(partial(ImageTask, train, normal, test.images, ~np.isin(tested, normal)))
        return Case(train.name, name, lambda _: task())

    return [case(name) for name in turns]


def _chosen(text: str, class_names: tuple[str, ...]) -> list[str]:
    try:
        return [class_names[k] for k in parse_classes(text, class_names)]
    except UsageError as error:
        raise UsageError(str(error).replace("--normal-classes", "--classes")) from error


def _pairs(spec: BenchmarkSpec, skipped: list[str]) -> list[Case]:
    """One case per pair `normal:anomalous`."""
    cases = []
    for pair in spec.data_names:
        normal, colon, other = pair.partition(":")
        if not colon:
            raise UsageError(f"--data {pair!r} is no pair; write it as normal:anomalous, such as mnist:notmnist")
        try:
            train, test = (_open(spec, normal, split) for split in ("train", "test"))
            strange = OTHER_SETS[other](spec.data_dir) if other in OTHER_SETS else _open(spec, other, "test")
        except (UsageError, RefusedError):
            raise
        except VaeguardError as error:
            skipped.append(f"{pair} skipped: {error}")
            continue
        cases.append(_pair(pair, train, test, _limited(strange, spec.limit)))
    return cases


def _pair(pair: str, train: ImageSet, test: ImageSet, strange: ImageSet) -> Case:
    if test.images.shape[1:] != strange.images.shape[1:]:
        shapes = f"{test.images.shape[1:]} and {strange.images.shape[1:]}"
        raise UsageError(f"--data {pair!r}: the images have different shapes (C, H, W), {shapes}; choose another pair")
    anomalous = np.arange(len(test) + len(strange)) >= len(test)
    task = ImageTask(train, None, np.concatenate([test.images, strange.images]), anomalous)
    return Case("image sets", pair, lambda _: task)


def _tables(spec: BenchmarkSpec, skipped: list[str]) -> list[Case]:
    """One case per table."""
    unknown = set(spec.data_names) - set(TABLES)
    if unknown:
        raise UsageError(f"--data {unknown.pop()!r} is no table of the benchmark; known are {', '.join(TABLES)}")
    cases = []
    for name in spec.data_names or TABLES:
        try:
            table = read_table(name, spec.data_dir)
        except RefusedError:
            raise
        except VaeguardError as error:
            skipped.append(f"{name} skipped: {error}")
            continue
        cases.append(Case(FOLDER, name, partial(split_table, name, table, limit=spec.limit), split_by_seed=True))
    return cases


def _defects(spec: BenchmarkSpec, skipped: list[str]) -> list[Case]:
    """One case per set; the kinds of defects are reported beside it."""
    cases = []
    for name in spec.data_names:
        if name not in DEFECT_SETS:
            raise UsageError(f"--data {name!r} is no set of defects; known are {', '.join(DEFECT_SETS)}")
        try:
            found = DEFECT_SETS[name](spec.data_dir, spec.size or DEFAULT_SIZES[name])
        except RefusedError:
            raise
        except VaeguardError as error:
            skipped.append(f"{name} skipped: {error}")
            continue
        cases.append(Case(name, "all defects", partial(split_by_group, found, limit=spec.limit), split_by_seed=True))
    return cases


def _open(spec: BenchmarkSpec, name: str, split: Literal["train", "test"]) -> ImageSet:
    from vaeguard.data.data_sets import open_images

    found = open_images(name, split=split, data_dir=spec.data_dir, download=spec.download and name in NAMES)
    return _limited(found, spec.limit)


def _limited(images: ImageSet, limit: int | None) -> ImageSet:
    if limit is None or limit >= len(images):
        return images
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    return images.select(limited_rows(labels, limit))
