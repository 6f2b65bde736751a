"""The detector: NumPy images in, a fixed set of named results out, whichever engine runs below.

Every engine inspects images block by block, in smaller blocks if memory is short, and large images tile by tile.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vaeguard.engines.engine import Engine
from vaeguard.engines.inspection import DetectorInfo, Inspection
from vaeguard.engines.tiling import Tiling, add, blank
from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.tiling import Firsts
    from vaeguard.statistics.spots import Spot

BLOCK_VALUES = 256 * 32 * 32
"""A block holds about this many values, so a block of large images has fewer of them."""


class Detector(Engine):
    """A fitted or exported model that inspects images; its subclasses `run` blocks of at most `block` images.

    Parameters
    ----------
    record : ModelRecord
        The record of the model file.
    term_names : tuple of str
        The terms that the graph returns.
    device : str
        The device that the detector runs on: `cpu`, `cuda` or `tensorrt`.

    Attributes
    ----------
    info : DetectorInfo
        The model and its data, from the record.
    block, least : int
        The largest number of images that `run` takes; if memory runs out, `block` is halved, down to `least`.
    parallel : int
        The number of threads with which inspecting several blocks at the same time is fastest.
    """

    def __init__(self, record: ModelRecord, term_names: tuple[str, ...], device: str) -> None:
        self.info = DetectorInfo(record, term_names)
        self.device = device
        self.block, self.least = 1, 1
        self.parallel = 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info!r}, device={self.device!r})"

    @abstractmethod
    def run(self, images: Images, wanted: tuple[str, ...], first: Firsts | None) -> Mapping[str, Floats]:
        """The results named in `wanted` for 1 to `block` images, or tiles whose first rows and columns are `first`.

        Raises
        ------
        MemoryError
            Memory does not suffice.
        """

    def prepared(self, images: Images) -> Images:
        """Checked images as the engine takes them."""
        return images

    def inspect(self, images: Images, *, pictures: bool = False) -> Inspection:
        """Inspect `images`, uint8 in 0..255 or float32 in [0, 1], or the rows of a table of floats.

        The results of an image have the same bits in any batch.

        Parameters
        ----------
        images : ndarray
            Shape (N, C, H, W), with one channel also (N, H, W); for a table (N, F) or (N, 1, 1, F). N may be 0.
        pictures : bool
            Also return `restored` and `heatmap`.

        Raises
        ------
        UsageError
            The array has another shape or type than the model takes.
        OutOfMemoryError
            Memory does not suffice even for the smallest block.
        """
        images = self.prepared(as_images(images, self.info))
        outputs = self._empty(len(images), self.info.image_shape, pictures=pictures)
        if self.info.graph_shape == self.info.image_shape:
            self._fill(outputs, images)
            return self._inspection(outputs)
        blank(outputs)
        for row, image in enumerate(images):
            for tile in self.tiling.tiles:
                results = self._empty(1, self.info.graph_shape, pictures=pictures)
                self._fill(results, np.ascontiguousarray(image[None, :, *tile.at]), np.array([tile.first]))
                add(outputs, row, tile, results)
        return self._inspection(outputs)

    def inspect_tiles(self, tiles: Images, first: Firsts, *, pictures: bool = False) -> Inspection:
        """Inspect each of the `tiles`, shape (N, C, H, W) as the graph takes them, without combining their results.

        `first`, int64 (N, 2), holds the first row and column of each tile in its image. A model without tiles takes
        whole images.
        """
        tiles = self.prepared(as_images(tiles, self.info, self.info.graph_shape))
        outputs = self._empty(len(tiles), self.info.graph_shape, pictures=pictures)
        self._fill(outputs, tiles, first)
        return self._inspection(outputs)

    @functools.cached_property
    def tiling(self) -> Tiling:
        """The tiles of an image; a model without tiles has one, the whole image."""
        return Tiling(self.info.record.model)

    def _empty(self, rows: int, shape: tuple[int, int, int], *, pictures: bool) -> dict[str, Floats]:
        """Arrays for the results of `rows` inputs of `shape`."""
        wanted = ("score", "p_value", *self.info.term_names, *(self.info.pictures if pictures else ()))
        return {name: np.empty((rows, *self.info.tail_of(name, shape)), np.float32) for name in wanted}

    def _fill(self, outputs: dict[str, Floats], inputs: Images, first: Firsts | None = None) -> None:
        """Inspect inputs of the graph block by block, in smaller blocks if memory is short."""
        _, height, width = self.info.graph_shape
        first = first if self.info.takes_first else None
        start = 0
        while start < len(inputs):
            size = self.block
            part = inputs[start : start + size]
            try:
                results = self.run(part, tuple(outputs), None if first is None else first[start : start + size])
            except MemoryError as error:
                smaller = self.smaller(size, self.least, f"{size} images of {height}x{width}", error)
                self.block = min(self.block, smaller)  # another thread may have shrunk it further
                continue
            for name, values in outputs.items():
                values[start : start + len(part)] = results[name]
            start += len(part)

    def _inspection(self, outputs: dict[str, Floats]) -> Inspection:
        return Inspection(
            score=outputs["score"],
            p_value=outputs["p_value"],
            terms={name: outputs[name] for name in self.info.term_names},
            restored=outputs.get("restored"),
            heatmap=outputs.get("heatmap"),
        )

    def spots(self, images: Images, sizes: Sequence[tuple[int, int]] | None = None) -> list[tuple[Spot, ...]]:
        """The spots of each image: regions of the heatmap with a peak that few normal images reach.

        Parameters
        ----------
        images : ndarray
            As for `inspect`.
        sizes : sequence of (height, width), optional
            Sizes of the original images in pixels; positions of spots are then in pixels of the original images,
            otherwise in pixels of `images`.

        Returns
        -------
        list of tuple of Spot
            For each image, at most 20 spots, the most anomalous first, with `rank`, `x` and `y` (the centre), `left`,
            `top`, `width`, `height`, `area`, `peak` and `p_value`; none for a model without calibration.

        Raises
        ------
        UsageError
            As by `inspect`; the model takes vectors, or there are not as many sizes as images.
        """
        if not self.info.view.pictures:
            raise UsageError("spots exist only for images, and this model takes vectors; call `inspect` instead")
        if sizes is not None and len(sizes) != len(images):
            raise UsageError(f"`sizes` has {len(sizes)} sizes for {len(images)} images; give one size for each image")
        spots = []
        for row, image in enumerate(images):
            heatmap = self.inspect(image[None], pictures=True).heatmap
            assert heatmap is not None
            spots.append(self.info.spots(heatmap[0], sizes[row] if sizes else None)[0])
        return spots


def filled(images: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """`images` padded with zero images to `rows` rows, contiguous and writable."""
    block: npt.NDArray[Any] = np.zeros((rows, *images.shape[1:]), dtype=images.dtype)
    block[: len(images)] = images
    return block


def block_rows(image_shape: tuple[int, int, int], most: int) -> int:
    """The number of images of `image_shape` in a block, from 8 to `most`."""
    return int(np.clip(BLOCK_VALUES // np.prod(image_shape), 8, most))


def as_images(images: Images, info: DetectorInfo, shape: tuple[int, int, int] | None = None) -> Images:
    """Check that `images` is a batch that a model takes, and return it as uint8 or float32.

    `shape` is that of one input (C, H, W), if it is not a whole image.

    Raises
    ------
    UsageError
        The images have another shape, type or range.
    """
    images = cast("Images", np.asarray(images))
    channels, height, width = shape = shape or info.image_shape
    pictures = info.view.pictures
    if info.record.model.regions:
        images = _with_region(images, shape)
    if images.shape[1:] == ((height, width) if pictures else (width,)) and channels == 1:
        images = images.reshape(-1, *shape)
    if images.shape[1:] != shape:
        noun, taken = ("images", ("N", *shape)) if pictures else ("vectors", ("N", width))
        expected = ", ".join(map(str, taken))
        raise UsageError(f"{noun} have shape {images.shape}, but the model takes ({expected}); resize or reshape them")
    return _as_pixels(images) if pictures else _as_vectors(images)


def _with_region(images: Images, shape: tuple[int, int, int]) -> Images:
    """Images of `shape` (C, H, W), whose last channel is their region: images without one count as a whole."""
    channels, height, width = shape
    if channels == 2 and images.shape[1:] == (height, width):
        images = images[:, None]
    if images.shape[1:] != (channels - 1, height, width):
        return images
    white = 255 if images.dtype == np.uint8 else 1
    return np.concatenate([images, np.full_like(images[:, :1], white)], 1)


def _as_pixels(images: npt.NDArray[Any]) -> Images:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise UsageError(f"images are {images.dtype}; use uint8 in 0..255 or float32 in [0, 1]")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError("float images must lie in [0, 1], without NaN; divide by the largest possible value")
    return images.astype(np.float32)


def _as_vectors(vectors: npt.NDArray[Any]) -> Images:
    if vectors.dtype.kind != "f":
        raise UsageError(f"vectors are {vectors.dtype}; use floats in the units of the training data")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UsageError(
            "vectors contain NaN, infinity or numbers too large for float32; replace these numbers or remove the"
            " rows with them"
        )
    return vectors
