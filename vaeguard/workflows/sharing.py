"""A share of a job, and the joining of all shares with their report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.inputs import find_sources, read_list
from vaeguard.data.workers import warm_up
from vaeguard.engines.model_file import load
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.reports.report_file import check_place, remove_report
from vaeguard.restoration.ocr import check_tesseract
from vaeguard.restoration.places import default_output
from vaeguard.settings.restoration import DenoiseOutputs
from vaeguard.storage.files import check_apart
from vaeguard.storage.places import check_supported, is_url
from vaeguard.storage.plan import Share
from vaeguard.workflows.buckets import publishing
from vaeguard.workflows.opening import find_model
from vaeguard.workflows.outcome import Outcome
from vaeguard.workflows.scoring import STDIN, facts_of, of_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaeguard.data.source import Source
    from vaeguard.evaluation.scoring import ScoreSummary
    from vaeguard.reports.report_file import Report
    from vaeguard.workflows.outcome import Reporter


@publishing("output", of_table)
def score_share_of(
    images: Sequence[str], output: str, reporter: Reporter, *, piece: str, model: str | None = None,
    device: str = "auto", heatmaps: str | None = None, **options: Any,
) -> Outcome:  # fmt: skip
    """Score the share `piece`, such as `3/8`, of images into parts, as `score_share` does; no report is written.

    The other parameters are those of `score_table`.

    Raises
    ------
    UsageError, VaeguardError
        As by `score_share`; or heatmaps are wanted.
    """
    from vaeguard.evaluation.sharing import score_share

    share = Share.parse(piece)
    if heatmaps:
        raise UsageError(
            "`heatmaps` does not work with `piece`; after all shares have finished, run the command without"
            " `piece`, which also draws the heatmaps"
        )
    options.pop("report", None)
    inputs = [path for path in images if path != STDIN]
    listed = read_list(STDIN) if STDIN in images else []
    check_apart(output, ())
    model = find_model(model, reporter)
    warm_up()  # it starts while the model is loaded
    detector = load(model, device, threads=1)
    facts = facts_of(detector, model, inputs, options)
    with reporter.progress("scoring") as progress:
        done = score_share(detector, inputs, output, share, listed=listed, facts=facts, progress=progress, **options)
    reporter.left_out(done.errors)
    return Outcome(output, done, errors=done.errors, seconds=done.seconds)


def denoise_share_of(
    scans: Sequence[str], output: str | None, reporter: Reporter, *, piece: str, report: bool = True, **options: Any
) -> Outcome:
    """Clean the share `piece`, such as `3/8`, of scans, as `denoise_share` does; no table and no report is written.

    The other parameters are those of `denoise_tree`.

    Raises
    ------
    UsageError, VaeguardError
        As by `denoise_share`.
    """
    from vaeguard.restoration.gathering import denoise_share

    del report
    check_supported([*scans, output], "a share of scans")
    share = Share.parse(piece)
    outputs = options.get("outputs") or DenoiseOutputs()
    if outputs.ocr:
        check_tesseract(outputs.ocr_language)
    if output is None:
        output = str(default_output(scans))
        reporter.say(f"Output: {output}")
    with reporter.progress("denoising") as progress:
        done = denoise_share(list(scans), output, share, progress=progress, **options)
    reporter.left_out(done.errors)
    return Outcome(output, done, errors=done.errors, seconds=done.seconds)


def gather_to(
    place: str, folder: str | None, reporter: Reporter, *, model: str | None = None, report: bool = True
) -> Outcome:
    """As `gather`; `place` may be a table in a bucket."""
    check_supported([folder], "`output` of a gathering")
    if is_url(place):
        place = place.rstrip("/").removesuffix(".job")
        if not place.endswith((".csv", ".parquet", ".jsonl")):
            check_supported([place], "gathering clean scans")
    return gather(place, folder, reporter, model=model, report=report)


@publishing("place", of_table)
def gather(
    place: str, folder: str | None, reporter: Reporter, *, model: str | None = None, report: bool = True
) -> Outcome:
    """Join what the shares of a job made: into the table of scores, or the tables of a clean tree, with its report.

    Parameters
    ----------
    place : path
        The output of the job, or the folder of its parts.
    folder : path or None
        A folder for one Parquet file a part, instead of the table of scores.
    reporter : Reporter
        Receives messages and progress.
    model : path or None
        The model, for the report of scores; None is that of the plan.
    report : bool
        Whether a report is written; that of scores needs the model, and shows pictures if the images are there.

    Raises
    ------
    UsageError, VaeguardError
        As by `gather_scores` and `gather_scans`.
    """
    from vaeguard.restoration.gathering import tree_of

    if tree := tree_of(place):
        if folder:
            raise UsageError(
                "`output` works only with shares of scores, but these are shares of clean scans; remove `output`"
            )
        return _gather_tree(tree, reporter, report=report)
    return _gather_table(place, folder, reporter, model=model, report=report)


def _gather_tree(tree: Path, reporter: Reporter, *, report: bool) -> Outcome:
    from vaeguard.reports.scans import write_scan_report
    from vaeguard.restoration.gathering import gather_scans

    with reporter.progress("combining") as progress:
        done, facts = gather_scans(tree, progress=progress)
    reporter.left_out(done.errors)
    page = None
    if report:
        page = write_scan_report(done, jpeg=facts["outputs"]["jpeg"], command=reporter.command)
    else:
        remove_report(f"{tree}/report.json", "scans")
    return Outcome(str(tree), done, page, done.errors, done.seconds)


def _gather_table(place: str, folder: str | None, reporter: Reporter, *, model: str | None, report: bool) -> Outcome:
    from vaeguard.evaluation.gathering import gather_scores, output_of

    target = str(Path(folder)) if folder else str(output_of(place))
    check_place(f"{target}.report.json", "scores")
    with reporter.progress("combining") as progress:
        gathered = gather_scores(place, folder, progress=progress)
    summary = gathered.summary
    if summary.left_out:
        reporter.say(f"note: {summary.left_out}")
    if len(gathered.processors) > 1:
        kinds = ", ".join(gathered.processors)
        reporter.say(
            "note: different kinds of processor computed the scores, so the last digits of some scores may differ:"
            f" {kinds}"
        )
    page = _score_report(summary, gathered.facts, reporter, model) if report and gathered.facts else None
    if not page and gathered.facts:
        remove_report(f"{target}.report.json", "scores")
    reporter.left_out(summary.errors)
    return Outcome(target, summary, page, summary.errors, summary.seconds)


def _score_report(
    summary: ScoreSummary, facts: Mapping[str, Any], reporter: Reporter, model: str | None
) -> Report | None:
    """The report of a table that was joined; None, and the reason is said, if the model is not there."""
    from dataclasses import replace

    from vaeguard.reports.scores import write_score_report

    path = model or facts["model"]
    try:
        detector = load(path, "cpu", threads=1)
    except VaeguardError as error:
        reporter.say(f"note: no report was written, because the model cannot be opened ({error})")
        return None
    if detector.fingerprint.split()[-1] != facts["digest"]:
        reporter.say(f"note: no report was written, because {str(path)!r} is not the model that computed the scores")
        return None
    sources: list[Source] = []
    try:
        if facts["inputs"]:
            sources = find_sources(facts["inputs"], vectors=not detector.info.view.pictures)
    except UsageError:
        reporter.say("note: the report has no pictures, because the images were not found")
    return write_score_report(replace(summary, sources=tuple(sources)), detector, model=path, command=reporter.command)
