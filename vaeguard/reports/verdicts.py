"""What a report says in one sentence, from its JSON alone: the page and the terminal say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.restoration.reasons import CLEAN, left_clause
from vaeguard.statistics.false_alarms import can_flag, expected_interval, fewest_calibration, way_to_flag
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.reports.report_file import Report

QUALITY = (
    (0.99, "Tells anomalies almost perfectly", "good"),
    (0.95, "Tells anomalies well", "good"),
    (0.85, "Tells many anomalies", "fair"),
    (0.7, "Tells anomalies poorly", "poor"),
)
"""From which ROC-AUC on what may be said."""
SLACK = 0.1
"""The lower end of its interval may lie so far below that."""
SENTENCES = 4
"""So many data sets of a benchmark are spoken of."""
UNTOLD = 10**9
"""Calibration images of a model that does not say how many: its threshold is taken as sure."""
PARTS = {"simple": "best other method on the same split", "published": "best published, by its own protocol"}
LABELLED = ("guided", "classifier")
"""Methods that know the classes of the normal examples; what others published, and all else measured here, do not."""
EXPLAINED = 0.02
"""A measure as simple as brightness, this close to the score, says that the score may measure nothing else."""


@dataclass(frozen=True)
class Verdict:
    """What to know first: a `headline`, one `sentence` with the figures, `notes` to beware of, and the `tone`.

    `tone` is `good`, `fair`, `poor` or `plain`.
    """

    headline: str
    sentence: str
    notes: tuple[str, ...] = ()
    tone: str = "plain"


def verdict(report: Report) -> Verdict:
    """The verdict on any report."""
    return _VERDICTS[report["kind"]](report)


def _evaluation(report: Report) -> Verdict:
    score, caught, alarms = report["metrics"][0], report["detection_rate"], report["false_alarm_rate"]
    headline, tone = _quality(score)
    interval = f"interval {_share(alarms['low'])} to {_share(alarms['high'])}"
    sentence = (
        f"ROC-AUC {score['roc_auc']:.3f} (95 % interval {score['roc_auc_low']:.3f} to {score['roc_auc_high']:.3f})."
        f" At the chosen false-alarm rate of {report['fpr']:.3g}, {caught['count']:,} of {caught['images']:,} anomalous"
        f" images are caught ({_share(caught['value'])}) and {alarms['count']:,} of {alarms['images']:,} normal ones"
        f" are flagged ({_share(alarms['value'])}, {interval})."
    )
    return Verdict(headline, sentence, tuple(_evaluation_notes(report)), tone)


def _quality(score: Report) -> tuple[str, str]:
    """Headline and tone for the combined score's metrics."""
    area, low, high = score["roc_auc"], score["roc_auc_low"], score["roc_auc_high"]
    if low <= 0.5 < area and high > 0.6:
        return "Too few images to tell whether it is better than chance", "poor"
    if low <= 0.5:
        return "No better than chance", "poor"
    sure, sure_tone = _level(area, low)
    hoped, tone = _level(area, area)
    if sure != hoped and sure_tone == "poor":
        unsure = "Tells anomalies" if tone != "poor" else "May tell anomalies"
        return f"{unsure}, but too few images to say how well", "fair" if tone != "poor" else "poor"
    return sure, sure_tone


def _level(area: float, low: float) -> tuple[str, str]:
    """What may be said of a ROC-AUC whose interval begins at `low`."""
    for least, text, tone in QUALITY:
        if area >= least and low >= least - SLACK:
            return text, tone
    return "Tells anomalies hardly or not at all", "poor"


def _evaluation_notes(report: Report) -> list[str]:
    notes = [report["note"]] if report["note"] else []
    alarms, expected = report["false_alarm_rate"], report["expected_false_alarms"]
    strangers = report.get("independent", not report["note"])  # older reports do not say it
    if expected and strangers and not expected["low"] <= alarms["value"] <= expected["high"]:
        more = "more" if alarms["value"] > expected["high"] else "fewer"
        # The model knows what it was fitted on better than any other image.
        cause = (
            "these normal images differ from those that the score was calibrated on"
            if more == "more"
            else "some of these normal images may be those that the model was fitted on, and then every figure here"
            " flatters, or they differ from those that the score was calibrated on"
        )
        notes.append(
            f"there are {more} false alarms than stated: {_share(alarms['value'])} where {_share(report['fpr'])} should"
            f" give {_share(expected['low'])} to {_share(expected['high'])}, so {cause}"
        )
    measures = report["simple_measures"]
    close = report["metrics"][0]["roc_auc"] - EXPLAINED
    notes += [
        f"{name} alone reaches a ROC-AUC of {measures[name]['roc_auc']:.3f}: this data does not show that the score"
        " sees more than that"
        for name in (("brightness", "complexity") if measures else ())
        if measures[name]["roc_auc"] >= close
    ]
    return notes


