"""What restores single pages: a denoiser for each kind of page, or an anomaly model for small images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.devices import cores
from vaeguard.engines.model_file import load
from vaeguard.engines.run_folder import MODEL_NAME, ONNX_NAME
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
from vaeguard.restoration.ocr import words_lost
from vaeguard.restoration.page import PageReport, RestoredPage, restore_page, restore_small
from vaeguard.restoration.reasons import BILEVEL, FEWER_WORDS
from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.engines.detector import Detector
    from vaeguard.restoration.formats.scan_page import Page, Pixels

    Engines = dict[str, Denoiser] | Detector

SHIPPED_KINDS = ("document", "photo", "colour")
OWN_FOR = {"document": ("document",), "photo": ("photo", "colour"), "colour": ("colour",)}
"""Which shipped denoisers one of one's own replaces, by its kind."""
_BILEVEL = PageReport("untouched", 0.0, 0.0, 0.0, 0.0, reason=BILEVEL)


class _BegunError(BaseException):
    """A page is judged, and from here on it would be restored."""


@dataclass(frozen=True)
class Restorer:
    """Restores pages, in whatever thread asks.

    Attributes
    ----------
    engines : dict of Denoiser, or Detector
        A denoiser for each kind of page, or an anomaly model.
    settings : RestoreSettings
        How pages are restored.
    outputs : DenoiseOutputs
        What is written beside them.

    Raises
    ------
    UsageError
        A setting has no meaning for these engines.
    """

    engines: Engines
    settings: RestoreSettings
    outputs: DenoiseOutputs

    def __post_init__(self) -> None:
        if isinstance(self.engines, dict):
            self._check_samples(self.engines)
        else:
            self._check_model(self.engines)

    @property
    def device(self) -> str:
        """Where the engines run."""
        return (next(iter(self.engines.values())) if isinstance(self.engines, dict) else self.engines).device

    @property
    def fingerprints(self) -> list[str]:
        """What tells the engines from others, sorted."""
        used = self.engines.values() if isinstance(self.engines, dict) else (self.engines,)
        return sorted(engine.fingerprint for engine in used)

    def restore(self, page: Page, tick: Callable[[float], None]) -> RestoredPage:
        """Restore a page; `tick` is called as by `restore_page`."""
        if page.pixels.dtype == np.bool_:
            return RestoredPage(page.pixels, _BILEVEL)
        if not isinstance(self.engines, dict):
            return restore_small(page.pixels, self.engines, self.settings)
        uncertainty = self.outputs.uncertainty
        return restore_page(page.pixels, self.engines.__getitem__, self.settings, uncertainty=uncertainty, tick=tick)

    def judge(self, page: Page) -> PageReport:
        """Whether a page would be restored and as what, or why it would be left, as `restore` decides it."""
        asked: list[str] = []

        def begun(_: float) -> None:
            raise _BegunError

        if page.pixels.dtype == np.bool_ or not isinstance(engines := self.engines, dict):
            return self.restore(page, begun).report

        def engine(kind: str) -> Denoiser:
            asked.append(kind)
            return engines[kind]

        try:
            return restore_page(page.pixels, engine, self.settings, tick=begun).report
        except _BegunError:
            return PageReport("document" if "document" in asked else "photo", 0.0, 0.0, 0.0, 0.0)

    def harm(self, page: Page, clean: Pixels) -> str:
        """Why a page must stay as it was by what tesseract reads, or nothing.

        Where tesseract fails on a page, nobody knows, so the page stays.

        Raises
        ------
        UsageError
            Tesseract is missing.
        """
        if not self.outputs.ocr or clean is page.pixels:
            return ""
        before, after = page.upright(page.pixels), page.upright(clean)
        try:
            return FEWER_WORDS if words_lost(before, after, page.dpi, self.outputs.ocr_language) else ""
        except UsageError:
            raise
        except VaeguardError as error:
            return str(error)

    def _check_model(self, model: Detector) -> None:
        if not model.info.view.pictures:
            raise UsageError("`model` is a model of vectors, and scans are pictures; give a denoiser, or leave it out")
        plain = RestoreSettings(strength=self.settings.strength)
        given = [name for name, value in vars(self.settings).items() if value != getattr(plain, name)]
        if given := given + ["uncertainty"] * self.outputs.uncertainty:
            has, it = ("has", "it") if len(given) == 1 else ("have", "them")
            names = ", ".join(f"`{name}`" for name in given)
            raise UsageError(f"{names} {has} no meaning where `model` is a model of anomalies; leave {it} out")

    def _check_samples(self, engines: dict[str, Denoiser]) -> None:
        for kind, engine in engines.items():
            if self.settings.samples and self.settings.kind in ("auto", kind) and not engine.ladder:
                raise UsageError(
                    f"`samples` is {self.settings.samples}, and the denoiser of kind {kind} has no ladder VAE to draw"
                    " from; set `samples` to 0, or give a denoiser of your own as `model` and its `kind`"
                )


def load_restorer(
    model: str | Path | None,
    device: str,
    workers: int,
    settings: RestoreSettings | None,
    outputs: DenoiseOutputs | None,
) -> Restorer:
    """What restores the pages of `workers` scans at a time; the other arguments are those of `denoise_scans`."""
    engines = _engines(model, device, max(1, cores() // workers))
    return Restorer(engines, settings or RestoreSettings(), outputs or DenoiseOutputs())


def _engines(model: str | Path | None, device: str, threads: int) -> Engines:
    """A denoiser for each kind of page, or the anomaly model at `model`.

    A denoiser of one's own stands for the shipped one of its kind; one for photographs without colours also for those
    in colour, whose planes it cleans one by one.
    """
    own = None
    if model is not None:
        path = Path(model)
        folder = path if path.is_dir() else path.parent if path.name == MODEL_NAME else None
        exported = folder / ONNX_NAME if folder else path
        if exported.suffix == ".onnx" and (exported.exists() or not folder):
            own = read_denoiser(exported, device, threads)
        if own is None:
            return load(model, device, threads)
    replaced = OWN_FOR[own.kind] if own else ()
    shipped = {kind: shipped_denoiser(kind, device, threads) for kind in SHIPPED_KINDS if kind not in replaced}
    return shipped | {kind: own for kind in replaced if own}
