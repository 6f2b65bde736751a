"""Score image files into a table, or images in memory into an inspection, whichever engine runs below."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.folders import list_images
from vaeguard.images import ImageRule
from vaeguard.inspection import concatenate
from vaeguard.spec import DEFAULT_FPR
from vaeguard.streams import stream_images
from vaeguard.tables import check_table_path, open_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from vaeguard.image_set import ImageSet
    from vaeguard.inspection import Detector, DetectorInfo, Inspection
    from vaeguard.progress import Progress

DEFAULT_BATCH_SIZE = 256


@dataclass(frozen=True)
class ScoreSummary:
    """What one run of `score_files` did.

    Attributes
    ----------
    images : int
        Rows of the table: images that could be read.
    anomalies : int
        Images flagged, `p_value <= fpr`.
    errors : tuple of (path, reason)
        Inputs that could not be read; also in `<output>.errors.csv`.
    seconds : float
        Wall time.
    output : str
        The table.
    fpr : float
        The false-alarm rate that was asked for.
    note : str or None
        Why nothing can be flagged at this rate, if so.
    """

    images: int
    anomalies: int
    errors: tuple[tuple[str, str], ...]
    seconds: float
    output: str
    fpr: float
    note: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        errors = [{"path": path, "error": reason} for path, reason in self.errors]
        return {**vars(self), "errors": errors}


def score_files(
    detector: Detector,
    inputs: str | Path | Iterable[str | Path],
    output: str | Path,
    *,
    fpr: float = DEFAULT_FPR,
    jobs: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score image files into the table `output` (`.csv`, `.parquet` or `.jsonl`), one row per readable image.

    The columns are `path, score, p_value, anomaly` and the detector's terms; the rows are in sorted path order.
    Unreadable inputs are rows of `<output>.errors.csv` instead, which exists only if there are any. Memory does not
    grow with the number of images.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Image files and folders of them.
    output : path
        The table; a previous one is replaced once the new one is whole.
    fpr : float
        Flag where `p_value <= fpr`, in (0, 1).
    jobs : int or None
        Decoding threads; None chooses by the machine.
    batch_size : int
        Images inspected at a time; the scores do not depend on it.
    progress : callable or None
        Called with images done, images in all, a line of text.

    Raises
    ------
    UsageError
        `fpr` or the suffix of `output` cannot work, or `inputs` name no image.
    VaeguardError
        The detector gives no number for an image, or the table cannot be written.
    """
    started = time.perf_counter()
    check_fpr(fpr)
    check_table_path(output)
    paths = sorted(list_images([inputs] if isinstance(inputs, str | Path) else list(inputs)))
    channels, height, width = detector.info.image_shape
    rule = ImageRule(size=(height, width), channels=channels)
    errors: list[tuple[str, str]] = []
    anomalies = 0
    with open_table(output, table_columns(detector.info)) as table:
        for batch in stream_images(paths, rule, batch_size=batch_size, jobs=jobs):
            errors.extend(batch.errors)
            if len(batch.images):
                columns = score_columns(batch.paths, detector.inspect(batch.images), fpr)
                anomalies += int(np.count_nonzero(columns["anomaly"]))
                table.write(columns)
            if progress:
                _report(progress, table.rows + len(errors), len(paths))
        images = table.rows
    _write_errors(Path(f"{output}.errors.csv"), errors)
    seconds = time.perf_counter() - started
    note = fpr_note(detector.info, fpr)
    return ScoreSummary(images, anomalies, tuple(errors), seconds, str(output), fpr, note)


def score_set(
    detector: Detector,
    image_set: ImageSet,
    batch_size: int = DEFAULT_BATCH_SIZE,
    *,
    progress: Progress | None = None,
) -> Inspection:
    """Inspect every image of a set in memory, batch by batch; terms and scores only, no pictures.

    Raises
    ------
    UsageError
        The set has no images.
    VaeguardError
        The detector gives no number for an image.
    """
    total = len(image_set.images)
    if not total:
        raise UsageError(f"data {image_set.name!r} has no images; give a set with at least one")
    parts = []
    for start in range(0, total, batch_size):
        stop = min(start + batch_size, total)
        parts.append(detector.inspect(image_set.images[start:stop]))
        _check_numbers(parts[-1], image_set.paths[start:stop])
        if progress:
            _report(progress, stop, total)
    return concatenate(parts)


def table_columns(info: DetectorInfo) -> tuple[str, ...]:
    """Name the columns of `scores.csv`, in order."""
    return ("path", "score", "p_value", "anomaly", *info.term_names)


def score_columns(
    paths: Sequence[str], inspection: Inspection, fpr: float
) -> dict[str, Sequence[str] | npt.NDArray[Any]]:
    """Return the columns of `scores.csv` for inspected images.

    Raises
    ------
    VaeguardError
        A score is not a number.
    """
    _check_numbers(inspection, paths)
    return {
        "path": paths,
        "score": inspection.score,
        "p_value": inspection.p_value,
        "anomaly": flag(inspection.p_value, fpr),
        **inspection.terms,
    }


def flag(p_value: npt.NDArray[np.floating], fpr: float) -> npt.NDArray[np.bool_]:
    """Return where `p_value <= fpr`, compared in the precision of `p_value`.

    A float32 p-value of exactly one in twenty lies above the Python number 0.05, but must be flagged at that rate.
    """
    flagged: npt.NDArray[np.bool_] = p_value <= p_value.dtype.type(fpr)
    return flagged


def check_fpr(fpr: float) -> None:
    """Refuse a false-alarm rate outside (0, 1).

    Raises
    ------
    UsageError
        `fpr` is 0, 1, outside, or not a number.
    """
    if not 0 < fpr < 1:
        raise UsageError(f"--fpr {fpr} is no false-alarm rate; give a share above 0 and below 1, such as 0.05")


def fpr_note(info: DetectorInfo, fpr: float) -> str | None:
    """Say why nothing can be flagged at `fpr`, or None: n calibration images give no p-value below 1/(n+1)."""
    calibration = info.record.get("calibration")
    images = calibration.get("images") if isinstance(calibration, dict) else None
    if not isinstance(images, int) or flag(np.array([1 / (images + 1)], np.float32), fpr).all():
        return None
    return (
        f"nothing can be flagged at --fpr {fpr:g}: the model was calibrated on {images} normal images, so its smallest "
        f"p-value is {1 / (images + 1):.2g}; raise --fpr or fit with more held-out images"
    )


def _report(progress: Progress, done: int, total: int) -> None:
    progress(done, total, f"{done:,} of {total:,} images")


def _check_numbers(inspection: Inspection, paths: Sequence[str]) -> None:
    bad = np.isnan(inspection.score) | np.isnan(inspection.p_value)
    if bad.any():
        first = paths[int(bad.argmax())]
        raise VaeguardError(
            f"the model gives no number as the score of {first!r}: its weights or calibration are broken; fit it anew"
        )


def _write_errors(path: Path, errors: list[tuple[str, str]]) -> None:
    if errors:
        write_table(path, {"path": [path for path, _ in errors], "error": [reason for _, reason in errors]})
    else:
        path.unlink(missing_ok=True)
