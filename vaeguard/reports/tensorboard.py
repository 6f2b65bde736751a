"""TensorBoard's log of a fit: curves, restorations and samples over the epochs, and the latents at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.data.split import spread_out
from vaeguard.engines.generation import decode, encode, sample_latents
from vaeguard.engines.run_folder import new_folder
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.packages import install_line
from vaeguard.reports.pictures import picture_of, printable
from vaeguard.training.loop import TrainingWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    from PIL import Image

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.inspection import Images
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.training.loop import State

    Pixels = npt.NDArray[np.uint8]

COLUMNS = 8
"""Images in a row of a picture."""
SAMPLES = 2 * COLUMNS
TILE = 128
"""The most pixels of an image's longest side; larger images are reduced, since a log holds many."""
EVERY = 50
"""The number of first epochs, with most of the change, whose pictures are all logged."""
SELDOM = 10
"""The interval in epochs between pictures after these."""
CLASSES = 10
"""The most classes, each with a prior of its own, whose samples are logged."""
EMBEDDED = 1024
"""The most latents for the embedding projector."""
THUMBNAIL = 48
EVENTS = "events.out.tfevents.*"


def prepare_log(directory: Path, run: Path | None, name: str, *, resume: bool) -> Path:
    """Make sure, before any work, that the fit can be logged, and return the folder for it in `directory`.

    The folder has the name of the folder `run`, so that TensorBoard compares fits by name; without a `run`, its name
    begins with `name`.

    Raises
    ------
    UsageError
        The package `tensorboard` is not installed, or the folder holds the log of a different fit.
    VaeguardError
        The folder cannot be written.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            f"`tensorboard` needs the package tensorboard, which is not installed; run: {install_line('tensorboard')}"
        )
    if run is None:
        return new_folder(name, directory)
    folder = directory / run.resolve().name
    if not resume and any(folder.glob(EVENTS)):
        raise UsageError(
            f"{str(folder)!r} contains the log of a different fit; choose a different folder as `tensorboard`, or"
            " delete this one"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaeguardError(
            f"cannot write to {str(folder)!r}: {error.strerror}; choose a different folder as `tensorboard`"
        ) from error
    return folder


@contextlib.contextmanager
def tensorboard_log(
    folder: Path,
    graph: InferenceGraph,
    state: State,
    image_set: ImageSet,
    held_out: npt.NDArray[np.int64],
    settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[Callable[[State], None]]:
    """Log a fit into `folder`; the context is a function to call after each epoch.

    At the end, if nothing went wrong, the latents of held-out images are added for the embedding projector, from the
    final weights of the graph. Nothing here draws from a generator of the training. If the log can no longer be
    written, it ends with a `TrainingWarning`, and the fit goes on without it.

    Parameters
    ----------
    folder : Path
        From `prepare_log`. An existing log goes on with the last epoch in the history of `state`.
    graph : InferenceGraph
        The graph of the VAE in training.
    state : State
        The state before the first epoch, or that of a checkpoint.
    image_set : ImageSet
        The data.
    held_out : int64 (n,)
        The rows of the validation images, some of which are shown.
    settings : dict of dict
        The settings of the fit, a table for each group.

    Raises
    ------
    VaeguardError
        The log cannot be begun.
    """
    from torch.utils.tensorboard import SummaryWriter

    shown = held_out[spread_out(len(held_out), COLUMNS)]
    done, fresh, stopped = state.history, not any(folder.glob(EVENTS)), False
    try:
        # An interrupted fit repeats the epochs after its last checkpoint, so their entries are removed. The entry of
        # the checkpoint's own epoch is removed and written again, since the fit may have been killed before writing it.
        writer: Any = SummaryWriter(str(folder), purge_step=len(done))
    except OSError as error:
        raise VaeguardError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error

    def attempt(log: Callable[..., None], *arguments: Any) -> None:
        """Call `log`, unless logging failed before: a full disk must not end the fit."""
        nonlocal stopped
        if stopped:
            return
        try:
            log(*arguments)
        except OSError as error:
            stopped = True
            text = f"the log in {str(folder)!r} ends here ({error.strerror or error}); the fit continues without it"
            warnings.warn(text, TrainingWarning, stacklevel=2)
            with contextlib.suppress(OSError):
                writer.close()

    def after_epoch(state: State) -> None:
        attempt(_log_epoch, writer, graph, image_set.images[shown], state.history[-1])

    try:
        if fresh or not done:
            attempt(_log_start, writer, settings, done[:-1])
        if done:
            graph.eval()
            after_epoch(state)
        yield after_epoch
        if graph.places is None:
            attempt(_log_latents, writer, graph, image_set, held_out, state.best_epoch + 1)
    finally:
        attempt(writer.close)


def _log_start(writer: Any, settings: Mapping[str, Mapping[str, Any]], history: Sequence[Mapping[str, float]]) -> None:
    for name, values in settings.items():
        writer.add_text(f"settings/{name}", _table(values), 0)
    for row in history:
        _log_scalars(writer, row)


def _log_epoch(writer: Any, graph: InferenceGraph, images: Pixels, row: Mapping[str, float]) -> None:
    epoch = int(row["epoch"])
    _log_scalars(writer, row)
    if _has_pictures(graph) and (epoch <= EVERY or epoch % SELDOM == 0):
        _log_pictures(writer, graph, images, epoch)
    writer.flush()


def _table(values: Mapping[str, Any]) -> str:
    """Settings as a table in Markdown."""
    lines = [f"| {name} | `{json.dumps(value)}` |" for name, value in values.items()]
    return "\n".join(["| setting | value |", "| --- | --- |", *lines])


def _log_scalars(writer: Any, row: Mapping[str, float]) -> None:
    """A row of the history, training and validation side by side."""
    for name, value in row.items():
        tag = name
        if name.startswith("valid_"):
            tag = f"{name.removeprefix('valid_')}/valid"
        elif f"valid_{name}" in row:
            tag = f"{name}/train"
        if name != "epoch":
            writer.add_scalar(tag, value, int(row["epoch"]))


def _has_pictures(graph: InferenceGraph) -> bool:
    return graph.vae.spec.view.whole_pictures


def _log_pictures(writer: Any, graph: InferenceGraph, images: Pixels, epoch: int) -> None:
    """Input over restoration, and samples of the prior, or of each class's; the same noise every time."""
    restored = decode(graph, encode(graph, images).mean)
    writer.add_image("reconstructions", _sheet([_tiles(images), _tiles(restored)]), epoch, dataformats="HWC")
    spec = graph.vae.spec
    if spec.autoencoder:
        return
    for name in spec.classes[:CLASSES] if spec.prior == "per-class" else (None,):
        drawn = _tiles(decode(graph, sample_latents(graph, SAMPLES, class_=name)))
        tag = "samples" if name is None else f"samples/{printable(name)}"
        writer.add_image(tag, _sheet([drawn[:COLUMNS], drawn[COLUMNS:]]), epoch, dataformats="HWC")


