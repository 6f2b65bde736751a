"""What a search looks at: how the normal images are divided, and which settings are searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import MIN_NORMAL, MIN_PER_CLASS, Split, normal_numbers, split_normal
from vaeguard.errors import UsageError
from vaeguard.settings.specs import to_dict, without_places
from vaeguard.training.fitting import epochs_of
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
"""Raised when the objective is measured otherwise, so that trials do not compare."""
HELD_OUT, MOST_IMAGES, MOST_BYTES = 0.2, 2000, 2**28
"""Share of the normal images that judges the trials, and of those for the end; at most so many of each."""
LEAST_NORMAL, LEAST_PER_CLASS = 2 * MIN_NORMAL, MIN_PER_CLASS + 2
"""Of so many at least half, and of so few in a class all but two, are left to fit on, which is what `fit` needs."""


@dataclass(frozen=True)
class SearchPlan:
    """What is searched, and on what.

    Attributes
    ----------
    image_set : ImageSet
        The data.
    fitted, judging, compared : array of int
        Row numbers of the normal images that trials are fitted on, that judge them, and of the comparison at the end.
    fitted_set : ImageSet
        The fitted images, which each trial divides once more.
    normal_classes, groups
        As for `fit`; the groups are those of the fitted images.
    space : SearchSpace
        The settings.
    final_epochs : int
        How many epochs a fit on all normal images has at most.
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
    """Divide the normal images and lay out what is searched; the arguments are those of `tune`."""
    normal = normal_numbers(image_set, normal_classes)
    count = _count_normal(image_set, normal)
    most = min(MOST_IMAGES, MOST_BYTES // image_set.images[:1].nbytes)
    share = min(HELD_OUT, most / max(1, count))
    split = split_normal(image_set, normal, validation=share, calibration=share, seed=training.seed, groups=groups)
    fitted_set = image_set.select(split.training)
    members = None if groups is None else np.asarray(groups)[split.training]
    channels, height, width = image_set.images.shape[1:]
    names = tuple(image_set.class_names[k] for k in normal)
    resolved = model.resolved((channels, height, width), names, vectors=image_set.vectors)
    # Both divide their images once more: a trial those that it is fitted on, a fit with the best settings all of them.
    epochs, final_epochs = (
        _epochs(each, normal, resolved, training, its_groups)
        for each, its_groups in ((fitted_set, members), (image_set, groups))
    )
    space = search_space(model, training, resolved, epochs)
    return SearchPlan(
        image_set,
        fitted=split.training,
        judging=split.validation,
        compared=split.calibration,
        fitted_set=fitted_set,
        normal_classes=normal_classes,
        groups=members,
        space=space,
        final_epochs=final_epochs,
    )


def _count_normal(image_set: ImageSet, normal: Sequence[int]) -> int:
    """How many normal images there are, after checking that a part of them is enough for a fit."""
    if image_set.labels is None:
        count = len(image_set)
    else:
        sizes = {image_set.class_names[k]: int((image_set.labels == k).sum()) for k in normal}
        count = sum(sizes.values())
        for name, size in sizes.items():
            if size < LEAST_PER_CLASS:
                raise UsageError(
                    f"class {name!r} of {image_set.name!r} has {size} images, and a search needs {LEAST_PER_CLASS} of"
                    " each normal class; leave it out of `normal_classes`"
                )
    if count < LEAST_NORMAL:
        raise UsageError(
            f"{image_set.name!r} has {count} normal images, and a search, which holds two parts of them out, needs at"
            f" least {LEAST_NORMAL}, better hundreds; give more, or fit without a search"
        )
    return count


def _epochs(
    image_set: ImageSet,
    normal: tuple[int, ...],
    model: ModelSpec,
    training: TrainSpec,
    groups: npt.ArrayLike | None,
) -> int:
    """How many epochs a fit on the normal images of a set has at most."""
    shares = {"validation": training.validation, "calibration": training.calibration}
    split = split_normal(image_set, normal, **shares, seed=training.seed, groups=groups)
    return epochs_of(model, training, len(split.training))


def fingerprint_of(plan: SearchPlan) -> dict[str, Any]:
    """What a search that goes on must agree with; the keys are the words of the refusal."""
    from optuna.distributions import distribution_to_json

    split = Split(plan.fitted, plan.judging, plan.compared)
    ranges = {name: distribution_to_json(each) for name, each in plan.space.ranges.items()}
    return {
        "data, normal classes or seed": [plan.image_set.fingerprint, split.digest()],
        "model settings": to_dict(plan.space.model),
        "training settings": without_places(to_dict(plan.space.training)),
        "version of the search": [METHOD, ranges],
    }
