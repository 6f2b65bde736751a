"""Cleaning scans on a cluster: each task restores one scan."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.cluster.ray_cluster import check_address, open_cluster, seen
from vaeguard.errors import RefusedError, UsageError
from vaeguard.restoration.pipeline import Pipeline, open_pipeline
from vaeguard.restoration.places import Places
from vaeguard.restoration.sharing import SCAN_FACTS, restore_into
from vaeguard.restoration.work import Work
from vaeguard.storage.places import check_supported
from vaeguard.storage.store import Store
from vaeguard.workflows.denoising import denoise_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vaeguard.settings.cluster import ClusterSettings
    from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings
    from vaeguard.workflows.outcome import Outcome, Reporter


@dataclass(frozen=True)
class ScanJob:
    """What all tasks of a job have in common.

    Attributes
    ----------
    home : str
        The folder to which relative paths belong.
    root, target, folder : str
        The folders of the scans, of the clean scans, and of the parts.
    model, device
        The model, and where it runs.
    models : tuple of str
        The fingerprints of the driver's models.
    settings, outputs
        As for `denoise_scans`.
    cpus : int
        Cores of a task.
    """

    home: str
    root: str
    target: str
    folder: str
    model: str | None
    device: str
    models: tuple[str, ...]
    settings: RestoreSettings
    outputs: DenoiseOutputs
    cpus: int


def denoise_on_cluster(
    scans: Sequence[str], output: str | None, reporter: Reporter, *, cluster: str, cluster_settings: ClusterSettings,
    model: str | None = None, dry_run: bool = False, **options: Any,
) -> Outcome:  # fmt: skip
    """Clean scans on a Ray cluster, into the tree that `denoise_tree` writes.

    Parameters
    ----------
    scans, output, reporter, model, options
        As for `denoise_tree`. Model, scans and output must be on storage that all nodes share.
    cluster : str
        `local`, `auto`, or HOST:PORT of the head node.
    cluster_settings : ClusterSettings
        What a task takes of a node.

    Raises
    ------
    UsageError, VaeguardError
        As by `denoise_tree`; or there is no such cluster, or none of its nodes can take a task.
    """
    if dry_run:
        raise UsageError("`dry_run` works only on this machine; remove `dry_run` or `cluster`")
    check_supported([*scans, output], "cleaning on a cluster")
    check_address(cluster)
    spread = ScanSpread(cluster, cluster_settings, model)
    return denoise_tree(scans, output, reporter, model=model, spread=spread, **options)


@dataclass
class ScanSpread:
    """Has the tasks of a cluster restore scans; see `SpreadScans`."""

    cluster: str
    settings: ClusterSettings
    model: str | None

    def __call__(self, work: Work, store: Store, missing: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Have the missing scans restored, and yield the keys of their parts."""
        if not missing:
            return
        restorer = work.pipeline.restorer
        job = ScanJob(
            home=os.getcwd(),  # noqa: PTH109  (it is only handed on)
            root=str(work.places.root),
            target=str(work.places.target),
            folder=str(store.folder),
            model=self.model,
            device=restorer.device,
            models=tuple(restorer.fingerprints),
            settings=work.pipeline.settings,
            outputs=work.pipeline.outputs,
            cpus=self.settings.cpus,
        )
        items = [(name, work.owners[name], key) for name, key in missing]
        with open_cluster(self.cluster, self.settings, restorer.device, store.folder) as cluster:
            for number, node in cluster.each(f"{__name__}:restore_scan", job, items):
                key = items[number][2]
                seen(lambda key=key: store.part(key).record, node, store.folder)  # type: ignore[misc]
                yield key


def restore_scan(job: ScanJob, item: tuple[str, str, str]) -> str:
    """Restore a scan in a worker, given with the scan that its clean file belongs to and its key; return the node.

    Raises
    ------
    RefusedError
        The model is another one here, or gives other bits.
    """
    import platform

    os.chdir(job.home)
    name, owner, key = item
    places = Places(Path(job.root), Path(job.target), [*dict.fromkeys((owner, name))], [], [], whole=False)
    work = Work(places, _pipeline(job), 1, None, [name])
    for _ in restore_into(work, Store(Path(job.folder), SCAN_FACTS), {name: key}):
        pass
    return platform.node()


@functools.lru_cache(maxsize=1)
def _pipeline(job: ScanJob) -> Pipeline:
    """The pipeline of a job, which a worker holds from task to task."""
    pipeline = open_pipeline(job.model, job.device, 1, job.settings, job.outputs)
    if tuple(pipeline.restorer.fingerprints) != job.models:
        raise RefusedError(
            "its models differ from those on the machine that started the job; install the same version of vaeguard on"
            " every node, and give a path to the model under which all nodes find the same file"
        )
    return pipeline
