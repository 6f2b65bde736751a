"""False alarms at a stated rate, and two intervals that compare the realised rate with the stated one.

- *Realised*: the exact interval of Clopper and Pearson (1934) for the rate of this detector. If the stated rate lies in
  it, the test images give no reason to doubt that this detector keeps the stated rate.
- *Expected*: the realised rates that a split-conformal threshold gives on fresh images if normal images are
  exchangeable (Vovk, 2012; Angelopoulos and Bates, 2021, section 3.2). The threshold comes from n held-out images, so
  the rate varies as Beta(k, n + 1 - k) with k = floor(rate * (n + 1)), and the count as a beta-binomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.statistics.metrics import CONFIDENCE, share_of
from vaeguard.wording import counted

if TYPE_CHECKING:
    import numpy.typing as npt

FPRS = (0.01, 0.05, 0.1)
MOST_IMAGES = 2**20
"""The interval of more images is that of so many, since then only the threshold contributes to its width."""


def flag(p_value: npt.NDArray[np.floating], fpr: float) -> npt.NDArray[np.bool_]:
    """Return whether `p_value <= fpr`, compared in the precision of `p_value`.

    A float32 p-value of exactly one in twenty is above the Python number 0.05, but must be flagged at that rate.
    """
    flagged: npt.NDArray[np.bool_] = p_value <= p_value.dtype.type(fpr)
    return flagged


def can_flag(calibration: int, fpr: float) -> bool:
    """Whether anything can be flagged at `fpr`: n calibration images give no p-value below 1/(n + 1)."""
    return bool(flag(np.array([1 / (calibration + 1)], np.float32), fpr).all())


def fewest_calibration(fpr: float) -> int:
    """The fewest calibration images with which anything can be flagged at `fpr`."""
    return math.ceil((1 - 1e-9) / fpr) - 1  # 1 / fpr could round to above a whole number


def lowest_fpr(calibration: int) -> float:
    """The lowest rate, to two digits, at which anything can be flagged with so many calibration images."""
    lowest = 1 / (calibration + 1)
    digits = 1 - math.floor(math.log10(lowest))
    return round(math.ceil(lowest * 10.0**digits - 1e-6) / 10.0**digits, digits)


def way_to_flag(calibration: int) -> str:
    """What to do if nothing can be flagged."""
    lowest = f"{lowest_fpr(calibration):g}"
    return (
        f"raise the false-alarm rate to {lowest}, fit with more images, or, if the fit has no folds, hold out a larger"
        " share of them for calibration (training.calibration)"
    )


def fpr_note(images: int | None, fpr: float) -> str | None:
    """Why nothing can be flagged at `fpr` by a model calibrated on so many images, or None."""
    if images is None or can_flag(images, fpr):
        return None
    return (
        f"no image can be flagged at a false-alarm rate of {fpr:g}: the model was calibrated on"
        f" {counted(images, 'normal image')}, so the lowest possible p-value is {1 / (images + 1):.2g}; this rate needs"
        f" {fewest_calibration(fpr):,} calibration images; {way_to_flag(images)}"
    )


@dataclass(frozen=True)
class FalseAlarms:
    """False alarms on normal test images at one stated rate.

    Attributes
    ----------
    fpr : float
        The stated rate; images are flagged where `p_value <= fpr`.
    count, images : int
        Number of flagged and of all normal test images.
    calibration : int
        Number of held-out normal images that rank the score.
    low, high : float
        95% interval of the realised rate (Clopper-Pearson).
    expected_low, expected_high : float
        Interval that holds the realised rate of exchangeable images with 95% probability (beta-binomial).
    """

    fpr: float
    count: int
    images: int
    calibration: int
    low: float
    high: float
    expected_low: float
    expected_high: float

    @property
    def value(self) -> float:
        """The realised rate."""
        return self.count / self.images

    @property
    def stated_inside(self) -> bool:
        """Whether the stated rate lies in the interval of the realised rate."""
        return self.low <= self.fpr <= self.high

    @property
    def as_expected(self) -> bool:
        """Whether the realised rate is one that exchangeable images give."""
        return self.expected_low <= self.value <= self.expected_high


def false_alarms(p_values: npt.NDArray[np.floating], calibration: int, fpr: float) -> FalseAlarms:
    """False alarms from the p-values (N,) of normal test images."""
    return from_count(int(np.count_nonzero(flag(p_values, fpr))), len(p_values), calibration, fpr)


def from_count(count: int, images: int, calibration: int, fpr: float) -> FalseAlarms:
    """False alarms from the counts of flagged and of all normal test images."""
    realised = share_of(count, images)
    low, high = expected_interval(images, calibration, fpr)
    return FalseAlarms(fpr, count, images, calibration, realised.low, realised.high, low, high)


def expected_interval(images: int, calibration: int, fpr: float) -> tuple[float, float]:
    """Central 95% interval of the realised rate on `images` fresh normal images with a split-conformal threshold.

    Both ends are 0 if no p-value can be as low as `fpr` with so many calibration images.
    """
    # Without the margin, a product such as 0.05 * 20 could round to below 1.
    k = math.floor(fpr * (calibration + 1) * (1 + 1e-6))
    if k == 0:
        return 0.0, 0.0
    images = min(images, MOST_IMAGES)
    at_most = np.cumsum(_beta_binomial(images, k, calibration + 1 - k))
    low, high = np.searchsorted(at_most, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) / images
    return float(low), float(high)


def _beta_binomial(n: int, a: int, b: int) -> npt.NDArray[np.float64]:
    """Probabilities of 0 to n hits in n trials if the rate varies as Beta(a, b)."""
    from scipy.special import betaln  # much lighter than scipy.stats

    hits = np.arange(n + 1)
    log_binomial = -np.log(n + 1) - betaln(hits + 1, n - hits + 1)
    probabilities: npt.NDArray[np.float64] = np.exp(log_binomial + betaln(hits + a, n - hits + b) - betaln(a, b))
    return probabilities
