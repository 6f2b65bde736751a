"""The detector that PyTorch runs: the inference graph behind NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from vaeguard.errors import UsageError
from vaeguard.inspection import DetectorInfo, Inspection

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.graph import InferenceGraph
    from vaeguard.inspection import Floats, Images

BLOCK_ROWS = {"mlp": 256, "conv": 64}
BLOCK_VALUES = 256 * 32 * 32


class TorchDetector:
    """A fitted model; `vaeguard.fit` and `vaeguard.load` make one.

    Parameters
    ----------
    graph : InferenceGraph
        The fitted graph; it is moved to `device` and set to evaluation.
    record : dict
        The JSON of the model file.
    device : str
        `cpu` or `cuda`.
    """

    def __init__(self, graph: InferenceGraph, record: dict[str, Any], device: str = "cpu") -> None:
        # Convolutions round by the layout of their weights: one layout, whether the model was just fitted or loaded.
        self.graph = graph.eval().to(device).to(memory_format=torch.channels_last)
        self.device = device
        spec = graph.vae.spec
        assert spec.image_shape is not None
        self.info = DetectorInfo(
            image_shape=spec.image_shape,
            term_names=graph.term_names,
            class_names=tuple(record.get("class_names", ())),
            normal_classes=tuple(record.get("normal_classes", ())),
            record=record,
        )
        # Matrix products round differently at different batch sizes; blocks of one size keep an image's bits the same
        # whatever its neighbours. Smaller blocks for larger images and costlier models.
        self._block = int(np.clip(BLOCK_VALUES // np.prod(spec.image_shape), 8, BLOCK_ROWS[spec.kind or ""]))
        if spec.patch:
            self._block = 1  # the many patches of one image are a block already

    def inspect(self, images: Images, *, pictures: bool = False) -> Inspection:
        """Inspect `images`, uint8 in 0..255 or float32 in [0, 1], shape (N, C, H, W), or float vectors (N, 1, 1, F).

        Parameters
        ----------
        images : ndarray
            The batch; any number of images, also none.
        pictures : bool
            Also return `restored` and `heatmap`.

        Raises
        ------
        UsageError
            The array has another shape or type than the model takes.
        """
        images = as_images(images, self.info.image_shape, vectors=self.graph.vae.spec.vectors)
        wanted = ["score", "p_value", *self.info.term_names, *(("restored", "heatmap") if pictures else ())]
        _, height, width = self.info.image_shape
        tails = {"restored": self.info.image_shape, "heatmap": (height, width)}
        found: dict[str, Floats] = {
            name: np.empty((len(images), *tails.get(name, ())), dtype=np.float32) for name in wanted
        }
        with torch.inference_mode():
            for start in range(0, len(images), self._block):
                part = images[start : start + self._block]
                results = self.graph(torch.from_numpy(_filled(part, self._block)).to(self.device))
                for name in wanted:
                    found[name][start : start + len(part)] = results[name][: len(part)].cpu().numpy()
        return Inspection(
            score=found["score"],
            p_value=found["p_value"],
            terms={name: found[name] for name in self.info.term_names},
            restored=found.get("restored"),
            heatmap=found.get("heatmap"),
        )


def as_images(images: Images, image_shape: tuple[int, int, int], *, vectors: bool = False) -> Images:
    """Check that `images` is a batch that a model of `image_shape` (C, H, W), or one of vectors, takes.

    Raises
    ------
    UsageError
        Shape, type or range is another one.
    """
    images = cast("Images", np.asarray(images))
    if images.ndim != 4 or images.shape[1:] != image_shape:
        expected = ", ".join(map(str, image_shape))
        raise UsageError(f"images have shape {images.shape}, the model takes (N, {expected}); resize or reshape them")
    if vectors:
        return _as_vectors(images)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise UsageError(f"images are {images.dtype}; give uint8 in 0..255 or float32 in [0, 1]")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError("float images must lie in [0, 1], without NaN; divide by the largest possible value")
    return images.astype(np.float32)


def _as_vectors(vectors: npt.NDArray[Any]) -> Images:
    if vectors.dtype.kind != "f":
        raise UsageError(f"vectors are {vectors.dtype}; give floats in the units of the training data")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UsageError("vectors must be finite in float32, without NaN; fill these in or leave their rows out")
    return vectors


def _filled(part: Images, rows: int) -> npt.NDArray[Any]:
    """`part` with zero images up to `rows` rows, contiguous and writable as torch wants it."""
    block: npt.NDArray[Any] = np.zeros((rows, *part.shape[1:]), dtype=part.dtype)
    block[: len(part)] = part
    return block
