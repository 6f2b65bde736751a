"""Options that several commands share, and how their values become specs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vaeguard import DEFAULT_FPR, DEVICES, ENGINE_DEVICES, PRESETS

from .output import say

if TYPE_CHECKING:
    from vaeguard import ModelSpec, TrainSpec

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

model_option = click.option(
    "-m",
    "--run",
    "--model",
    "model",
    metavar="MODEL",
    help="Run folder, model file or .onnx file.  [default: runs/latest]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Where named data sets lie.  [default: $VAEGUARD_DATA, else data/]"
)
download_option = click.option("--download", is_flag=True, help="Fetch a named data set that is missing.")
device_option = click.option(
    "--device", type=click.Choice(DEVICES), default=DEVICES[0], show_default=True, help="Where to run."
)
engine_option = click.option(
    "--device",
    type=click.Choice(ENGINE_DEVICES),
    default=DEVICES[0],
    show_default=True,
    help="Where to run; tensorrt is for exported models.",
)
tolerance_option = click.option(
    "--tolerance", type=click.FloatRange(0, min_open=True), help="Largest relative error allowed.  [default: by device]"
)
fpr_option = click.option(
    "--fpr", type=float, default=DEFAULT_FPR, show_default=True, help="False-alarm rate: flag where p_value <= this."
)


class Size(click.ParamType[tuple[int, int]]):
    """`64` or `48x64`, height first."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """`64` to (64, 64), `48x64` to (48, 64)."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no size such as 64 or 48x64 (height x width)", param, ctx)
        return int(parts[0]), int(parts[-1])


preset_option = click.option(
    "--preset",
    "preset_name",
    type=click.Choice(tuple(PRESETS)),
    metavar="NAME",
    help=f"Start from named settings: {', '.join(PRESETS)}.",
)
spec_option = click.option(
    "--spec", "spec_file", type=click.Path(), help="TOML file of settings to start from; options win over it."
)
groups_option = click.option(
    "--groups", metavar="TABLE",
    help="CSV file with the columns path and group: images of one group stay on one side of the split.",
)  # fmt: skip
size_option = click.option("--size", type=Size(), help="Scale images to 64 or 48x64 (height x width).")
channels_option = click.option(
    "--channels", type=click.Choice(["1", "3", "4"]), help="Read images as 1 grey, 3 colour, 4 with alpha."
)


class SectionOption(click.Option):
    """An option that `SectionCommand` lists in a section of its help."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class SectionCommand(click.Command):
    """A command whose options are many: its help lists them in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options section by section, those of none first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def spec_options(kind: type[ModelSpec | TrainSpec], section: str, renamed: dict[str, str] | None = None) -> Decorator:
    """Options for every setting of a spec that has a help text; the spec's default is the option's."""

    def decorate(command: Command) -> Command:
        for item in reversed(dataclasses.fields(kind)):
            if "help" in item.metadata:
                name = (renamed or {}).get(item.name, item.name).replace("_", "-")
                command = _option(name, item, "Augmentation" if name.startswith("augment-") else section)(command)
        return command

    return decorate


def _option(name: str, item: dataclasses.Field[Any], section: str) -> Decorator:
    shown = item.metadata["unset"] or _shown(item.default)
    how: dict[str, Any] = {
        "cls": SectionOption,
        "section": section,
        "default": None,
        "help": item.metadata["help"] + (f"  [default: {shown}]" if shown else ""),
    }
    kind = str(item.type).removesuffix(" | None")
    if kind == "bool":
        flag = f"--{name}/--un{name}" if name == "guided" else f"--{name}/--no-{name}"
        return click.option(flag, item.name, **how)
    choices = click.Choice(item.metadata["of"]) if item.metadata["of"] else None
    lists = {"tuple[int, ...]": IntegerList(), "tuple[str, ...]": NameList()}
    types = {"int": int, "float": float, "str": choices, **lists}
    return click.option(f"--{name}", item.name, type=types[kind], **how)


def _shown(default: object) -> str:
    if default is None or default is False or default == ():
        return ""
    return f"{default:.4g}" if isinstance(default, float) else str(default)


class IntegerList(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas."""

    name = "integers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`400,400` to (400, 400)."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 400,400", param, ctx)


class NameList(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ARG002
        """`kl,neg_elbo` to ("kl", "neg_elbo")."""
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


def given(values: dict[str, Any], kind: type[ModelSpec | TrainSpec]) -> dict[str, Any]:
    """The settings of `kind` among `values` that were given on the command line."""
    names = {item.name for item in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names and value is not None}


def read_spec(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables `[model]` and `[training]` of the TOML file that `--spec` names, checked."""
    import tomllib
    from pathlib import Path

    from vaeguard import ModelSpec, TrainSpec, UsageError, from_dict

    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--spec {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--spec {path!r} is no TOML: {error}") from error
    if unknown := set(content) - {"model", "training"}:
        raise UsageError(f"--spec {path!r} has a table {unknown.pop()!r}; known are [model] and [training]")
    for name, table in content.items():
        if not isinstance(table, dict):
            raise UsageError(
                f"--spec {path!r} sets {name!r} to {table!r}; it is a table: [{name}] and settings below it"
            )
    if filled_in := {"image_shape", "classes", "vectors"} & set(content.get("model", {})):
        raise UsageError(f"--spec {path!r} sets {filled_in.pop()!r}, which comes from the data; take it out")
    model = from_dict(ModelSpec, content.get("model", {}))
    training = from_dict(TrainSpec, content.get("training", {}))
    return (
        {key: getattr(model, key) for key in content.get("model", {})},
        {key: getattr(training, key) for key in content.get("training", {})},
    )


def read_specs(preset_name: str | None, spec_file: str | None, settings: dict[str, Any]) -> tuple[ModelSpec, TrainSpec]:
    """Model and training that `--preset`, over it `--spec`, and over both the options in `settings` make."""
    from vaeguard import ModelSpec, TrainSpec, preset

    chosen = preset(preset_name) if preset_name else None
    if chosen:
        say(f"preset {preset_name}: {chosen.about}")
    model = chosen.model if chosen else ModelSpec()
    training = chosen.training if chosen else TrainSpec()
    if spec_file:
        model_part, training_part = read_spec(spec_file)
        model, training = dataclasses.replace(model, **model_part), dataclasses.replace(training, **training_part)
    model = dataclasses.replace(model, **given(settings, ModelSpec))
    return model, dataclasses.replace(training, **given(settings, TrainSpec))


def typed(*names: str) -> bool:
    """Whether one of these options stands on the command line."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) == click.core.ParameterSource.COMMANDLINE for name in names)
