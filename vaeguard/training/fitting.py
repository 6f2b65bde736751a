"""From normal images to a calibrated detector."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vaeguard.data.image_set import ImageSet, digests_of
from vaeguard.data.regions import covered
from vaeguard.devices import torch_settings
from vaeguard.engines.run_folder import CHECKPOINT_NAME, write_history
from vaeguard.engines.tiling import Tiling
from vaeguard.errors import UsageError
from vaeguard.models.cells import Cells
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.likelihoods import between_levels
from vaeguard.models.patches import Patches
from vaeguard.models.reference import centres_for
from vaeguard.models.shares import share_weights
from vaeguard.models.vae import VAE
from vaeguard.training.calibrating import calibrated
from vaeguard.training.checkpoint import Checkpoint
from vaeguard.training.examples import digest, examples_of
from vaeguard.training.folds import FoldedTask, Heads
from vaeguard.training.loop import DivergedError, State, train
from vaeguard.training.processes import agreed, file_of_first, leave
from vaeguard.training.vae_task import Examples, VAETask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.split import Split
    from vaeguard.engines.inspection import Floats
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress
    from vaeguard.training.plan import FitPlan

    Rows = npt.NDArray[np.int64]

AVERAGED = 10_000
"""The most training images in the mean image at which the decoder starts."""
STAGES = (0, 250, 750, 1000)
"""The thousandths of a fit of features at which it has drawn cells, learned them and judged images."""


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
        examples = examples_of(plan, graph, images, _stage(plan, progress, 0))
        del images
        task = _task(plan, graph, examples)
        state = task.start()
        settings = agreed(plan.settings() | {"examples": {"pseudo_labels": digest(examples[0]) or digest(examples[1])}})
        checkpoint = Checkpoint(run / CHECKPOINT_NAME, settings) if run else None
        if resume:
            _go_on(plan, task, state, checkpoint, settings)
        share_weights(state.net)
        watched = monitor(graph, state, image_set, split.validation, settings) if monitor else nullcontext(_nothing)
        with watched as after_epoch:
            diverged = _train(task, state, checkpoint, after_epoch, _stage(plan, progress, 1))
            leave()
            if diverged and not (state.history and run):
                raise diverged
            del task  # frees the images in the memory of the device
            detector, scores = calibrated(plan, graph, state, examples, _stage(plan, progress, 2))
            detector.info = replace(detector.info, fitted_on=_fitted_on(plan))
            if checkpoint:  # a run that is killed before its model is written resumes from this checkpoint
                checkpoint.write(state)
            restored = {epoch: images.numpy() for epoch, images in sorted(state.restored.items())}
            fitted = Fitted(detector, image_set, split, state.history, restored, scores, diverged)
            if write:
                write(fitted)
    return fitted


def _go_on(plan: FitPlan, task: VAETask, state: State, checkpoint: Checkpoint | None, settings: dict[str, Any]) -> None:
    """Read the checkpoint, if there is one; a fit that is to finish has no more epochs than the checkpoint."""
    if checkpoint:
        checkpoint.read(state)
        if plan.finish and not state.history:
            raise UsageError(
                "`finish` needs a fit that has completed at least one epoch, but there is no checkpoint at"
                f" {str(checkpoint.path)!r}; remove `finish`"
            )
    with file_of_first(checkpoint.path if checkpoint else None) as path:
        if path:
            Checkpoint(path, settings).read(state)
    if plan.finish:
        task.epochs = len(state.history)


def _images(plan: FitPlan) -> npt.NDArray[Any]:
    """The images as they are learned, grey outside of the region; cells are cut from an image after it is covered."""
    images: npt.NDArray[Any] = plan.image_set.images
    return images if plan.model.features else covered(images, plan.region, regions=plan.model.regions)


def _fitted_on(plan: FitPlan) -> npt.NDArray[np.uint64]:
    """Digests of the images for training and early stopping, as far as they can be looked up."""
    # Rows are read one by one, so that a mapped array stays on the disk.
    return digests_of(plan.image_set.images[row] for row in np.union1d(plan.known, plan.split.validation))


def _nothing(state: State) -> None:
    """Do nothing after an epoch without a monitor."""


def _graph(plan: FitPlan, images: npt.NDArray[Any]) -> InferenceGraph:
    """The graph with fresh weights; vectors are scaled by the training rows only."""
    graph = InferenceGraph(
        VAE(plan.model),
        normal_scores=len(plan.split.calibration),
        centres=centres_for(len(plan.known)),
        network=plan.network,
    )
    if graph.region is not None:
        graph.region.inside.copy_(torch.from_numpy(plan.region))
        _check_region(graph)
    if graph.whiten is not None:
        graph.whiten.fit(torch.tensor(plan.image_set.images[plan.split.training]).flatten(1))
    start = graph.vae.family.start
    if plan.model.kind == "mlp" and start:
        rows = np.random.default_rng(plan.training.seed).permutation(plan.known)[:AVERAGED]
        sample = images[np.sort(rows)]
        mean = sample.mean(0, dtype=np.float64) / (255 if sample.dtype == np.uint8 else 1)
        graph.vae.start_at(start(between_levels(torch.from_numpy(mean), 0.5)))
    return graph


def _check_region(graph: InferenceGraph) -> None:
    """Refuse a region in which no patch or cell has its centre."""
    assert graph.region is not None
    if isinstance(graph.places, Patches | Cells):
        tiles = [torch.tensor([tile.first]) for tile in Tiling(graph.vae.spec).tiles] if graph.vae.spec.tile else [None]
        inside = [graph.inside(None, first) for first in tiles]
        if not any(graph.places.decides(part).any() for part in inside if part is not None):
            raise UsageError("`roi` contains no centre of a patch or cell; make a larger part of the mask white")


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
