"""What to try if an evaluation shows that a model tells anomalies poorly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaeguard.settings.choice import DEFAULT_FEATURES, PHOTO_SIDE, is_photograph

if TYPE_CHECKING:
    from vaeguard.engines.record import ModelRecord
    from vaeguard.statistics.metrics import Metrics, Share

WEAK_AREA = 0.8
"""A lower ROC-AUC is weak."""
WEAK_SHARE = 0.5
"""So is a smaller share of anomalies that is caught."""
MANY_IMAGES = 300
"""With fewer normal images, more of them mostly help."""
FINE = 640
"""The longest side in pixels from which images are large enough for most defects."""
LARGER_NETWORK = "wide_resnet50_2"


def next_steps(record: ModelRecord, score: Metrics, caught: Share) -> tuple[str, ...]:
    """What to try next, by parameters of `fit`, the most promising first; empty if the score tells anomalies well.

    Parameters
    ----------
    record : ModelRecord
        What the model file says about the fit.
    score : Metrics
        The metrics of the combined score.
    caught : Share
        The share of the anomalous images that is flagged.
    """
    if score.roc_auc >= WEAK_AREA and caught.value >= WEAK_SHARE:
        return ()
    steps = [*_for_images(record)] if record.model.view.pictures else []
    split = record.data.split
    learned = split.training + (0 if split.folds else split.validation)
    if learned < MANY_IMAGES:
        rows = "images" if record.model.view.pictures else "rows"
        steps.append(f"more normal {rows} of every kind: the fit learned from only {learned}")
    return tuple(steps)


def _for_images(record: ModelRecord) -> list[str]:
    model = record.model
    _, height, width = model.shape
    larger = f"`size={2 * height}x{2 * width}`"
    if not model.features:
        whole = is_photograph(height, width)
        size = "" if whole else f" and a `size` of at least {PHOTO_SIDE}x{PHOTO_SIDE}, if the files are larger"
        return [f"the features of a network instead of pixels: fit with `features={DEFAULT_FEATURES}`{size}"]
    steps = []
    if max(height, width) < FINE:
        steps.append(f"more pixels, if the files are larger than {height}x{width}: fit with {larger}")
    if model.features == DEFAULT_FEATURES:
        steps.append(f"a larger network: fit with `features={LARGER_NETWORK}` and `download=True`")
    steps.append("only the part that matters: fit with `roi` and a mask, if the background changes")
    return steps
