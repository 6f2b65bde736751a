"""The treatment of a single page: its restorer, its settings, and the check that tesseract still reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.devices import cores
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.derived import check_derive
from vaeguard.restoration.ocr import words_lost
from vaeguard.restoration.page import PageReport, RestoredPage
from vaeguard.restoration.reasons import BILEVEL, FEWER_WORDS
from vaeguard.restoration.restorer import open_restorer
from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaeguard.restoration.formats.scan_page import Page, Pixels
    from vaeguard.restoration.restorer import Restorer

_BILEVEL = PageReport("untouched", 0.0, 0.0, 0.0, 0.0, reason=BILEVEL)


@dataclass(frozen=True)
class Pipeline:
    """Restores pages, in any thread.

    Attributes
    ----------
    restorer : Restorer
        The restorer of the pages.
    settings : RestoreSettings
        The settings for restoring a page.
    outputs : DenoiseOutputs
        What is written besides the clean pages.
    """

    restorer: Restorer
    settings: RestoreSettings
    outputs: DenoiseOutputs

    def restore(self, page: Page, tick: Callable[[float], None]) -> RestoredPage:
        """Restore a page; `tick` is called as `restore_page` calls it."""
        if page.pixels.dtype == np.bool_:
            return RestoredPage(page.pixels, _BILEVEL)
        return self.restorer.restore(page.pixels, self.settings, uncertainty=self.outputs.uncertainty, tick=tick)

    def judge(self, page: Page) -> PageReport:
        """The decision of `restore` about a page: its kind, and whether and why it would be left as it is."""
        return _BILEVEL if page.pixels.dtype == np.bool_ else self.restorer.judge(page.pixels, self.settings)

    def harm(self, page: Page, clean: Pixels) -> str:
        """Why a page must stay as it was, judged by the words that tesseract reads; empty if it may change.

        If tesseract fails on a page, its words cannot be compared, so the page stays as it was.

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


def open_pipeline(
    model: str | Path | None,
    device: str,
    workers: int,
    settings: RestoreSettings | None,
    outputs: DenoiseOutputs | None,
) -> Pipeline:
    """The pipeline for `workers` scans at a time; the other arguments are those of `denoise_scans`.

    Raises
    ------
    UsageError
        A setting has no meaning for the model, or a package for copies is missing.
    """
    outputs = outputs or DenoiseOutputs()
    check_derive(outputs.derive)
    restorer = open_restorer(model, device, max(1, cores() // workers))
    pipeline = Pipeline(restorer, settings or RestoreSettings(), outputs)
    restorer.check(pipeline.settings, pipeline.outputs)
    return pipeline