def _tiles(images: Images) -> list[Image.Image]:
    tiles = [picture_of(image) for image in images]
    for tile in tiles:
        tile.thumbnail((TILE, TILE))
    return tiles


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Pixels:
    """Rows of pictures, of the same number and size, as one: uint8 (H, W, 3)."""
    return np.concatenate([np.concatenate([np.asarray(tile) for tile in row], 1) for row in rows])


def _log_latents(
    writer: Any, graph: InferenceGraph, image_set: ImageSet, held_out: npt.NDArray[np.int64], epoch: int
) -> None:
    """Posterior means of held-out images with their classes, where known, and thumbnails of images."""
    rows = held_out[:: -(-len(held_out) // EMBEDDED)]
    images = image_set.images[rows]
    classes = thumbnails = None
    if image_set.labels is not None:
        classes = [printable(image_set.class_names[label]) for label in image_set.labels[rows].tolist()]
    if graph.vae.spec.view.pictures:
        squares = np.stack([_square(picture_of(image)) for image in images])
        thumbnails = torch.from_numpy(squares).permute(0, 3, 1, 2) / 255
    # The writer would complain of the files of a fit that was killed after it had written them.
    shutil.rmtree(Path(writer.get_logdir()) / f"{epoch:05d}", ignore_errors=True)
    writer.add_embedding(encode(graph, images).mean, classes, thumbnails, epoch, "latents")


def _square(picture: Image.Image) -> Pixels:
    """The picture in the middle of a square of `THUMBNAIL` pixels a side, as the projector takes squares only."""
    from PIL import Image, ImageOps

    filter_ = Image.Resampling.NEAREST if max(picture.size) < THUMBNAIL else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.pad(picture, (THUMBNAIL, THUMBNAIL), filter_, "#808080"))