def _fit(report: Report) -> Verdict:
    best, split = report["best_epoch"], report["data"]["split"]
    count, model = len(report["history"]), report["model"]
    what = "autoencoder" if model["autoencoder"] else "VAE"
    each = "patch" if model["patch"] else "example"
    rate = "" if model["autoencoder"] else f" + rate {best['valid_rate']:.2f}"
    accuracy = f", class accuracy {best['valid_class_accuracy']:.3f}" if "valid_class_accuracy" in best else ""
    active = "" if model["autoencoder"] else f", {best['active_units']:.0f} of {model['latent']} latent units active"
    sentence = (
        f"{what} of kind {model['kind']}, fitted on {split['training']:,} normal examples; best of {count} epochs is"
        f" {best['epoch']:.0f}: distortion {best['valid_distortion']:.2f}{rate} nats per {each} on"
        f" {split['validation']:,} held-out ones{active}{accuracy}. The score is"
        f" calibrated on {split['calibration']:,} more."
    )
    advice = tuple(report["advice"])
    return Verdict("Worth a second look" if advice else "Fitted, nothing looks wrong", sentence, advice,
                   "fair" if advice else "good")  # fmt: skip


def _generative(report: Report) -> Verdict:
    bound, elbo, latents = report["neg_iwae"], report["neg_elbo"], report["latents"]
    error = "" if bound["standard_error"] is None else f" ± {bound['standard_error']:.2f}"
    of = "binary pixel" if report["pixels"] == "binarised" else "8-bit pixel and channel"
    sentence = (
        f"−log p(x) of {report['images']['bounds']:,} normal images is at most {bound['mean']:.2f}{error} nats by the"
        f" importance-weighted bound over {report['samples']:,} samples, {report['bits_per_dimension']:.3f} bits per"
        f" {of}; the negative ELBO is {elbo['mean']:.2f}. {latents['active']} of {len(latents['units'])} latent units"
        " are active."
    )
    if report["quality"]:
        distances = {row["origin"]: row["distance"] for row in report["quality"]["distances"]}
        sentence += (
            f" Samples of the prior lie {distances['prior']:.1f} from real images, samples around real ones"
            f" {distances['aggregate']:.1f}, other real images {distances['real']:.1f}."
        )
    notes = tuple(report["notes"])
    return Verdict("How well the VAE describes normal images", sentence, notes, "fair" if notes else "plain")


def _benchmark(report: Report) -> Verdict:
    cells = report["cells"]
    notes = []
    if report["trial"]:
        notes.append(f"a trial on at most {report['spec']['limit']} examples: these numbers are no result")
    sentence = " ".join(_against(table) for table in report["comparison"][:SENTENCES])
    return Verdict(f"{cells['finished']:,} of {cells['planned']:,} cells measured", sentence, tuple(notes))


def _against(table: Report) -> str:
    """One sentence on each of our fits on a data set: beside it the best of the methods that know no more than it."""
    ours = [row for row in table["methods"] if row["part"] == "ours" and _overall(row)]
    if not ours:
        return f"{table['data']}: no method of ours is measured on every case yet."
    return " ".join(_beside_others(table, row) for row in ours)


def _beside_others(table: Report, ours: Report) -> str:
    mean = _overall(ours)
    spread = "" if mean["std"] is None else f" ± {mean['std']:.3f}"
    found = []
    for part, what in PARTS.items():
        if part == "published" and _has_labels(ours):
            continue
        rows = [row for row in table["methods"] if row["part"] == part and _overall(row)]
        fair = [row for row in rows if _has_labels(ours) or not _has_labels(row)]
        if fair:
            best = max(fair, key=lambda row: _overall(row)["mean"])
            found.append(f"{what} {_overall(best)['mean']:.3f}, {best['name']}")
    beside = f" ({'; '.join(found)})" if found else ""
    return f"{table['data']}, {ours['name']}: ROC-AUC {mean['mean']:.3f}{spread}{beside}."


