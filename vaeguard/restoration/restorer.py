"""Restorers of pages: the denoisers for all kinds of pages, or a model of anomalies for images of its own size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from vaeguard.engines.model_file import load
from vaeguard.engines.run_folder import MODEL_NAME, ONNX_NAME, local_model
from vaeguard.engines.sessions import open_session
from vaeguard.errors import RefusedError, UsageError
from vaeguard.restoration.denoiser import Denoiser, shipped_denoiser
from vaeguard.restoration.page import PageReport, RestoredPage, restore_page, root_mean_square
from vaeguard.settings.restoration import RestoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vaeguard.engines.detector import Detector
    from vaeguard.restoration.page import Pixels
    from vaeguard.settings.restoration import DenoiseOutputs

SHIPPED_KINDS = ("document", "photo", "colour")
OWN_FOR = {"document": ("document",), "photo": ("photo", "colour"), "colour": ("colour",)}
"""The shipped denoisers that a user's denoiser replaces, by its kind."""


class Restorer(Protocol):
    """A restorer of pages.

    Attributes
    ----------
    device : str
        The device that the restorer runs on.
    fingerprints : list of str
        One for each model; models that may give different bits have different fingerprints.
    any_size : bool
        Whether the restorer takes pages of any size.
    """

    device: str
    fingerprints: list[str]
    any_size: bool

    def check(self, settings: RestoreSettings, outputs: DenoiseOutputs) -> None:
        """Refuse settings that do not apply to this restorer, with a UsageError."""

    def restore(
        self,
        pixels: Pixels,
        settings: RestoreSettings,
        *,
        uncertainty: bool = False,
        tick: Callable[[float], None] | None = None,
    ) -> RestoredPage:
        """Restore a page; the parameters are those of `restore_page`."""

    def judge(self, pixels: Pixels, settings: RestoreSettings) -> PageReport:
        """The kind as which `restore` would restore a page, or the reason why it would leave the page."""


class DenoiserSet:
    """The denoisers for each kind of page.

    Parameters
    ----------
    denoisers : mapping of str to Denoiser
        The denoisers by `document`, `photo` and `colour`.
    """

    any_size = True

    def __init__(self, denoisers: Mapping[str, Denoiser]) -> None:
        self._denoisers = denoisers
        self.device = next(iter(denoisers.values())).device
        self.fingerprints = sorted(denoiser.fingerprint for denoiser in denoisers.values())

    def check(self, settings: RestoreSettings, outputs: DenoiseOutputs) -> None:  # noqa: ARG002
        """Refuse samples from denoisers that draw none."""
        for kind, denoiser in self._denoisers.items():
            if settings.samples and settings.kind in ("auto", kind) and not denoiser.ladder:
                raise UsageError(
                    f"`samples` is {settings.samples}, but the denoiser for pages of kind {kind} has no ladder VAE to"
                    " sample from; set `samples` to 0, or set `model` to a denoiser that has one and `kind` to its"
                    " kind"
                )

    def restore(
        self,
        pixels: Pixels,
        settings: RestoreSettings,
        *,
        uncertainty: bool = False,
        tick: Callable[[float], None] | None = None,
    ) -> RestoredPage:
        """Restore a page of any size; see `restore_page`."""
        return restore_page(pixels, self._denoisers.__getitem__, settings, uncertainty=uncertainty, tick=tick)

    def judge(self, pixels: Pixels, settings: RestoreSettings) -> PageReport:
        """Judge a page as `restore` does, and stop before the work begins."""
        requested = set()

        def denoiser(kind: str) -> Denoiser:
            requested.add(kind)
            return self._denoisers[kind]

        def begin(_: float) -> None:
            raise _BegunError

        try:
            return restore_page(pixels, denoiser, settings, tick=begin).report
        except _BegunError:
            return PageReport("document" if "document" in requested else "photo", 0.0, 0.0, 0.0, 0.0)


