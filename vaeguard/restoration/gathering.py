"""Clean a share of a tree of scans, and sum up when all shares have ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.workers import warm_up
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.denoising import DenoiseSummary, collect, count_workers, finish, plan_facts
from vaeguard.restoration.pipeline import open_pipeline
from vaeguard.restoration.places import Places, find_scans
from vaeguard.restoration.records import TABLE
from vaeguard.restoration.sharing import SCAN_FACTS, finished_scan, restore_into, result_of
from vaeguard.restoration.tree import CleanTree
from vaeguard.restoration.work import Restored, Work
from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings
from vaeguard.storage.plan import ShareSummary, finished_parts, read_plan
from vaeguard.storage.store import Store, is_job, job_folder, join_job, open_job

if TYPE_CHECKING:
    from vaeguard.progress import Progress
    from vaeguard.restoration.places import Inputs
    from vaeguard.storage.plan import Plan, Share


def denoise_share(
    scans: Inputs,
    output: str | Path | None,
    share: Share,
    settings: RestoreSettings | None = None,
    *,
    outputs: DenoiseOutputs | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ShareSummary:
    """Restore the scans of a share into the clean tree, which several processes fill.

    The clean files are those of `denoise_scans`. `gather_scans` writes the tables once all scans are done; so does
    `denoise_scans` with the same parameters.

    Parameters
    ----------
    scans, output, settings, outputs, model, device, jobs, progress
        As for `denoise_scans`; all but the last two must be the same in all processes.
    share : Share
        The share.

    Raises
    ------
    UsageError
        As by `denoise_scans`; or the folder holds the plan of a different job.
    VaeguardError
        A process has the folder for itself.
    """
    started = time.perf_counter()
    places = find_scans(scans, output)
    own = [places.names[number] for number in share.among(len(places.names))]
    workers = max(1, min(count_workers(places, jobs), len(own)))
    warm_up()  # it starts while the denoisers are loaded
    pipeline = open_pipeline(model, device, workers, settings, outputs)
    with join_job(places.target / TABLE, SCAN_FACTS) as store:
        whole = CleanTree(places, pipeline.settings, pipeline.outputs, pipeline.restorer.fingerprints)
        plan = whole.plan(plan_facts(pipeline))
        plan.enter(store)
        whole.sweep()
        keys = {name: piece.key for name, piece in zip(places.names, plan.pieces, strict=True)}
        missing = [name for name in own if not finished_scan(whole, store, keys[name], name)]
        work = Work(places, pipeline, workers, progress, missing)
        results = dict(restore_into(work, store, keys))
        count = finished_parts(store, plan)
    errors = tuple((str(places.root / name), result) for name, result in results.items() if isinstance(result, str))
    resumed = len(own) - len(missing) + sum(isinstance(done, Restored) and done.resumed for done in results.values())
    seconds = time.perf_counter() - started
    return ShareSummary(str(share), len(own), errors, resumed, len(plan.pieces), count, str(places.target), seconds)


def tree_of(place: str | Path) -> Path | None:
    """The clean tree that is `place`, or whose job's folder it is; None if it is neither."""
    path = Path(place)
    tree = path.parent if path.name == job_folder(TABLE).name else path
    return tree if is_job(job_folder(tree / TABLE)) or (tree / TABLE).is_file() else None


def gather_scans(target: Path, *, progress: Progress | None = None) -> tuple[DenoiseSummary, dict[str, Any]]:
    """Write the tables of a clean tree when all of its shares have ended; the scans are not read.

    Parameters
    ----------
    target : Path
        The clean tree.
    progress : callable or None
        Called with the number of scans that were looked at, the number of all, and a line of text.

    Returns
    -------
    The summary as by `denoise_scans`, and the facts of the plan.

    Raises
    ------
    UsageError
        There is no job.
    VaeguardError
        Scans are missing, or a process still works on them.
    """
    started = time.perf_counter()
    store = Store(job_folder(target / TABLE), SCAN_FACTS)
    plan = read_plan(store)
    if plan is None or plan.kind != "scans":
        raise UsageError(
            f"{str(target)!r} has no shares to combine: the job is finished, or was started without `piece`; to"
            " continue such a job, run the command that started it"
        )
    tree = _tree(target, plan)
    keys = {name: piece.key for name, piece in zip(tree.clean, plan.pieces, strict=True)}
    records = {name: store.part(key).record for name, key in keys.items()}
    ended = {
        keys[name]
        for name, record in records.items()
        if (record and record["reason"] is not None) or finished_scan(tree, store, keys[name], name)
    }
    if missing := plan.missing(ended):
        raise VaeguardError(
            f"{str(target)!r} is not complete: {missing}; run the command that started the job again, with `piece`"
            " for each unfinished share, or without `piece`"
        )
    with open_job(target / TABLE, SCAN_FACTS, keep=True):
        results = (result_of(tree, name, record) for name, record in records.items())
        run = collect(tree, results, lambda text: progress(1, 1, text) if progress else None)
        run.pixels = sum(record.get("pixels", 0) for record in records.values())
        return finish(tree, run, plan.facts["device"], started), dict(plan.facts)


def _tree(target: Path, plan: Plan) -> CleanTree:
    facts = plan.facts
    others = [(suffix, count) for suffix, count in facts["others"]]
    places = Places(Path(facts["root"]), target, facts["names"], facts["skipped"], others, facts["whole"])
    settings, outputs = RestoreSettings(**facts["settings"]), DenoiseOutputs(**facts["outputs"])
    return CleanTree(places, settings, outputs, plan.settings["models"])
