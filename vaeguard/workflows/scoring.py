"""From images to a table of scores, an evaluation or likelihoods, each with its report."""

from __future__ import annotations

import glob
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.inputs import read_list
from vaeguard.data.workers import warm_up
from vaeguard.engines.model_file import load
from vaeguard.errors import UsageError
from vaeguard.reports.heatmaps import HeatmapFolder, drawn_before
from vaeguard.reports.report_file import check_place, remove_report
from vaeguard.statistics.false_alarms import fpr_note
from vaeguard.storage.files import check_apart
from vaeguard.storage.places import check_supported, is_url
from vaeguard.wording import counted
from vaeguard.workflows.buckets import publishing
from vaeguard.workflows.opening import find_model, open_for, open_generative
from vaeguard.workflows.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.detector import Detector
    from vaeguard.evaluation.scoring import ScoreSummary
    from vaeguard.workflows.outcome import Reporter

STDIN = "-"


def of_table(name: str) -> Callable[[str], bool]:
    """Which files belong to the table of a name."""
    from vaeguard.evaluation.scoring import spots_table

    spots = spots_table(name).name
    return lambda other: other in (name, spots) or other.startswith((f"{name}.", f".{name}."))


@publishing("output", of_table)
def score_table(
    images: Sequence[str], output: str, reporter: Reporter, *, model: str | None = None, device: str = "auto",
    **options: Any,
) -> Outcome:  # fmt: skip
    """Score images into a table and write `<output>.report.html` beside it.

    Parameters
    ----------
    images : sequence of paths
        As for `score_files`; `-` stands for the paths on standard input.
    output : path
        The table.
    reporter : Reporter
        Receives messages and progress.
    model, device
        As for `load`; a model of None is the latest run.
    **options
        `fpr` and `heatmaps`, as for `score_files`; with `report=False`, no report is written; `spread_over` takes the
        facts of the plan and gives the `spread` of `score_files`.

    Raises
    ------
    UsageError, VaeguardError
        As by `score_files`; or the folder of heatmaps holds other files.
    """
    from vaeguard.evaluation.scoring import score_files, spots_table

    with_report = options.pop("report", True)
    heatmaps = options.get("heatmaps")
    check_supported([heatmaps], "`heatmaps`")
    options["heatmaps"] = HeatmapFolder(Path(heatmaps)) if heatmaps else None
    if heatmaps and drawn_before(output) != str(Path(heatmaps).resolve()) and any(Path(heatmaps).glob("*")):
        raise UsageError(
            f"the `heatmaps` folder {heatmaps!r} is not empty; choose a different folder, or empty this one"
        )
    inputs = [path for path in images if path != STDIN]
    listed = read_list(STDIN) if STDIN in images else []
    check_apart(output, ())
    check_place(f"{output}.report.json", "scores")
    model = find_model(model, reporter)
    warm_up()  # it starts while the model is loaded
    detector = load(model, device, threads=1)
    if spread_over := options.pop("spread_over", None):
        options["spread"] = spread_over(facts_of(detector, model, inputs, options))
    spots = spots_table(output)
    had_spots = spots.exists()
    started = time.monotonic()
    with reporter.going_on("finished parts are kept"), reporter.progress("scoring") as progress:
        summary = score_files(detector, inputs, output, listed=listed, progress=progress, **options)
    seconds = time.monotonic() - started
    if summary.left_out:
        reporter.say(f"note: {summary.left_out}")
    if had_spots and not spots.exists():
        reporter.say(f"note: {str(spots)!r} was removed, because it listed the spots of the earlier table")
    report = None
    if with_report:
        from vaeguard.reports.scores import write_score_report

        report = write_score_report(summary, detector, model=model, command=reporter.command)
    else:
        remove_report(f"{output}.report.json", "scores")
    reporter.left_out(summary.errors)
    return Outcome(output, summary, report, summary.errors, seconds)


