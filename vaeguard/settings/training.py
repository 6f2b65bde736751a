"""How a model is trained: a frozen spec whose defaults are the only defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vaeguard.devices import DEVICES
from vaeguard.errors import UsageError
from vaeguard.settings.checks import (
    check_not_negative,
    check_one_of,
    check_positive,
    check_share,
    settle_types,
    settled,
)
from vaeguard.settings.field import documented, setting
from vaeguard.settings.views import FEATURE_EPOCHS, VECTOR_EPOCHS, FeatureView, PixelView, View
from vaeguard.wording import brief_settings

REDUCTIONS = ("sum", "mean")
SCHEDULES = ("constant", "cosine")
PLACES = ("device", "threads")
"""The settings that say where a fit runs, not what it computes."""


@documented
@dataclass(frozen=True)
class TrainSpec:
    """How a model is trained; losses are in nats, and pixels lie in [0, 1].

    Raises
    ------
    UsageError
        A value cannot work.
    """

    epochs: int | None = setting(
        None,
        "Maximum number of epochs.",
        unset="15; more for few images and fewer for many, so that training takes 2,000 to 6,000 steps, but at least 5"
        f" and at most 400 ({FEATURE_EPOCHS} for features, {VECTOR_EPOCHS} for tables)",
    )
    batch_size: int | None = setting(
        None,
        "Number of images, patches or table rows per training step; for features, number of cells, which are squares"
        " of 8x8 pixels.",
        unset=f"{PixelView.batch_size}; for features {FeatureView.batch_size}",
    )
    learning_rate: float | None = setting(
        None,
        "Learning rate of AdamW.",
        unset=f"{PixelView.learning_rate:g}; for features {FeatureView.learning_rate:g}",
    )
    schedule: str = setting("cosine", "How the learning rate changes over the epochs.", of=SCHEDULES)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.")
    beta: float = setting(
        1.0, "Weight of the KL divergence (the rate) in the loss, relative to the reconstruction term (the distortion)."
    )
    kl_warmup: int = setting(0, "Number of epochs over which the weight of the KL divergence grows from 0 to beta.")
    free_bits: float = setting(
        0.0, "Amount of KL divergence, in nats (1 nat = 1.44 bits), that is not penalised in each latent unit."
    )
    reduction: str = setting(
        "sum",
        "Whether the loss is the sum over pixels and latent units, in nats per image, or the mean over them.",
        of=REDUCTIONS,
    )
    guide_weight: float = setting(
        20.0, "Weight in the loss of the cross-entropy by which the model learns classes and pseudo-classes."
    )
    input_noise: float = setting(
        0.0, "Standard deviation of noise that is added to the input only, as in a denoising VAE."
    )
    binarise: bool = setting(
        False,
        "In every epoch, set each pixel to white or black at random; the grey value of the pixel is the probability of"
        " white.",
    )
    augment_warp: float | None = setting(
        None,
        "Strength of the smooth random deformation of training images.",
        unset="1 with pseudo-classes, otherwise 0",
    )
    augment_shift: int = setting(0, "Shift training images at random by up to this many pixels.")
    augment_rotate: float = setting(0.0, "Rotate training images at random by up to this many degrees.")
    augment_noise: float = setting(0.0, "Standard deviation of noise that is added to both the input and the target.")
    augment_flip: bool = setting(False, "Mirror training images left to right at random.")
    balance: bool = setting(
        False,
        "Draw training images of every normal class equally often, with replacement, and give all classes the same"
        " weight in the validation loss.",
    )
    validation: float = setting(0.1, "Share of the normal images to hold out for early stopping.")
    calibration: float = setting(0.1, "Share of the normal images to hold out for calibrating the score.")
    folds: int | None = setting(
        None,
        "For features: number of parts (folds) for cross-validation. All images calibrate the score, and each is"
        " scored by a model that was fitted without its fold. With 0, hold out the shares training.validation and"
        " training.calibration instead.",
        unset="10 for fewer than 50 images, 5 for 50 to 999, otherwise 0",
    )
    patience: int = setting(20, "Stop training after this many epochs without a better validation loss.")
    seed: int = setting(
        0, "Random seed for the choice of held-out images, the initial weights, the order of the images and the noise."
    )
    device: str = setting("auto", "Device to train on.", of=DEVICES)
    bf16: bool | None = setting(
        None, "Compute matrix products in bfloat16.", unset="on for whole images if the processor supports it"
    )
    threads: int | None = setting(None, "Number of CPU threads.", unset="1 for tiny models, otherwise one per core")

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        check_one_of("schedule", self.schedule, SCHEDULES)
        check_one_of("reduction", self.reduction, REDUCTIONS)
        check_one_of("device", self.device, DEVICES)
        for name in ("epochs", "batch_size", "learning_rate", "patience", "threads"):
            check_positive(name, getattr(self, name))
        for name in ("weight_decay", "beta", "kl_warmup", "free_bits", "guide_weight", "input_noise"):
            check_not_negative(name, getattr(self, name))
        for name in ("augment_shift", "augment_rotate", "augment_noise", "seed"):
            check_not_negative(name, getattr(self, name))
        check_not_negative("augment_warp", self.augment_warp or 0)
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            raise UsageError(f"`folds` is {self.folds}; set it to 0, or to 2 or more")
        for name in ("validation", "calibration"):
            check_share(name, getattr(self, name))
        if self.validation == 0 or self.calibration == 0 or self.validation + self.calibration > 0.8:
            raise UsageError(
                f"`validation` is {self.validation} and `calibration` is {self.calibration}; both must be above 0 and"
                " together at most 0.8"
            )

    @property
    def images_per_step(self) -> int:
        """The batch size, of a resolved spec."""
        return settled("batch_size", self.batch_size)

    @property
    def step_size(self) -> float:
        """The learning rate, of a resolved spec."""
        return settled("learning_rate", self.learning_rate)

    def sized(self, view: View) -> TrainSpec:
        """Return this spec with batch size and learning rate settled."""
        return replace(
            self,
            batch_size=self.batch_size or view.batch_size,
            learning_rate=self.learning_rate or view.learning_rate,
        )