def _overall(row: Report) -> Any:
    """The entry of the mean over the cases, or of the only case; None where there is no number."""
    return row["mean"] or (row["cells"][0] if len(row["cells"]) == 1 else None)


def _has_labels(row: Report) -> bool:
    return row["name"].partition(",")[0] in LABELLED


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _scores(report: Report) -> Verdict:
    images, flagged, fpr = report["images"], report["anomalies"], report["fpr"]
    calibration = report.get("fit", {}).get("calibration", {}).get("images")
    blind = calibration is not None and not can_flag(calibration, fpr)
    ordinary, most = _of_normal_images(images, calibration, fpr)
    interval = f"interval {_share(flagged['low'])} to {_share(flagged['high'])}"
    sentence = (
        f"{flagged['count']:,} of {images:,} images are flagged ({_share(flagged['value'])}, {interval}) where p_value"
        f" <= {fpr:g}; of normal images alone it would be {ordinary}."
    )
    if blind:
        sentence = (
            f"The score is calibrated on {counted(calibration, 'normal image')}, so its smallest p-value is"
            f" {1 / (calibration + 1):.2g}; to flag where p_value <= {fpr:g} takes {fewest_calibration(fpr):,} of them."
        )
    if report["errors"]["count"]:
        sentence += f" {report['errors']['count']:,} could not be read."
    drift = report["drift"]
    notes = (report["note"],) if report["note"] else ()
    if blind:
        notes = (f"to have images flagged, {way_to_flag(calibration)}",)  # the sentence says the rest of the note
    if not images:
        return Verdict("Nothing could be read", sentence, notes, "poor")
    if drift["warning"]:
        return Verdict("This batch differs as a whole", sentence, (*notes, drift["warning"]), "poor")
    if blind:
        return Verdict(f"Nothing can be flagged at a false-alarm rate of {fpr:g}", sentence, notes, "poor")
    unread = "fair" if report["errors"]["count"] else "good"
    if not flagged["count"]:
        return Verdict("Nothing stands out", sentence, notes, unread)
    if flagged["count"] <= most:
        return Verdict("No more is flagged than normal images give", sentence, notes, unread)
    return Verdict(f"{counted(flagged['count'], 'image')} to look at", sentence, notes, "fair")


def _of_normal_images(images: int, calibration: int | None, fpr: float) -> tuple[str, int]:
    """How many of so many normal images would be flagged with 95 % probability, in words, and the most of them."""
    if not images:
        return "none", 0
    low, high = (round(share * images) for share in expected_interval(images, calibration or UNTOLD, fpr))
    return f"{low:,} to {high:,}", high


def _scans(report: Report) -> Verdict:
    look, left_out = report["look_first"], report["errors"]["count"]
    notes = tuple(report.get("notes", ()))  # there were none at first
    restored = report["actions"].get("restored", 0)
    of = "" if restored == report["pages"] else f"{restored:,} of "
    sentence = f"{of}{counted(report['pages'], 'page')} in {counted(report['files'], 'file')} restored"
    left = sum(each["pages"] for each in report["left"])
    sentence += f"; {left_clause(report['left'])}" if left else ""
    sentence += f"; {counted(left_out, 'file', 'was were')} left out." if left_out else "."
    if not report["pages"]:
        return Verdict("Nothing to restore" if report["files"] else "Nothing could be read", sentence, notes, "poor")
    if look:
        return Verdict(f"{counted(look, 'page')} worth a look first", sentence, notes, "fair")
    unjudged = left - sum(each["pages"] for each in report["left"] if each["reason"] == CLEAN)
    if unjudged == report["pages"]:
        return Verdict("Every page was left as it was", sentence, notes, "fair")
    if unjudged:
        return Verdict(f"Clean, but for {counted(unjudged, 'page')} left unjudged", sentence, notes, "fair")
    headline = "Clean, and nothing had to be put back" if restored else "Every page was clean already"
    return Verdict(headline, sentence, notes, "fair" if left_out else "good")


def _denoiser(report: Report) -> Verdict:
    gain = report["after"] - report["before"]
    how = "by Stein's estimate, without clean images" if report["mode"] == "adapt" else "on images held out"
    if not report["held_out"]:
        how = "on the images it was trained on, as there are too few to hold some out"
    sentence = (
        f"A {report['scan_kind']} denoiser from {report['images']:,} images: {report['before']:.2f} dB goes in and"
        f" {report['after']:.2f} dB comes out ({gain:+.2f} dB), {how}."
        f" The ladder VAE's negative ELBO is {report['neg_elbo']:.3f} nats per pixel."
    )
    return Verdict("Cleans" if gain > 0 else "Makes it worse", sentence, (), "good" if gain > 0 else "poor")


