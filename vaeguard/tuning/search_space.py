"""Which settings `tune` searches, and between which values."""

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
"""Sizes of the latent, tried evenly on a logarithmic scale, as all ranges that begin above 0."""
HIDDEN = ("128", "400", "400,400", "800,400", "400,200,100")
WIDTH = (8, 64)
BETA = (0.1, 10.0)
LEARNING_RATE = (1e-4, 1e-2)
WARMUP = 0.25
"""Longest warm-up of the rate, as a share of the epochs."""
DIGITS = 3
"""Numbers are rounded to so many significant digits: more would only look exact."""

Settings = dict[str, Any]
"""Values of the searched settings by name; `hidden` as the command line takes it, `400,400`."""


@dataclass(frozen=True)
class SearchSpace:
    """What is searched around a model and its training: `base` are their own values, `ranges` those of the search.

    A trial has at most so many `epochs`.
    """

    model: ModelSpec
    training: TrainSpec
    base: Settings
    ranges: dict[str, BaseDistribution]
    epochs: int

    def settings(self, params: Mapping[str, Any]) -> Settings:
        """What the sampler's `params` mean: rounded, unless they are those of `base`."""
        return {name: value if value == self.base[name] else _rounded(value) for name, value in params.items()}

    def specs(self, settings: Settings, epochs: int | None = None) -> tuple[ModelSpec, TrainSpec]:
        """Model and training with `settings` in place of their own; what does not differ stays as it was given.

        For a fit of so many other `epochs` the warm-up, which was tried in those of a trial, keeps its share of them.
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
        """How values of each setting are to be drawn: on a `log` or `linear` scale, or as a `category`."""
        logarithmic = {name: getattr(each, "log", None) for name, each in self.ranges.items()}
        return {name: {True: "log", False: "linear", None: "category"}[each] for name, each in logarithmic.items()}


def search_space(model: ModelSpec, training: TrainSpec, resolved: ModelSpec, epochs: int) -> SearchSpace:
    """The settings that make sense for a kind of model; each range is widened where the given value lies outside.

    Parameters
    ----------
    model, training : specs
        As they were given.
    resolved : ModelSpec
        The same model with every open choice settled.
    epochs : int
        How many a trial will have at most.
    """
    # Features and local contrasts have no grey levels.
    pixels = resolved.view.grey_levels
    likelihoods = [name for name, facts in LIKELIHOOD_FACTS.items() if pixels or facts.support == "real"]
    rate = [] if resolved.autoencoder or not training.beta else ["beta", "kl_warmup"]
    size = "hidden" if resolved.kind == "mlp" else "width"
    likelihood = [] if training.binarise else ["likelihood"]  # black and white has one likelihood
    names = ["latent", size, *likelihood, *rate, "learning_rate"]
    base = {**vars(resolved), **vars(training), "hidden": ",".join(map(str, resolved.hidden_sizes))}
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
    """One of the names in `values`, or a number from the first to the second; `given` is always possible."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(given, str):
        return CategoricalDistribution(tuple(dict.fromkeys([*values, given])))
    low, high = min(*values, given), max(*values, given)
    whole = all(isinstance(value, int) for value in values)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=low > 0)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
