"""Write what an evaluation found: its report, and the table of its scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.errors import UsageError
from vaeguard.evaluation.scoring import score_columns
from vaeguard.reports.evaluation import evaluation_report
from vaeguard.reports.generative import generative_report
from vaeguard.reports.report_file import JSON_NAME, SCORES_NAME, check_place, write_report
from vaeguard.storage.tables import write_table

if TYPE_CHECKING:
    from vaeguard.engines.detector import Detector
    from vaeguard.evaluation.evaluating import Evaluation
    from vaeguard.evaluation.generative import GenerativeEvaluation
    from vaeguard.reports.report_file import Report


def check_evaluation_folder(folder: Path) -> None:
    """Refuse to write an evaluation over the report of something else, or over scores that are of no evaluation.

    Raises
    ------
    UsageError
        One of them is there.
    """
    check_place(folder / JSON_NAME, "evaluation")
    scores = folder / SCORES_NAME
    if scores.exists() and not (folder / JSON_NAME).exists():
        raise UsageError(f"{str(scores)!r} is of no evaluation and would be lost; choose another folder")


def write_evaluation(evaluation: Evaluation, detector: Detector, folder: str | Path, *, command: str = "") -> Report:
    """Write `report.json`, `report.html` and `scores.csv` into `folder`, each one whole, and return the report.

    `scores.csv` has two more columns than a table of scored files: `class`, and whether that is `normal`. `detector` is
    the one that was evaluated, and draws the images that the report shows; `command` is the command line, to be named
    in the report.

    Raises
    ------
    UsageError
        The folder holds something else; see `check_evaluation_folder`.
    VaeguardError
        They cannot be written.
    """
    folder = Path(folder)
    check_evaluation_folder(folder)
    image_set = evaluation.image_set
    columns = score_columns(image_set.paths, evaluation.inspection, evaluation.fpr)
    classes = np.array(image_set.class_names, dtype=object)[image_set.labels].tolist()
    report = evaluation_report(evaluation, detector, command)
    # First, so that whatever is interrupted here is still known as an evaluation.
    write_report(folder / JSON_NAME, report)
    write_table(folder / SCORES_NAME, {**columns, "class": classes, "normal": ~evaluation.anomalous})
    return report


def write_generative(evaluation: GenerativeEvaluation, folder: str | Path, *, command: str = "") -> Report:
    """Write `report.json` and `report.html` into `folder`, each one whole, and return the report.

    Raises
    ------
    VaeguardError
        They cannot be written.
    """
    report = generative_report(evaluation, command)
    write_report(Path(folder) / JSON_NAME, report)
    return report
