"""Options that several commands share, and options for fields of specs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaeguard import UsageError
from vaeguard.settings.field import default_of
from vaeguard.settings.overrides import parse_setting, settings_of
from vaeguard.workflows import DEVICES, ENGINE_DEVICES, PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Size(click.ParamType[tuple[int, int]]):
    """`64` or `48x64`, height first."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """`64` to (64, 64), `48x64` to (48, 64)."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a size; use a form such as 64 or 48x64 (height x width)", param, ctx)
        return int(parts[0]), int(parts[-1])


class FieldType(click.ParamType[Any]):
    """A field of a spec, whose text is parsed by the library."""

    def __init__(self, spec: type, field: str) -> None:
        self.spec, self.field = spec, field
        self.name = str(settings_of(spec)[field].type).split(" |", maxsplit=1)[0]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The value of the field."""
        return parse_setting(self.spec, self.field, value) if isinstance(value, str) else value


def field_option(spec: type, field: str, *names: str, **attributes: Any) -> Decorator:
    """An option for a field of a spec, with the help and the default of the field; an absent option is None."""
    item = settings_of(spec)[field]
    kind = click.Choice(item.metadata["of"]) if item.metadata["of"] else FieldType(spec, field)
    form: dict[str, Any] = {"is_flag": True} if item.type == "bool" else {"type": kind}
    text = item.metadata["help"] + default_of(item)
    return click.option(*(names or (f"--{field}",)), field, **{"default": None, "help": text, **form, **attributes})


def output_option(
    default: str, what: str = "Picture file to save.", *, shown: str = "", metavar: str = "FILE"
) -> Decorator:
    """The option `-o`; its default is `default`, or is described by `shown` if the command derives it."""
    text = what + (f"  [default: {shown}]" if shown else "")
    return click.option(
        "-o", "--output", default=None if shown else default, show_default=not shown, metavar=metavar, help=text
    )


def _show_all(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta["help_all"] = True
        click.echo(ctx.get_help())
        ctx.exit()


def check_alone(piece: str | None, cluster: str | None) -> None:
    """Refuse a share of a job that is also to be spread over a cluster."""
    if piece and cluster:
        raise UsageError("`piece` does one share of a job, and `cluster` does the whole job; remove one of them")


data_argument = click.argument("data", required=False)
model_option = click.option(
    "-m", "--model", metavar="MODEL",
    help="The model: a run folder, a model file or an .onnx file.  [default: runs/latest, the latest run]",
)  # fmt: skip
run_option = click.option(
    "-m", "--model", metavar="MODEL",
    help="The model: a run folder or a model file.  [default: runs/latest, the latest run]",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Folder of the named data sets.  [default: $VAEGUARD_DATA if set, else data/]"
)
download_option = click.option(
    "--download", is_flag=True, help="Download the named data set, and the pretrained network, if they are missing."
)
engine_option = click.option(
    "--device",
    type=click.Choice(ENGINE_DEVICES),
    default=DEVICES[0],
    show_default=True,
    help="Device to run on; tensorrt works with .onnx models only.",
)
fpr_option = click.option(
    "--fpr",
    type=float,
    help="False-alarm rate, the share of normal images that may be flagged: an image is flagged if its p_value is at"
    " most this rate.  [default: the rate stored in an exported model, else 0.05]",
)
heatmaps_option = click.option(
    "--heatmaps",
    metavar="DIR",
    help="Folder for pictures of the flagged images, each with its heatmap, its spots (the most anomalous regions) and,"
    " unless the model learns features, its reconstruction.",
)
piece_option = click.option(
    "--piece",
    metavar="I/N",
    help="Split the job into N shares and do only share I. Run the other shares as separate processes, and then"
    " combine all shares with `vaeguard gather`.",
)
cluster_option = click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Run on a Ray cluster: local starts a cluster on this machine, auto finds a running one, and HOST:PORT is the"
    " address of a cluster's head node.",
)
split_option = click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    default="test",
    show_default=True,
    help="Which part of the data set to use, if it has a training and a test part.",
)
report_option = click.option("--report/--no-report", default=True, show_default=True, help="Also write an HTML report.")


def normal_classes_option(default: str = "all") -> Decorator:
    """The option for the normal classes; `default` says which these are otherwise."""
    return click.option(
        "--normal-classes",
        metavar="LIST",
        help=f"The classes that count as normal, such as good,ok or 0-3,7.  [default: {default}]",
    )


groups_option = click.option(
    "--groups", metavar="TABLE",
    help="CSV file with the columns path and group. Images of one group, such as several views of one object, are"
    " either all used for training or all held out.",
)  # fmt: skip
roi_option = click.option(
    "--roi", metavar="FILE",
    help="File with the region that the model looks at, the same in all images: either an image that is white inside"
    " the region, or a JSON file of LabelMe or COCO with polygons.",
)  # fmt: skip
preset_option = click.option(
    "--preset", type=click.Choice(tuple(PRESETS)), metavar="NAME",
    help=f"Start from the settings of a preset: {', '.join(PRESETS)}.",
)  # fmt: skip
spec_option = click.option(
    "--spec", metavar="FILE",
    help="TOML file with settings. The file overrides --preset, and is overridden by --set and by options for single"
    " settings.",
)  # fmt: skip
set_option = click.option(
    "--set",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting that has no option of its own; repeat --set to change several.",
)
size_option = click.option(
    "--size", type=Size(), help="Scale images to this size, such as 48x64 (height x width), or 64 for 64x64."
)
channels_option = click.option(
    "--channels",
    type=click.Choice(["1", "3", "4"]),
    callback=lambda _ctx, _param, value: value and int(value),
    help="Number of channels to read: 1 for grey, 3 for colour, 4 for colour with alpha (transparency).",
)
resume_option = click.option(
    "--resume", is_flag=True, help="Continue the interrupted fit in the run folder that -o names."
)
help_all_option = click.option(
    "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
    help="Also list the settings that --set can change.",
)  # fmt: skip
