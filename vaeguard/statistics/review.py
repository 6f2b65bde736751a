"""What a review of some images of a batch says of the whole batch: false alarms, and the share of defects caught."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vaeguard.statistics.metrics import CONFIDENCE, Share, share_of

PARTS = 3
"""The interval joins three: of the flagged images, of the others, and of the rate itself."""


@dataclass(frozen=True)
class Reviewed:
    """Images that were drawn from a part of a batch, the flagged images or the others, and reviewed.

    Attributes
    ----------
    normal, defect : int
        So many were found to be normal or to have a defect.
    batch : int
        The number of images in this part of the batch.
    """

    normal: int
    defect: int
    batch: int


def false_alarm_rate(flagged: Reviewed, passed: Reviewed) -> Share | None:
    """The share of normal images that were flagged; None if a part of the batch was not reviewed."""
    return _share(_kind(flagged, flagged.normal), _kind(passed, passed.normal))


def caught_share(flagged: Reviewed, passed: Reviewed) -> Share | None:
    """The share of images with a defect that were flagged; None if a part of the batch was not reviewed."""
    return _share(_kind(flagged, flagged.defect), _kind(passed, passed.defect))


def _kind(part: Reviewed, count: int) -> tuple[float, float, float] | None:
    """How many images of a kind a part of the batch has, of which `count` were reviewed: estimate, low and high."""
    seen = part.normal + part.defect
    if seen >= part.batch:
        return count, count, count
    if not seen:
        return None
    share = share_of(count, seen, 1 - (1 - CONFIDENCE) / PARTS)
    # Those that were reviewed are known.
    rest = part.batch - seen
    return count + rest * share.value, count + rest * share.low, count + rest * share.high


def _share(flagged: tuple[float, float, float] | None, passed: tuple[float, float, float] | None) -> Share | None:
    """The share of the flagged among the images of a kind, with an interval of at least 95 %.

    Each of the three uncertainties has a Clopper-Pearson interval with a third of the chance of error.
    """
    if flagged is None or passed is None or not flagged[0] + passed[0]:
        return None
    confidence = 1 - (1 - CONFIDENCE) / PARTS
    least, most = math.floor(flagged[1]), math.ceil(flagged[2])
    low = share_of(least, least + math.ceil(passed[2]), confidence).low
    high = share_of(most, most + math.floor(passed[1]), confidence).high
    return Share(flagged[0] / (flagged[0] + passed[0]), low, high, round(flagged[0]), round(flagged[0] + passed[0]))
