"""`vaeguard benchmark`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import BENCHMARKS, DEVICES, BenchmarkSpec, ModelSpec, TrainSpec

from .options import Size, data_dir_option, download_option, json_option, read_spec
from .output import command_line, console, print_json, progress_bar, say

NAMES = "; ".join(f"{name}: {benchmark.about}" for name, benchmark in BENCHMARKS.items())


@click.command(epilog=f"NAME is one of: {NAMES}.")
@click.argument("name", type=click.Choice(tuple(BENCHMARKS)), metavar="NAME")
@click.option(
    "-o",
    "--output",
    metavar="REPORT",
    help="Folder of the report.  [default: <name>-<data>, with the --classes and --fit given]",
)
@click.option(
    "--data",
    metavar="LIST",
    help="Data set; ood: pairs normal:anomalous; tables, defects: names.  [default: mnist, or all pairs and names]",
)
@click.option("--classes", metavar="LIST", help="one-class-out, one-class: which classes take turns.  [default: all]")
@click.option("--seeds", type=int, metavar="N", help="Repetitions, with seeds 0 to N-1.  [default: 3, tables 10]")
@click.option("--fit", "fits", metavar="LIST", help="guided, unlabelled, patches.  [default: all, for defects patches]")
@click.option("--baselines/--no-baselines", default=True, help="Also measure simple methods.  [default: yes]")
@click.option("--limit", type=int, metavar="N", help="At most N training and N test examples: only for trying out.")
@click.option("--size", type=Size(), help="defects: scale images to this.  [default: each set's own]")
@click.option(
    "--spec", "spec_file", type=click.Path(), help="TOML file of settings as for fit, the same for all cases."
)
@click.option("--device", type=click.Choice(DEVICES), help="Where to run.  [default: that of --spec, else auto]")
@data_dir_option
@download_option
@json_option
def benchmark(
    name: str, output: str | None, fits: str | None, size: tuple[int, int] | None, spec_file: str | None,
    device: str | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Measure methods on known data and write a report.

    Each case (a class, a pair, a table) is fitted on normal examples of the training part and measured on the whole
    test part, for several seeds, beside simple methods on the same split and beside published numbers. Interrupted,
    it goes on where it was when the same command is given again.
    """
    from vaeguard import InputsSkippedError, VaeguardError, show_report, without_pictures
    from vaeguard import benchmark as run_benchmark

    if size:
        settings["size"] = size
    chosen = tuple(item.strip() for item in (fits or "").split(",") if item.strip())
    spec = BenchmarkSpec(name, fits=chosen, **settings)
    model, training = read_spec(spec_file) if spec_file else ({}, {})
    if device:
        training["device"] = device
    folder = output or _default_folder(spec)
    say(f"report folder: {folder}")
    try:
        with progress_bar("benchmarking") as progress:
            report = run_benchmark(
                spec, folder, model=ModelSpec(**model), training=TrainSpec(**training),
                command=command_line(), progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        say(f"finished cells are in {folder}; the same command goes on")
        raise
    content = report.to_dict()
    for text in content["skipped"]:
        say(f"note: {text}")
    if as_json:
        print_json({"output": folder, **without_pictures(content)})
    else:
        show_report(content, console())
        click.echo(f"{content['cells']['finished']} of {content['cells']['planned']} cells -> {folder}/report.html")
    for cell, why in report.failures.items():
        say(f"failed: {cell}: {why}")
    if report.failures:
        raise VaeguardError(f"{len(report.failures)} cells failed, listed above; the same command tries them again")
    if content["skipped"]:
        raise InputsSkippedError(f"done, but {len(content['skipped'])} of the data are not there, listed above")


def _default_folder(spec: BenchmarkSpec) -> str:
    data = ",".join(spec.data_names) if spec.data or len(spec.data_names) == 1 else ""
    stem = f"{spec.name}-{data}" if data else spec.name
    lists = [spec.classes.split(",") if spec.classes else [], spec.fits]
    chosen = ["+".join(_plain(item.strip()) for item in items)[:60] for items in lists if items]
    return "-".join([_plain(stem)[:100], *chosen, *(["trial"] if spec.limit else [])])


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in text)
