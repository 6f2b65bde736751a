"""What a model is: a frozen spec whose defaults are the only defaults.

It does not import torch, so the command line can read the defaults without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vaeguard.errors import UsageError
from vaeguard.settings.checks import (
    check_not_negative,
    check_one_of,
    check_pixel_range,
    check_positive,
    check_share,
    settle_types,
    settled,
)
from vaeguard.settings.field import documented, setting
from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS, LikelihoodFacts
from vaeguard.settings.tiles import MOST_SIDE, OVERLAP, settled_overlap, settled_tile, starts, tile_for
from vaeguard.settings.views import (
    FEATURE_LATENT,
    LATENT,
    WIDEST,
    FeatureView,
    PatchView,
    PixelView,
    VectorView,
    View,
    view_of,
)
from vaeguard.wording import brief_settings, counted

MODEL_KINDS = ("mlp", "conv")
PRIORS = ("standard", "per-class")
ACTIVATIONS = ("relu", "leaky-relu", "elu", "gelu", "tanh")

PSEUDO_HEADS = 4
"""The number of clusterings that give pseudo-classes."""
IMAGES_PER_CLUSTER = 6
"""The fewest images per cluster, on average."""
FEWEST_CLUSTERS = 10
"""Fewer clusters add nothing to the reconstruction."""

FEWEST_PATCH_PIXELS = 4
MOST_VALUES = 2**28
"""The most values of an image that a model may take: a gigabyte."""
GREY = 128
"""The level of pixels outside of a region."""
"""Neighbouring patches are a quarter of their side apart."""


@documented
@dataclass(frozen=True)
class ModelSpec:
    """The shape of a VAE: everything needed to build it again.

    A setting that is None is chosen to suit the data: `features` by `choice.with_features`, and every other setting by
    `resolved`, which also fills in `image_shape` (C, H, W), `feature_count` (features of a cell), `classes` (names of
    the normal classes) and `vectors` (scaled features instead of pixels, shape (1, 1, F)). A `kind` of None becomes
    `conv` for images of at least 16x16 pixels, and `mlp` for smaller images, patches, features and vectors.
    """

    kind: str | None = setting(
        None,
        "Kind of model: a multilayer perceptron (mlp) or a convolutional network (conv).",
        of=MODEL_KINDS,
        unset="conv for images of at least 16x16 pixels; mlp for smaller images, features, patches and tables",
    )
    latent: int | None = setting(
        None,
        "Number of latent units: the model compresses an image to this many numbers.",
        unset=f"{LATENT}; for features {FEATURE_LATENT}; for tables half the number of columns, but at most {LATENT},"
        f" or at most {FEATURE_LATENT} if the columns are whitened",
    )
    hidden: tuple[int, ...] | None = setting(
        None,
        "For mlp: number of units in each hidden layer of the encoder; the decoder has the same layers in reverse"
        " order.",
        unset="; for ".join(
            f"{name}{','.join(map(str, view.hidden))}"
            for name, view in (
                ("", PixelView),
                ("features and whitened tables ", FeatureView),
                ("other tables ", VectorView),
            )
        ),
    )
    width: int = setting(
        16, "For conv: channels of the first of four layers; each further layer has twice as many as the one before."
    )
    activation: str | None = setting(
        None,
        "Activation function of the hidden layers.",
        of=ACTIVATIONS,
        unset=f"{PixelView.activation}; for features and whitened tables {FeatureView.activation}",
    )
    dropout: float = setting(0.0, "Dropout rate of the hidden layers.")
    likelihood: str | None = setting(
        None,
        "Likelihood p(image|latent)."
        f" {'; '.join(f'{name}: {facts.about}' for name, facts in LIKELIHOOD_FACTS.items())}.",
        of=tuple(LIKELIHOOD_FACTS),
        unset=f"{PixelView.likelihood}; for features and tables {VectorView.likelihood};"
        f" for patches {PatchView.likelihood}",
    )
    sigma: float | None = setting(
        None,
        "For gaussian: the fixed standard deviation, on a scale on which pixels range from 0 to 1.",
        unset=f"{PixelView.sigma:.4g}; for features and whitened tables {FeatureView.sigma:.4g}",
    )
    prior: str = setting(
        "standard",
        "Prior of the latent vectors: one Gaussian for all images (standard) or for each normal class (per-class).",
        of=PRIORS,
    )
    guided: bool | None = setting(
        None,
        "Also learn to tell the normal classes apart.",
        unset="on if there are several normal classes, but off for features and patches",
    )
    pseudo_classes: int = setting(
        1000,
        "For models of whole images: also learn to sort the images into this many clusters (pseudo-classes), limited"
        " to a sixth of the number of images; 0 for none.",
    )
    sampled_elbo: bool = setting(
        False,
        "Add two terms, computed from sampled latent vectors, to the score: the negative ELBO and the"
        " importance-weighted bound.",
    )
    without: tuple[str, ...] = setting((), "Terms to leave out of the score, such as hidden_error,hidden_distance.")
    autoencoder: bool = setting(
        False, "As a baseline, fit a plain autoencoder, without sampling and without the KL divergence."
    )
    patch: int = setting(
        0,
        "To find small defects, learn square patches of this many pixels a side; 0 to learn whole images.",
    )
    features: str | None = setting(
        None,
        "Learn the features that a pretrained network computes: efficientnet-lite0, a network of torchvision such as"
        " wide_resnet50_2, or an ONNX file whose outputs are feature maps. With none, learn pixels.",
        unset="efficientnet-lite0 for grey or colour images of at least 96x96 pixels, unless you use a setting that is"
        " for pixels only, such as a preset or a likelihood; otherwise none",
        none="",
    )
    whiten: bool | None = setting(
        None,
        "For tables: whiten the columns, so that directions with little variance count as much as the others.",
        unset=f"on if there are more columns than training rows, but at most {WIDEST:,} columns",
    )
    feature_count: int = 0
    tile: tuple[int, ...] | None = setting(
        None,
        "For features or patches: cut images into tiles of this height and width; the score of an image is that of"
        " its most anomalous tile.",
        unset=f"for features, tiles of at most {MOST_SIDE}x{MOST_SIDE} pixels if a side of the images is longer than"
        f" {MOST_SIDE}; otherwise no tiles",
    )
    overlap: int | None = setting(
        None,
        "Smallest overlap of neighbouring tiles, in pixels.",
        unset=f"{OVERLAP}, or a quarter of the tile's shorter side if that is less",
    )
    region: str | None = None
    region_share: float = 1.0
    regions: bool | None = setting(
        None,
        "Look only at the part of each image that is white in its mask, a file next to the image, such as 7_roi.png for"
        " 7.png.",
        unset="on if an image of the fit has such a mask",
    )
    pixel_range: tuple[int, ...] | None = setting(
        None,
        "The pixel values that stand for black and white in 16-bit files, such as 0,4095 for a 12-bit camera.",
        unset="0,65535",
    )
    image_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    vectors: bool = False

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        check_one_of("kind", self.kind, (None, *MODEL_KINDS))
        check_one_of("activation", self.activation, (None, *ACTIVATIONS))
        if self.features == "none":
            object.__setattr__(self, "features", "")
        check_one_of("likelihood", self.likelihood, (None, *LIKELIHOOD_FACTS))
        check_one_of("prior", self.prior, PRIORS)
        check_positive("latent", self.latent)
        check_positive("width", self.width)
        check_positive("sigma", self.sigma)
        check_not_negative("pseudo_classes", self.pseudo_classes)
        for size in (1,) if self.hidden is None else self.hidden or (0,):
            check_positive("hidden", size)
        check_share("dropout", self.dropout)
        check_pixel_range(self.pixel_range)
        check_not_negative("overlap", self.overlap or 0)
        if self.tile is not None and not (len(self.tile) in (1, 2) and min(self.tile) > 0):
            raise UsageError(f"`tile` is {self.tile}; it must be a height and a width in pixels, such as 256,256")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that contradict each other."""
        self._check_places()
        per_class = self.prior == "per-class"
        if self.sampled_elbo and per_class:
            raise UsageError("`sampled_elbo` needs a single prior, but `prior` is 'per-class'; remove one of them")
        if self.autoencoder and per_class:
            raise UsageError(
                "`autoencoder` means a model without a prior, but `prior` is 'per-class'; remove one of them"
            )

    def _check_places(self) -> None:
        """Refuse settings that contradict patches or features."""
        if self.patch and self.patch < FEWEST_PATCH_PIXELS:
            raise UsageError(
                f"`patch` is {self.patch}; it must be at least {FEWEST_PATCH_PIXELS} pixels, or 0 for none"
            )
        if self.features and self.patch:
            raise UsageError("`features` and `patch` exclude each other; remove one of them")
        if (self.features or self.patch) and (self.guided or self.prior == "per-class"):
            name, parts = ("features", "cells") if self.features else ("patch", "patches")
            raise UsageError(
                f"`{name}` makes a model of {parts}, which have no class; remove `{name}`, or remove `guided` and"
                " `prior`"
            )

    @property
    def view(self) -> View:
        """How the model sees its inputs; everything that depends on `patch`, `features` and `vectors` is there."""
        return view_of(
            vectors=self.vectors, patch=self.patch, features=self.features, whiten=bool(self.vectors and self.whiten)
        )

    def kind_for(self, height: int, width: int) -> str:
        """The kind of model for images of this size in pixels."""
        return self.kind or self.view.kind(height, width)

    def sized(self) -> ModelSpec:
        """Return this spec with the sizes of latent and hidden layers settled."""
        # Only the latent of vectors depends on the width, and a spec of vectors is resolved.
        width = self.image_shape[2] if self.image_shape else 0
        view = self.view
        return replace(
            self,
            latent=view.latent(width) if self.latent is None else self.latent,
            hidden=view.hidden if self.hidden is None else self.hidden,
            activation=self.activation or view.activation,
            sigma=self.sigma or view.sigma,
        )

    @property
    def activation_name(self) -> str:
        """Activation of the hidden layers, of a resolved spec."""
        return settled("activation", self.activation)

    @property
    def fixed_sigma(self) -> float:
        """The standard deviation of a `gaussian`, of a resolved spec."""
        return settled("sigma", self.sigma)

    @property
    def latent_size(self) -> int:
        """Number of latent units, of a resolved spec."""
        return settled("latent", self.latent)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Hidden sizes of an `mlp`, of a resolved spec."""
        return settled("hidden", self.hidden)

    @property
    def likelihood_facts(self) -> LikelihoodFacts:
        """Facts about the likelihood of a resolved spec, without torch."""
        return LIKELIHOOD_FACTS[settled("likelihood", self.likelihood)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the inputs, of a resolved spec."""
        return settled("image_shape", self.image_shape)

    @property
    def graph_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) that the graph takes, a tile or the whole input, of a resolved spec."""
        return (self.shape[0], self.tile[0], self.tile[-1]) if self.tile else self.shape

    def with_region(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of an input with an image of `shape` (C, H, W): with `regions`, one more channel is its region."""
        return (shape[0] + bool(self.regions), *shape[1:])

    @property
    def tiles(self) -> list[tuple[list[int], int]]:
        """The first pixels of all tiles along each side, and the side of a tile, of a resolved spec.

        Without tiles, there is one, the whole input.
        """
        sides = zip(self.shape[1:], self.graph_shape[1:], strict=True)
        return [(starts(side, tile, self.overlap or 0), tile) for side, tile in sides]

    @property
    def vae_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the VAE's input, a patch, the features of a cell or a whole input, of a resolved spec."""
        if self.features:
            return (1, 1, self.feature_count)
        return (self.shape[0], self.patch, self.patch) if self.patch else self.shape

    @property
    def is_resolved(self) -> bool:
        """Whether every choice is settled."""
        return None not in (
            *(self.kind, self.latent, self.hidden, self.activation, self.likelihood, self.sigma, self.guided),
            *(self.features, self.image_shape),
        )

    def resolved(
        self,
        image_shape: tuple[int, int, int],
        classes: tuple[str, ...],
        *,
        images: int = 0,
        vectors: bool = False,
        feature_count: int = 0,
    ) -> ModelSpec:
        """Return this spec with every open choice settled for `images` of `image_shape` (C, H, W), or for vectors.

        Raises
        ------
        UsageError
            A guided model or a prior per class has fewer than two labelled normal classes; a setting for images is used
            for vectors; or the images are too small for the patches.
        """
        spec = replace(
            self, image_shape=image_shape, classes=classes, vectors=vectors, features=self.features or "",
            feature_count=feature_count, regions=bool(self.regions),
            whiten=vectors and (0 < images < image_shape[2] <= WIDEST if self.whiten is None else self.whiten),
        ).tiled()  # fmt: skip
        view = spec.view
        view.check(self.kind, self.likelihood, self.patch, spec.graph_shape)
        _check_classes(spec)
        _check_size(spec)
        return replace(
            spec.sized(),
            kind=self.kind_for(*image_shape[1:]),
            likelihood=self.likelihood or view.likelihood,
            guided=len(classes) > 1 and view.whole if self.guided is None else self.guided,
            pseudo_classes=self._pseudo_classes_for(images) if view.whole_pictures else 0,
        )

    def tiled(self) -> ModelSpec:
        """Return this spec, whose `image_shape` is known, with tile and overlap settled.

        Raises
        ------
        UsageError
            The model sees whole inputs, or the overlap is too large.
        """
        if self.tile and self.view.whole:
            raise UsageError(
                "`model.tile` works only with features or patches; set `model.features` or `model.patch`, or remove"
                " `model.tile`"
            )
        size = self.shape[1:]
        tile = tile_for(size) if self.features and not self.tile else settled_tile(self.tile, size)
        return replace(self, tile=tile, overlap=settled_overlap(self.overlap, tile) if tile else None)

    def _pseudo_classes_for(self, images: int) -> int:
        clusters = min(self.pseudo_classes, images // IMAGES_PER_CLUSTER)
        return clusters if clusters >= FEWEST_CLUSTERS else 0


def _check_size(spec: ModelSpec) -> None:
    """Refuse images whose heatmaps would not fit into memory, as a model file of them is refused."""
    if math.prod(spec.shape) > MOST_VALUES:
        channels, height, width = spec.shape
        raise UsageError(
            f"images of {height}x{width} pixels with {counted(channels, 'channel')} are too large, since a model takes"
            f" at most {MOST_VALUES // 10**6} million values; set a smaller `size`, or cut the images into smaller"
            " files"
        )


def _check_classes(spec: ModelSpec) -> None:
    """Refuse settings that need at least two labelled normal classes if there are fewer."""
    if len(spec.classes) > 1:
        return
    if spec.guided:
        raise UsageError(
            "`model.guided` needs at least two labelled normal classes; use class sub-folders, or set"
            " `model.guided` to False"
        )
    if spec.prior == "per-class":
        raise UsageError(
            "`model.prior` is 'per-class', which needs at least two labelled normal classes; set `model.prior` to"
            " 'standard'"
        )
