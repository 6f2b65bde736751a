"""The split of the normal images: to train on, to stop training and shape the score, and to calibrate the score.

A model of features is cheap to fit several times. If its images are few, all of them train and all of them calibrate:
they are dealt into folds, and each image is judged by a model that has learned from the other folds only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.shards import in_shards
from vaeguard.errors import UsageError
from vaeguard.settings.classes import resolve_classes
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.shards import Shards
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    Rows = npt.NDArray[np.int64]

MIN_NORMAL = 20
MIN_PER_CLASS = 3
FOLDED = 1000
"""A model of features judges fewer normal images than these by folds; of more, it takes so many for each part."""
FOLDS = 5
PART_OF_SAMPLE = 0.4
"""The most of the images that can be looked up, of a set that stays in its files, in a part that judges."""
FEW, FOLDS_OF_FEW = 50, 10
"""Of fewer images, a fold must leave more than four fifths to learn from."""


@dataclass(frozen=True)
class Split:
    """Row numbers of the normal images in three parts, which are disjoint unless there are folds.

    Attributes
    ----------
    training : int64
        Images to train on.
    validation : int64
        Images that stop the training and shape the score.
    calibration : int64
        Images that rank the score.
    folds : int64 or None
        The fold of each training image, from 0, if every part has all images; None if the parts are disjoint.
    training_only : int64 or None
        Training images that are no random sample of normal images, so that they must not calibrate, also with folds.
    """

    training: Rows
    validation: Rows
    calibration: Rows
    folds: Rows | None = None
    training_only: Rows | None = None

    @property
    def fold_count(self) -> int:
        """The number of folds; 0 if the parts are disjoint."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    def digest(self) -> str:
        """SHA-256 of the lists, hex."""
        parts = (self.training, self.validation, self.calibration, *(() if self.folds is None else (self.folds,)))
        return hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()


def split_for(
    image_set: ImageSet,
    normal: tuple[int, ...],
    model: ModelSpec,
    training: TrainSpec,
    groups: npt.ArrayLike | None = None,
    training_only: npt.ArrayLike | None = None,
) -> Split:
    """The split for a fit with these settings: by folds for few images and a model of features, else `split_normal`.

    Raises
    ------
    UsageError
        As by `split_normal`, or `training.folds` does not suit the model or the images.
    """
    if training.folds and not model.features:
        raise UsageError("`training.folds` works only with a model of features; remove it")
    class_rows = _class_rows(image_set, normal)
    if shards := in_shards(image_set.images):
        return _of_shards(shards, class_rows, model, training, groups)
    count = sum(map(len, class_rows))
    folds = training.folds
    if folds is None:
        folds = 0 if not model.features or count >= FOLDED else FOLDS_OF_FEW if count < FEW else FOLDS
    if folds:
        split = _folded(image_set, class_rows, folds, training.seed, groups)
        if training_only is None:
            return split
        biased = split.training[np.asarray(training_only, bool)[split.training]]
        return replace(split, calibration=np.setdiff1d(split.calibration, biased), training_only=biased)
    shares = {"validation": training.validation, "calibration": training.calibration}
    split = split_normal(image_set, normal, **shares, seed=training.seed, groups=groups, training_only=training_only)
    return _at_most(split, FOLDED, training.seed) if model.features else split


def _of_shards(
    shards: Shards, class_rows: list[Rows], model: ModelSpec, training: TrainSpec, groups: npt.ArrayLike | None
) -> Split:
    """The split of images that stay in their files: images that judge are among those that can be looked up.

    A model of whole images learns from all others, a model of patches or features from others that can be looked up.
    """
    if groups is not None or training.balance or training.folds:
        raise UsageError(
            "`groups`, `training.balance` and `training.folds` need images that fit into the cache; remove"
            " these settings, raise `run.cache_gb`, or lower `size`"
        )
    generator = np.random.default_rng(training.seed)
    parts: tuple[list[Rows], list[Rows], list[Rows]] = ([], [], [])
    for rows in class_rows:
        known = generator.permutation(np.intersect1d(rows, shards.held))
        if len(known) < MIN_PER_CLASS:
            raise UsageError(
                f"a sample of the images contains only {len(known)} images of a normal class, but {MIN_PER_CLASS} are"
                " needed; remove rare classes from `normal_classes`, or raise `run.cache_gb`"
            )
        # Less than half of the sample each, so that some of it is left to learn from.
        sizes = _sizes(len(rows), training.validation, training.calibration)
        validate, calibrate = (max(1, min(size, int(PART_OF_SAMPLE * len(known)))) for size in sizes)
        learnt, validated, calibrated = np.split(known, [-validate - calibrate, -calibrate])
        whole = not model.features and not model.patch
        parts[0].append(np.setdiff1d(rows, known[-validate - calibrate :]) if whole else learnt)
        parts[1].append(validated)
        parts[2].append(calibrated)
    split = Split(*(np.sort(np.concatenate(part)) for part in parts))
    return _at_most(split, FOLDED, training.seed) if model.features else split


