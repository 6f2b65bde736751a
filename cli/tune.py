"""`vaeguard tune`."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click

from vaeguard import ModelSpec, TrainSpec, workflows
from vaeguard.tuning.search_space import DEFAULT_TRIALS

from . import options as o
from .commands import command, settled
from .output import Result, reporter, say


class Duration(click.ParamType[float]):
    """`90s`, `20m`, `1h30m`, or seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`1h30m` to 5400 seconds."""
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", str(value).strip().lower(), re.ASCII)
        hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
        total = 3600 * hours + 60 * minutes + seconds
        if not total:
            self.fail(f"{value!r} is not a time above 0; use a form such as 90s, 20m or 1h30m", param, ctx)
        return float(total)


@command(
    click.argument("data", default="digits"),
    o.normal_classes_option(),
    click.option(
        "--trials",
        type=click.IntRange(1),
        default=DEFAULT_TRIALS,
        show_default=True,
        help="Total number of trials, including those of an interrupted search.",
    ),
    click.option(
        "--time",
        "seconds",
        type=Duration(),
        help="Time limit for the trials, such as 90s, 20m or 1h30m. The comparison at the end takes additional time.",
    ),
    o.output_option(
        "",
        "Folder of the search. An unfinished search in this folder is continued.",
        shown="tuning/<data>",
        metavar="DIR",
    ),
    o.groups_option,
    o.preset_option,
    o.spec_option,
    o.set_option,
    o.size_option,
    o.channels_option,
    o.json_option,
    specs={"model": ModelSpec, "training": TrainSpec},
)
def tune(
    normal_classes: str | None, groups: str | None, trials: int, seconds: float | None, output: str | None,
    **given: Any,
) -> Result:  # fmt: skip
    """Find good settings for a fit, using normal images only.

    DATA is a data set as for `vaeguard fit`; the default is digits. The search varies the size of the model, the
    likelihood, beta, the KL warm-up and the learning rate. Each trial fits a model on one part of the normal images and
    measures how well the model separates a second part from pseudo-anomalies, which are altered images of the second
    part. At the end, the best settings are saved in best.toml, a file for `vaeguard fit --spec`, and compared with the
    initial settings on a third part.

    To continue an interrupted search, run the same command again.
    """
    from vaeguard.tuning.workflow import tune_into

    model, training = settled(given)
    done = tune_into(
        workflows.Data(**given), output, reporter(), groups=groups, normal_classes=normal_classes, model=model,
        training=training, trials=trials, seconds=seconds,
    )  # fmt: skip
    if len(done.result.trials) < trials:
        say(
            f"note: {len(done.result.trials)} of {trials} trials were finished within --time; to continue, run"
            " the same command again"
        )
    data_options = {
        "--normal-classes": normal_classes,
        "--groups": groups,
        "--size": given["size"] and "x".join(map(str, given["size"])),
        "--channels": given["channels"] and str(given["channels"]),
    }
    options = [part for name, value in data_options.items() if value for part in (name, value)]
    best = shlex.join(["vaeguard", "fit", given["data"], *options, "--spec", f"{done.output}/best.toml"])
    lines = [f"Next: {best}", f"Report: {done.output}/report.html"]
    facts = {
        "output": done.output,
        **workflows.without_pictures(done.report or {}),
        "left_out": done.left_out,
        "errors": workflows.as_objects(done.errors),
    }
    return Result(facts, lines, done.report, errors=done.errors)
