"""What a model sees of its inputs: whole images, patches of them, or vectors; all that depends on it is asked here."""

from __future__ import annotations

from typing import ClassVar

from vaeguard.errors import UsageError
from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS

LATENT, HIDDEN = 64, (400, 400)
VECTOR_HIDDEN, VECTOR_EPOCHS = (64, 32), 30
"""Tables are small next to images, whose networks and training would cost them time and bring them nothing."""


class View:
    """What a model sees of its inputs.

    Attributes
    ----------
    pictures : bool
        Whether inputs, restorations and heatmaps are pictures.
    whole : bool
        Whether an input has a latent of its own; otherwise it has many.
    unit : bool
        Whether the VAE reads values from 0 to 1.
    grey_levels : bool
        Whether these values come in 256 steps, as many as bfloat16 tells apart.
    likelihood, hidden : str, tuple of int
        Likelihood and hidden sizes where none are asked for.
    epochs : int or None
        The most epochs where none are asked for, None for no limit.
    """

    pictures: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    unit: ClassVar[bool] = True
    grey_levels: ClassVar[bool] = False
    likelihood: ClassVar[str]
    hidden: ClassVar[tuple[int, ...]] = HIDDEN
    epochs: ClassVar[int | None] = None

    @property
    def whole_pictures(self) -> bool:
        """Whether an input is one picture to the VAE."""
        return self.pictures and self.whole

    def kind(self, height: int, width: int) -> str:
        """The kind of model for inputs of this size in pixels, where none is asked for."""
        return "mlp" if min(height, width) < 16 else "conv"

    def latent(self, width: int) -> int:  # noqa: ARG002
        """Units of the latent for inputs of this width, where no number is asked for."""
        return LATENT

    def check(self, kind: str | None, likelihood: str | None, patch: int, size: tuple[int, int]) -> None:
        """Refuse settings of a model that do not suit the view and inputs of this (height, width).

        Raises
        ------
        UsageError
            They do not.
        """


class PixelView(View):
    """All pixels of an image at once."""

    grey_levels: ClassVar[bool] = True
    likelihood: ClassVar[str] = "bernoulli"


class PatchView(View):
    """The local contrast of overlapping patches, all over an image."""

    whole: ClassVar[bool] = False
    likelihood: ClassVar[str] = "gaussian-pixel"

    def kind(self, height: int, width: int) -> str:  # noqa: ARG002
        """Patches are small."""
        return "mlp"

    def check(self, kind: str | None, likelihood: str | None, patch: int, size: tuple[int, int]) -> None:  # noqa: ARG002
        """Patches are contrasts, without grey levels, and the image must hold several of them."""
        if likelihood and LIKELIHOOD_FACTS[likelihood].support == "unit":
            raise UsageError(
                f"`model.likelihood` is {likelihood!r}, which is for pixels from 0 to 1, and patches are seen as"
                f" contrasts; set it to {self.likelihood!r}"
            )
        height, width = size
        if min(height, width) < 2 * patch:
            raise UsageError(
                f"`model.patch` is {patch}, which needs images of at least {2 * patch} pixels a side, not"
                f" {height}x{width}; use larger images or smaller patches"
            )


class VectorView(View):
    """Standardised features: the rows of a table."""

    pictures: ClassVar[bool] = False
    unit: ClassVar[bool] = False
    likelihood: ClassVar[str] = "gaussian"
    hidden: ClassVar[tuple[int, ...]] = VECTOR_HIDDEN
    epochs: ClassVar[int | None] = VECTOR_EPOCHS

    def latent(self, width: int) -> int:
        """Half of the features."""
        return max(1, min(LATENT, width // 2))

    def check(self, kind: str | None, likelihood: str | None, patch: int, size: tuple[int, int]) -> None:  # noqa: ARG002
        """Features have no neighbours, no places, and any values."""
        if patch:
            raise UsageError(
                "`model.patch` is for images, and the data are vectors, which have no places; leave it out"
            )
        if kind == "conv":
            raise UsageError(
                "`model.kind` is 'conv', which looks at neighbouring pixels, and the data are vectors; set it to 'mlp'"
            )
        if likelihood and LIKELIHOOD_FACTS[likelihood].support != "real":
            raise UsageError(
                f"`model.likelihood` is {likelihood!r}, which is for pixels from 0 to 1, and the data are vectors;"
                f" set it to {self.likelihood!r}"
            )


def view_of(*, vectors: bool, patch: int) -> View:
    """The view of a model: of `vectors`, of patches of so many pixels a side, or of whole images."""
    if vectors:
        return VectorView()
    return PatchView() if patch else PixelView()
