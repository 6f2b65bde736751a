"""How a model sees its inputs: as whole images, patches or vectors; with everything that depends on it."""

from __future__ import annotations

from typing import ClassVar

from vaeguard.errors import UsageError
from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS

LATENT = 64
CLASSIC_SIGMA = 0.5**0.5
"""With this sigma the Gaussian distortion is the summed squared error plus a constant."""
HIDDEN = (400, 400)
FEATURE_HIDDEN = (256, 128)
FEATURE_LATENT = 32
FEATURE_EPOCHS = 15
"""Cells are many, so an epoch has about a hundred steps."""
FEATURE_SIGMA = 0.5
"""The likelihood of normal images prefers a learned variance, which detects worse: cells that the VAE hardly
reconstructs become likely by a large sigma."""
FEATURE_SIDE = 32
"""The features of smaller images describe the image's border more than the image."""
PHOTO_CHANNELS = (1, 3)
"""Pretrained networks see grey or colour."""
VECTOR_HIDDEN = (64, 32)
"""Tables are small, so large networks would cost time without a benefit."""
WIDEST = 2048
"""A square matrix of more features would outweigh the model."""
VECTOR_EPOCHS = 30
"""Tables are small, so long training would cost time without a benefit."""


class View:
    """How a model sees its inputs.

    Attributes
    ----------
    pictures : bool
        Whether inputs, restorations and heatmaps are pictures.
    whole : bool
        Whether an input has one latent; otherwise it has many.
    unit : bool
        Whether the VAE reads values from 0 to 1.
    grey_levels : bool
        Whether these values have 256 levels, as many as bfloat16 distinguishes.
    windows : bool
        Whether training draws random windows of images.
    restores : bool
        Whether the decoder's mean is an input that one can look at.
    likelihood, hidden, activation, sigma : str, tuple of int, str, float
        Defaults of the model.
    batch_size, learning_rate : int, float
        Defaults of the training.
    epochs : int or None
        Default of the most epochs; None is no limit.
    """

    pictures: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    unit: ClassVar[bool] = True
    grey_levels: ClassVar[bool] = False
    windows: ClassVar[bool] = False
    restores: ClassVar[bool] = True
    likelihood: ClassVar[str]
    hidden: ClassVar[tuple[int, ...]] = HIDDEN
    activation: ClassVar[str] = "relu"
    sigma: ClassVar[float] = CLASSIC_SIGMA
    batch_size: ClassVar[int] = 128
    learning_rate: ClassVar[float] = 1e-3
    epochs: ClassVar[int | None] = None

    @property
    def whole_pictures(self) -> bool:
        """Whether the VAE sees a whole picture at once."""
        return self.pictures and self.whole

    def kind(self, height: int, width: int) -> str:
        """The default kind of model for inputs of this size in pixels."""
        return "mlp" if min(height, width) < 16 else "conv"

    def latent(self, width: int) -> int:  # noqa: ARG002
        """The default number of latent units for inputs of this width."""
        return LATENT

    def check(self, kind: str | None, likelihood: str | None, patch: int, shape: tuple[int, int, int]) -> None:
        """Refuse settings of a model that do not suit the view or inputs of this shape, (C, H, W).

        Raises
        ------
        UsageError
            A setting does not suit them.
        """


class PixelView(View):
    """All pixels of an image at once."""

    grey_levels: ClassVar[bool] = True
    likelihood: ClassVar[str] = "bernoulli"


class PatchView(View):
    """The local contrast of overlapping patches that cover an image."""

    whole: ClassVar[bool] = False
    windows: ClassVar[bool] = True
    likelihood: ClassVar[str] = "gaussian-pixel"

    def kind(self, height: int, width: int) -> str:  # noqa: ARG002
        """An `mlp`, since patches are small."""
        return "mlp"

    def check(self, kind: str | None, likelihood: str | None, patch: int, shape: tuple[int, int, int]) -> None:  # noqa: ARG002
        """Refuse likelihoods of grey levels, which contrasts do not have, and images that are too small."""
        if likelihood and LIKELIHOOD_FACTS[likelihood].support == "unit":
            raise UsageError(
                f"`model.likelihood` is {likelihood!r}, which is for pixels from 0 to 1, but a model of patches learns"
                f" contrasts; set `model.likelihood` to {self.likelihood!r}"
            )
        _, height, width = shape
        if min(height, width) < 2 * patch:
            raise UsageError(
                f"`model.patch` is {patch}, which needs images of at least {2 * patch} pixels a side, not"
                f" {height}x{width}; use larger images, or a smaller `model.patch`"
            )


