"""Tasks: the examples that a method is fitted on, and the examples that it has to tell apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.cache import digest_array
from vaeguard.errors import UsageError, VaeguardError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet

    Bools = npt.NDArray[np.bool_]
    Bytes = npt.NDArray[np.uint8]
    Rows = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageTask:
    """Images to fit on and images to tell apart.

    Attributes
    ----------
    train : ImageSet
        The training part; a method may use only the images of the normal classes.
    normal_classes : tuple of str or None
        Names of the normal classes; None if all of `train` is normal.
    test : uint8 (N, C, H, W)
        The test part.
    anomalous : bool (N,)
        The truth.
    kinds : tuple of str
        The kind of each anomalous test image, `""` for normal ones; empty if there is one kind only.
    masks : bool (N, H, W) or None
        The defective pixels of each test image.
    groups : tuple of str
        The group of each training image; a split keeps groups whole. Empty if each image is a group by itself.
    """

    train: ImageSet
    normal_classes: tuple[str, ...] | None
    test: Bytes
    anomalous: Bools
    kinds: tuple[str, ...] = ()
    masks: Bools | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_both_kinds(self.anomalous, self.train.name)

    @cached_property
    def normal_rows(self) -> Rows:
        """Row numbers of the normal training images."""
        if self.normal_classes is None or self.train.labels is None:
            return np.arange(len(self.train))
        wanted = [self.train.class_names.index(name) for name in self.normal_classes]
        return np.flatnonzero(np.isin(self.train.labels, wanted))

    @property
    def n_normal(self) -> int:
        """Count of normal training images."""
        return len(self.normal_rows)

    @property
    def defects(self) -> dict[int, Bools]:
        """The masks (H, W) of the anomalous test images by their rows; empty without masks."""
        return {} if self.masks is None else {row: self.masks[row] for row in np.flatnonzero(self.anomalous).tolist()}

    def vectors(self) -> tuple[Vectors, Vectors]:
        """Pixels in [0, 1] of the normal training images and of the test images, (n, C*H*W) each."""
        return _unit_vectors(self.train.images[self.normal_rows]), _unit_vectors(self.test)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) over the data and its split."""
        masks = "" if self.masks is None else digest_array(self.masks.view(np.uint8))
        truth = self.anomalous.tobytes() + "|".join(self.kinds).encode()
        parts = (
            self.train.fingerprint.encode(),
            self.normal_rows.astype("<i8").tobytes(),
            digest_array(self.test, masks).encode(),
            truth,
        )
        return hashlib.sha256(b"|".join(parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class TableTask:
    """Rows of numbers to fit on, anomalies among them, and rows to tell apart.

    Attributes
    ----------
    name : str
        The table.
    train, test : float64 (n, d), (N, d)
        Standardised features.
    anomalous : bool (N,)
        The truth about the test rows.
    """

    name: str
    train: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    anomalous: Bools

    def __post_init__(self) -> None:
        check_both_kinds(self.anomalous, self.name)

    @property
    def n_normal(self) -> int:
        """Count of all training rows: the protocol does not say which of them are normal."""
        return len(self.train)

    def vectors(self) -> tuple[Vectors, Vectors]:
        """Training and test rows."""
        return self.train.astype(np.float32), self.test.astype(np.float32)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) over the rows and their split."""
        parts = (self.train.astype("<f8").tobytes(), self.test.astype("<f8").tobytes(), self.anomalous.tobytes())
        return hashlib.sha256(b"|".join(parts)).hexdigest()


Task = ImageTask | TableTask


def _unit_vectors(images: Bytes) -> Vectors:
    vectors = images.reshape(len(images), -1).astype(np.float32)
    vectors /= np.float32(255)
    return vectors


def check_both_kinds(anomalous: Bools, name: str) -> None:
    """Refuse test examples that are all normal or all anomalous.

    Raises
    ------
    UsageError
        None or all of them are anomalous.
    """
    if anomalous.all() or not anomalous.any():
        raise UsageError(
            f"all {len(anomalous)} test examples of {name!r} are {'anomalous' if anomalous.any() else 'normal'};"
            " choose different classes or raise `limit`"
        )


def missing(name: str, *places: Path) -> VaeguardError:
    """The error that data is in none of `places`."""
    shown = ", ".join(str(place) for place in places)
    return VaeguardError(
        f"data set {name!r} was not found (looked for {shown}); set `data_dir` to the folder that contains it"
    )


def limited_rows(groups: npt.ArrayLike, limit: int | None) -> Rows:
    """Rows of about `limit` examples, spread evenly, with at least one of every group; None means all.

    `groups` (N,) has equal values for examples of the same class.
    """
    groups = np.asarray(groups)
    if limit is None or limit >= len(groups):
        return np.arange(len(groups))
    picked = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = max(1, round(limit * len(members) / len(groups)))
        picked.append(members[np.linspace(0, len(members) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(picked))
