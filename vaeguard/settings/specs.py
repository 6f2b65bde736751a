"""What a model is and how it is trained: two frozen specs whose defaults are the only defaults.

Neither knows about torch, so the command line can read the defaults without loading it.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from vaeguard.devices import DEVICES
from vaeguard.errors import UsageError

MODEL_KINDS = ("mlp", "conv", "ladder")
"""`ladder` is for cleaning scans, and fitted by `fit_denoiser`."""
LIKELIHOODS = ("bernoulli", "continuous-bernoulli", "gaussian", "gaussian-image", "gaussian-pixel")
PRIORS = ("standard", "per-class")
ACTIVATIONS = ("relu", "leaky-relu", "elu", "gelu", "tanh")
REDUCTIONS = ("sum", "mean")
SCHEDULES = ("constant", "cosine")
PROJECTIONS = ("pca", "tsne")
"""How latents of many units become points in a plane."""
"""Where an exported model can run."""

PLACES = ("device", "threads")
"""Settings of a fit that say where it runs, not what it does."""

TERMS = (
    *("recon_error", "recon_ratio", "kl", "neg_elbo"),
    *("hidden_error", "hidden_distance", "feature_distance", "latent_distance"),
    *("pseudo_entropy", "class_energy", "class_surprise", "neg_elbo_sampled", "neg_iwae"),
)
"""All terms that a score may have, in the order of the columns of a table; `graph.InferenceGraph` defines them."""

DEFAULT_FPR = 0.05
"""Share of normal images that may be flagged."""

PIXELS = ("uint8", "float32")
"""Types of the image that an exported model takes."""

IMPORTANCE_SAMPLES = 5000
"""Samples per image of the importance-weighted bound, as Burda et al. (2016) took."""
BOUND_IMAGES = 1000
"""Bounds of so many images of 28x28 are a matter of minutes."""

PSEUDO_HEADS = 4
"""How many clusterings the pseudo-classes come from."""
IMAGES_PER_CLUSTER = 6
FEWEST_CLUSTERS = 10
"""Fewer clusters say nothing that the reconstruction does not."""

LATENT, HIDDEN = 64, (400, 400)
VECTOR_HIDDEN, VECTOR_EPOCHS = (64, 32), 30
"""Tables are small next to images, whose networks and training would cost them time and bring them nothing."""

FEWEST_PATCH_PIXELS = 4
"""Patches move by a quarter of their side."""

CLASSIC_SIGMA = 0.5**0.5
"""With this sigma the Gaussian distortion is the summed squared error plus a constant."""


def setting(default: Any, text: str, *, of: tuple[str, ...] | None = None, unset: str = "") -> Any:
    """A setting and its help: one of `of`, if these are given; `unset` says what None means."""
    return field(default=default, metadata={"help": text, "of": of, "unset": unset})


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a VAE: everything needed to build it again.

    `kind` None means `conv` for images of at least 16x16, `mlp` for smaller ones, patches and vectors. What is None,
    `image_shape` (C, H, W), `classes` (names of the normal classes) and `vectors` (standardised features instead of
    pixels, shape (1, 1, F)) are filled in from the data by `resolved`.
    """

    kind: str | None = setting(
        None, "Kind of model.", of=MODEL_KINDS, unset="conv from 16x16 pixels on, else and for patches mlp"
    )
    latent: int | None = setting(
        None, "Size of the latent.", unset=f"{LATENT}; for tables half the features, at most {LATENT}"
    )
    hidden: tuple[int, ...] | None = setting(
        None,
        "Of an mlp: hidden sizes of the encoder, which the decoder mirrors.",
        unset=f"{','.join(map(str, HIDDEN))}; for tables {','.join(map(str, VECTOR_HIDDEN))}",
    )
    width: int = setting(16, "Of a conv: channels of the first of four layers, doubled each time.")
    activation: str = setting("relu", "Activation of the hidden layers.", of=ACTIVATIONS)
    dropout: float = setting(0.0, "Dropout rate of the hidden layers.")
    likelihood: str | None = setting(
        None,
        "p(image|latent). bernoulli is a true likelihood of black and white only, continuous-bernoulli of grey values;"
        " gaussian has a fixed sigma, -image and -pixel learn one.",
        of=LIKELIHOODS,
        unset="bernoulli; for tables gaussian, for patches gaussian-pixel",
    )
    sigma: float = setting(CLASSIC_SIGMA, "Of gaussian: the fixed standard deviation, for pixels from 0 to 1.")
    prior: str = setting("standard", "One Gaussian, or one per normal class.", of=PRIORS)
    guided: bool | None = setting(None, "Also learn to tell the normal classes apart.", unset="where there are labels")
    pseudo_classes: int = setting(
        1000, "Also learn to tell so many clusters of the images apart, at most a sixth of their number; 0: none."
    )
    sampled_elbo: bool = setting(
        False, "Also give the negative ELBO over sampled latents, and its importance-weighted form."
    )
    without: tuple[str, ...] = setting((), "Terms of the score to leave out, such as hidden_error,hidden_distance.")
    autoencoder: bool = setting(False, "No noise, no rate: the plain autoencoder as baseline.")
    patch: int = setting(
        0,
        "Find small defects: a model of patches of so many pixels a side, applied all over the image; 0: of the whole"
        " image.",
    )
    image_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    vectors: bool = False

    def __post_init__(self) -> None:
        settle_types(self)
        _one_of("kind", self.kind, (None, *MODEL_KINDS))
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("likelihood", self.likelihood, (None, *LIKELIHOODS))
        _one_of("prior", self.prior, PRIORS)
        _positive("latent", self.latent)
        _positive("width", self.width)
        _positive("sigma", self.sigma)
        _not_negative("pseudo_classes", self.pseudo_classes)
        for size in (1,) if self.hidden is None else self.hidden or (0,):
            _positive("hidden", size)
        _share("dropout", self.dropout)
        if self.patch and self.patch < FEWEST_PATCH_PIXELS:
            raise UsageError(
                f"`patch` is {self.patch}; it must be at least {FEWEST_PATCH_PIXELS} pixels, or 0 for none"
            )
        if self.patch and (self.guided or self.prior == "per-class"):
            raise UsageError(
                "`patch` judges places, which have no class; leave it out, or `guided` and a `prior` per class"
            )
        if self.sampled_elbo and self.prior == "per-class":
            raise UsageError("`sampled_elbo` needs a single prior, and `prior` is 'per-class'; leave one of them out")
        if self.autoencoder and self.prior == "per-class":
            raise UsageError(
                "`autoencoder` means a model without a prior, and `prior` is 'per-class'; leave one of them out"
            )

    def kind_for(self, height: int, width: int) -> str:
        """The kind of model for images of this size in pixels."""
        return self.kind or ("mlp" if self.patch or min(height, width) < 16 else "conv")

    def sized(self, features: int | None = None) -> ModelSpec:
        """Settle the sizes of latent and hidden layers, for images or for vectors of so many features."""
        latent, hidden = LATENT, HIDDEN
        if features:
            latent, hidden = max(1, min(LATENT, features // 2)), VECTOR_HIDDEN
        return replace(
            self,
            latent=latent if self.latent is None else self.latent,
            hidden=hidden if self.hidden is None else self.hidden,
        )

    @property
    def latent_size(self) -> int:
        """Units of the latent; `resolved` knows them."""
        if self.latent is None:
            raise ValueError("the spec is not resolved: it has no size of the latent")
        return self.latent

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Hidden sizes of an `mlp`; `resolved` knows them."""
        if self.hidden is None:
            raise ValueError("the spec is not resolved: it has no hidden sizes")
        return self.hidden

    @property
    def vae_shape(self) -> tuple[int, int, int]:
        """What the VAE itself takes, (C, H, W): a patch, or the whole image; `resolved` knows it."""
        if self.image_shape is None:
            raise ValueError("the spec is not resolved: it has no image shape")
        return (self.image_shape[0], self.patch, self.patch) if self.patch else self.image_shape

    def resolved(
        self, image_shape: tuple[int, int, int], classes: tuple[str, ...], *, images: int = 0, vectors: bool = False
    ) -> ModelSpec:
        """Return this spec with every open choice settled for `images` of `image_shape` (C, H, W), or for vectors.

        Raises
        ------
        UsageError
            Guiding or a prior per class is asked for, but fewer than two normal classes are labelled; the model is one
            for images only and the data are vectors; or the images are too small for its patches.
        """
        if self.kind == "ladder":
            raise UsageError(
                "`model.kind` is 'ladder', which cleans scans and gives no anomaly scores; fit it with `fit_denoiser`,"
                " or choose 'conv'"
            )
        if vectors and self.kind == "conv":
            raise UsageError(
                "`model.kind` is 'conv', which looks at neighbouring pixels, and the data are vectors; set it to 'mlp'"
            )
        if vectors and self.likelihood in {"bernoulli", "continuous-bernoulli"}:
            raise UsageError(
                f"`model.likelihood` is {self.likelihood!r}, which is for pixels from 0 to 1, and the data are vectors;"
                " set it to 'gaussian'"
            )
        if self.patch and self.likelihood == "continuous-bernoulli":
            raise UsageError(
                "`model.likelihood` is 'continuous-bernoulli', which is for pixels from 0 to 1, and patches are seen as"
                " contrasts; set it to 'gaussian-pixel'"
            )
        if self.patch:
            self._check_patches(image_shape, vectors=vectors)
        labelled = len(classes) > 1
        if self.guided and not labelled:
            raise UsageError(
                "`model.guided` needs at least two labelled normal classes; give class sub-folders, or set it to False"
            )
        if self.prior == "per-class" and not labelled:
            raise UsageError(
                "`model.prior` is 'per-class', which needs at least two labelled normal classes; set it to 'standard'"
            )
        return replace(
            self.sized(image_shape[2] if vectors else None),
            kind=self.kind_for(*image_shape[1:]),
            likelihood=self.likelihood or ("gaussian" if vectors else "gaussian-pixel" if self.patch else "bernoulli"),
            guided=labelled and not self.patch if self.guided is None else self.guided,
            pseudo_classes=0 if vectors or self.patch else self._pseudo_classes_for(images),
            image_shape=image_shape,
            classes=classes,
            vectors=vectors,
        )

    def _check_patches(self, image_shape: tuple[int, int, int], *, vectors: bool) -> None:
        if vectors:
            raise UsageError(
                "`model.patch` is for images, and the data are vectors, which have no places; leave it out"
            )
        _, height, width = image_shape
        if min(height, width) < 2 * self.patch:
            raise UsageError(
                f"`model.patch` is {self.patch}, which needs images of at least {2 * self.patch} pixels a side, not"
                f" {height}x{width}; use larger images or smaller patches"
            )

    def _pseudo_classes_for(self, images: int) -> int:
        clusters = min(self.pseudo_classes, images // IMAGES_PER_CLUSTER)
        return clusters if clusters >= FEWEST_CLUSTERS else 0


@dataclass(frozen=True)
class TrainSpec:
    """How a model is trained. Losses are in nats; images are in [0, 1]."""

    epochs: int | None = setting(
        None,
        "Most epochs.",
        unset=f"15, but 2,000 to 6,000 steps, and 5 to 400 epochs; for tables at most {VECTOR_EPOCHS}",
    )
    batch_size: int = setting(128, "Images per step.")
    learning_rate: float = setting(1e-3, "Step size of AdamW.")
    schedule: str = setting("cosine", "Learning rate over the epochs.", of=SCHEDULES)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.")
    beta: float = setting(1.0, "Weight of the rate against the distortion.")
    kl_warmup: int = setting(0, "Epochs over which the rate's weight grows from 0 to beta.")
    free_bits: float = setting(0.0, "Nats per latent unit that cost nothing.")
    reduction: str = setting("sum", "sum: nats per image; mean: per pixel and per latent unit.", of=REDUCTIONS)
    guide_weight: float = setting(20.0, "Nats per nat of cross-entropy of classes and pseudo-classes.")
    input_noise: float = setting(0.0, "Sigma of noise on the input only: a denoising VAE.")
    binarise: bool = setting(
        False, "Learn from pixels that are on with their grey value as probability, drawn anew every epoch."
    )
    augment_warp: float | None = setting(None, "Smooth random deformation.", unset="1 with pseudo-classes, otherwise 0")
    augment_shift: int = setting(0, "Shift by up to so many pixels.")
    augment_rotate: float = setting(0.0, "Rotate by up to so many degrees.")
    augment_noise: float = setting(0.0, "Sigma of noise on the image itself.")
    augment_flip: bool = setting(False, "Mirror left-right at random.")
    balance: bool = setting(
        False, "Draw every normal class equally often, with replacement, and weigh all alike in validation."
    )
    validation: float = setting(0.1, "Share of the normal images held out for early stopping.")
    calibration: float = setting(0.1, "Share of the normal images held out for p-values.")
    patience: int = setting(20, "Stop after so many epochs without a better validation loss.")
    seed: int = setting(0, "Seed of split, weights, order and noise.")
    device: str = setting("auto", "Where to train.", of=DEVICES)
    bf16: bool | None = setting(None, "bfloat16 matrix products.", unset="where the processor has them")
    threads: int | None = setting(None, "CPU threads.", unset="one per core, or one for tiny models")

    def __post_init__(self) -> None:
        settle_types(self)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("reduction", self.reduction, REDUCTIONS)
        _one_of("device", self.device, DEVICES)
        if self.seed >= 2**63:
            raise UsageError(f"`seed` is {self.seed}; it must be below 2**63")
        for name in ("epochs", "batch_size", "learning_rate", "patience", "threads"):
            _positive(name, getattr(self, name))
        for name in ("weight_decay", "beta", "kl_warmup", "free_bits", "guide_weight", "input_noise"):
            _not_negative(name, getattr(self, name))
        for name in ("augment_shift", "augment_rotate", "augment_noise", "seed"):
            _not_negative(name, getattr(self, name))
        _not_negative("augment_warp", self.augment_warp or 0)
        for name in ("validation", "calibration"):
            _share(name, getattr(self, name))
        if self.validation == 0 or self.calibration == 0 or self.validation + self.calibration > 0.8:
            raise UsageError(
                f"`validation` is {self.validation} and `calibration` is {self.calibration}; both must be above 0 and"
                " together at most 0.8"
            )


Spec = TypeVar("Spec", ModelSpec, TrainSpec)


def to_dict(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return `spec` as JSON-able values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}


def changed(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """Return the settings of `spec` that are not the default."""
    plain = to_dict(type(spec)())
    return {name: value for name, value in to_dict(spec).items() if value != plain[name]}


def without_places(training: dict[str, Any]) -> dict[str, Any]:
    """Settings of a fit, by name, but for those that say where it runs."""
    return {name: value for name, value in training.items() if name not in PLACES}


def from_dict(kind: type[Spec], values: dict[str, Any]) -> Spec:
    """Build a spec from `to_dict`'s form or from a settings file.

    Raises
    ------
    UsageError
        A key is unknown (the nearest known one is suggested) or a value cannot work.
    """
    known = [item.name for item in fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise UsageError(f"unknown setting {name!r} for {kind.__name__}{hint}")
    return kind(**values)


def settle_types(spec: Any) -> None:
    """Check the type of every setting of a frozen dataclass; numbers of numpy's and lists become plain ones.

    JSON and equality need these.

    Raises
    ------
    UsageError
        A value is of another type than its annotation says.
    """
    for name, hint in get_type_hints(type(spec)).items():
        object.__setattr__(spec, name, _typed(name, getattr(spec, name), hint))


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value as an annotation such as `int | None` or `tuple[int, ...]` has it; a whole number serves as float."""
    plain = tuple(map(_plain, value)) if isinstance(value, list | tuple) else _plain(value)
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for one in allowed:
        if get_origin(one) is tuple:
            if isinstance(plain, tuple) and all(type(item) is get_args(one)[0] for item in plain):
                return plain
        elif type(plain) is one or (one in (str, Path) and isinstance(plain, one)):
            return plain
        elif one is float and type(plain) is int:
            return float(plain)
    wanted = " or ".join("None" if one is NoneType else getattr(one, "__name__", "") + _items(one) for one in allowed)
    raise UsageError(f"`{name}` is {value!r}; it must be of type {wanted}")


def _items(hint: Any) -> str:
    return f" of {get_args(hint)[0].__name__}" if get_origin(hint) is tuple else ""


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "shape", None) == () else value


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise UsageError(f"`{name}` is {value!r}; choose from {', '.join(map(str, filter(None, choices)))}")


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"`{name}` is {value}; it must be above 0")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise UsageError(f"`{name}` is {value}; it must not be negative")


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"`{name}` is {value}; it must be a share from 0 to below 1")


def check_fpr(fpr: Any) -> None:
    """Refuse a false-alarm rate outside (0, 1).

    Raises
    ------
    UsageError
        `fpr` is 0, 1, outside, or not a number.
    """
    if not isinstance(fpr, Real) or not 0 < float(fpr) < 1:
        raise UsageError(f"`fpr` is {fpr!r}; it must be a share above 0 and below 1, such as 0.05")