def facts_of(detector: Detector, model: str, inputs: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan of a job says of the model and the images, for the report of the process that joins its parts."""
    return {
        "model": str(model),
        "digest": detector.fingerprint.split()[-1],
        "device": detector.device,
        "inputs": [str(path) for path in inputs],
        "note": fpr_note(detector.info.calibrated_on, detector.info.rate(options.get("fpr"))),
    }


def watch_table(
    folders: Sequence[str], output: str, reporter: Reporter, *, model: str | None = None, device: str = "auto",
    **options: Any,
) -> None:  # fmt: skip
    """Score images as they appear in folders, as `watch_files` does, until interrupted.

    Raises
    ------
    UsageError, VaeguardError
        As by `watch_files`.
    """
    from vaeguard.evaluation.watching import watch_files

    check_supported([*folders, output, options.get("heatmaps")], "a watch")
    check_place(f"{output}.report.json", "scores")
    detector = load(find_model(model, reporter), device, threads=1)
    for path in folders:
        # The folder may still appear, or its name is a typing error.
        if not glob.glob(path) and not Path(path).exists():  # noqa: PTH207  (the pattern may be absolute)
            reporter.say(f"note: {path!r} does not exist yet")
    reporter.say(f"Watching {', '.join(folders)}; to stop, press Ctrl-C")
    if heatmaps := options.get("heatmaps"):
        options["heatmaps"] = HeatmapFolder(Path(heatmaps))
    report_round: Callable[[ScoreSummary], None] = options.pop("report")
    images = anomalies = 0

    def report(summary: ScoreSummary) -> None:
        nonlocal images, anomalies
        images, anomalies = images + summary.images, anomalies + summary.anomalies
        report_round(summary)
        reporter.left_out(summary.errors)

    try:
        watch_files(detector, folders, output, report=report, **options)
    except KeyboardInterrupt:
        scored = f"{counted(images, 'new image')} scored, {anomalies:,} anomalous; saved to {output}"
        raise KeyboardInterrupt(f"{scored}. To continue, run the same command again") from None


@publishing("output")
def evaluate_to(
    data: str | None, output: str | None, reporter: Reporter, *, model: str | None = None, device: str = "auto",
    **options: Any,
) -> Outcome:  # fmt: skip
    """Evaluate a model on `data`, and write the report into a folder, by default beside the model.

    Parameters
    ----------
    data, output
        The data, as for `open_images`, where None is the named set of the fit; and the folder.
    reporter, model, device
        As for `score_table`.
    **options
        As for `vaeguard.evaluate`.

    Raises
    ------
    UsageError, VaeguardError
        As by `vaeguard.evaluate`.
    """
    from vaeguard.evaluation.evaluating import evaluate
    from vaeguard.workflows.evaluation import check_evaluation_folder, write_evaluation

    path = find_model(model, reporter)
    detector = load(path, device)
    images = open_for(detector, data, reporter)
    folder = _folder(output, path, "evaluation", data, images)
    check_evaluation_folder(folder)
    with reporter.progress("scoring") as progress:
        evaluation = evaluate(detector, images, progress=progress, **options)
    report = write_evaluation(evaluation, detector, folder, command=reporter.command)
    return Outcome(str(folder), evaluation, report, images.errors, left_out=images.left_out)


@publishing("output")
def likelihood_to(
    data: str | None, output: str | None, reporter: Reporter, *, model: str | None = None, **options: Any
) -> Outcome:
    """Evaluate a model on `data` by `evaluate_generative`, and write the report into a folder.

    Raises
    ------
    UsageError, VaeguardError
        As by `evaluate_generative`.
    """
    from vaeguard.evaluation.generative import evaluate_generative
    from vaeguard.workflows.evaluation import write_generative

    path = find_model(model, reporter)
    detector = open_generative(path)
    images = open_for(detector, data, reporter)
    folder = _folder(output, path, "likelihood", data, images)
    check_place(folder / "report.json", "generative")
    with reporter.progress("measuring") as progress:
        evaluation = evaluate_generative(detector, images, progress=progress, **options)
    report = write_generative(evaluation, folder, command=reporter.command)
    return Outcome(str(folder), evaluation, report, images.errors, left_out=images.left_out)


def _folder(output: str | None, model: str, what: str, data: str | None, images: ImageSet) -> Path:
    """The folder of a report: `output`, or a folder beside the model whose name tells `a/test` from `b/test`."""
    if not output and is_url(model):
        raise UsageError(f"`output` is missing, and the model {model!r} is in a bucket; give a folder for the report")
    home = Path(model) if Path(model).is_dir() else Path(model).parent
    above = Path(data or "").parent.name.strip(".")
    return Path(output) if output else home / "-".join([what, *([above] if above else []), images.name])
