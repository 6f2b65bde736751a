"""Settings of `denoise` and of fits of denoisers, with the only defaults."""

from __future__ import annotations

from dataclasses import dataclass

from vaeguard.devices import DEVICES
from vaeguard.errors import UsageError
from vaeguard.settings.checks import check_one_of, check_positive, settle_types
from vaeguard.settings.field import setting
from vaeguard.wording import brief_settings

RESTORE_KINDS = ("auto", "document", "photo")
DEGRADATIONS = ("document", "photo", "gaussian:LEVELS")
PAPERS = ("keep", "white", "as-is")
ESTIMATES = ("log_deviation", "log_precision")
"""Outputs of a denoiser's file with estimates of the noise."""
DERIVED = ("bilevel", "deskewed")
STRIDES = (2, 4, 8)
"""Strides in pixels of the latents of a ladder VAE, from the finest to the coarsest."""


@dataclass(frozen=True)
class RestoreSettings:
    """How pages are restored.

    Attributes
    ----------
    kind : str
        `document`, `photo`, or `auto` to decide page by page.
    strength : float
        Share of the correction that is applied, in [0, 1].
    noise : float or None
        Standard deviation of the noise in grey levels from 0 to 255; None estimates the noise page by page.
    paper : str
        For documents: `keep` the tint but not the stains, make the paper `white`, or leave it `as-is`.
    gate : bool
        Keep the pixels of the scan where cleaning would lose or add ink, or remove detail as noise.
    samples : int
        Average this many samples of the ladder VAE's posterior; 0 uses the direct network, which is faster and more
        accurate.

    Raises
    ------
    UsageError
        A value cannot work.
    """

    kind: str = setting("auto", "Kind of the pages; with auto, the program decides for each page.", of=RESTORE_KINDS)
    strength: float = setting(1.0, "How much of the correction to apply, from 0 (nothing) to 1 (all of it).")
    noise: float | None = setting(
        None, "Standard deviation of the noise, in grey levels from 0 to 255.", unset="estimated for each page"
    )
    paper: str = setting(
        "keep",
        "What to do with the paper of documents: keep its tint but remove stains (keep), make the paper white (white),"
        " or leave the paper unchanged (as-is).",
        of=PAPERS,
    )
    gate: bool = setting(True, "Keep the pixels of the scan where cleaning would lose or add ink.")
    samples: int = setting(
        0,
        "Clean with the average of this many samples of the denoiser's second network, a ladder VAE; 0 uses its first"
        " network, which is faster and more accurate.",
    )

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        check_one_of("kind", self.kind, RESTORE_KINDS)
        check_one_of("paper", self.paper, PAPERS)
        if self.kind == "photo" and self.paper != type(self).paper:
            raise UsageError(
                f"`paper` is {self.paper!r}, which is for documents, but `kind` is 'photo'; remove `paper`, or"
                " change `kind`"
            )
        if not 0 <= self.strength <= 1:
            raise UsageError(
                f"`strength` is {self.strength:g}; it must lie between 0 (nothing) and 1 (the whole correction)"
            )
        if self.samples < 0:
            raise UsageError(f"`samples` is {self.samples}; it must be 0 (the direct network) or more")
        if self.noise is not None and not 0 <= self.noise <= 255:
            raise UsageError(f"`noise` is {self.noise:g}; it must be a standard deviation from 0 to 255")