def _folded(image_set: ImageSet, class_rows: list[Rows], folds: int, seed: int, groups: npt.ArrayLike | None) -> Split:
    """All images in every part, dealt at random into folds of like size that divide no group."""
    members = np.arange(len(image_set)) if groups is None else _group_numbers(image_set, groups, class_rows)
    rows = np.concatenate(class_rows)
    generator = np.random.default_rng(seed)
    shuffled = np.concatenate([generator.permutation(part) for part in class_rows])
    # The largest group comes first; groups of one size stay in their random order, class by class.
    sizes = np.bincount(members[rows])
    dealt = sorted(dict.fromkeys(members[shuffled].tolist()), key=lambda group: -int(sizes[group]))
    fold_of, filled = np.zeros(len(sizes), np.int64), np.zeros(min(folds, len(dealt)), np.int64)
    for group in dealt:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    rows = np.sort(rows)
    return Split(rows, rows, rows, fold_of[members[rows]])


def _at_most(split: Split, most: int, seed: int) -> Split:
    """The split with at most `most` images in each part, chosen at random."""
    generator = np.random.default_rng(seed)
    parts = (split.training, split.validation, split.calibration)
    fewer = Split(*(np.sort(generator.permutation(part)[:most]) for part in parts))
    return replace(fewer, training_only=split.training_only)


def split_normal(
    image_set: ImageSet,
    normal: tuple[int, ...],
    *,
    validation: float,
    calibration: float,
    seed: int,
    groups: npt.ArrayLike | None = None,
    training_only: npt.ArrayLike | None = None,
) -> Split:
    """Split the images of each normal class at random; images without labels are one class.

    `validation` and `calibration` are shares in (0, 1). Every class is in every part. With `groups` (N,), images of
    equal value stay together, and the shares are met as well as whole groups allow. Images of the mask `training_only`
    (N,) are trained on and nothing else, for they are no random sample of normal images.

    Raises
    ------
    UsageError
        There are fewer than 20 normal images, a class has fewer than 3 images or groups, or a group has images of two
        normal classes.
    """
    all_rows = _class_rows(image_set, normal)
    biased = np.zeros(len(image_set), bool) if training_only is None else np.asarray(training_only, bool)
    class_rows = [rows[~biased[rows]] for rows in all_rows]
    generator = np.random.default_rng(seed)
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    members = None if groups is None else _group_numbers(image_set, groups, class_rows)
    for rows in class_rows:
        shuffled = generator.permutation(rows)
        validate, calibrate = _sizes(len(rows), validation, calibration)
        if members is not None:
            shuffled, validate, calibrate = _by_group(shuffled, members[shuffled], validate, calibrate)
        for part, rows_of_part in zip(parts, np.split(shuffled, [-validate - calibrate, -calibrate]), strict=True):
            part.append(rows_of_part)
    outside = np.concatenate([rows[biased[rows]] for rows in all_rows])
    parts[0].append(outside)
    split = Split(*(np.sort(np.concatenate(part)) for part in parts))
    return split if training_only is None else replace(split, training_only=outside)


def _sizes(count: int, validation: float, calibration: float) -> tuple[int, int]:
    """The number of images of a class, of `count` in all, to stop the training and to calibrate."""
    validate, calibrate = (max(1, round(share * count)) for share in (validation, calibration))
    if (beyond := validate + calibrate - count + 1) > 0:  # a small class and large shares
        return (validate, calibrate - beyond) if calibrate > beyond else (count - 2, 1)
    return validate, calibrate


