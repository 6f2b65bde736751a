"""The settings that `tune` searches, and their ranges."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS
from vaeguard.settings.model import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from vaeguard.settings.training import TrainSpec

DEFAULT_TRIALS = 50
LATENT = (4, 256)
"""Sizes of the latent. Like every range that begins above 0, this one is drawn on a logarithmic scale."""
HIDDEN = ("128", "400", "400,400", "800,400", "400,200,100")
WIDTH = (8, 64)
BETA = (0.1, 10.0)
LEARNING_RATE = (1e-4, 1e-2)
WARMUP = 0.25
"""Longest warm-up of the KL term, as a share of the epochs."""
DIGITS = 3
"""Significant digits to which drawn numbers are rounded; more digits would suggest an exactness that is not there."""

Settings = dict[str, Any]
"""Values of the searched settings by name; `hidden` is text such as `400,400`, as on the command line."""


@dataclass(frozen=True)
class SearchSpace:
    """The settings that are searched for a model and its training.

    Attributes
    ----------
    model, training : specs
        The settings at the start of the search.
    base : dict
        The values of the searched settings at the start.
    ranges : dict
        The values between which the search chooses.
    epochs : int
        The most epochs of a trial.
    """

    model: ModelSpec
    training: TrainSpec
    base: Settings
    ranges: dict[str, BaseDistribution]
    epochs: int

    def settings(self, params: Mapping[str, Any]) -> Settings:
        """The settings for the sampler's `params`: rounded, except for values that equal those of `base`."""
        return {name: value if value == self.base[name] else _rounded(value) for name, value in params.items()}

    def specs(self, settings: Settings, epochs: int | None = None) -> tuple[ModelSpec, TrainSpec]:
        """The model and training specs with `settings`; a setting with its value in `base` stays as it was given.

        If a fit has another number of `epochs` than a trial, the warm-up is scaled to keep its share of them.
        """
        changed = {name: value for name, value in settings.items() if value != self.base[name]}
        if epochs and "kl_warmup" in changed:
            changed["kl_warmup"] = round(changed["kl_warmup"] * epochs / self.epochs)
        if "hidden" in changed:
            changed["hidden"] = tuple(map(int, changed["hidden"].split(",")))
        of_model = {item.name for item in fields(ModelSpec)}
        model = replace(self.model, **{name: value for name, value in changed.items() if name in of_model})
        training = {name: value for name, value in changed.items() if name not in of_model}
        return model, replace(self.training, **training)

    def scales(self) -> dict[str, str]:
        """The scale on which a figure shows each setting: `log`, `linear` or `category`."""
        logarithmic = {name: getattr(values, "log", None) for name, values in self.ranges.items()}
        return {name: {True: "log", False: "linear", None: "category"}[log] for name, log in logarithmic.items()}


def search_space(model: ModelSpec, training: TrainSpec, resolved: ModelSpec, epochs: int) -> SearchSpace:
    """The settings that apply to a kind of model; a range is widened if the given value lies outside.

    Parameters
    ----------
    model, training : specs
        The specs as they were given.
    resolved : ModelSpec
        The same model with every automatic setting resolved.
    epochs : int
        The most epochs of a trial.
    """
    # Features and local contrasts have no grey levels.
    pixels = resolved.view.grey_levels
    likelihoods = [name for name, facts in LIKELIHOOD_FACTS.items() if pixels or facts.support == "real"]
    rate = [] if resolved.autoencoder or not training.beta else ["beta", "kl_warmup"]
    size = "hidden" if resolved.kind == "mlp" else "width"
    likelihood = [] if training.binarise else ["likelihood"]  # binarised images have only one likelihood
    names = ["latent", size, *likelihood, *rate, "learning_rate"]
    settled = vars(training.sized(resolved.view))
    base = {**vars(resolved), **settled, "hidden": ",".join(map(str, resolved.hidden_sizes))}
    ranges = {
        "latent": LATENT,
        "hidden": HIDDEN,
        "width": WIDTH,
        "likelihood": likelihoods,
        "beta": BETA,
        "kl_warmup": (0, int(WARMUP * epochs)),
        "learning_rate": LEARNING_RATE,
    }
    return SearchSpace(
        model,
        training,
        {name: base[name] for name in names},
        {name: _distribution(ranges[name], base[name]) for name in names},
        epochs,
    )


def _distribution(values: Sequence[Any], given: Any) -> BaseDistribution:
    """A choice among the names in `values`, or a number between the two `values`; `given` is always included."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(given, str):
        return CategoricalDistribution(tuple(dict.fromkeys([*values, given])))
    low, high = min(*values, given), max(*values, given)
    whole = all(isinstance(value, int) for value in values)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=low > 0)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
