"""One share of a job: its pieces are scored into the store of the job, which several processes fill."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.evaluation.parts import PART_FACTS, ScoreParts, finished_table, report_images
from vaeguard.evaluation.scoring import batch_size_for, open_sources
from vaeguard.storage.plan import ShareSummary, finished_parts
from vaeguard.storage.store import Store, job_folder, join_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vaeguard.engines.detector import Detector
    from vaeguard.progress import Progress
    from vaeguard.storage.plan import Share


def score_share(
    detector: Detector,
    inputs: Sequence[str | Path],
    output: str | Path,
    share: Share,
    *,
    listed: Iterable[str] = (),
    fpr: float | None = None,
    jobs: int | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ShareSummary:
    """Score the images of a share into parts in the folder `<output>.job`, where other processes put theirs.

    The parts are those of `score_files`, and a part that is finished is not made again. `gather_scores` joins them once
    all are finished; so does `score_files` with the same parameters.

    Parameters
    ----------
    detector, inputs, output, listed, fpr, jobs
        As for `score_files`; they must be the same in all processes.
    share : Share
        The share.
    facts : mapping or None
        What else stands in the plan, for `gather_scores`.
    progress : callable or None
        Called with the number of images of the share that are done, the number of all of them, and a line of text.

    Raises
    ------
    UsageError
        As by `score_files`; or the folder holds the plan of a different job.
    VaeguardError
        As by `score_files`; or a process has the job for itself.
    """
    started, fpr = time.perf_counter(), detector.info.rate(fpr)
    sources = open_sources(detector, inputs, output, listed)
    with contextlib.ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        store = Store(job_folder(output), PART_FACTS)
        parts = ScoreParts(detector, store, Path(output).suffix, fpr, jobs, batch_size_for(detector))
        plan, pieces = parts.plan(sources, {**(facts or {}), "left_out": sources[0].left_out})
        own = [(pieces[number], plan.pieces[number].key) for number in share.among(len(pieces))]
        total = sum(piece.count for piece, _ in own)
        if finished_table(Path(output), plan.key, fpr):  # a scheduler may start a share again when all is done
            made, resumed, count = [], total, len(pieces)
        else:
            stack.enter_context(join_job(output, PART_FACTS))
            plan.enter(store)
            found = {key: part for _, key in own if (part := parts.finished(key))}
            missing = [(piece, key) for piece, key in own if key not in found]
            resumed = total - sum(piece.count for piece, _ in missing)
            made = [*found.values()]
            made += [part for _, part in parts.make(missing, partial(report_images, progress, resumed, total))]
            count = finished_parts(store, plan)
    errors = tuple(error for part in made for error in part.errors)
    seconds = time.perf_counter() - started
    images = sum(part.images + len(part.errors) for part in made) or total  # nobody counted the images of a stream
    return ShareSummary(str(share), images, errors, resumed, len(pieces), count, str(output), seconds)
