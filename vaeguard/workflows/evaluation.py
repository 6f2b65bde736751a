"""Write the results of an evaluation: the report, and the table of scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.errors import UsageError
from vaeguard.evaluation.parts import score_columns
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
    """Refuse to replace the report of anything but an evaluation, or scores that are of no evaluation.

    Raises
    ------
    UsageError
        The folder holds such a file.
    """
    check_place(folder / JSON_NAME, "evaluation")
    scores = folder / SCORES_NAME
    if scores.exists() and not (folder / JSON_NAME).exists():
        raise UsageError(
            f"{str(scores)!r} does not belong to an evaluation and would be overwritten; choose a different folder"
        )


def write_evaluation(evaluation: Evaluation, detector: Detector, folder: str | Path, *, command: str = "") -> Report:
    """Write `report.json`, `report.html` and `scores.csv` into `folder`, and return the report.

    Each file appears only when it is complete. In addition to the columns of `score_files`, `scores.csv` has the
    columns `class`, and `normal`: whether this class is a normal one. The evaluated `detector` reconstructs the images
    of the report, and `command` is the command line that the report names.

    Raises
    ------
    UsageError
        The folder contains something else; see `check_evaluation_folder`.
    VaeguardError
        A file cannot be written.
    """
    folder = Path(folder)
    check_evaluation_folder(folder)
    image_set = evaluation.image_set
    columns = score_columns(image_set.paths, evaluation.inspection, evaluation.fpr)
    classes = np.array(image_set.class_names, dtype=object)[image_set.labels].tolist()
    report = evaluation_report(evaluation, detector, command)
    # The report comes first: after an interruption, the folder is still known as that of an evaluation.
    write_report(folder / JSON_NAME, report)
    write_table(folder / SCORES_NAME, {**columns, "class": classes, "normal": ~evaluation.anomalous})
    return report


def write_generative(evaluation: GenerativeEvaluation, folder: str | Path, *, command: str = "") -> Report:
    """Write `report.json` and `report.html` into `folder`, each when it is complete, and return the report.

    Raises
    ------
    VaeguardError
        A file cannot be written.
    """
    report = generative_report(evaluation, command)
    write_report(Path(folder) / JSON_NAME, report)
    return report
