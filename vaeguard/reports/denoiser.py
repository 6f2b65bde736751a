"""The report of a fit of a denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaeguard.reports.kinds import Part, ReportFigures, Verdict
from vaeguard.reports.report_file import heading
from vaeguard.reports.terminal import sparkline
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vaeguard.reports.report_file import Report


def denoiser_report(
    name: str,
    facts: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    interval: float,
    *,
    command: str = "",
    device: str = "cpu",
) -> Report:
    """The report of the run `name`.

    Parameters
    ----------
    name : str
        The name of the run folder.
    facts : dict
        The record of the denoiser in its model file; `kind` is the kind of scan.
    history : sequence of dict
        Means over the steps.
    interval : float
        The factor from the expected error to half of a 90 % interval.
    command, device : str
        The command line, and the device of the training.
    """
    return {
        **facts,
        "scan_kind": facts["kind"],
        "history": history,
        "interval": interval,
        **heading("denoiser", f"{name}: {facts['kind']} denoiser", command=command, device=device),
    }


class Step(Part):
    """A row of the history."""

    direct_loss: float


class Figures(ReportFigures):
    """The figures of a denoiser that its verdict and its line take."""

    scan_kind: str
    mode: str
    images: int
    held_out: int
    before: float
    after: float
    neg_elbo: float
    history: tuple[Step, ...]

    def verdict(self) -> Verdict:
        """Return whether the network cleans."""
        gain = self.after - self.before
        basis = "by Stein's estimate, without clean images" if self.mode == "adapt" else "on held-out images"
        if not self.held_out:
            basis = "on the training images, because there are too few to hold some out"
        sentence = (
            f"A {self.scan_kind} denoiser trained on {counted(self.images, 'image')}: denoising changes the PSNR from"
            f" {self.before:.2f} dB to {self.after:.2f} dB ({gain:+.2f} dB), measured {basis}. The ladder VAE's"
            f" negative ELBO is {self.neg_elbo:.3f} nats per pixel."
        )
        return Verdict(
            "Makes images cleaner" if gain > 0 else "Makes images worse", sentence, (), "good" if gain > 0 else "poor"
        )

    def lines(self) -> Iterable[str]:
        """Yield the loss over the steps."""
        yield f"loss {sparkline(step.direct_loss for step in self.history)}"
