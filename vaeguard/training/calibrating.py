"""The detector of a trained network: its statistics of normal images, its calibration and its record."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.data.regions import covered
from vaeguard.data.split import Split, class_targets, spread_out
from vaeguard.engines.inspection import Inspection, concatenate
from vaeguard.engines.record import BackboneRecord, CalibrationRecord, ClassRecord, DataRecord, ModelRecord, SplitRecord
from vaeguard.engines.torch_detector import TorchDetector
from vaeguard.models.reference import IMAGES
from vaeguard.statistics.appearance import appearance
from vaeguard.statistics.spots import LARGEST, MOST_PEAKS
from vaeguard.training.class_table import class_table
from vaeguard.training.folds import Heads, left_out
from vaeguard.training.vae_task import Examples, validation_losses

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.engines.inspection import Floats
    from vaeguard.models.backbones import Backbone
    from vaeguard.models.calibration import Calibration
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.progress import Progress
    from vaeguard.settings.training import TrainSpec
    from vaeguard.training.loop import State
    from vaeguard.training.plan import FitPlan

    Rows = npt.NDArray[np.int64]

PART_ROWS = 1024
REFERENCE_ROWS = 128
"""Images whose hidden activations are held in memory at a time."""
HOT = 0.999
"""The quantile of the heatmaps of normal images that is drawn in the last colour."""
HEATMAPS = 256
"""The most heatmaps of calibration images from which the quantile `HOT` is taken."""
HEATMAP_PIXELS = 2**24
"""The most pixels in these heatmaps."""
APPEARANCES = 256
"""The most normal images whose brightness and sharpness are stored."""


def calibrated(
    plan: FitPlan,
    graph: InferenceGraph,
    state: State,
    examples: tuple[Examples, Examples],
    progress: Progress | None,
) -> tuple[TorchDetector, Floats]:
    """The detector, and the scores of the calibration images in their order."""
    state.net.load_state_dict(state.weights)
    images, split = plan.image_set.images, plan.split
    detector = TorchDetector(graph, _record(plan, state), plan.training.device)
    _fit_reference(graph, images, plan.known, plan.training.seed)
    heads = state.net.eval() if isinstance(state.net, Heads) else None
    judge = _Judge(detector, images, _heatmap_sample(plan), progress)
    if heads:
        seen = judge.by_folds(heads, split)
        shaping = ranking = _combined(detector, seen)[np.isin(split.training, split.calibration)]
    else:
        # The terms are shaped by other normal images than the ranks, so that ranks are exchangeable with new images.
        shaping = _combined(detector, judge(split.validation))
        ranking = _combined(detector, seen := judge(split.calibration))
    calibration = graph.calibration.cpu()
    calibration.fit_terms(shaping)
    calibration.fit_ranks(ranking)
    scores, p_values = _strangest(calibration, ranking)
    judged = _strangest(calibration, _combined(detector, seen))
    calibration.to(plan.training.device)
    # Each image counts itself, so that the smallest value would be 2 / (n + 1).
    among_others = (np.round(p_values.astype(np.float64) * (len(ranking) + 1)) - 1) / len(ranking)
    classes: tuple[ClassRecord, ...] = ()
    if plan.model.classes:
        checks = left_out(heads, examples[1]) if heads else [(graph.vae, examples[1])]
        losses = validation_losses(checks, plan.training)
        targets = class_targets(plan.image_set, plan.normal)
        assert targets is not None
        classes = class_table(
            plan.model.classes, targets, examples, losses, split.calibration, among_others,
            balance=plan.training.balance,
        )  # fmt: skip
    measured = {"peaks": tuple(sorted(judge.peaks)), **_appearance(plan)}
    ranked = CalibrationRecord(len(split.calibration), judge.heatmap_scale, **measured)
    detector.info = replace(detector.info, record=replace(detector.info.record, calibration=ranked, classes=classes))
    if heads:
        # An image for training only is not among the ranks, so that its p-value is that of a new image.
        judged[1][np.isin(split.training, split.calibration)] = among_others
        columns = (*judged, *(seen.terms[name].max(1) for name in detector.info.term_names))
        detector.info = replace(detector.info, out_of_fold=np.stack(columns, 1).astype(np.float32))
    return detector, scores


def _fit_reference(graph: InferenceGraph, images: npt.NDArray[Any], training: npt.NDArray[np.int64], seed: int) -> None:
    """Fit the statistics of normal images, if the model has any, on a sample of the training images."""
    if graph.reference is None:
        return
    rows = np.sort(np.random.default_rng(seed).permutation(training)[:IMAGES])
    parts = np.array_split(rows, -(-len(rows) // REFERENCE_ROWS))
    device = graph.reference.difficulty.device
    graph.fit_reference((torch.from_numpy(images[part]).to(device) for part in parts), seed)


class _Judge:
    """Inspects normal images, and keeps the peaks of the heatmaps of a sample of them, and some of these heatmaps."""

    def __init__(
        self, detector: TorchDetector, images: npt.NDArray[Any], sample: Rows, progress: Progress | None
    ) -> None:
        self.detector, self.images, self.sample, self.progress = detector, images, sample, progress
        most = max(1, min(HEATMAPS, HEATMAP_PIXELS // math.prod(images.shape[2:])))
        self._kept = sample[spread_out(len(sample), most)]
        self.heatmaps: list[Floats] = []
        self.peaks: list[float] = []

    def __call__(self, rows: Rows, judged: int = 0, total: int = 0) -> Inspection:
        """The results for `rows`, without pictures; `judged` of `total` images came before.

        Terms have a column for each tile of an image.
        """
        # Images are read in parts, since they may be a memory map that is larger than memory.
        pictures = np.isin(self.sample, rows).any()
        size = max(1, min(PART_ROWS, HEATMAP_PIXELS // math.prod(self.images.shape[2:]))) if pictures else PART_ROWS
        parts = []
        for part in np.array_split(rows, -(-len(rows) // size)):
            parts.append(self._inspect(part, pictures=bool(pictures)))
            judged += len(part)
            if self.progress:
                self.progress(judged, total or len(rows), f"scoring image {judged}/{total or len(rows)}")
        return concatenate(parts)

    def _inspect(self, rows: Rows, *, pictures: bool) -> Inspection:
        detector, images = self.detector, self.images
        if len(detector.tiling) == 1:
            seen = detector.inspect(images[rows], pictures=pictures)
            terms = {name: values[:, None] for name, values in seen.terms.items()}
        else:
            by_tile = [detector.inspect_tiles(*detector.tiling.cut(images[row]), pictures=pictures) for row in rows]
            terms = {name: np.stack([seen.terms[name] for seen in by_tile]) for name in detector.info.term_names}
            score, p_value = ([getattr(seen, name) for seen in by_tile] for name in ("score", "p_value"))
            seen = Inspection(np.max(score, 1), np.min(p_value, 1), {})
            if pictures:
                joined = [detector.tiling.joined(tiles.heatmap) for tiles in by_tile if tiles.heatmap is not None]
                seen = replace(seen, heatmap=np.stack(joined))
        if seen.heatmap is not None:
            self._keep(rows, seen.heatmap)
        return replace(seen, terms=terms, restored=None, heatmap=None)

    def _keep(self, rows: Rows, heatmaps: Floats) -> None:
        self.heatmaps.append(heatmaps[np.isin(rows, self._kept)])
        peaks = heatmaps[np.isin(rows, self.sample)].max((1, 2)).clip(max=LARGEST)
        self.peaks += [float(str(peak)) for peak in peaks]  # the fewest digits of float32

    def by_folds(self, heads: Heads, split: Split) -> Inspection:
        """The results for all images, each by the head that has not seen it."""
        assert split.folds is not None
        order, parts = np.argsort(split.folds, kind="stable"), []
        for fold in range(split.fold_count):
            heads.attach(self.detector.graph, fold)
            before = int(np.count_nonzero(split.folds < fold))
            parts.append(self(split.training[split.folds == fold], before, len(order)))
        heads.attach(self.detector.graph, -1)
        back, seen = np.argsort(order), concatenate(parts)
        return Inspection(seen.score[back], seen.p_value[back], {name: term[back] for name, term in seen.terms.items()})

    @property
    def heatmap_scale(self) -> float | None:
        """The quantile `HOT` of the heatmaps; None if it is 0 or not finite, or without heatmaps."""
        scale = float(np.quantile(np.concatenate(self.heatmaps), HOT)) if self.heatmaps else 0.0
        return scale if 0 < scale < np.inf else None


def _heatmap_sample(plan: FitPlan) -> Rows:
    """The calibration images whose heatmaps are looked at."""
    rows = plan.split.calibration
    return rows[spread_out(len(rows), MOST_PEAKS)] if plan.model.view.pictures else rows[:0]


def _combined(detector: TorchDetector, seen: Inspection) -> Floats:
    """The terms that make up the score, shape (rows, tiles, K)."""
    return np.stack([seen.terms[name] for name in detector.graph.combined_names], 2)


def _strangest(calibration: Calibration, terms: Floats) -> tuple[Floats, Floats]:
    """Scores and p-values of images from the terms of their tiles, (n, T, K)."""
    scores, p_values = calibration(torch.from_numpy(terms.reshape(-1, terms.shape[2])))
    return scores.numpy().reshape(len(terms), -1).max(1), p_values.numpy().reshape(len(terms), -1).min(1)


def _appearance(plan: FitPlan) -> dict[str, tuple[float, ...]]:
    """The appearance of some normal images of the fit, also of those trained on, since no model is involved."""
    if plan.image_set.vectors:
        return {}
    split = plan.split
    rows = np.unique(np.concatenate([plan.known, split.validation, split.calibration]))
    rows = rows[~np.isin(rows, () if split.training_only is None else split.training_only)]
    images = plan.image_set.images[rows[spread_out(len(rows), APPEARANCES)]]
    return appearance(covered(images, regions=plan.model.regions))


def _record(plan: FitPlan, state: State) -> ModelRecord:
    """The record of a fit before its score is calibrated."""
    split = plan.split
    sizes = {
        "training": len(split.training),
        "validation": len(split.validation),
        "calibration": len(split.calibration),
    }
    packages = ("vaeguard", "torch", "numpy", "safetensors")
    return ModelRecord(
        model=plan.model,
        training=plan.training,
        class_names=plan.image_set.class_names,
        normal_classes=plan.model.classes,
        data=DataRecord(
            name=plan.image_set.name,
            named=plan.image_set.named,
            fingerprint=plan.image_set.fingerprint,
            images=len(plan.image_set.images),
            split=SplitRecord(**sizes, folds=split.fold_count, grouped=plan.grouped, sha256=split.digest()),
        ),
        calibration=CalibrationRecord(len(plan.split.calibration)),
        # The same fit gives the same file, however long it took.
        best_epoch={name: value for name, value in state.history[state.best_epoch].items() if name != "seconds"},
        finished_epochs=len(state.history),
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        backbone=_backbone(plan.network),
        hardware=_hardware(plan.training),
        lineage=plan.lineage,
    )


def _backbone(network: Backbone | None) -> BackboneRecord | None:
    if network is None:
        return None
    return BackboneRecord(network.name, network.sha256, network.licence, network.channels)


def _hardware(training: TrainSpec) -> str:
    if training.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {training.threads} threads"