def _embedding(report: Report) -> Verdict:
    how = {
        "none": "as they are",
        "tsne": "in a plane by t-SNE",
        "pca": "in the plane of their two principal components",
    }
    sentence = f"{report['images']:,} latents of {report['units']} units, {how[report['projection']]}"
    kept = "" if report["explained"] is None else f", which holds {_share(report['explained'])} of their variance"
    return Verdict("Where images lie in the latent", f"{sentence}{kept}.")


def _comparison(report: Report) -> Verdict:
    if report["of"] != "evaluation":
        return Verdict("Side by side", "What differs between them, and what came of it.")
    runs = sorted(report["runs"], key=lambda run: -run["values"][0])
    (best, low, _), (second, _, high) = runs[0]["values"][:3], runs[1]["values"][:3]
    if pair := report.get("best_two"):
        clear = (
            f"on the same {pair['images']:,} images they differ by {pair['difference']:+.3f} (95 % interval"
            f" {pair['low']:+.3f} to {pair['high']:+.3f}), {'more than' if pair['low'] > 0 else 'which may be'} chance"
        )
    else:
        clear = "their intervals do not overlap" if low > high else "their intervals overlap, so that may be chance"
    other = {"data", "normal classes"} & set(report["differences"])
    notes = ("the reports are of different data or normal classes, so this is no contest",) if other else ()
    sentence = f"The highest ROC-AUC is {best:.3f}, of {runs[0]['name']}; the next is {second:.3f}: {clear}."
    return Verdict("Side by side", sentence, notes)


def _tuning(report: Report) -> Verdict:
    trials, found = report["trials"], report["comparison"]
    failed = sum(trial["objective"] is None for trial in trials)
    notes = [f"{failed} of {len(trials)} trials failed; the table says why"] if failed else []
    if len(trials) == 1:
        notes.append(
            "a single trial is no search; search again in the same folder with more trials, which goes on from this one"
        )
    notes.append("pseudo-anomalies only stand in for real ones; where you have some, evaluate both settings on them")
    if found is None and report["best"]:
        reason = report.get("comparison_error") or "the search was cut off before"
        sentence = (
            f"Trial {report['best']} is the best of {len(trials):,}, but it was not compared with the settings at the"
            f" start on images that no trial touched ({reason}). The same search, run again, tries once more."
        )
        return Verdict("Best settings found, but not compared", sentence, tuple(notes), "fair")
    if found is None:
        sentence = (
            f"Of {len(trials):,} trials none is better than trial 0, the settings that the search started from: mean"
            f" ROC-AUC {trials[0]['objective']:.3f} against pseudo-anomalies of {report['images']['judging']:,} normal"
            " images."
        )
        return Verdict("Nothing beat the start", sentence, tuple(notes))
    if (times := report.get("comparisons", 1)) > 1:
        notes.append(
            f"this is comparison {times} on the same images, each of another best trial; after looking again an"
            " interval is too sure"
        )
    sentence = (
        f"On {found['images']:,} normal images that no trial touched, trial {report['best']}, the best of"
        f" {len(trials)}, tells pseudo-anomalies with a mean ROC-AUC of {found['best_objective']:.3f}, the settings at"
        f" the start with {found['start_objective']:.3f}: {found['difference']:+.3f} (95 % interval"
        f" {found['low']:+.3f} to {found['high']:+.3f}; {found['fits']} fits of each)."
    )
    if found["low"] > 0:
        return Verdict("Better than the start, against pseudo-anomalies", sentence, tuple(notes), "good")
    if found["high"] < 0:
        return Verdict("Worse than the start, against pseudo-anomalies", sentence, tuple(notes), "poor")
    return Verdict("Not told apart from the start", sentence, tuple(notes), "fair")


_VERDICTS: dict[str, Callable[[Report], Verdict]] = {
    "evaluation": _evaluation,
    "generative": _generative,
    "fit": _fit,
    "benchmark": _benchmark,
    "scores": _scores,
    "scans": _scans,
    "denoiser": _denoiser,
    "embedding": _embedding,
    "comparison": _comparison,
    "tuning": _tuning,
}
