"""Models, data and pictures as workflows open them, and checks before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vaeguard.data.data_sets import data_of_fit, open_images, open_packed, open_to_learn
from vaeguard.data.decoding import PIXELS, read_one
from vaeguard.data.image_set import write_images
from vaeguard.data.images import ImageRule
from vaeguard.engines.model_file import load
from vaeguard.engines.run_folder import followed
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.settings.choice import (
    LONGEST_PIXELS,
    PHOTO_SIDE,
    asks_for_pixels,
    is_photograph,
    with_features,
)
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.storage.files import check_apart
from vaeguard.workflows.outcome import Outcome
from vaeguard.workflows.runs import latest_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.detector import Detector
    from vaeguard.workflows.outcome import FitRun, Reporter


@dataclass(frozen=True)
class Data:
    """The data to read, and how `open_images` reads them."""

    data: str
    size: tuple[int, int] | None = None
    channels: int | None = None
    data_dir: str | None = None
    download: bool = False


def open_to_fit(
    data: Data, settings: Mapping[str, Any], reporter: Reporter, run: FitRun | None = None
) -> tuple[ImageSet, ModelSpec]:
    """Open the training part of `data` for a fit with `settings`, as `fit` has them, and settle what the model learns.

    The choice is said, with its reason and what else to try.

    Raises
    ------
    UsageError
        As `open_images`.
    """
    model, training = settings.get("model") or ModelSpec(), settings.get("training") or TrainSpec()
    asked = asks_for_pixels(model, training)
    longest = LONGEST_PIXELS if asked and not model.tile else None
    # A search for settings changes pixels, and does not know the region of an image.
    rule = ImageRule(data.size, data.channels, model.pixel_range, longest, model.regions if run else False)
    opened: Any = partial(open_to_learn, limits=run.limits, jobs=run.jobs) if run else open_images
    with reporter.progress("reading") as progress:
        images = opened(
            data.data, rule=rule, normal_classes=settings.get("normal_classes"), data_dir=data.data_dir,
            download=data.download, progress=progress,
        )  # fmt: skip
    _say_notes(images, reporter)
    return images, settle_features(model, training, images, reporter)


def settle_features(model: ModelSpec, training: TrainSpec, images: ImageSet, reporter: Reporter) -> ModelSpec:
    """Settle whether a model learns features or pixels of `images`, and say why and what else to try."""
    _, height, width = shape = images.image_shape
    chosen = with_features(model, training, shape, vectors=images.vectors)
    asked = asks_for_pixels(model, training)
    if images.vectors or model.features is not None:
        return chosen
    if chosen.features:
        tile = replace(chosen, image_shape=shape).tiled().tile
        tiles = f", in tiles of {tile[0]}x{tile[-1]}" if tile else ""
        reporter.say(
            f"Model: features of the network {chosen.features}{tiles}, chosen because images of {height}x{width}"
            " pixels are probably photographs; alternatives: `features=NAME` (a different network),"
            " `preset=patches` (patches of pixels), `features=none` (whole images)"
        )
    elif asked and is_photograph(height, width):
        reporter.say(
            f"Model: pixels, because of `{asked}`; in photographs of {height}x{width} pixels, a model of"
            " features usually finds anomalies better; to fit such a model, remove this setting"
        )
    elif not asked and not is_photograph(height, width):
        reporter.say(
            f"Model: whole images, because {height}x{width} pixels are too few for a pretrained network; if the"
            f" files are larger, set `size` to at least {PHOTO_SIDE}x{PHOTO_SIDE} to use such a network"
        )
    return chosen


def open_for(
    detector: Detector, data: str | None, reporter: Reporter, split: Literal["train", "test"] = "test"
) -> ImageSet:
    """Open a part of `data` in the shape that the model takes; None is the named set of the fit.

    Raises
    ------
    UsageError
        As `open_images`; or `data` is None, and the model was fitted on no named set.
    RefusedError
        The model takes other data.
    """
    fitted = detector.info.record.data
    data = data_of_fit(fitted.name, named=fitted.named) if data is None else data
    with reporter.progress("reading") as progress:
        images = open_images(data, split=split, rule=detector.info.rule, progress=progress)
    reporter.say(f"Data: {images.name}, {len(images.images):,} {images.what}")
    expected, width = detector.info.image_shape[-1], images.images.shape[-1]
    pictures = detector.info.view.pictures
    if images.vectors == pictures or (images.vectors and expected != width):
        taken = "images" if pictures else f"vectors of {expected}"
        held = f"vectors of {width}" if images.vectors else "images"
        raise RefusedError(
            f"the model takes {taken}, but {data!r} contains {held}; give the kind of data that the model was fitted on"
        )
    _say_notes(images, reporter)
    return images


def _say_notes(images: ImageSet, reporter: Reporter) -> None:
    reporter.left_out(images.errors)
    for note in filter(None, (images.left_out, images.note)):
        reporter.say(f"note: {note}")


def find_model(model: str | None, reporter: Reporter) -> str:
    """`model`, or the latest run, whose name is then reported."""
    if model:
        return followed(model)
    # The link is resolved now, since it may point to another run before this process ends.
    run, here = latest_run().resolve(), Path.cwd()
    reporter.say(f"Model: runs/latest ({run.name}), the latest run; to use a different run, add `model`")
    return str(run.relative_to(here) if run.is_relative_to(here) else run)


def open_generative(model: str, *, vectors: bool = False) -> Any:
    """Open a model that can decode, for images; with `vectors`, also a model of vectors.

    Raises
    ------
    UsageError
        The model is an exported file, or a model of vectors.
    """
    detector: Any = load(model)
    if not hasattr(detector, "decode"):
        raise UsageError(
            f"`model` {model!r} is an exported file, which can only score images; give the run from which it was"
            " exported"
        )
    if not vectors:
        check_of_images(detector, model)
    return detector


def check_of_images(detector: Detector, model: str) -> None:
    """Refuse a model of vectors.

    Raises
    ------
    UsageError
        The inputs of the model are vectors.
    """
    if not detector.info.view.pictures:
        raise UsageError(f"`model` {model!r} is a model of vectors, which have no pictures; use it from Python")


def check_picture(output: str, inputs: Sequence[str] = ()) -> None:
    """Refuse an `output` that is no PNG, or one of the `inputs`.

    Raises
    ------
    UsageError
        The name does not end in .png, or the picture would replace an input.
    """
    check_apart(output, inputs)
    if not output.lower().endswith(".png"):
        raise UsageError(f"`output` is {output!r}, but the picture is a PNG; use a name that ends in .png")


def read_pictures(paths: Sequence[str], detector: Detector) -> Any:
    """Image files as the model takes them, uint8 (N, C, H, W).

    Raises
    ------
    UsageError
        A file is missing.
    RefusedError
        A file cannot be read.
    """
    rule = detector.info.rule
    assert rule is not None
    try:
        return np.concatenate([read_one(PIXELS, path, rule)[1] for path in paths])
    except UnreadableError as error:
        if os.path.exists(error.path):  # noqa: PTH110  (names need not be valid paths)
            raise
        raise UsageError(str(error)) from error


def unpack_to(data: str, output: str | None, split: Literal["train", "test"], *, download: bool = False) -> Outcome:
    """Write a data set as PNG files in class folders, by default below `<data>-<split>`.

    Raises
    ------
    UsageError
        As `open_packed`, or the folder is in use.
    """
    images = open_packed(data, split=split, download=download)
    folder = output or f"{images.name}-{split}"
    write_images(images, folder)
    return Outcome(folder, len(images.images))
