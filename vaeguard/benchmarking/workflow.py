"""A benchmark with its report in one call, which says how to continue after an interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaeguard.benchmarking.running import benchmark
from vaeguard.workflows.outcome import Outcome

if TYPE_CHECKING:
    from vaeguard.benchmarking.protocols import BenchmarkSpec
    from vaeguard.workflows.outcome import Reporter


def benchmark_into(folder: str, reporter: Reporter, spec: BenchmarkSpec, **fit_settings: Any) -> Outcome:
    """Run a benchmark, as `vaeguard.benchmark`, into `folder`.

    Raises
    ------
    UsageError, VaeguardError
        As by `vaeguard.benchmark`.
    """
    reporter.say(f"Report folder: {folder}")
    with (
        reporter.progress("benchmarking") as progress,
        reporter.going_on(f"finished measurements are in {folder}"),
    ):
        report = benchmark(spec, folder, command=reporter.command, progress=progress, **fit_settings)
    return Outcome(folder, report, report.to_dict())
