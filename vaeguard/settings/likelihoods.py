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
    "the bounds include noise of one grey level, but the model was fitted without this noise, so the bounds are"
    " higher than necessary; set model.likelihood to continuous-bernoulli and fit again"
)

LIKELIHOOD_FACTS = {
    "bernoulli": LikelihoodFacts(
        "binary cross-entropy, a true likelihood only of pixels that are either black or white",
        "binary",
        "the bounds are for pixels randomly set to black or white, but the model was fitted on grey pixels,"
        " whose cross-entropy is not a likelihood; set training.binarise to true or, to keep grey pixels, set"
        " model.likelihood to continuous-bernoulli, and fit again",
    ),
    "continuous-bernoulli": LikelihoodFacts("the same, normalised for grey values", "unit"),
    "gaussian": LikelihoodFacts("a Gaussian whose standard deviation, sigma, is fixed", "real", _NO_NOISE),
    "gaussian-image": LikelihoodFacts("sigma is learned for each image", "real", _NO_NOISE),
    "gaussian-pixel": LikelihoodFacts("sigma is learned for each pixel", "real", _NO_NOISE),
}