class FeatureView(View):
    """The whitened features of cells, small squares that cover an image, from a frozen network."""

    whole: ClassVar[bool] = False
    unit: ClassVar[bool] = False
    restores: ClassVar[bool] = False
    likelihood: ClassVar[str] = "gaussian"
    hidden: ClassVar[tuple[int, ...]] = FEATURE_HIDDEN
    activation: ClassVar[str] = "gelu"
    sigma: ClassVar[float] = FEATURE_SIGMA
    batch_size: ClassVar[int] = 1024
    learning_rate: ClassVar[float] = 3e-3
    epochs: ClassVar[int | None] = FEATURE_EPOCHS

    def kind(self, height: int, width: int) -> str:  # noqa: ARG002
        """An `mlp`, since a cell is a vector."""
        return "mlp"

    def latent(self, width: int) -> int:  # noqa: ARG002
        """The latent of a cell."""
        return FEATURE_LATENT

    def check(self, kind: str | None, likelihood: str | None, patch: int, shape: tuple[int, int, int]) -> None:  # noqa: ARG002
        """Refuse convolutions, likelihoods of grey levels, and images that are too small."""
        _check_for_vectors(kind, likelihood, "the cells of features are vectors", self.likelihood)
        channels, *size = shape
        if min(size) < FEATURE_SIDE:
            raise UsageError(
                f"`model.features` needs images of at least {FEATURE_SIDE} pixels a side, not {size[0]}x{size[1]};"
                " use larger images, or remove `model.features`"
            )
        if channels not in PHOTO_CHANNELS:
            raise UsageError(
                f"`model.features` needs grey or colour images, not {channels} channels; convert them, or remove"
                " `model.features`"
            )


class VectorView(View):
    """Scaled features: the rows of a table."""

    pictures: ClassVar[bool] = False
    unit: ClassVar[bool] = False
    likelihood: ClassVar[str] = "gaussian"
    hidden: ClassVar[tuple[int, ...]] = VECTOR_HIDDEN
    epochs: ClassVar[int | None] = VECTOR_EPOCHS

    def latent(self, width: int) -> int:
        """Half the number of features, at most `LATENT`."""
        return max(1, min(LATENT, width // 2))

    def check(self, kind: str | None, likelihood: str | None, patch: int, shape: tuple[int, int, int]) -> None:  # noqa: ARG002
        """Refuse patches, convolutions and likelihoods of grey levels, which features do not have."""
        if patch:
            raise UsageError("`model.patch` is for images, but the data are vectors; remove `model.patch`")
        _check_for_vectors(kind, likelihood, "the data are vectors", self.likelihood)


class WhiteView(VectorView):
    """Whitened features: the rows of a table that has more columns than rows, such as deep features of images.

    Where there are many more rows, scaled features tell anomalies among the rows better.
    """

    hidden: ClassVar[tuple[int, ...]] = FEATURE_HIDDEN
    activation: ClassVar[str] = "gelu"
    sigma: ClassVar[float] = FEATURE_SIGMA

    def latent(self, width: int) -> int:
        """Half the number of features, at most that of a cell."""
        return max(1, min(FEATURE_LATENT, width // 2))


def _check_for_vectors(kind: str | None, likelihood: str | None, why: str, default: str) -> None:
    """Refuse what is for pixels, in a model that reads vectors; the message says `why` it does."""
    if kind == "conv":
        raise UsageError(
            f"`model.kind` is 'conv', which needs neighbouring pixels, but {why}; set `model.kind` to 'mlp'"
        )
    if likelihood and LIKELIHOOD_FACTS[likelihood].support != "real":
        raise UsageError(
            f"`model.likelihood` is {likelihood!r}, which is for pixels from 0 to 1, but {why}; set"
            f" `model.likelihood` to {default!r}"
        )


def view_of(*, vectors: bool, patch: int, features: str | None = None, whiten: bool = False) -> View:
    """The view of a model of `vectors`, of a network's `features`, of patches of `patch` pixels, or of images."""
    if vectors:
        return WhiteView() if whiten else VectorView()
    if features:
        return FeatureView()
    return PatchView() if patch else PixelView()
