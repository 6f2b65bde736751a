"""The results of a detector for images, and its description."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vaeguard.settings.evaluation import DEFAULT_FPR, check_fpr
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.engines.record import ModelRecord
    from vaeguard.settings.views import View
    from vaeguard.statistics.spots import Spot

    Images = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inspection:
    """A detector's results for N images; every array has one entry per image, in input order.

    Attributes
    ----------
    score : float32 (N,)
        Combined anomaly score, 0 and up, higher = more anomalous: −log10 of the estimated share of normal images that
        are at least as anomalous, so 2 means "one normal image in a hundred". Beyond the most anomalous tenth of the
        calibration images (at least 10 of them), the share is that of a generalised Pareto tail; see
        docs/explanation/score.md.
    p_value : float32 (N,)
        Split-conformal p-value, from 1 / (1 + n) to 1: the share of images that are at least as anomalous, among the n
        calibration images and the image itself.
    terms : dict of float32 (N,)
        The separate terms of the score by name: `recon_error`, `kl`, `neg_elbo`, ...
    restored : float32 (N, C, H, W) or None
        The decoder's mean image in [0, 1], or vectors in their own units; None without pictures, and for features.
    heatmap : float32 (N, H, W) or None
        How anomalous each pixel is, 0 and up; None without pictures.
    """

    score: Floats
    p_value: Floats
    terms: dict[str, Floats]
    restored: Floats | None = None
    heatmap: Floats | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: slice) -> Inspection:
        """The results for some of the images."""
        return Inspection(
            score=self.score[rows],
            p_value=self.p_value[rows],
            terms={name: values[rows] for name, values in self.terms.items()},
            restored=None if self.restored is None else self.restored[rows],
            heatmap=None if self.heatmap is None else self.heatmap[rows],
        )

    def __repr__(self) -> str:
        return brief(self, score=self.score, terms=[*self.terms], pictures=self.heatmap is not None)


@dataclass(frozen=True)
class DetectorInfo:
    """The description of a detector.

    Attributes
    ----------
    record : ModelRecord
        The record of the model file: specs, data, calibration, versions.
    term_names : tuple of str
        Names of the terms, in the order of the columns in `scores.csv`.
    fitted_on : uint64 (n,) or None
        Digests (`image_set.digests_of`) of the images for training and early stopping; None if unknown.
    out_of_fold : float32 (n, 2 + terms) or None
        Score, p-value among the others, and terms of each image of `fitted_on`, by a model that had not seen the fold
        of the image; None for a fit without folds.
    """

    record: ModelRecord
    term_names: tuple[str, ...]
    fitted_on: npt.NDArray[np.uint64] | None = field(default=None, repr=False, compare=False)
    out_of_fold: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return brief(
            self,
            kind=self.record.model.kind,
            image_shape=self.image_shape,
            data=self.record.data.name,
            normal_classes=self.normal_classes,
            calibrated_on=self.calibrated_on,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image, with a last channel for its region if the model looks at regions."""
        return self.record.model.with_region(self.record.model.shape)

    @property
    def graph_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) that the graph takes: that of a tile, or of an image."""
        return self.record.model.with_region(self.record.model.graph_shape)

    @property
    def takes_first(self) -> bool:
        """Whether the graph takes the first row and column of a tile, by which it finds the tile in its region."""
        return bool(self.record.model.tile and self.record.model.region)

    def tail_of(self, name: str, shape: tuple[int, int, int] | None = None) -> tuple[int, ...]:
        """The shape of the result `name` for one image, or for one input of another `shape` (C, H, W)."""
        shape = shape or self.image_shape
        return {"restored": (self.record.model.shape[0], *shape[1:]), "heatmap": shape[1:]}.get(name, ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes of the training data."""
        return self.record.class_names

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """The classes that the model was fitted on; empty if the data had none."""
        return self.record.normal_classes

    def rate(self, fpr: float | None = None) -> float:
        """The false-alarm rate `fpr` or, if it is None, that of the export; 0.05 for a model that was not exported.

        Raises
        ------
        UsageError
            `fpr` is outside (0, 1).
        """
        if fpr is None:
            return self.record.onnx.fpr if self.record.onnx else DEFAULT_FPR
        check_fpr(fpr)
        return fpr

    @property
    def view(self) -> View:
        """How the model sees its inputs: whole images, patches, features or vectors."""
        return self.record.model.view

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures among the results; features cannot be turned into pixels again."""
        return ("restored", "heatmap") if self.view.restores else ("heatmap",)

    @property
    def rule(self) -> ImageRule | None:
        """How image files are decoded to the shape of an image of the model; None for vectors."""
        from vaeguard.data.images import ImageRule

        model = self.record.model
        channels, height, width = model.shape
        if not self.view.pictures:
            return None
        return ImageRule((height, width), channels, model.pixel_range, regions=bool(model.regions))

    @property
    def calibrated_on(self) -> int | None:
        """The number of held-out normal images that calibrate the score; None for a model without calibration."""
        return self.record.calibration.images or None

    @property
    def heatmap_scale(self) -> float | None:
        """The value of a heatmap that gets the last colour, above nearly all normal pixels; None if unknown."""
        return self.record.calibration.heatmap_scale

    @property
    def peaks(self) -> Floats:
        """The largest heatmap value of each of up to 1,000 calibration images, sorted."""
        import numpy as np

        return np.array(self.record.calibration.peaks, np.float32)

    def spots(self, heatmap: Floats, size: tuple[int, int] | None = None) -> tuple[tuple[Spot, ...], int]:
        """The spots of one heatmap (H, W), and how many there are, as by `statistics.spots.find_spots`."""
        from vaeguard.statistics.spots import find_spots

        return find_spots(heatmap, self.peaks, self.heatmap_scale, size)


def concatenate(parts: Sequence[Inspection]) -> Inspection:
    """Join inspections of consecutive batches into one."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]

    def join(arrays: list[Floats | None]) -> Floats | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Inspection(
        score=np.concatenate([part.score for part in parts]),
        p_value=np.concatenate([part.p_value for part in parts]),
        terms={name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
        restored=join([part.restored for part in parts]),
        heatmap=join([part.heatmap for part in parts]),
    )
