"""From normal images to a calibrated detector."""

from __future__ import annotations

import hashlib
import platform
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vaeguard.data.image_set import ImageSet, as_image_set, digests_of
from vaeguard.data.regions import covered, digest_of_region, read_region
from vaeguard.data.split import Split, class_targets, normal_numbers, split_for, spread_out
from vaeguard.devices import has_bf16, pick_device, torch_settings
from vaeguard.engines.inspection import Inspection, concatenate
from vaeguard.engines.record import BackboneRecord, CalibrationRecord, ClassRecord, DataRecord, ModelRecord, SplitRecord
from vaeguard.engines.run_folder import CHECKPOINT_NAME, write_history
from vaeguard.engines.tiling import Tiling
from vaeguard.engines.torch_detector import TorchDetector
from vaeguard.errors import UsageError
from vaeguard.models.cells import Cells
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.likelihoods import between_levels
from vaeguard.models.patches import Patches
from vaeguard.models.pretrained import pretrained
from vaeguard.models.reference import IMAGES, centres_for
from vaeguard.models.region import GREY
from vaeguard.models.vae import VAE
from vaeguard.settings.choice import with_features
from vaeguard.settings.specs import to_dict
from vaeguard.statistics.appearance import appearance
from vaeguard.statistics.spots import LARGEST, MOST_PEAKS
from vaeguard.training.checkpoint import Checkpoint
from vaeguard.training.class_table import class_table
from vaeguard.training.folds import FoldedTask, Heads, left_out
from vaeguard.training.loop import DivergedError, State, train
from vaeguard.training.pseudo_classes import pseudo_labels
from vaeguard.training.vae_task import Examples, VAETask, epochs_for, validation_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.engines.record import LineageRecord
    from vaeguard.engines.tiling import Firsts
    from vaeguard.models.backbones import Backbone
    from vaeguard.models.calibration import Calibration
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    Rows = npt.NDArray[np.int64]

PART_ROWS = 1024
AVERAGED = 10_000
"""The most training images in the mean image at which the decoder starts."""
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
CHANGES = ("augment_warp", "augment_shift", "augment_rotate", "augment_noise", "augment_flip", "input_noise")
"""Settings of a training that change the pixels that are learned."""
STAGES = (0, 250, 750, 1000)
"""The thousandths of a fit of features at which it has drawn cells, learned them and judged images."""
TRAINING_CROPS = 12_800
"""The least random patches to train on per epoch."""
TRAINING_CELLS = 100_000
"""The least cells to train on, if the images have as many."""
TRAINING_TILES = 256
"""The least tiles from which cells are drawn, if the images have as many."""
VALIDATION_CELLS = 10_000
"""The least cells to validate on, if the images have as many."""
VALIDATION_CROPS = 2048
"""The least random patches to validate on per epoch."""


