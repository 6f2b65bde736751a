"""What commands open: the model of `-m`, data, pictures; and what they refuse before any work."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal

from .output import progress_bar, say, say_left_out, say_note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vaeguard import Detector, ImageSet


@contextlib.contextmanager
def no_empty_run(run: Path | None) -> Iterator[None]:
    """Leave no empty folder behind a fit that could not start; say how an interrupted one goes on.

    None is the folder of a fit that does not have one yet.
    """
    try:
        yield
    except BaseException as error:
        if run:
            if isinstance(error, KeyboardInterrupt) and any(run.glob("checkpoint.*")):
                say(f"go on with the same command and --resume -o {run}")
            with contextlib.suppress(OSError):
                run.rmdir()  # fails unless it is empty
        raise


def open_to_fit(
    data: str, size: tuple[int, int] | None, channels: str | None, data_dir: str | None, *,
    download: bool, jobs: int | None = None,
) -> ImageSet:  # fmt: skip
    """Open the training part of `data`, and say what could not be read.

    Raises
    ------
    UsageError
        As `open_images`.
    """
    from vaeguard import ImageRule, open_images

    rule = ImageRule(size, int(channels) if channels else None)
    with progress_bar("reading") as progress:
        images = open_images(
            data, split="train", rule=rule, data_dir=data_dir, download=download, jobs=jobs, progress=progress
        )
    say_left_out(images.errors)
    say_note(images)
    return images


def open_images_for(
    data: str | None,
    detector: Detector,
    data_dir: str | None,
    *,
    split: Literal["train", "test"] = "test",
    download: bool,
) -> ImageSet:
    """Open a part of `data` in the shape that the model takes, and say what could not be read.

    None is the named set that the model was fitted on.

    Raises
    ------
    UsageError
        As `open_images`; or `data` is None, and the model was fitted on no named set.
    RefusedError
        The model takes something else.
    """
    from vaeguard import RefusedError, data_of_fit, open_images

    fitted = detector.info.record.data
    data = data_of_fit(fitted.name, named=fitted.named) if data is None else data
    rule = detector.info.rule
    with progress_bar("reading") as progress:
        images = open_images(data, split=split, rule=rule, data_dir=data_dir, download=download, progress=progress)
    say(f"data: {images.name}, {len(images.images)} {images.what}")
    wanted, found = detector.info.image_shape[-1], images.images.shape[-1]
    pictures = detector.info.view.pictures
    if images.vectors == pictures or (images.vectors and wanted != found):
        taken = "images" if pictures else f"vectors of {wanted}"
        held = f"vectors of {found}" if images.vectors else "images"
        raise RefusedError(f"the model takes {taken}, and {data!r} holds {held}; give what it was fitted on")
    say_left_out(images.errors)
    say_note(images)
    return images


def open_generative(model: str | None, device: str, *, vectors: bool = False) -> Any:
    """The model of `-m` as one that decodes, for images; with `vectors` also one for these.

    Raises
    ------
    UsageError
        It is an exported file, or a model of vectors.
    """
    from vaeguard import UsageError, load

    path = find_model(model)
    detector: Any = load(path, device)
    if not hasattr(detector, "decode"):
        raise UsageError(f"-m {path!r} is an exported file, which only inspects images; name the run that it came from")
    if not vectors:
        check_of_images(detector, path)
    return detector


def check_of_images(detector: Detector, path: str) -> None:
    """Refuse the model of `-m` where it is one of the rows of tables.

    Raises
    ------
    UsageError
        It is.
    """
    from vaeguard import UsageError

    if not detector.info.view.pictures:
        raise UsageError(f"-m {path!r} is a model of vectors, of which there are no pictures; use it from Python")


def check_picture(output: str, inputs: Sequence[str] = ()) -> None:
    """Refuse a picture that is no PNG, or one of the `inputs`.

    Raises
    ------
    UsageError
        Its name does not end in .png, or it would replace an input.
    """
    from vaeguard import UsageError, check_apart

    check_apart(output, inputs)
    if not output.lower().endswith(".png"):
        raise UsageError(f"-o {output!r}: the picture is a PNG; give a name that ends in .png")


def read_pictures(paths: Sequence[str], detector: Detector) -> Any:
    """Image files as the model takes them, uint8 (N, C, H, W).

    Raises
    ------
    UsageError
        One is missing.
    RefusedError
        One cannot be read.
    """
    import numpy as np

    from vaeguard import UnreadableError, UsageError, decode_image

    rule = detector.info.rule
    assert rule is not None
    try:
        return np.stack([decode_image(path, rule) for path in paths])
    except UnreadableError as error:
        if os.path.exists(error.path):  # noqa: PTH110  (names need not be valid paths)
            raise
        raise UsageError(str(error)) from error


def find_model(model: str | None) -> str:
    """`-m`, or the latest run, which is then named on stderr."""
    if model:
        return model
    from pathlib import Path

    from vaeguard import latest_run

    latest = latest_run()
    # The link may point elsewhere before this command ends; the run it means now is meant to the end.
    run, here = latest.resolve(), Path.cwd()
    say(f"model: {latest} -> {run.name}")
    return str(run.relative_to(here) if run.is_relative_to(here) else run)
