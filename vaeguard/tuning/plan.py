"""The plan of a search: the parts of the normal images, and the settings to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import MIN_NORMAL, MIN_PER_CLASS, Split, normal_numbers, split_normal
from vaeguard.errors import UsageError
from vaeguard.settings.choice import with_features
from vaeguard.settings.specs import to_dict, without_places
from vaeguard.training.plan import epochs_of
from vaeguard.tuning.pseudo_anomalies import pseudo_anomaly_kinds
from vaeguard.tuning.search_space import search_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.split import Rows
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec
    from vaeguard.tuning.search_space import SearchSpace

METHOD = 1
"""Version of the objective, raised when trials measured before and after a change cannot be compared."""
HELD_OUT = 0.2
"""Share of the normal images in each of two parts: the images that judge the trials, and those of the comparison."""
MOST_IMAGES = 2000
"""The most images in each of these two parts."""
MOST_BYTES = 2**28
"""The most bytes of pixels in each of these two parts."""
LEAST_NORMAL = 2 * MIN_NORMAL
"""The fewest normal images of a search: it leaves at least half of them to a fit, which needs `MIN_NORMAL`."""
LEAST_PER_CLASS = MIN_PER_CLASS + 2
"""The fewest images of a normal class: a search leaves all but two of so few to a fit, which needs `MIN_PER_CLASS`."""


@dataclass(frozen=True)
class SearchPlan:
    """The settings that are searched, and the images on which they are judged.

    Attributes
    ----------
    image_set : ImageSet
        The data.
    fitted, judging, compared : array of int
        Row numbers of the normal images for fitting the trials, for judging the trials, and for the final comparison.
    fitted_set : ImageSet
        The images for fitting, which each trial divides once more.
    normal_classes, groups
        As for `fit`; the groups are those of the images for fitting.
    space : SearchSpace
        The settings that are searched.
    final_epochs : int
        The most epochs of a fit on all normal images.
    """

    image_set: ImageSet
    fitted: Rows
    judging: Rows
    compared: Rows
    fitted_set: ImageSet
    normal_classes: str | int | Sequence[str | int] | None
    groups: npt.NDArray[Any] | None
    space: SearchSpace
    final_epochs: int

    @property
    def seed(self) -> int:
        """Seed of the split, of the pseudo-anomalies and of every trial's fit."""
        return self.space.training.seed

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of pseudo-anomaly."""
        return pseudo_anomaly_kinds(self.image_set.images)


def make_plan(
    image_set: ImageSet,
    groups: npt.ArrayLike | None,
    normal_classes: str | int | Sequence[str | int] | None,
    model: ModelSpec,
    training: TrainSpec,
) -> SearchPlan:
    """Divide the normal images and choose the settings to search; the arguments are those of `tune`."""
    normal = normal_numbers(image_set, normal_classes)
    count = _count_normal(image_set, normal)
    most_images = min(MOST_IMAGES, MOST_BYTES // image_set.images[:1].nbytes)
    share = min(HELD_OUT, most_images / max(1, count))
    split = split_normal(image_set, normal, validation=share, calibration=share, seed=training.seed, groups=groups)
    fitted_set = image_set.select(split.training)
    fitted_groups = None if groups is None else np.asarray(groups)[split.training]
    channels, height, width = image_set.images.shape[1:]
    names = tuple(image_set.class_names[k] for k in normal)
    # Settings that are tried must not turn a model of features into one of pixels.
    model = with_features(model, training, (channels, height, width), vectors=image_set.vectors)
    resolved = model.resolved((channels, height, width), names, vectors=image_set.vectors)
    # A fit divides its images once more. A trial gets one part of the normal images; the last fit gets all of them.
    epochs, final_epochs = (
        _epochs(images, normal, resolved, training.sized(resolved.view), image_groups)
        for images, image_groups in ((fitted_set, fitted_groups), (image_set, groups))
    )
    space = search_space(model, training, resolved, epochs)
    return SearchPlan(
        image_set,
        fitted=split.training,
        judging=split.validation,
        compared=split.calibration,
        fitted_set=fitted_set,
        normal_classes=normal_classes,
        groups=fitted_groups,
        space=space,
        final_epochs=final_epochs,
    )


def _count_normal(image_set: ImageSet, normal: Sequence[int]) -> int:
    """The number of normal images, after a check that the part for fitting is large enough."""
    if image_set.labels is None:
        count = len(image_set)
    else:
        sizes = {image_set.class_names[k]: int((image_set.labels == k).sum()) for k in normal}
        count = sum(sizes.values())
        for name, size in sizes.items():
            if size < LEAST_PER_CLASS:
                raise UsageError(
                    f"class {name!r} of {image_set.name!r} has {size} images, but a search needs {LEAST_PER_CLASS} of"
                    " each normal class; remove this class from `normal_classes`"
                )
    if count < LEAST_NORMAL:
        raise UsageError(
            f"{image_set.name!r} has {count} normal images, but a search needs at least {LEAST_NORMAL}, preferably"
            " hundreds; add more, or fit without a search"
        )
    return count


def _epochs(
    image_set: ImageSet,
    normal: tuple[int, ...],
    model: ModelSpec,
    training: TrainSpec,
    groups: npt.ArrayLike | None,
) -> int:
    """The most epochs of a fit on the normal images of a set."""
    shares = {"validation": training.validation, "calibration": training.calibration}
    split = split_normal(image_set, normal, **shares, seed=training.seed, groups=groups)
    return epochs_of(model, training, len(split.training))


def fingerprint_of(plan: SearchPlan) -> dict[str, Any]:
    """What must be the same for a search to be resumed; a refusal names the keys whose values differ."""
    from optuna.distributions import distribution_to_json

    split = Split(plan.fitted, plan.judging, plan.compared)
    ranges = {name: distribution_to_json(distribution) for name, distribution in plan.space.ranges.items()}
    return {
        "data, normal classes or seed": [plan.image_set.fingerprint, split.digest()],
        "model settings": to_dict(plan.space.model),
        "training settings": without_places(to_dict(plan.space.training)),
        "version of the search": [METHOD, ranges],
    }
