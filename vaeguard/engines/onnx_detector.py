"""The detector that ONNX Runtime runs: the same graph behind the same NumPy contract, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.devices import cores
from vaeguard.engines.detector import Detector, block_rows, filled
from vaeguard.engines.record import read_record
from vaeguard.engines.sessions import open_session
from vaeguard.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from vaeguard.engines.inspection import DetectorInfo, Floats, Images
    from vaeguard.engines.sessions import Session
    from vaeguard.engines.tiling import Firsts

IMAGE = "image"
"""Name of the input with the images."""
FIRST = "first"
"""Name of the input with the first row and column of each tile, which only a model of tiles with a region takes."""
ROWS = 16
"""Batches are padded to a multiple of so many images. Otherwise the elements that do not fill a vector register may
round differently, and an image's bits would depend on the batch around it."""
BLOCK_ROWS = 256


class OnnxDetector(Detector):
    """A model that `export` wrote; `vaeguard.load` makes one.

    On the CPU, an image gives the same bits whatever the batch around it and the number of threads. On a GPU, all
    batches have one shape, so that the provider compiles only once.

    Parameters
    ----------
    session : Session
        The open file.

    Raises
    ------
    RefusedError
        The file holds something else than a detector.
    """

    def __init__(self, session: Session) -> None:
        self._session, device = session, session.device
        record = read_record(session.record, session.name)
        if record.onnx is None:
            raise RefusedError(f"{session.name!r} does not say how it was exported; export the model again")
        super().__init__(record, record.terms, device)
        kinds = dict.fromkeys(output_names(self.info), "float32") | {"anomaly": "bool"}
        inputs = {IMAGE: (record.onnx.pixels, self.info.image_shape[0])}
        session.check_values(inputs | ({FIRST: ("int64", 2)} if self.info.takes_first else {}), kinds)
        self._pixels = np.dtype(record.onnx.pixels)
        # One image has many patches, which fill a block.
        self.least = ROWS if record.model.view.whole else 1
        # Several batches side by side use the cores better than one batch on all cores.
        self.parallel = cores() if session.threads == 1 and device == "cpu" else 1
        self.block = -(-block_rows(self.info.graph_shape, BLOCK_ROWS) // ROWS) * ROWS if self.least > 1 else 1

    @property
    def fingerprint(self) -> str:
        """Engine, device and the digest of the file."""
        return self._session.fingerprint

    def prepared(self, images: Images) -> Images:
        """Checked images as pixels of the type that the file takes.

        Raises
        ------
        UsageError
            The file takes uint8, and the images are floats between the grey levels.
        """
        return as_pixels(images, self._pixels)

    def run(self, images: Images, wanted: tuple[str, ...], first: Firsts | None) -> dict[str, Floats]:
        """The results named in `wanted` for 1 to `block` images, or tiles whose first rows and columns are `first`."""
        rows = self.block if self.device != "cpu" else -(-len(images) // self.least) * self.least
        batch = images if len(images) == rows else filled(images, rows)
        shapes = [(rows, *self.info.tail_of(name, self.info.graph_shape)) for name in wanted]
        feeds = {IMAGE: batch} | ({} if first is None else {FIRST: filled(first, rows)})
        results = self._session.run(wanted, feeds, shapes)
        return {name: values[: len(images)] for name, values in zip(wanted, results, strict=True)}


def as_pixels(images: Images, pixels: np.dtype[Any]) -> Images:
    """Images as pixels of another type, uint8 in 0..255 or float32 in [0, 1].

    Raises
    ------
    UsageError
        The images are floats between the grey levels, and `pixels` is uint8.
    """
    if images.dtype == pixels:
        return images
    if pixels == np.float32:
        return images.astype(np.float32) / np.float32(255)
    levels = np.round(images * np.float32(255))
    if not np.array_equal(levels / np.float32(255), images):
        raise UsageError(
            "the model takes uint8 pixels, but the images are floats that fall between the 256 levels; round"
            " them to uint8, or export the model again with `pixels` set to 'float32'"
        )
    return levels.astype(np.uint8)


def output_names(info: DetectorInfo) -> tuple[str, ...]:
    """Names of the outputs of an exported model, in order."""
    return ("score", "p_value", "anomaly", *info.term_names, *info.pictures)


def read_onnx(path: str | Path, device: str = "auto", threads: int | None = None) -> OnnxDetector:
    """Read a detector from an `.onnx` file of `export` after checking its digest.

    Raises
    ------
    RefusedError
        The file is damaged, or no model of vaeguard.
    UsageError
        The file is missing, or `device` cannot be used.
    """
    return OnnxDetector(open_session(path, device, threads))
