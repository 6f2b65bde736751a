"""The figures of a fit for each of its normal classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.engines.record import ClassRecord
from vaeguard.settings.evaluation import DEFAULT_FPR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.training.vae_task import Examples


def class_table(
    names: Sequence[str],
    targets: npt.NDArray[np.int64],
    examples: tuple[Examples, Examples],
    losses: Mapping[str, npt.NDArray[np.float64]],
    calibration: npt.NDArray[np.int64],
    p_values: npt.NDArray[np.float64],
    *,
    balance: bool,
) -> tuple[ClassRecord, ...]:
    """One row for each normal class: its numbers of images, its validation losses, and its share of false alarms.

    A figure is None if the class has no images to measure it on.

    Parameters
    ----------
    names : sequence of str
        The normal classes.
    targets : int64 (N,)
        The class of each image of the data set.
    examples : (Examples, Examples)
        The training and the validation examples.
    losses : dict of float64 (rows,)
        The losses of the validation examples, as `vae_task.validation_losses` returns them.
    calibration : int64 (n,)
        The rows of the calibration images.
    p_values : float64 (n,)
        The p-value of each calibration image among the n - 1 others.
    balance : bool
        Whether the classes were drawn equally often.
    """
    learn, validate = examples
    flagged = np.round(p_values, 9) <= DEFAULT_FPR
    table = []
    for number, name in enumerate(names):
        trained, held_out, ranked = (targets[rows] == number for rows in (learn.sources, validate.sources, calibration))
        means = {loss: _mean(values[held_out]) for loss, values in losses.items()}
        # A model of patches or features sees an image many times.
        images, validated = (len(np.unique(rows)) for rows in (learn.sources[trained], validate.sources[held_out]))
        table.append(
            ClassRecord(
                name=name,
                training=images,
                draws=round(len(learn) / len(names)) if balance else int(trained.sum()),
                validation=validated,
                distortion=means["distortion"],
                rate=means["rate"],
                class_accuracy=means.get("class_accuracy"),
                neg_elbo=_mean((losses["distortion"] + losses["rate"])[held_out]),
                calibration=int(ranked.sum()),
                flagged=_mean(flagged[ranked]),
            )
        )
    return tuple(table)


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