@dataclass(frozen=True)
class FitPlan:
    """A fit with every open choice settled: device, precision and threads are in `training`."""

    image_set: ImageSet
    normal: tuple[int, ...]
    model: ModelSpec
    training: TrainSpec
    split: Split
    network: Backbone | None = None
    """The frozen network of a model of features."""
    region: npt.NDArray[np.bool_] | None = None
    """The pixels that count, (H, W)."""
    grouped: bool = False
    """Whether the split keeps images of the same object together."""
    lineage: LineageRecord | None = None
    """What a refit came from."""
    finish: bool = False
    """Whether a resumed fit ends with the epochs that it has."""

    def settings(self) -> dict[str, Any]:
        """The settings with which a checkpoint must agree."""
        data = {"fingerprint": self.image_set.fingerprint, "split": self.split.digest()}
        if self.network:
            data["network"] = self.network.sha256
        return {"model": to_dict(self.model), "training": to_dict(self.training), "data": data}


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of a fit.

    Attributes
    ----------
    detector : TorchDetector
        The calibrated detector.
    image_set : ImageSet
        The data.
    split : Split
        The parts of the data.
    history : sequence of dict
        One row per epoch.
    restored : dict of uint8 (n, C, H, W)
        The first validation images as restored after some epochs.
    scores : float32 (rows,)
        The scores of the calibration images.
    diverged : DivergedError or None
        The error if the training diverged; the detector is then that of the best epoch before.
    """

    detector: TorchDetector
    image_set: ImageSet
    split: Split
    history: Sequence[Mapping[str, float]]
    restored: Mapping[int, npt.NDArray[np.uint8]]
    scores: Floats
    diverged: DivergedError | None


class Monitor(Protocol):
    """An observer of a fit, such as a log."""

    def __call__(
        self, graph: InferenceGraph, state: State, image_set: ImageSet, held_out: Rows, settings: dict[str, Any]
    ) -> AbstractContextManager[Callable[[State], None]]:
        """Begin to observe.

        Parameters
        ----------
        graph : InferenceGraph
            The graph in training.
        state : State
            The state of the training.
        image_set : ImageSet
            The data.
        held_out : int64
            The rows of the validation images.
        settings : dict
            The settings of the fit.

        Returns
        -------
        context manager of a callable
            The callable is called with the state after every epoch. The context ends when the graph has its final
            weights.
        """


def plan_fit(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None,
    groups: npt.ArrayLike | None,
    normal_classes: str | int | Sequence[str | int] | None,
    model: ModelSpec,
    training: TrainSpec,
    roi: str | Path | npt.ArrayLike | None = None,
    *,
    training_only: npt.ArrayLike | None = None,
    network: Backbone | None = None,
    download: bool = False,
) -> FitPlan:
    """Settle every open choice of a fit; the parameters are those of `vaeguard.fit`, and two of a refit.

    `training_only`, bool (N,), marks normal images that must not calibrate, since they were chosen by their score.
    `network` is that of an earlier fit, with its weights; None reads the one that `model.features` names.

    Raises
    ------
    UsageError
        Too few normal images or groups, an unknown class, or a spec that does not suit the data.
    """
    image_set = as_image_set(images, labels)
    model = replace(model, pixel_range=_pixel_range(model, image_set))
    normal = normal_numbers(image_set, normal_classes)
    # Which images are held out depends on what is learned.
    shape: tuple[int, int, int] = image_set.images.shape[1:]
    model = with_features(model, training, shape, vectors=image_set.vectors)
    split = split_for(image_set, normal, model, training, groups, training_only)
    region = None
    if roi is not None:
        if image_set.vectors:
            raise UsageError("`roi` is for images, and the data are vectors; leave it out")
        region = read_region(roi, image_set.images.shape[2:])
    if region is not None:
        model = replace(model, region=digest_of_region(region), region_share=float(region.mean()))
    if model.features and network is None:
        taken = replace(model, image_shape=shape).tiled().graph_shape
        network = pretrained(model.features, taken, download=download)
    plan = _plan(image_set, normal, split, model, training, network)
    return replace(plan, region=region, grouped=groups is not None)


def _pixel_range(model: ModelSpec, image_set: ImageSet) -> tuple[int, ...] | None:
    """The range of pixels with which the images were read; later images must be read with the same."""
    if model.pixel_range not in (None, image_set.pixel_range):
        raise UsageError(
            f"`model.pixel_range` is {model.pixel_range}, and the images were read with {image_set.pixel_range}; open"
            " them with an ImageRule of this range"
        )
    return image_set.pixel_range


def fit_detector(
    plan: FitPlan,
    run: Path | None = None,
    *,
    resume: bool = False,
    monitor: Monitor | None = None,
    write: Callable[[Fitted], None] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a VAE and calibrate its anomaly score.

    Parameters
    ----------
    plan : FitPlan
        From `plan_fit`.
    run : Path or None
        A folder for the checkpoint and the history, which belongs to this process.
    resume : bool
        Go on from the checkpoint in `run`, if there is one.
    monitor : Monitor or None
        An observer of the fit.
    write : callable or None
        Called with the result before `monitor` ends, so that no fault of the monitor costs the fit.
    progress : callable or None
        Called with steps done, steps in all, a line of text.

    Raises
    ------
    DivergedError
        Training diverged before an epoch was finished, or there is no `run` to keep the epochs before.
    UsageError, RefusedError
        The checkpoint is of other settings or data, or damaged.
    """
    image_set, split = plan.image_set, plan.split
    with torch_settings(plan.training.seed, plan.training.device, plan.training.threads):
        images = _images(plan)
        graph = _graph(plan, images)
        examples = _examples(plan, graph, images, _stage(plan, progress, 0))
        del images
        task = _task(plan, graph, examples)
        state = task.start()
        settings = plan.settings() | {"examples": {"pseudo_labels": _digest(examples[0])}}
        checkpoint = Checkpoint(run / CHECKPOINT_NAME, settings) if run else None
        if checkpoint and resume:
            _go_on(plan, task, state, checkpoint)
        watched = monitor(graph, state, image_set, split.validation, settings) if monitor else nullcontext(_nothing)
        with watched as after_epoch:
            diverged = _train(task, state, checkpoint, after_epoch, _stage(plan, progress, 1))
            if diverged and not (state.history and run):
                raise diverged
            del task  # frees the images in the memory of the device
            detector, scores = _calibrated(plan, graph, state, examples, _stage(plan, progress, 2))
            detector.info = replace(detector.info, fitted_on=_fitted_on(plan))
            if checkpoint:  # a run that is killed before its model is written resumes from this checkpoint
                checkpoint.write(state)
            restored = {epoch: images.numpy() for epoch, images in sorted(state.restored.items())}
            fitted = Fitted(detector, image_set, split, state.history, restored, scores, diverged)
            if write:
                write(fitted)
    return fitted


