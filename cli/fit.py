"""`vaeguard fit`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from vaeguard import ModelSpec, TrainSpec, workflows
from vaeguard.workflows import FitRun

from . import options as o
from .commands import command, settled
from .output import Result, reporter


@command(
    click.argument("data", default="digits"),
    o.normal_classes_option(),
    o.groups_option,
    o.roi_option,
    o.output_option("", "Run folder, for the model and its report.", shown="runs/<data>-<model>-<time>", metavar="RUN"),
    o.preset_option,
    o.spec_option,
    o.set_option,
    o.size_option,
    o.channels_option,
    o.field_option(ModelSpec, "kind", "--model"),
    o.field_option(ModelSpec, "latent"),
    o.field_option(ModelSpec, "features", metavar="NAME|FILE"),
    o.field_option(ModelSpec, "tile", type=o.Size()),
    o.field_option(ModelSpec, "overlap"),
    o.field_option(TrainSpec, "epochs"),
    o.field_option(TrainSpec, "seed"),
    o.field_option(TrainSpec, "device"),
    o.field_option(FitRun, "processes"),
    o.resume_option,
    o.data_dir_option,
    o.download_option,
    o.json_option,
    o.help_all_option,
    specs={"model": ModelSpec, "training": TrainSpec, "run": FitRun},
)
def fit(
    normal_classes: str | None, groups: str | None, roi: str | None, output: str | None, *, resume: bool, **given: Any
) -> Result | None:  # fmt: skip
    """Fit a model on normal images.

    DATA is a named data set (digits, mnist, fashion-mnist, kmnist, emnist, cifar10, svhn); a folder of images, with or
    without one sub-folder per class; or a tar, Parquet, IDX, .npz or .npy file of images. An .npz or .npy file can also
    contain a table of floating-point numbers. By default, DATA is the named data set digits.
    """
    model, training, settings = settled(given)
    done = workflows.fit_run(
        workflows.Data(**given), output, reporter(), groups=groups, settings=settings, normal_classes=normal_classes,
        roi=roi, model=model, training=training, resume=resume,
    )  # fmt: skip
    if done is None:  # another process has the result
        return None
    facts = {
        "run": done.output,
        "seconds": done.seconds,
        **done.result.info.record.to_dict(),
        "advice": (done.report or {}).get("advice", []),
        "left_out": done.left_out,
        "errors": workflows.as_objects(done.errors),
    }
    lines = [
        f"Fitted in {done.seconds:.1f} s; report: {done.output}/report.html",
        f"Next: vaeguard score {'IMAGES' if done.result.info.view.pictures else 'TABLE'} -m {shlex.quote(done.output)}",
    ]
    return Result(facts, lines, done.report, errors=done.errors)
