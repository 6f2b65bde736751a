"""Fit anew with images that a person found to be normal, and say what the review of a batch tells of the old model."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.data_sets import data_of_fit, open_images
from vaeguard.data.groups import read_groups
from vaeguard.data.image_set import digests_of, new_image_set
from vaeguard.data.labels import DEFECT, NORMAL, UNSURE, read_labelled, read_labels
from vaeguard.engines.model_file import find_model, read_model
from vaeguard.engines.record import LineageRecord
from vaeguard.engines.run_folder import Confirmed, read_confirmed, write_confirmed
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.models.cells import Cells
from vaeguard.reports.report_file import JSON_NAME, read_report, write_report
from vaeguard.settings.training import TrainSpec
from vaeguard.statistics.review import Reviewed, caught_share, false_alarm_rate
from vaeguard.storage.files import digest_of
from vaeguard.storage.places import check_supported
from vaeguard.training.plan import plan_fit
from vaeguard.wording import counted
from vaeguard.workflows.fit import fit_planned
from vaeguard.workflows.fit_run import no_empty_run
from vaeguard.workflows.outcome import Outcome, Reporter
from vaeguard.workflows.runs import new_run, point_latest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.labels import Label
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress
    from vaeguard.training.plan import FitPlan


def refit(
    model: str | Path,
    labels: str | Path,
    data: str | Path | None = None,
    *,
    run: str | Path | None = None,
    groups: str | Path | None = None,
    progress: Progress | None = None,
) -> TorchDetector:
    """Fit the model of a run again, with the normal images of a reviewed batch added to its data.

    >>> detector = vaeguard.refit("runs/parts", "labels.csv", run="runs/parts-2")  # doctest: +SKIP

    The new run has the settings and the data of the old one. Normal images of the audit, which was drawn at random from
    the whole batch, are added to the data. Other normal images only train the model: they were flagged, so they were
    chosen by their score and must not calibrate it. The model does not learn from images with a defect, nor from images
    that are marked as unsure; if a defect is among the data, it is removed. The confirmed images are kept in the run
    folder, so a second refit uses the confirmed images of both batches. The key `refit` of the report in the run folder
    says how well the old model worked. An interrupted refit continues from the checkpoint in `run`.

    Parameters
    ----------
    model : path
        A run folder.
    labels : path
        A CSV file with the columns `path`, `label` (normal, defect or unsure), `flagged` and `audit` (0 or 1), and
        `batch` (the number of images of the batch that were flagged, if this one was, else the number of images that
        were not flagged). The report of a batch saves such a file. If there are several normal classes, a column
        `class` gives the class of each normal image.
    data : path, optional
        The data of the old fit; None takes them from their previous place.
    run : path, optional
        The new run folder; None is `runs/<data>-<model>-<time>`.
    groups : path, optional
        A table of groups, as for the command `vaeguard fit`.
    progress : callable, optional
        Called with the number of steps done, the number of all steps, and a line of text.

    Raises
    ------
    UsageError
        A file is missing, or the class of an image is unknown; otherwise as by `vaeguard.fit`.
    RefusedError
        The table of labels is damaged, or the model takes no images.
    """
    reporter = Reporter(progress=lambda _: contextlib.nullcontext(progress or (lambda *_: None)))
    detector: TorchDetector = refit_run(str(model), str(labels), data, run, reporter, groups=groups).result
    return detector


def refit_run(
    model: str, labels: str, data: str | Path | None, run: str | Path | None, reporter: Reporter, *,
    groups: str | Path | None = None,
) -> Outcome:  # fmt: skip
    """Refit a model as `refit` does; `runs/latest` then points to the new run, and the report has the key `refit`.

    Raises
    ------
    UsageError, VaeguardError
        As by `refit`.
    """
    check_supported([model, labels, groups], "a refit")
    if model.lower().endswith(".onnx"):
        raise UsageError(
            f"`model` {model!r} is an exported file, which cannot be fitted again; give the run from which it was"
            " exported"
        )
    marked = read_labels(labels)
    path = find_model(model)
    detector = read_model(path, "cpu")
    if detector.info.rule is None:
        raise RefusedError(
            f"`model` {model!r} takes vectors, which cannot be reviewed in a report; fit again on all data instead"
        )
    record = detector.info.record
    if record.data.split.grouped and not groups:
        raise UsageError(
            f"`model` {model!r} was fitted with groups of images, and p-values are not valid without these groups; give"
            " `groups` again"
        )
    read, pixels, errors = read_labelled([label for label in marked if label.label != UNSURE], detector.info.rule)
    reporter.left_out(errors)
    images, named = _open(_data(data, path.parent, record), detector, groups, reporter)
    defects = digests_of(pixels[[label.label == DEFECT for label in read]])
    kept = np.flatnonzero(~np.isin(digests_of(images.images), defects))
    if len(kept) < len(images):
        reporter.say(f"Removed from the data: {counted(len(images) - len(kept), 'image')} marked as a defect")
        images = images.select(kept)
    confirmed = _confirmed(read_confirmed(path.parent), read, pixels, record, without=images, defects=defects)
    joined, training_only = _joined(images, confirmed)
    groups_of = named and [named[row] for row in kept] + [f"{name} alone" for name in confirmed.paths]
    only = int(training_only.sum())
    counts = {"training_only": only, "audited": len(confirmed.paths) - only}
    counts["defects"] = sum(label.label == DEFECT for label in marked)
    lineage = LineageRecord(digest_of(path), digest_of(Path(labels)), **counts)
    facts = {"model": model, "labels": labels, **counts, **_review(marked)}
    plan = replace(_plan(detector, joined, groups_of, training_only), lineage=lineage)
    return _fit(plan, Path(run) if run else new_run(joined, record.model), reporter, errors, facts, confirmed)


def _plan(
    detector: TorchDetector, images: ImageSet, groups: list[str] | None, training_only: npt.NDArray[np.bool_]
) -> FitPlan:
    """The fit of a model again, with its settings, its region, and the very network whose features it learned."""
    record, region, places = detector.info.record, detector.graph.region, detector.graph.places
    return plan_fit(
        images,
        None,
        groups,
        list(record.normal_classes) or None,
        record.model,
        # The model may have been fitted on another machine.
        replace(record.training, device=TrainSpec.device, threads=TrainSpec.threads),
        None if region is None else region.inside.cpu().numpy(),
        training_only=training_only,
        network=places.backbone if isinstance(places, Cells) else None,
    )


def _fit(
    plan: FitPlan, run: Path, reporter: Reporter, errors: Sequence[tuple[str, str]], facts: dict[str, Any],
    confirmed: Confirmed,
) -> Outcome:  # fmt: skip
    """Fit, and write into the run what else there is of a refit; an interrupted one goes on."""
    images = counted(len(plan.image_set), "image")
    reporter.say(f"Data: {images}, {len(confirmed.paths):,} of them confirmed as normal; run folder: {run}")
    started = time.monotonic()
    how = "to continue, run the same command with {run}"
    with no_empty_run(run, how), reporter.progress("fitting") as progress:
        fitted = fit_planned(plan, run, resume=True, command=reporter.command, progress=progress)
    write_confirmed(run, confirmed)
    report = {**read_report(run), "refit": facts}
    write_report(run / JSON_NAME, report)
    try:
        point_latest(run)
    except VaeguardError as error:  # the run itself is safe
        reporter.say(f"note: {error}")
    return Outcome(str(run), fitted, report, errors, time.monotonic() - started)


def _open(
    data: str, detector: Detector, groups: str | Path | None, reporter: Reporter
) -> tuple[ImageSet, list[str] | None]:
    """The data of the old fit, and the groups of their images."""
    with reporter.progress("reading") as progress:
        images = open_images(data, rule=detector.info.rule, progress=progress)
    record = detector.info.record
    # The fingerprint of a refit covers its confirmed images as well.
    if not record.lineage and images.fingerprint != record.data.fingerprint:
        reporter.say(
            f"note: the data set {images.name!r} has changed since the old fit; the new model learns from the changed"
            " data"
        )
    return images, read_groups(str(groups), images.paths) if groups else None


def _data(data: str | Path | None, run: Path, record: ModelRecord) -> str:
    """The data of a fit: as given, or where they were."""
    if data is not None:
        return str(data)
    if record.data.named:
        return data_of_fit(record.data.name, named=True)
    source = read_report(run).get("source") if (run / JSON_NAME).exists() else None
    if not source:
        raise UsageError(
            f"`data` is missing, and the run {str(run)!r} does not record where its data were; give `data`"
        )
    return str(source)


def _confirmed(
    earlier: Confirmed,
    read: Sequence[Label],
    pixels: npt.NDArray[np.uint8],
    record: ModelRecord,
    *,
    without: ImageSet,
    defects: npt.NDArray[np.uint64],
) -> Confirmed:
    """The confirmed images of an earlier refit and of these labels, each once, and none that is among the data."""
    normal = [row for row, label in enumerate(read) if label.label == NORMAL]
    new = Confirmed(
        pixels[normal],
        [read[row].path for row in normal],
        np.array([not read[row].audit for row in normal], bool),
        [_class_of(read[row], record) for row in normal],
    )
    both = earlier.joined(new)
    digests = digests_of(both.images)
    known = np.isin(digests, np.concatenate([digests_of(without.images), defects]))
    first = np.zeros(len(digests), bool)
    first[np.unique(digests, return_index=True)[1]] = True
    return both.select(np.flatnonzero(first & ~known))


def _class_of(label: Label, record: ModelRecord) -> str:
    """The normal class of an image; empty if the data have no classes."""
    normal = record.normal_classes
    if len(normal) <= 1:
        return normal[0] if normal else ""
    name = label.class_name or Path(label.path).parent.name
    if name not in normal:
        raise UsageError(
            f"for {label.path!r}, `labels` names none of the {len(normal)} normal classes of the model; add a column"
            " named class, with the class of each normal image"
        )
    return name


def _joined(images: ImageSet, confirmed: Confirmed) -> tuple[ImageSet, npt.NDArray[np.bool_]]:
    """The data with the confirmed images at the end, and a mask of the images that are for training only."""
    training_only = np.concatenate([np.zeros(len(images), bool), confirmed.training_only])
    if not confirmed.paths:
        return images, training_only
    classes = None
    if images.labels is not None:
        numbers = [images.class_names.index(name) for name in confirmed.classes]
        classes = np.concatenate([images.labels, np.array(numbers, np.int64)]), images.class_names
    pixels = np.concatenate([images.images, confirmed.images])
    paths = (*images.paths, *confirmed.paths)
    joined = new_image_set(images.name, pixels, classes, paths, pixel_range=images.pixel_range)
    return replace(joined, named=images.named, source=images.source, regions=images.regions), training_only


def _review(marked: Sequence[Label]) -> dict[str, Any]:
    """What the labels say of the model whose batch was reviewed."""
    flagged, passed = (_part([label for label in marked if label.flagged is which]) for which in (True, False))
    facts: dict[str, Any] = {
        "normal": sum(label.label == NORMAL for label in marked),
        "unsure": sum(label.label == UNSURE for label in marked),
        "flagged_normal": sum(label.label == NORMAL and label.flagged for label in marked),
        "false_alarm_rate": None,
        "caught": None,
    }
    if flagged and passed:
        rates = {"false_alarm_rate": false_alarm_rate(flagged, passed), "caught": caught_share(flagged, passed)}
        facts |= {name: rate and asdict(rate) for name, rate in rates.items()}
    return facts


def _part(labels: Sequence[Label]) -> Reviewed | None:
    """The reviewed images of one part of a batch; None if nothing says how many images it has."""
    sizes = {label.batch for label in labels}
    if sizes - {None} != sizes or len(sizes) != 1:
        return None
    normal, defect = (sum(label.label == kind for label in labels) for kind in (NORMAL, DEFECT))
    return Reviewed(normal, defect, sizes.pop() or 0)
