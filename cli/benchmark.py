"""`vaeguard benchmark`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import BenchmarkSpec, InputsSkippedError, ModelSpec, TrainSpec, VaeguardError, workflows
from vaeguard.benchmarking.protocols import BENCHMARKS

from . import options as o
from .commands import command, settled
from .output import Result, reporter, say

NAMES = "\n".join(f"  {name:15}{benchmark.about}" for name, benchmark in BENCHMARKS.items())
HELP = f"""Compare VAEs with simple methods on public data sets, and write a report.

\b
NAME is one of:
{NAMES}

Each case of a benchmark is a class, a pair of data sets, a table or a set of defects. In each case, a model is fitted
on the training part, without its anomalies (except for tables), and measured on the whole test part, with several
seeds. Simple methods are measured on the same examples, and the report also gives published figures. The settings
model.* and training.* apply to all cases except tables, whose settings are fixed.

To continue an interrupted benchmark, run the same command again.
"""


@command(
    click.argument("name", type=click.Choice(tuple(BENCHMARKS)), metavar="NAME"),
    o.output_option(
        "",
        "Folder for the report.",
        shown="<name>-<data>, followed by the classes and the fits if you choose some",
        metavar="REPORT",
    ),
    o.field_option(BenchmarkSpec, "data", metavar="LIST"),
    o.field_option(BenchmarkSpec, "classes", metavar="LIST"),
    o.field_option(BenchmarkSpec, "seeds", metavar="N"),
    o.set_option,
    o.json_option,
    specs={"benchmark": BenchmarkSpec, "model": ModelSpec, "training": TrainSpec},
    help=HELP,
)
def benchmark(name: str, output: str | None, **given: Any) -> Result:
    """Run the benchmark `name` into a folder and print its report; the help is `HELP`."""
    from vaeguard.benchmarking.workflow import benchmark_into

    spec, model, training = settled(given, benchmark=BenchmarkSpec(name))
    done = benchmark_into(output or _default_folder(spec), reporter(), spec, model=model, training=training)
    content = done.report or {}
    for text in content["skipped"]:
        say(f"note: {text}")
    for cell, reason in done.result.failures.items():
        say(f"Failed: {cell}: {reason}")
    failure: VaeguardError | None = None
    if done.result.failures:
        failed = len(done.result.failures)
        failure = VaeguardError(
            f"{workflows.counted(failed, 'measurement')} failed (see above); to try again, run the same command"
        )
    elif content["skipped"]:
        skipped = workflows.counted(len(content["skipped"]), "data set", "was were")
        failure = InputsSkippedError(f"Finished; {skipped} not found (see above)")
    cells = content["cells"]
    line = f"{cells['finished']:,} of {cells['planned']:,} measurements finished; report: {done.output}/report.html"
    return Result({"output": done.output, **workflows.without_pictures(content)}, [line], content, failure=failure)


def _default_folder(spec: BenchmarkSpec) -> str:
    data = ",".join(spec.data_names) if spec.data or len(spec.data_names) == 1 else ""
    stem = f"{spec.name}-{data}" if data else spec.name
    lists = [spec.classes.split(",") if spec.classes else [], spec.fits]
    chosen = ["+".join(_plain(item.strip()) for item in items)[:60] for items in lists if items]
    return "-".join([_plain(stem)[:100], *chosen, *(["trial"] if spec.limit else [])])


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in text)