class _BegunError(BaseException):
    """The page would be restored, and the work would begin now."""


class DetectorRestorer:
    """A model of anomalies for images of exactly its size; its `restored` is the clean image."""

    any_size = False

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.device, self.fingerprints = detector.device, [detector.fingerprint]

    def check(self, settings: RestoreSettings, outputs: DenoiseOutputs) -> None:
        """Refuse vectors, and all settings but the strength."""
        if not self._detector.info.view.pictures:
            raise UsageError("`model` is a model of vectors, but scans are images; give a denoiser, or remove `model`")
        plain = RestoreSettings(strength=settings.strength)
        given = [name for name, value in vars(settings).items() if value != getattr(plain, name)]
        if given := given + ["uncertainty"] * outputs.uncertainty:
            has, it = ("has", "it") if len(given) == 1 else ("have", "them")
            names = ", ".join(f"`{name}`" for name in given)
            raise UsageError(f"{names} {has} no effect if `model` is an anomaly model; remove {it}")

    def restore(
        self,
        pixels: Pixels,
        settings: RestoreSettings,
        *,
        uncertainty: bool = False,  # noqa: ARG002 -- `check` refuses it
        tick: Callable[[float], None] | None = None,  # noqa: ARG002 -- small images take no time
    ) -> RestoredPage:
        """Restore an image of exactly the size that the model takes.

        Raises
        ------
        RefusedError
            The image has another size or other channels.
        """
        plain = pixels[..., None] if pixels.ndim == 2 else pixels
        channels, height, width = self._detector.info.image_shape
        if plain.shape != (height, width, channels):
            shape = f"{plain.shape[0]}x{plain.shape[1]} pixels and {plain.shape[2]} channels"
            raise RefusedError(f"it has {shape}, but the model takes {height}x{width} and {channels}")
        full = np.float32(np.iinfo(pixels.dtype).max)
        before = plain.astype(np.float32) / full
        # The model takes 256 levels. Finer levels of the page survive, since only the correction is added.
        seen = np.round(before * 255).astype(np.uint8)
        inspected = self._detector.inspect(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]), pictures=True)
        assert inspected.restored is not None
        mixed = before + np.float32(settings.strength) * (inspected.restored[0].transpose(1, 2, 0) - before)
        clean = cast("Pixels", np.round(np.clip(mixed, 0, 1) * full).astype(pixels.dtype)).reshape(pixels.shape)
        return RestoredPage(clean, PageReport("model", 0.0, root_mean_square(pixels, clean), 0.0, 0.0))

    def judge(self, pixels: Pixels, settings: RestoreSettings) -> PageReport:
        """Restore the image, which takes no time."""
        return self.restore(pixels, settings).report


def open_restorer(model: str | Path | None, device: str, threads: int) -> Restorer:
    """The restorer for `model`, which is a user's denoiser or a model of anomalies; None means the shipped denoisers.

    A user's denoiser replaces the shipped one of its kind. One for grey photographs also replaces the one for colour
    photographs, whose planes it cleans one by one.
    """
    own = None
    if model is not None:
        with local_model(model) as path:
            own = _own_denoiser(path, device, threads)
    if model is not None and own is None:
        return DetectorRestorer(load(model, device, threads))
    replaced = OWN_FOR[own.kind] if own else ()
    shipped = {kind: shipped_denoiser(kind, device, threads) for kind in SHIPPED_KINDS if kind not in replaced}
    return DenoiserSet(shipped | {kind: own for kind in replaced if own})


def _own_denoiser(path: Path, device: str, threads: int) -> Denoiser | None:
    """The denoiser in a file or a run folder; None if it is something else."""
    folder = path if path.is_dir() else path.parent if path.name == MODEL_NAME else None
    exported = folder / ONNX_NAME if folder else path
    if exported.suffix != ".onnx" or (folder and not exported.exists()):
        return None
    session = open_session(exported, device, threads)
    return Denoiser(session) if session.kind == "denoiser" else None
