"""What a stated false-alarm rate flags, and whether it is the one that came: two intervals, and which answers what.

- *Realised*: the exact interval of Clopper and Pearson (1934) for the rate that this detector has on the test images.
  The stated rate lies in it where the test images give no reason to doubt that this very detector keeps it.
- *Expected*: how many false alarms a split-conformal threshold gives on fresh images if normal images are exchangeable
  (Vovk, 2012; Angelopoulos and Bates, 2021, section 3.2). The threshold comes from n held-out images, so the rate
  itself varies as Beta(k, n + 1 - k) with k = floor(rate * (n + 1)), and the count as a beta-binomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.statistics.metrics import CONFIDENCE, share_of

if TYPE_CHECKING:
    import numpy.typing as npt

FPRS = (0.01, 0.05, 0.1)
COUNTED = 2**20
"""Of more images the threshold alone leaves the doubt, so the interval is that of so many."""


def flag(p_value: npt.NDArray[np.floating], fpr: float) -> npt.NDArray[np.bool_]:
    """Return where `p_value <= fpr`, compared in the precision of `p_value`.

    A float32 p-value of exactly one in twenty lies above the Python number 0.05, but must be flagged at that rate.
    """
    flagged: npt.NDArray[np.bool_] = p_value <= p_value.dtype.type(fpr)
    return flagged


def can_flag(calibration: int, fpr: float) -> bool:
    """Whether anything can be flagged at `fpr`: n calibration images give no p-value below 1/(n + 1)."""
    return bool(flag(np.array([1 / (calibration + 1)], np.float32), fpr).all())


def fewest_calibration(fpr: float) -> int:
    """So many calibration images are needed to flag anything at `fpr`."""
    return math.ceil((1 - 1e-9) / fpr) - 1  # 1 / fpr could round to above a whole number


def lowest_fpr(calibration: int) -> float:
    """The lowest rate of two digits at which so many calibration images let something be flagged."""
    lowest = 1 / (calibration + 1)
    digits = 1 - math.floor(math.log10(lowest))
    return round(math.ceil(lowest * 10.0**digits - 1e-6) / 10.0**digits, digits)


def way_to_flag(calibration: int) -> str:
    """What to do where nothing can be flagged."""
    lowest = f"{lowest_fpr(calibration):g}"
    return f"raise the false-alarm rate to {lowest}, or fit with more images or a larger training.calibration"


def fpr_note(images: int | None, fpr: float) -> str | None:
    """Why nothing can be flagged at `fpr` by a model calibrated on so many images, or None."""
    if images is None or can_flag(images, fpr):
        return None
    return (
        f"nothing can be flagged at a false-alarm rate of {fpr:g}: the model was calibrated on {images} normal images,"
        f" so its smallest p-value is {1 / (images + 1):.2g}, and it takes {fewest_calibration(fpr):,} of them;"
        f" {way_to_flag(images)}"
    )


@dataclass(frozen=True)
class FalseAlarms:
    """False alarms on normal test images at one stated rate.

    Attributes
    ----------
    fpr : float
        The stated rate; images are flagged where `p_value <= fpr`.
    count, images : int
        Flagged and all normal test images.
    calibration : int
        Held-out normal images that rank the score.
    low, high : float
        95% interval of the realised rate (Clopper-Pearson).
    expected_low, expected_high : float
        Where the realised rate lies with 95% probability for exchangeable images (beta-binomial).
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
        """Whether the stated rate lies in the interval of the realised one."""
        return self.low <= self.fpr <= self.high

    @property
    def as_expected(self) -> bool:
        """Whether the realised rate lies where exchangeable images put it."""
        return self.expected_low <= self.value <= self.expected_high


def false_alarms(p_values: npt.NDArray[np.floating], calibration: int, fpr: float) -> FalseAlarms:
    """Count the flagged among the normal test images, whose p-values are given, shape (N,)."""
    return from_count(int(np.count_nonzero(flag(p_values, fpr))), len(p_values), calibration, fpr)


def from_count(count: int, images: int, calibration: int, fpr: float) -> FalseAlarms:
    """The same from counts."""
    realised = share_of(count, images)
    low, high = expected_interval(images, calibration, fpr)
    return FalseAlarms(fpr, count, images, calibration, realised.low, realised.high, low, high)


def expected_interval(images: int, calibration: int, fpr: float) -> tuple[float, float]:
    """Central 95% of the realised rate on `images` fresh normal images, the threshold being a split-conformal one.

    Both are 0 where n calibration images give no p-value as low as `fpr`.
    """
    # The p-value is compared as float32; without the margin 0.05 * 20 could round to below 1.
    k = math.floor(fpr * (calibration + 1) * (1 + 1e-6))
    if k == 0:
        return 0.0, 0.0
    images = min(images, COUNTED)
    at_most = np.cumsum(_beta_binomial(images, k, calibration + 1 - k))
    low, high = np.searchsorted(at_most, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) / images
    return float(low), float(high)


def _beta_binomial(n: int, a: int, b: int) -> npt.NDArray[np.float64]:
    """Probability of 0 to n hits of n where the rate itself varies as Beta(a, b)."""
    from scipy.special import betaln  # much lighter than scipy.stats

    hits = np.arange(n + 1)
    orders = -np.log(n + 1) - betaln(hits + 1, n - hits + 1)
    chances: npt.NDArray[np.float64] = np.exp(orders + betaln(hits + a, n - hits + b) - betaln(a, b))
    return chances
