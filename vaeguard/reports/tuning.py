"""The verdict and the terminal lines of a search's report; the search builds the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaeguard.reports.kinds import Part, ReportFigures, Verdict
from vaeguard.reports.terminal import sparkline

if TYPE_CHECKING:
    from collections.abc import Iterable


class Trial(Part):
    """A fit; a failed one has no objective."""

    objective: float | None
    settings: dict[str, Any]


class Comparison(Part):
    """The best settings against those at the start, on images that no trial touched."""

    images: int
    fits: int
    start_objective: float
    best_objective: float
    difference: float
    low: float
    high: float

    def sentence(self, best: int, trials: int) -> str:
        """Describe the result of the comparison; `best` is the number of the best trial, of `trials` in all."""
        return (
            f"On {self.images:,} normal images that no trial has seen, the best of {trials} trials, trial"
            f" {best}, reaches a mean ROC-AUC of {self.best_objective:.3f} against pseudo-anomalies, and the"
            f" initial settings reach {self.start_objective:.3f}: {self.difference:+.3f} (95 % interval"
            f" {self.low:+.3f} to {self.high:+.3f}; {self.fits} fits of each)."
        )

    def headline(self) -> tuple[str, str]:
        """Return headline and tone."""
        if self.low > 0:
            return "Better than the initial settings on pseudo-anomalies", "good"
        if self.high < 0:
            return "Worse than the initial settings on pseudo-anomalies", "poor"
        return "No clear difference from the initial settings", "fair"


class Images(Part):
    """The number of images that judged the trials."""

    judging: int


class Figures(ReportFigures):
    """The figures of a search that its verdict and its lines take."""

    images: Images
    searched: dict[str, str]
    trials: tuple[Trial, ...]
    best: int
    importance: dict[str, float] | None
    comparison: Comparison | None
    comparisons: int
    comparison_error: str

    def verdict(self) -> Verdict:
        """Return whether the search found better settings."""
        notes = tuple(self._notes())
        if self.comparison:
            headline, tone = self.comparison.headline()
            return Verdict(headline, self.comparison.sentence(self.best, len(self.trials)), notes, tone)
        if self.best:
            reason = self.comparison_error or "the search was interrupted before"
            sentence = (
                f"Trial {self.best} is the best of {len(self.trials):,}, but it was not compared with the initial"
                f" settings on images that no trial has seen ({reason}). To compare the two, run the same search again."
            )
            return Verdict("Best settings found, but not compared", sentence, notes, "fair")
        sentence = (
            f"None of {len(self.trials):,} trials is better than trial 0, the initial settings:"
            f" mean ROC-AUC {self.trials[0].objective:.3f} against pseudo-anomalies of {self.images.judging:,} normal"
            " images."
        )
        return Verdict("No better settings found", sentence, notes)

    def _notes(self) -> Iterable[str]:
        if failed := sum(trial.objective is None for trial in self.trials):
            yield f"{failed} of {len(self.trials)} trials failed; the table shows why"
        if len(self.trials) == 1:
            yield ("a single trial is not a search; to continue it, search again in the same folder with more trials")
        yield (
            "pseudo-anomalies are only a substitute for real anomalies; if you have real ones, evaluate"
            " models with both settings on them"
        )
        if self.comparison and self.comparisons > 1:
            yield (
                f"this is comparison {self.comparisons} on the same images, each with a different best trial; after"
                " several such comparisons, the intervals are too narrow"
            )

    def lines(self) -> Iterable[str]:
        """Yield the objectives, the best settings and their importance."""
        start, best = self.trials[0], self.trials[self.best]
        line = sparkline(trial.objective for trial in self.trials)
        yield f"objective of the trials {line} initial {start.objective:.3f}, best {best.objective:.3f}"
        values = {name: (best.settings[name], start.settings[name]) for name in self.searched}
        yield "best settings: " + ", ".join(
            f"{name} {_setting(after)}" + ("" if after == before else f" (was {_setting(before)})")
            for name, (after, before) in values.items()
        )
        if self.importance:
            yield "importance: " + ", ".join(f"{name} {share:.0%}" for name, share in self.importance.items())


def _setting(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
