"""Scoring on a cluster: each task makes one part of the table."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.cluster.ray_cluster import check_address, open_cluster, seen
from vaeguard.engines.model_file import load
from vaeguard.errors import RefusedError
from vaeguard.evaluation.parts import PART_FACTS, ScoreParts
from vaeguard.storage.places import as_urls
from vaeguard.storage.published import adding_to, adopt
from vaeguard.storage.store import Store, beside
from vaeguard.workflows.scoring import score_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vaeguard.data.source import Piece
    from vaeguard.engines.detector import Detector
    from vaeguard.evaluation.parts import ScorePart
    from vaeguard.settings.cluster import ClusterSettings
    from vaeguard.workflows.outcome import Outcome, Reporter


@dataclass(frozen=True)
class ScoreJob:
    """What all tasks of a job have in common.

    Attributes
    ----------
    home : str
        The folder to which relative paths belong.
    model, device, threads
        The model, where it runs, and the threads of PyTorch, on which bits depend; None for an exported model.
    fingerprint : str
        That of the driver's detector.
    folder, suffix, fpr, batch_size
        As for `ScoreParts`.
    cpus : int
        Cores of a task.
    """

    home: str
    model: str
    device: str
    threads: int | None
    fingerprint: str
    folder: str
    suffix: str
    fpr: float
    batch_size: int
    cpus: int


def score_on_cluster(
    images: Sequence[str], output: str, reporter: Reporter, *, cluster: str, settings: ClusterSettings, **options: Any
) -> Outcome:
    """Score images on a Ray cluster, into the table that `score_table` writes.

    Parameters
    ----------
    images, output, reporter, options
        As for `score_table`. Model, images and output must be in a bucket, or on storage that all nodes share.
    cluster : str
        `local`, `auto`, or HOST:PORT of the head node.
    settings : ClusterSettings
        What a task takes of a node.

    Raises
    ------
    UsageError, VaeguardError
        As by `score_table`; or there is no such cluster, or none of its nodes can take a task.
    """
    check_address(cluster)
    spread = partial(ScoreSpread, cluster, settings)
    return score_table(images, output, reporter, spread_over=spread, **options)


@dataclass
class ScoreSpread:
    """Has the tasks of a cluster make the parts of a table; see `Spread`."""

    cluster: str
    settings: ClusterSettings
    facts: Mapping[str, Any]

    def __call__(
        self, parts: ScoreParts, missing: Sequence[tuple[Piece, str]], report: Callable[[int], None]
    ) -> Iterator[tuple[str, ScorePart]]:
        """Have the parts of the missing pieces made, and yield each with its key."""
        detector, done = parts.detector, 0
        torch = sys.modules.get("torch") if detector.fingerprint.startswith("torch") else None
        job = ScoreJob(
            home=os.getcwd(),  # noqa: PTH109  (it is only handed on)
            model=self.facts["model"],
            device=detector.device,
            threads=torch.get_num_threads() if torch else None,
            fingerprint=detector.fingerprint,
            folder=as_urls(str(parts.store.folder)),
            suffix=parts.suffix,
            fpr=parts.fpr,
            batch_size=parts.batch_size,
            cpus=self.settings.cpus,
        )
        tasks = ((piece.alone(), key) for piece, key in missing)
        with open_cluster(self.cluster, self.settings, detector.device, parts.store.folder) as cluster:
            for number, node in cluster.each(f"{__name__}:score_piece", job, tasks):
                piece, key = missing[number]
                part = seen(partial(_arrived, parts, key), node, parts.store.folder)
                done += piece.count
                report(done)
                yield key, part


def _arrived(parts: ScoreParts, key: str) -> ScorePart | None:
    """The part `key` if a task has finished it."""
    adopt([parts.table(key), beside(parts.store.folder / key, "json")])
    return parts.finished(key)


def score_piece(job: ScoreJob, item: tuple[Piece, str]) -> str:
    """Make a part of the table in a worker, and return the name of the node.

    Raises
    ------
    RefusedError
        The model is another one here, or gives other bits.
    """
    import platform

    os.chdir(job.home)
    piece, key = item
    with adding_to(job.folder) as folder:
        store = Store(Path(folder), PART_FACTS)
        parts = ScoreParts(_detector(job), store, job.suffix, job.fpr, job.cpus, job.batch_size)
        if not parts.finished(key):
            try:
                for _ in parts.make([item], lambda _: None):
                    pass
            finally:
                piece.source.close()
    return platform.node()


@lru_cache(maxsize=1)
def _detector(job: ScoreJob) -> Detector:
    """The detector of a job, which a worker holds from task to task."""
    if job.threads:
        import torch

        torch.set_num_threads(job.threads)
    detector = load(job.model, job.device, threads=1)
    if detector.fingerprint != job.fingerprint:
        raise RefusedError(
            f"the model {job.model!r} has the digest {detector.fingerprint!r}, but on the machine that started the job"
            f" {job.fingerprint!r}; use a path under which all nodes find the same file"
        )
    detector.parallel = min(detector.parallel, job.cpus)
    return detector