def _go_on(plan: FitPlan, task: VAETask, state: State, checkpoint: Checkpoint) -> None:
    """Read the checkpoint, if there is one; a fit that is to finish has no more epochs than the checkpoint."""
    checkpoint.read(state)
    if plan.finish:
        if not state.history:
            raise UsageError(f"`finish` needs a finished epoch, and there is no {str(checkpoint.path)!r}; leave it out")
        task.epochs = len(state.history)


def _images(plan: FitPlan) -> npt.NDArray[Any]:
    """The images as they are learned, grey outside of the region; cells are cut from an image after it is covered."""
    images: npt.NDArray[Any] = plan.image_set.images
    return images if plan.region is None or plan.model.features else covered(images, plan.region, GREY)


def _fitted_on(plan: FitPlan) -> npt.NDArray[np.uint64]:
    """Digests of the images for training and early stopping."""
    # Rows are read one by one, so that a mapped array stays on the disk.
    return digests_of(plan.image_set.images[row] for row in np.union1d(plan.split.training, plan.split.validation))


def _nothing(state: State) -> None:
    """Do nothing after an epoch without a monitor."""


def _plan(
    image_set: ImageSet, normal: tuple[int, ...], split: Split, model: ModelSpec, training: TrainSpec,
    network: Backbone | None,
) -> FitPlan:  # fmt: skip
    shape: tuple[int, int, int] = image_set.images.shape[1:]
    names = tuple(image_set.class_names[k] for k in normal)
    model = replace(model, features=network.name if network else "").resolved(
        shape,
        names,
        images=len(split.training),
        vectors=image_set.vectors,
        feature_count=sum(network.channels) if network else 0,
    )
    training = training.sized(model.view)
    _check(model, training, names)
    device = pick_device(training.device)
    training = replace(
        training,
        epochs=epochs_of(model, training, len(split.training)),
        device=device,
        # bfloat16 resolves the 256 steps of pixels, but not features and contrasts.
        bf16=has_bf16(device) and model.view.grey_levels if training.bf16 is None else training.bf16,
        threads=training.threads or _threads(model),
        folds=split.fold_count,
        augment_warp=float(model.pseudo_classes > 0) if training.augment_warp is None else training.augment_warp,
    )
    return FitPlan(image_set, normal, model, training, split, network)


