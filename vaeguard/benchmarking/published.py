"""Published results of others, each with its protocol and source: for orientation beside ours, not the same test."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """ROC-AUC of one method as published.

    Attributes
    ----------
    benchmark, data : str
        The benchmark of ours and its data that the result is shown with.
    method, protocol, source : str
        The method, the protocol of its measurement, and the publication.
    verified : bool
        Whether the number was read at the source; otherwise it was quoted from memory.
    mean : float or None
        The mean of the classes.
    cases : dict
        The result of each class, pair or table.
    """

    benchmark: str
    data: str
    method: str
    protocol: str
    source: str
    verified: bool
    mean: float | None = None
    cases: dict[str, float] = field(default_factory=dict)


def published(benchmark: str, data: str) -> list[Published]:
    """The results of others for a benchmark on some data, in the order of `published.toml`."""
    text = files("vaeguard.benchmarking").joinpath("published.toml").read_text(encoding="utf-8")
    rows = (Published(**row) for row in tomllib.loads(text)["result"])
    return [row for row in rows if row.benchmark == benchmark and row.data == data]
