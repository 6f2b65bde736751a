"""The report of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rich.markup import escape

from vaeguard.reports.gallery import data_uri
from vaeguard.reports.kinds import Part, ReportFigures, Verdict, percent
from vaeguard.reports.pictures import picture_of
from vaeguard.reports.report_file import heading
from vaeguard.reports.terminal import SHOWN, sparkline, table_of
from vaeguard.statistics.metrics import Share
from vaeguard.training.advice import advice
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt
    from rich.console import RenderableType

    from vaeguard.engines.record import ModelRecord
    from vaeguard.evaluation.latents import LatentUnits
    from vaeguard.reports.report_file import Report

    Pixels = npt.NDArray[Any]

SIDE = 64
"""The longest side of one image in a strip, in pixels."""
GAP = 2


def fit_report(
    record: ModelRecord,
    history: Sequence[Mapping[str, float]],
    units: LatentUnits,
    epochs: Mapping[str, Pixels],
    command: str = "",
    diverged: str = "",
) -> Report:
    """The report of a fit.

    Parameters
    ----------
    record : ModelRecord
        The record of the model file.
    history : sequence of dict
        One row per epoch.
    units : LatentUnits
        The measurements of the units of the latent.
    epochs : dict of uint8 (n, C, H, W)
        The same images as input and as restored after some epochs, by the name of the row; empty for vectors.
    command : str
        The command line.
    diverged : str
        The message of the error if the training diverged.
    """
    normal = ", ".join(record.normal_classes)
    what = "autoencoder" if record.model.autoencoder else "VAE"
    kind = f"{what} on features" if record.model.features else f"{record.model.kind} {what}"
    title = f"{record.data.name}: {kind}" + (f", normal {normal}" if normal else "")
    pictures = {f"epoch-{name}": {"strip": strip(images)} for name, images in epochs.items()}
    if units.traversals is not None:
        drawn = zip(units.traversed.tolist(), units.traversals, strict=True)
        pictures |= {f"unit-{unit}": {"strip": strip(images)} for unit, images in drawn}
    return {
        **heading("fit", title, command=command, device=record.training.device),
        **{key: value for key, value in record.to_dict().items() if key != "kind"},
        "history": [dict(row) for row in history],
        "advice": [diverged] if diverged else advice(record, history),
        "latents": {
            "units": unit_facts(units),
            "traversed": units.traversed.tolist() if units.traversals is not None else [],
        },
        "epochs": list(epochs),
        "pictures": pictures,
    }


def unit_facts(units: LatentUnits) -> list[dict[str, Any]]:
    """Each unit of the latent with its rate in nats, its variance and whether it is active; the highest rate first.

    An autoencoder has no rate, so its greatest variance comes first.
    """
    order = np.argsort(-(units.rate if units.rate.any() else units.variance), kind="stable")
    return [
        {"unit": unit, "rate": float(units.rate[unit]), "variance": float(units.variance[unit]),
         "active": bool(units.active[unit])}
        for unit in order.tolist()
    ]  # fmt: skip


def strip(images: Pixels) -> str:
    """Images (n, C, H, W), floats in [0, 1], side by side as one picture, a data URI."""
    tiles = [picture_of(image) for image in images]
    factor = SIDE // max(tiles[0].size)
    if factor:
        tiles = [tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST) for tile in tiles]
    else:
        for tile in tiles:
            tile.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    width, height = tiles[0].size
    whole = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height), "#808080")
    for at, tile in enumerate(tiles):
        whole.paste(tile, (at * (width + GAP), 0))
    return data_uri(whole, max(whole.size))


class Model(Part):
    """The settings of the model that a sentence names."""

    kind: str
    autoencoder: bool
    patch: int | None
    latent: int
    region_share: float = 1.0
    regions: bool = False
    features: str | None = None


class Network(Part):
    """The frozen network whose features were learned."""

    name: str
    licence: str


class Split(Part):
    """Counts of normal examples."""

    training: int
    validation: int
    calibration: int
    folds: int = 0


class Data(Part):
    """The data of the fit."""

    split: Split


class Epoch(Part):
    """A row of the history; only guided fits have a class accuracy."""

    epoch: float
    valid_loss: float
    valid_distortion: float
    valid_rate: float
    active_units: float
    valid_class_accuracy: float | None = None


class NormalClass(Part):
    """The figures of a normal class; a figure is None if no held-out image is of the class."""

    name: str
    training: int
    draws: int
    distortion: float | None
    flagged: float | None
    calibration: int


class Refit(Part):
    """Confirmed images that a refit learned from, and what their review says of the model before."""

    training_only: int
    audited: int
    defects: int
    normal: int
    unsure: int
    flagged_normal: int
    false_alarm_rate: Share | None
    caught: Share | None

    def sentences(self) -> Iterable[str]:
        """Yield what to know, a sentence each."""
        yield (
            f"refitted with {counted(self.training_only + self.audited, 'confirmed normal image')}:"
            f" {self.training_only:,} that had been flagged only train the model, because they were chosen by their"
            f" score, and {self.audited:,} from the audit, the random sample, may also calibrate it; the model did"
            f" not learn from {counted(self.defects, 'defect')} and {counted(self.unsure, 'unsure image')}"
        )
        for name, share in (
            ("false alarms of the old model", self.false_alarm_rate),
            ("defects that the old model caught", self.caught),
        ):
            of = "normal images" if share is self.false_alarm_rate else "defects"
            yield (
                f"{name}: unknown; to measure them, review flagged images and the audit"
                if share is None
                else f"{name}: {percent(share.value)} of {of} (95 % interval {percent(share.low)} to"
                f" {percent(share.high)}), estimated from the reviewed batch"
            )


class Figures(ReportFigures):
    """The figures of a fit that its verdict and its lines take."""

    model: Model
    data: Data
    best_epoch: Epoch
    history: tuple[Epoch, ...]
    advice: tuple[str, ...]
    classes: tuple[NormalClass, ...] = ()
    backbone: Network | None = None
    refit: Refit | None = None

    def verdict(self) -> Verdict:
        """Return a summary of the fit and what looks wrong."""
        best, split, model = self.best_epoch, self.data.split, self.model
        what = "autoencoder" if model.autoencoder else "VAE"
        example = "patch" if model.patch else "cell" if model.features else "example"
        network = self.backbone
        kind = {"mlp": "MLP", "conv": "convolutional"}.get(model.kind, model.kind)
        kind = f"{what} on features of {network.name} (licence: {network.licence})" if network else f"{kind} {what}"
        rate = "" if model.autoencoder else f" + rate {best.valid_rate:.2f}"
        accuracy = "" if best.valid_class_accuracy is None else f", class accuracy {best.valid_class_accuracy:.3f}"
        active = "" if model.autoencoder else f", {best.active_units:.0f} of {model.latent} latent units active"
        region = f" The model looks at {percent(model.region_share)} of each image." if model.region_share < 1 else ""
        region += (
            " In images that have a region of their own, the model looks only at this region." if model.regions else ""
        )
        losses = f"distortion {best.valid_distortion:.2f}{rate} nats per {example}"
        epochs = counted(len(self.history), "epoch")
        chosen = f"after {epochs}" if len(self.history) == 1 else f"the best of {epochs} is epoch {best.epoch:.0f}"
        if split.folds:
            calibrating = "which" if split.calibration == split.training else f"of which {split.calibration:,}"
            sentence = (
                f"{kind}, fitted on all {split.training:,} normal images, {calibrating} also calibrate the score:"
                f" in {split.folds}-fold cross-validation, each image is scored by a model that has not seen it. The"
                f" lowest possible p-value is {1 / (split.calibration + 1):.2g}. After"
                f" {counted(int(best.epoch), 'epoch')}: {losses} on the held-out folds{active}."
            )
        else:
            sentence = (
                f"{kind}, fitted on {split.training:,} normal examples; {chosen}: {losses} on {split.validation:,}"
                f" held-out examples{active}{accuracy}. The score is calibrated on {split.calibration:,} other"
                " examples."
            )
        sentence += region
        notes = (*self.advice, *(self.refit.sentences() if self.refit else ()))
        if self.advice:
            return Verdict("Needs a second look", sentence, notes, "fair")
        return Verdict("Fitted without problems", sentence, notes, "good")

    def lines(self) -> Iterable[RenderableType]:
        """Yield the loss over the epochs and the classes that are hardest to restore."""
        losses = [epoch.valid_loss for epoch in self.history]
        # The losses of the first epochs would dwarf all others.
        yield f"validation loss {sparkline(losses[min(2, len(losses) - 1) :])} {min(losses):.2f} at its best"
        if len(self.classes) > 1:
            yield self._hardest_classes()

    def _hardest_classes(self) -> RenderableType:
        table = table_of("training", "draws", "distortion", "flagged")
        measured = [(row.distortion, row) for row in self.classes if row.distortion is not None]
        for distortion, row in sorted(measured, key=lambda pair: -pair[0])[:SHOWN]:
            flagged = "–" if row.flagged is None else f"{round(row.flagged * row.calibration):,} of {row.calibration:,}"
            counts = f"{row.training:,}", f"{row.draws:,}"
            table.add_row(f"{escape(row.name[:40])} (hardest to restore)", *counts, f"{distortion:.2f}", flagged)
        return table