def _check(model: ModelSpec, training: TrainSpec, classes: Sequence[str]) -> None:
    """Refuse a training that does not suit the model or the classes."""
    _check_changes(model, training)
    if model.kind == "conv" and training.images_per_step == 1:
        raise UsageError(
            "`training.batch_size` is 1, which leaves the batch norm of a conv model without statistics; set it to 2 or"
            " more"
        )
    _check_binarise(model, training)
    if model.autoencoder and (training.free_bits or training.kl_warmup):
        raise UsageError(
            "`model.autoencoder` leaves no rate to weigh; set `training.free_bits` and `training.kl_warmup` to 0"
        )
    if training.balance and model.features:
        raise UsageError(
            "`training.balance` is not for a model of features, which learns cells, not images; leave it out"
        )
    if training.balance and len(classes) < 2:
        raise UsageError(
            "`training.balance` needs at least two labelled normal classes; give class sub-folders, or leave it out"
        )


def _check_changes(model: ModelSpec, training: TrainSpec) -> None:
    unfit = None if model.view.unit else next((name for name in CHANGES if getattr(training, name)), None)
    if unfit:
        learned = "the model learns features of a network" if model.features else "the data are vectors"
        raise UsageError(f"`training.{unfit}` is for pixels from 0 to 1, and {learned}; leave it out")


def _check_binarise(model: ModelSpec, training: TrainSpec) -> None:
    if training.binarise and not (model.view.grey_levels and model.likelihood_facts.support == "binary"):
        raise UsageError(
            "`training.binarise` makes pixels black or white, which needs a `model.likelihood` of 'bernoulli' and no"
            " `model.patch`; leave it out"
        )