def _by_group(shuffled: Rows, groups: Rows, validate: int, calibrate: int) -> tuple[Rows, int, int]:
    """The rows ordered by part (training, validation, calibration), and the sizes of the last two parts.

    Each part takes whole groups in the order of `shuffled` while they fit, and the smallest group if none fits; at
    least one group is left for every other part.
    """
    sizes = np.bincount(groups)
    waiting = list(dict.fromkeys(groups.tolist()))
    parts = []
    for wanted, needed_later in ((calibrate, 2), (validate, 1)):
        taken: set[int] = set()
        left = wanted
        for group in waiting:
            if sizes[group] <= left and len(waiting) - len(taken) > needed_later:
                taken.add(group)
                left -= sizes[group]
        taken = taken or {min(waiting, key=lambda group: int(sizes[group]))}
        waiting = [group for group in waiting if group not in taken]
        parts.append(shuffled[np.isin(groups, list(taken))])
    rest = shuffled[np.isin(groups, waiting)]
    return np.concatenate([rest, parts[1], parts[0]]), len(parts[1]), len(parts[0])


def spread_out(count: int, most: int) -> Rows:
    """At most `most` of `count` positions, spread evenly, since rows are often sorted by class."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).astype(np.int64))


def _group_numbers(image_set: ImageSet, groups: npt.ArrayLike, class_rows: list[Rows]) -> Rows:
    """The number of each image's group; checks that whole groups can be split."""
    names = np.asarray(groups)
    if names.shape != (len(image_set),):
        raise UsageError(
            f"groups have shape {names.shape}, but there are {len(image_set)} images; give one group for each image"
        )
    numbers: Rows = np.unique(names, return_inverse=True)[1].astype(np.int64)
    seen: set[int] = set()
    for rows in class_rows:
        here = set(numbers[rows].tolist())
        if len(here) < MIN_PER_CLASS:
            raise UsageError(
                f"a normal class has {counted(len(here), 'group')} but needs {MIN_PER_CLASS}; use smaller groups"
            )
        if shared := seen & here:
            name = names[numbers == shared.pop()][0]
            raise UsageError(f"group {str(name)!r} has images of two normal classes; use groups within one class")
        seen |= here
    return numbers


def normal_numbers(image_set: ImageSet, normal_classes: str | int | Sequence[str | int] | None) -> tuple[int, ...]:
    """Numbers of the normal classes; by default all classes that have images, and none for images without labels.

    Raises
    ------
    UsageError
        A class is unknown, or classes are given for images without labels.
    """
    if image_set.labels is None:
        if normal_classes is not None:
            raise UsageError(
                f"`normal_classes` is set, but {image_set.name!r} has no classes; sort the images into class"
                " sub-folders"
            )
        return ()
    if normal_classes is None:
        return tuple(map(int, np.unique(image_set.labels)))
    return resolve_classes(normal_classes, image_set.class_names)


def class_targets(image_set: ImageSet, normal: tuple[int, ...]) -> Rows | None:
    """Class of each image counted among the normal classes only, −1 for the others; None without labels."""
    if image_set.labels is None:
        return None
    lookup = np.full(len(image_set.class_names), -1, dtype=np.int64)
    lookup[list(normal)] = np.arange(len(normal))
    targets: Rows = lookup[image_set.labels]
    return targets


def _class_rows(image_set: ImageSet, normal: tuple[int, ...]) -> list[Rows]:
    if image_set.labels is None:
        class_rows = [np.arange(len(image_set.images))]
    else:
        class_rows = [np.flatnonzero(image_set.labels == k) for k in normal]
    for k, rows in zip(normal, class_rows, strict=False):
        if len(rows) < MIN_PER_CLASS:
            present = ", ".join(image_set.class_names[i] for i in normal_numbers(image_set, None))
            raise UsageError(
                f"class {image_set.class_names[k]!r} of {image_set.name!r} has {counted(len(rows), 'image')}, but a"
                f" normal class needs {MIN_PER_CLASS}; remove it from `normal_classes` (classes with images:"
                f" {present})"
            )
    count = sum(map(len, class_rows))
    if count < MIN_NORMAL:
        raise UsageError(
            f"{image_set.name!r} has {count} normal images; fitting needs at least {MIN_NORMAL}, preferably hundreds"
        )
    return class_rows
