"""The likelihoods by name, as far as settings and reports need them; `models.likelihoods` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LikelihoodFacts:
    """What is known of a likelihood without torch.

    Attributes
    ----------
    about : str
        What it is, for the help of the setting.
    support : str
        `binary`: pixels that are 0 or 1, `unit`: the 256 grey levels spread over 0 to 1, `real`: any number.
    other_pixels : str
        What to beware of where a model was fitted on other pixels than a bound of its likelihood is of; empty where
        it is fitted on the same ones.
    """

    about: str
    support: Literal["binary", "unit", "real"]
    other_pixels: str = ""


_NO_NOISE = (
    "the model was fitted on grey levels without the noise of one level that the bounds are of, so it needs"
    " more bits than it would with that noise; set model.likelihood to continuous-bernoulli and fit again"
)

LIKELIHOOD_FACTS = {
    "bernoulli": LikelihoodFacts(
        "a true likelihood of black and white only",
        "binary",
        "the model was fitted with the cross-entropy of grey pixels, which is no likelihood; the bounds are of"
        " pixels drawn black or white, which it never saw; set training.binarise, or for grey pixels model.likelihood"
        " to continuous-bernoulli, and fit again",
    ),
    "continuous-bernoulli": LikelihoodFacts("one of grey values", "unit"),
    "gaussian": LikelihoodFacts("of a fixed sigma", "real", _NO_NOISE),
    "gaussian-image": LikelihoodFacts("learns a sigma for each image", "real", _NO_NOISE),
    "gaussian-pixel": LikelihoodFacts("learns a sigma for each pixel", "real", _NO_NOISE),
}