def epochs_of(model: ModelSpec, training: TrainSpec, images: int) -> int:
    """The most epochs of a fit on `images` training images; an epoch of patches has many patches of each image."""
    view = model.view
    epochs = epochs_for(training, images * -(-TRAINING_CROPS // images) if view.windows else images)
    return min(epochs, view.epochs) if view.epochs and training.epochs is None else epochs


def _threads(model: ModelSpec) -> int:
    """One thread where steps are so short that more threads slow them down, otherwise torch's own choice."""
    tiny = model.kind == "mlp" and int(np.prod(model.vae_shape)) * model.hidden_sizes[0] < 100_000
    return 1 if tiny else torch.get_num_threads()


def _graph(plan: FitPlan, images: npt.NDArray[Any]) -> InferenceGraph:
    """The graph with fresh weights; vectors are scaled by the training rows only."""
    graph = InferenceGraph(
        VAE(plan.model),
        normal_scores=len(plan.split.calibration),
        centres=centres_for(len(plan.split.training)),
        network=plan.network,
    )
    if graph.region is not None:
        graph.region.inside.copy_(torch.from_numpy(plan.region))
        _check_region(graph)
    if graph.whiten is not None:
        graph.whiten.fit(torch.tensor(plan.image_set.images[plan.split.training]).flatten(1))
    start = graph.vae.family.start
    if plan.model.kind == "mlp" and start:
        rows = np.random.default_rng(plan.training.seed).permutation(plan.split.training)[:AVERAGED]
        sample = images[np.sort(rows)]
        mean = sample.mean(0, dtype=np.float64) / (255 if sample.dtype == np.uint8 else 1)
        graph.vae.start_at(start(between_levels(torch.from_numpy(mean), 0.5)))
    return graph


def _check_region(graph: InferenceGraph) -> None:
    """Refuse a region in which no patch or cell has its centre."""
    assert graph.region is not None
    if isinstance(graph.places, Patches | Cells):
        tiles = [torch.tensor([tile.first]) for tile in Tiling(graph.vae.spec).tiles] if graph.vae.spec.tile else [None]
        inside = [graph.inside(first) for first in tiles]
        if not any(graph.places.counted(part).any() for part in inside if part is not None):
            raise UsageError("`roi` contains the centre of no patch or cell; paint a larger part of the images white")


def _stage(plan: FitPlan, progress: Progress | None, stage: int) -> Progress | None:
    """The progress of a stage of a fit; only those of features have others than the training that take long."""
    if progress is None or not plan.model.features:
        return progress
    start, end = STAGES[stage : stage + 2]
    return lambda done, total, text: progress(round(start + (end - start) * done / total), STAGES[-1], text)


def _task(plan: FitPlan, graph: InferenceGraph, examples: tuple[Examples, Examples]) -> VAETask:
    if plan.split.fold_count:
        return FoldedTask(Heads(graph, plan.split.fold_count), plan.training, *examples)
    return VAETask(graph.vae, plan.training, *examples)


def _examples(
    plan: FitPlan, graph: InferenceGraph, images: npt.NDArray[Any], progress: Progress | None
) -> tuple[Examples, Examples]:
    """The training and the validation examples."""
    targets = class_targets(plan.image_set, plan.normal)
    if isinstance(graph.places, Cells):
        # Convolutions run faster with channels last.
        graph.eval().to(plan.training.device).to(memory_format=torch.channels_last)
        make = _cell_examples if plan.split.folds is None else _folded_examples
        return make(plan, graph, progress)
    if graph.whiten is not None:
        images = graph.whiten(torch.tensor(images)).numpy()
    rows = [plan.split.training, plan.split.validation]
    pseudo: Sequence[npt.NDArray[np.int64] | None] = (None, None)
    if plan.model.pseudo_classes:
        pseudo = pseudo_labels(images, rows[0], rows[1], plan.model.pseudo_classes, plan.training.seed)
    if plan.model.view.windows:
        least = (TRAINING_CROPS, VALIDATION_CROPS)
        rows = [np.tile(part, -(-crops // len(part))) for part, crops in zip(rows, least, strict=True)]
    learn, validate = (
        Examples(images, targets, *parts, region=plan.region) for parts in zip(rows, pseudo, strict=True)
    )
    return learn, validate


def _cell_examples(plan: FitPlan, graph: InferenceGraph, progress: Progress | None) -> tuple[Examples, Examples]:
    """Cells drawn at random from the training and the validation images, whitened by those of the training images."""
    parts = plan.split.training, plan.split.validation
    shares = [-(-most // len(rows)) for rows, most in zip(parts, (TRAINING_CELLS, VALIDATION_CELLS), strict=True)]
    wanted = np.repeat(shares, [len(rows) for rows in parts])
    features, counts = _drawn(plan, graph, np.concatenate(parts), wanted, progress)
    assert isinstance(graph.places, Cells)
    cells = graph.places
    learned = int(counts[: len(parts[0])].sum())
    cells.whiten.fit(features[:learned])
    with torch.no_grad():
        values = cells.whiten(features).cpu().numpy()[:, None, None, :]
    origins, rows = np.repeat(np.concatenate(parts), counts), np.arange(len(values))
    learn, validate = (Examples(values, None, part, origins=origins[part]) for part in np.split(rows, [learned]))
    return learn, validate


def _folded_examples(plan: FitPlan, graph: InferenceGraph, progress: Progress | None) -> tuple[Examples, Examples]:
    """Cells drawn at random from all images, with their folds as labels, and some of these in the order of folds."""
    images, folds = plan.split.training, plan.split.folds
    assert folds is not None
    wanted = np.full(len(images), -(-TRAINING_CELLS // len(images)))
    features, counts = _drawn(plan, graph, images, wanted, progress)
    values, labels = features.cpu().numpy()[:, None, None, :], np.repeat(folds, counts)
    rows, origins = np.arange(len(values)), np.repeat(images, counts)
    some = np.random.default_rng(plan.training.seed).permutation(rows)[:VALIDATION_CELLS]
    some = some[np.argsort(labels[some], kind="stable")]
    return Examples(values, labels, rows, origins=origins), Examples(values, labels, some, origins=origins[some])


@torch.no_grad()
def _drawn(
    plan: FitPlan, graph: InferenceGraph, rows: Rows, wanted: Rows, progress: Progress | None
) -> tuple[Tensor, Rows]:
    """The features of `wanted` cells (n,), or of all if there are fewer, of each of `rows` (n,), and their numbers."""
    draw, parts = torch.Generator().manual_seed(plan.training.seed), []
    region, tiling = plan.region, Tiling(plan.model)
    tiles = [tile for tile in tiling.tiles if region is None or region[tile.at].any()]
    most_tiles = -(-TRAINING_TILES // len(rows))
    for number, (row, most) in enumerate(zip(rows, wanted, strict=True)):
        chosen = torch.randperm(len(tiles), generator=draw)[:most_tiles].tolist() if len(tiles) > 1 else [0]
        features = _features(graph, *tiling.cut(plan.image_set.images[row], [tiles[at] for at in chosen]))
        parts.append(features[torch.randperm(len(features), generator=draw)[:most].to(features.device)])
        if progress:
            progress(number + 1, len(rows), f"cells of image {number + 1}/{len(rows)}")
    return torch.cat(parts), np.array([len(part) for part in parts])


def _features(graph: InferenceGraph, tiles: Images, firsts: Firsts) -> Tensor:
    """The features of all cells that count, (n, F), of one image or of tiles of it."""
    assert isinstance(graph.places, Cells)
    cells, features = graph.places, []
    for tile, first in zip(tiles, firsts, strict=True):
        at = torch.from_numpy(first[None]).to(cells.mean.device) if graph.vae.spec.tile else None
        pixels = graph.prepared(torch.tensor(tile[None], device=cells.mean.device), at)
        inside = graph.inside(at)
        values = cells.features(pixels).flatten(0, 2)
        features.append(values if inside is None else values[cells.counted(inside)[0]])
    return torch.cat(features)


def _digest(examples: Examples) -> str:
    """The digest of what another machine may compute in another way, and a resumed fit compares."""
    computed = examples.images if examples.origins is not None else examples.pseudo
    return "" if computed is None else hashlib.sha256(computed.tobytes()).hexdigest()


def _train(
    task: VAETask,
    state: State,
    checkpoint: Checkpoint | None,
    after_epoch: Callable[[State], None],
    progress: Progress | None,
) -> DivergedError | None:
    """Train with a checkpoint every few seconds; return the error if the training diverged."""

    def save(state: State) -> None:
        if checkpoint:
            checkpoint.write(state)
            write_history(checkpoint.path.parent, state.history)

    try:
        train(state, task, save=save, after_epoch=after_epoch, progress=progress)
    except DivergedError as error:
        return error
    task.warn_of_collapse(state)
    return None


def _calibrated(
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
    _fit_reference(graph, images, split.training, plan.training.seed)
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
        self._kept = sample[spread_out(len(sample), max(1, min(HEATMAPS, HEATMAP_PIXELS // images[0, 0].size)))]
        self.heatmaps: list[Floats] = []
        self.peaks: list[float] = []

    def __call__(self, rows: Rows, judged: int = 0, total: int = 0) -> Inspection:
        """The results for `rows`, without pictures; `judged` of `total` images came before.

        Terms have a column for each tile of an image.
        """
        # Images are read in parts, since they may be a memory map that is larger than memory.
        pictures = np.isin(self.sample, rows).any()
        size = max(1, min(PART_ROWS, HEATMAP_PIXELS // self.images[0, 0].size)) if pictures else PART_ROWS
        parts = []
        for part in np.array_split(rows, -(-len(rows) // size)):
            parts.append(self._inspect(part, pictures=bool(pictures)))
            judged += len(part)
            if self.progress:
                self.progress(judged, total or len(rows), f"judging image {judged}/{total or len(rows)}")
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
    rows = np.unique(np.concatenate([split.training, split.validation, split.calibration]))
    rows = rows[~np.isin(rows, () if split.training_only is None else split.training_only)]
    return appearance(plan.image_set.images[rows[spread_out(len(rows), APPEARANCES)]])


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
