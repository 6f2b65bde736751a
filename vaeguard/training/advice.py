"""Advice on a fit from its training history: sentences that say what looks wrong and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaeguard.engines.record import ModelRecord

FALLING = 0.01
"""A validation loss that fell by more than this share over the last tenth of the epochs had not arrived."""
WORSENED = 0.02
"""A validation loss that ended higher than its best by more than this share, while training went on falling."""
FEW_ACTIVE = 0.25
"""The share of active latent units below which the latent is too large."""
COLLAPSED_RATE = 0.1
"""The rate in nats below which the latent says nothing."""
TRIAL_EPOCHS = 5
LEAST_CALIBRATION = 100
UNBALANCED = 5
"""The ratio of the training images of two normal classes from which the larger class outweighs the smaller one."""


def advice(record: ModelRecord, history: Sequence[Mapping[str, float]]) -> list[str]:
    """Sentences on what looks wrong with a fit and what to try, the gravest first; empty if nothing looks wrong.

    Parameters
    ----------
    record : ModelRecord
        The record of the model file.
    history : sequence of dict
        One row per epoch, as `history.csv` has it.
    """
    model, best = record.model, history[record.epoch - 1]
    sentences = [
        _over_fitting(best, history, pictures=model.view.pictures),
        _ended_early(record) or _stopped_early(history),
        _unbalanced(record),
        _few_calibration(record),
    ]
    if not model.autoencoder:
        latent = model.latent_size
        sentences.insert(0, collapse(best, latent, record.training.beta) or _few_active(best, latent))
    return [sentence for sentence in sentences if sentence]


def collapse(best: Mapping[str, float], latent: int, beta: float) -> str:
    """A sentence if the latent says nothing in the epoch whose row of history is `best`, else an empty string."""
    if best["valid_rate"] >= COLLAPSED_RATE and best["active_units"]:
        return ""
    return (
        f"posterior collapse: the KL divergence is {best['valid_rate']:.2g} nats and {best['active_units']:.0f} of"
        f" {latent} latent units are active, so the latent vector carries no information; lower training.beta (now"
        f" {beta:g}), or set training.kl_warmup to 10 or training.free_bits to 0.1"
    )


def _few_active(best: Mapping[str, float], latent: int) -> str:
    active = int(best["active_units"])
    if active >= FEW_ACTIVE * latent:
        return ""
    return (
        f"only {active} of {latent} latent units are active, and the others carry no information; set model.latent"
        f" to {max(2, 2 * active)}, or lower training.beta to activate more of them"
    )


def _over_fitting(best: Mapping[str, float], history: Sequence[Mapping[str, float]], *, pictures: bool) -> str:
    last = history[-1]
    worse = last["valid_loss"] - best["valid_loss"]
    if last["loss"] >= best["loss"] or worse <= WORSENED * abs(best["valid_loss"]):
        return ""
    more = "add images, set training.augment_shift to 2," if pictures else "add rows"
    return (
        f"over-fitting: after epoch {best['epoch']:.0f} the training loss kept falling while the validation loss rose"
        f" by {worse:.3g} nats. The weights of epoch {best['epoch']:.0f} are kept; {more} or lower model.latent"
    )


def _ended_early(record: ModelRecord) -> str:
    """A sentence if somebody ended the training before its last epoch and before it stopped by itself."""
    training, finished = record.training, record.finished_epochs
    unimproved = finished - max(record.epoch - 1, training.kl_warmup)
    if training.epochs is None or finished >= training.epochs or unimproved > training.patience:
        return ""
    return f"the fit was stopped after {finished} of {training.epochs} epochs; to train the model in full, fit again"


def _stopped_early(history: Sequence[Mapping[str, float]]) -> str:
    if len(history) < TRIAL_EPOCHS:
        return (
            f"the fit is a trial of only {counted(len(history), 'epoch')}; for a full fit, leave training.epochs unset"
        )
    before = history[-1 - max(1, len(history) // 10)]["valid_loss"]
    fell = before - history[-1]["valid_loss"]
    if fell <= FALLING * abs(before):
        return ""
    return (
        f"stopped too early: over the last tenth of the epochs the validation loss still fell by {fell:.3g} nats; set"
        f" training.epochs to {2 * len(history)}"
    )


def _unbalanced(record: ModelRecord) -> str:
    by_size = sorted(record.classes, key=lambda row: row.training)
    if not by_size or record.training.balance or by_size[-1].training < UNBALANCED * by_size[0].training:
        return ""
    least, most = by_size[0], by_size[-1]
    return (
        f"unbalanced classes: {most.name} has {most.training} training images and {least.name} has"
        f" {least.training}; if both are normal and equally important, set training.balance, which samples"
        " every class equally often; if one of them is a defect, remove it from the normal classes"
    )


def _few_calibration(record: ModelRecord) -> str:
    images = record.calibration.images
    if images >= LEAST_CALIBRATION or record.data.split.folds:  # all images calibrate a model of folds
        return ""
    return (
        f"the score is calibrated on only {images} normal images, so p-values come in steps of {1 / (images + 1):.2g};"
        " add normal images or raise training.calibration for finer steps"
    )