@dataclass(frozen=True)
class DenoiseOutputs:
    """Files that are written next to the clean scans, and how.

    Attributes
    ----------
    jpeg : int or None
        Write JPEG files, and JPEG pictures in PDFs, as JPEGs of this quality, 1 to 100; None writes JPEG files as
        lossless PNGs.
    lossless : bool
        Write pictures in PDFs losslessly; otherwise in their own codec at about the original quality.
    residual : bool
        Also write the exact difference between each page and its clean copy, from which `undo_scans` restores the
        original; pictures in PDFs are then written losslessly.
    uncertainty : bool
        Also write a picture of each page's uncertainty: half the width of the interval that contains the clean value in
        nine of ten cases.
    ocr : bool
        Leave a page unchanged if tesseract would recognise fewer words, or misread a number, after cleaning.
    ocr_language : str
        Tesseract's name of the language, or of several, such as `deu+fra`; empty takes English.
    derive : tuple of str
        Also write copies of each clean file: `bilevel`, in black and white; `deskewed`, with its pages straightened by
        small rotations. Each copy is made from the clean file alone, so a bilevel copy is never rotated.
    """

    jpeg: int | None = setting(
        None,
        "Quality, from 1 to 100, with which JPEG files and JPEG pictures in PDFs are saved.",
        unset="JPEG files become PNG files; JPEG pictures in PDFs keep roughly their original quality",
    )
    residual: bool = setting(
        False,
        "Also write the exact difference between scan and clean file, so that `vaeguard undo` can restore the pixels"
        " of the scan; pictures in PDFs are then saved losslessly.",
    )
    uncertainty: bool = setting(
        False, "Also write a picture of each page that shows how uncertain each of its pixels is."
    )
    ocr: bool = setting(
        False, "Leave a page unchanged if tesseract would recognise fewer words, or misread a number, after cleaning."
    )
    ocr_language: str = setting(
        "", "With --ocr: language or languages of the pages, as tesseract names them, such as deu+fra.", unset="eng"
    )
    lossless: bool = setting(False, "Save pictures in PDFs losslessly, which makes the files larger.")
    derive: tuple[str, ...] = setting(
        (),
        "Also write a copy of each clean file: in black and white only (bilevel), or with straightened pages"
        " (deskewed); for both, use the option twice.",
        of=DERIVED,
    )

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise UsageError(f"`jpeg` is {self.jpeg}; the quality must be from 1 to 100")
        if self.ocr_language and not self.ocr:
            raise UsageError("`ocr_language` has no effect without `ocr`; use both, or remove `ocr_language`")
        if self.jpeg and self.lossless:
            raise UsageError("`lossless` and `jpeg` exclude each other; remove one of them")
        if self.jpeg and self.residual:
            raise UsageError("`residual` needs exact pixels, which a JPEG does not keep; remove `jpeg` or `residual`")
        for kind in self.derive:
            check_one_of("derive", kind, DERIVED)
        # The order in which copies are named means nothing.
        object.__setattr__(self, "derive", tuple(kind for kind in DERIVED if kind in self.derive))

    @property
    def exact(self) -> bool:
        """Whether pictures in PDFs are written without loss."""
        return self.lossless or self.residual


@dataclass(frozen=True)
class DenoiserSpec:
    """The shape and training of a denoiser: a direct network and a ladder VAE.

    Attributes
    ----------
    width, depth : int
        Channels and layers of a direct network that is trained from scratch; the included network has its own.
    ladder_width : int
        Channels of the ladder VAE's features.
    latent : tuple of int
        Channels of the latent variables of the ladder VAE, from half the resolution to an eighth.
    steps : int
        Training steps for each of the two networks.
    patch_size, batch_size : int
        Side of a patch in pixels, a multiple of 8, and patches per step.
    learning_rate : float or None
        Learning rate; None takes 1e-3 from scratch, and 3e-4 if training starts from the included weights.
    from_scratch : bool
        Train from scratch instead of from the included weights.
    seed : int
        Random seed for weights, patches and noise.
    device : str
        `auto`, `cpu` or `cuda`.
    threads : int or None
        Number of CPU threads; None leaves the choice to torch.

    Raises
    ------
    UsageError
        A value cannot work.
    """

    width: int = setting(40, "For training from scratch: number of channels of the direct network.")
    depth: int = setting(6, "For training from scratch: number of layers of the direct network.")
    ladder_width: int = setting(40, "For training from scratch: number of channels of the ladder VAE's features.")
    latent: tuple[int, int, int] = setting(
        (8, 12, 16),
        "For training from scratch: number of channels of each of the ladder VAE's three latent maps, from fine to"
        " coarse.",
    )
    steps: int = setting(2000, "Number of training steps for each of the two networks.")
    patch_size: int = setting(96, "Side of the square training patches in pixels, a multiple of 8.")
    batch_size: int = setting(8, "Number of patches per training step.")
    learning_rate: float | None = setting(
        None, "Learning rate.", unset="0.001 for training from scratch, otherwise 0.0003"
    )
    from_scratch: bool = setting(
        False, "Train from random weights (from scratch) instead of from the included weights."
    )
    seed: int = setting(0, "Random seed for the initial weights, the patches and the noise.")
    device: str = setting("auto", "Device to train on.", of=DEVICES)
    threads: int | None = setting(None, "Number of CPU threads.", unset="chosen by PyTorch")

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        if self.seed < 0 or self.seed >= 2**62:
            raise UsageError(f"`seed` is {self.seed}; it must be at least 0 and below 2**62")
        for name in ("width", "depth", "ladder_width", "steps", "batch_size", "learning_rate", "threads"):
            check_positive(name, getattr(self, name))
        check_one_of("device", self.device, DEVICES)
        if self.patch_size % 8 or self.patch_size < 16:
            raise UsageError(f"`patch_size` is {self.patch_size}; it must be a multiple of 8, at least 16")
