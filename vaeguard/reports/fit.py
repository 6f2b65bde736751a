"""The report of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.reports.gallery import data_uri
from vaeguard.reports.pictures import picture_of
from vaeguard.reports.report_file import heading
from vaeguard.training.advice import advice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.engines.record import ModelRecord
    from vaeguard.evaluation.latents import LatentUnits
    from vaeguard.reports.report_file import Report

    Pixels = npt.NDArray[Any]

SIDE = 64
"""Longest side of one image in a strip, in pixels."""
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
        What the model file says of itself.
    history : sequence of dict
        One row per epoch.
    units : LatentUnits
        What the units of the latent do.
    epochs : dict of uint8 (n, C, H, W)
        The same images as they are and as restored after some epochs, by the name of the row; empty for vectors.
    command : str
        The command line.
    diverged : str
        How the training went wrong, if it did.
    """
    normal = ", ".join(record.normal_classes)
    what = "autoencoder" if record.model.autoencoder else "VAE"
    title = f"{record.data.name}: {record.model.kind} {what}" + (f", normal {normal}" if normal else "")
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
    """Each unit of the latent with its rate, nats, variance and whether it is active; the highest rate first.

    An autoencoder has no rate: there the greatest variance comes first.
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
