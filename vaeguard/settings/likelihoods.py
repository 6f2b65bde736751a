"""Facts about the likelihoods for settings and reports; `models.likelihoods` computes the likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LikelihoodFacts:
    """Facts about a likelihood, without torch.

    Attributes
    ----------
    about : str
        Description in the help of the setting.
    support : str
        `binary`: pixels that are 0 or 1; `unit`: 256 grey levels spread over 0 to 1; `real`: any number.
    other_pixels : str
        A caution if a fit and the bounds treat pixels differently; empty if they treat pixels alike.
    """

    about: str
    support: Literal["binary", "unit", "real"]
    other_pixels: str = ""


_NO_NOISE = (
    "the bounds include noise of one grey level, but the model was fitted without it, so it needs more"
    " bits than necessary; set model.likelihood to continuous-bernoulli and fit again"
)

LIKELIHOOD_FACTS = {
    "bernoulli": LikelihoodFacts(
        "for black and white pixels only",
        "binary",
        "the bounds are for pixels randomly set to black or white, but the model was fitted on grey pixels,"
        " whose cross-entropy is not a likelihood; set training.binarise or, for grey pixels, set"
        " model.likelihood to continuous-bernoulli, and fit again",
    ),
    "continuous-bernoulli": LikelihoodFacts("for grey values", "unit"),
    "gaussian": LikelihoodFacts("a fixed sigma", "real", _NO_NOISE),
    "gaussian-image": LikelihoodFacts("a learned sigma per image", "real", _NO_NOISE),
    "gaussian-pixel": LikelihoodFacts("a learned sigma per pixel", "real", _NO_NOISE),
}
