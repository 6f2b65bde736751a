"""What the commands share: options made from the specs, progress, and results as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from vaeguard import DEFAULT_FPR, DEVICES, ENGINE_DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from vaeguard import Detector, ImageSet, ModelSpec, Parity, TrainSpec

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


def spec_options(kind: type[ModelSpec | TrainSpec], renamed: dict[str, str]) -> Decorator:
    """Options for every setting of a spec that has a help text; the spec's default is the option's."""

    def decorate(command: Command) -> Command:
        for item in reversed(dataclasses.fields(kind)):
            if "help" in item.metadata:
                name = renamed.get(item.name, item.name).replace("_", "-")
                command = _option(name, item)(command)
        return command

    return decorate


def _option(name: str, item: dataclasses.Field[Any]) -> Decorator:
    text, default = item.metadata["help"], item.default
    shown = "" if default is None or default is False or default == () else f"  [default: {_shown(default)}]"
    kind = str(item.type).removesuffix(" | None")
    if kind == "bool":
        flag = f"--{name}/--un{name}" if name == "guided" else f"--{name}/--no-{name}"
        return click.option(flag, item.name, default=None, help=text + shown)
    choices = click.Choice(item.metadata["of"]) if "of" in item.metadata else None
    lists = {"tuple[int, ...]": IntegerList(), "tuple[str, ...]": NameList()}
    types = {"int": int, "float": float, "str": choices, **lists}
    return click.option(f"--{name}", item.name, type=types[kind], default=None, help=text + shown)


def _shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:.4g}"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


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


class Size(click.ParamType[tuple[int, int]]):
    """`64` or `48x64`, height first."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """`64` to (64, 64), `48x64` to (48, 64)."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no size such as 64 or 48x64 (height x width)", param, ctx)
        return int(parts[0]), int(parts[-1])


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
    model = chosen.model if chosen else ModelSpec()
    training = chosen.training if chosen else TrainSpec()
    if spec_file:
        model_part, training_part = read_spec(spec_file)
        model, training = dataclasses.replace(model, **model_part), dataclasses.replace(training, **training_part)
    model = dataclasses.replace(model, **given(settings, ModelSpec))
    return model, dataclasses.replace(training, **given(settings, TrainSpec))


def command_line() -> str:
    """What the user typed, to be named in a report."""
    return shlex.join(["vaeguard", *sys.argv[1:]])


def console() -> Console:
    """Where results go: names stay as they are, and nothing is wrapped that a program may read."""
    from rich.console import Console

    return Console(emoji=False, soft_wrap=not sys.stdout.isatty())


def say(message: str) -> None:
    """Tell the user on stderr."""
    click.echo(message, err=True)


def print_json(result: dict[str, Any]) -> None:
    """The one JSON object on stdout; a value that is not finite is null."""
    from vaeguard import finite

    click.echo(json.dumps(finite(result), indent=2))


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Show what the library warns of as lines on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        yield


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left on a terminal; otherwise a line every ten seconds. Both on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {text}".strip())

        yield update


def _lines(what: str) -> Callable[..., None]:
    started = said = time.monotonic()

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 10 and done:
            said = now
            left = (now - started) * (total - done) / done
            say(f"{what} {done}/{total} {text}".strip() + f" ({left:.0f} s left)")

    return update


@contextlib.contextmanager
def no_empty_run(run: Path | None) -> Iterator[None]:
    """Leave no empty folder behind a fit that could not start; say how an interrupted one goes on.

    None is the folder of a fit that does not have one yet.
    """
    try:
        yield
    except BaseException as error:
        if run:
            if isinstance(error, KeyboardInterrupt) and any(run.glob("checkpoint.*")):
                say(f"go on with the same command and --resume -o {run}")
            with contextlib.suppress(OSError):
                run.rmdir()  # fails unless it is empty
        raise


def say_left_out(errors: Sequence[tuple[str, str]]) -> None:
    """List on stderr what was left out, mostly as it cannot be read, or the first ten of it."""
    for path, reason in errors[:10]:
        say(f"left out: {path!r}: {reason}")
    if len(errors) > 10:
        say(f"... and {len(errors) - 10} more")


def say_note(images: ImageSet) -> None:
    """Tell on stderr what else there is to know of how images were read."""
    if images.note:
        say(f"note: {images.note}")


def as_objects(errors: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Unreadable inputs as JSON objects."""
    return [{"path": path, "error": reason} for path, reason in errors]


def complain_of_left_out(errors: Sequence[tuple[str, str]], where: str) -> None:
    """End with exit code 3 if some inputs were left out; the work itself is done. `where` says where they stand."""
    if errors:
        from vaeguard import InputsSkippedError

        files = "1 file was" if len(errors) == 1 else f"{len(errors)} files were"
        raise InputsSkippedError(f"done, but {files} left out; {where}")


def open_test_images(data: str | None, detector: Detector, data_dir: str | None, *, download: bool) -> ImageSet:
    """Open the test part of `data` in the shape that the model takes, and say what could not be read."""
    return open_images_for(data, detector, data_dir, split="test", download=download)


def open_images_for(
    data: str | None, detector: Detector, data_dir: str | None, *, split: Literal["train", "test"], download: bool
) -> ImageSet:
    """Open a part of `data` in the shape that the model takes, and say what could not be read.

    None is the named set that the model was fitted on.

    Raises
    ------
    UsageError
        As `open_images`; or `data` is None, and the model was fitted on no named set.
    """
    from vaeguard import ImageRule, data_of_fit, open_images

    data = data_of_fit(detector.info.record) if data is None else data
    channels, height, width = detector.info.image_shape
    rule = ImageRule((height, width), channels)
    with progress_bar("reading") as progress:
        images = open_images(data, split=split, rule=rule, data_dir=data_dir, download=download, progress=progress)
    say(f"data: {images.name}, {len(images.images)} images")
    say_left_out(images.errors)
    return images


def open_generative(model: str | None, device: str, *, vectors: bool = False) -> Any:
    """The model of `-m` as one that decodes, for images; with `vectors` also one for these.

    Raises
    ------
    UsageError
        It is an exported file, or a model of vectors.
    """
    from vaeguard import UsageError, load

    path = find_model(model)
    detector: Any = load(path, device)
    if not hasattr(detector, "decode"):
        raise UsageError(f"-m {path!r} is an exported file, which only inspects images; name the run that it came from")
    if detector.info.vectors and not vectors:
        raise UsageError(f"-m {path!r} is a model of vectors, of which there are no pictures; use it from Python")
    return detector


def check_picture(output: str, inputs: Sequence[str] = ()) -> None:
    """Refuse a picture that is no PNG, or one of the `inputs`.

    Raises
    ------
    UsageError
        Its name does not end in .png, or it would replace an input.
    """
    from vaeguard import UsageError, check_apart

    check_apart(output, inputs)

    if not output.lower().endswith(".png"):
        raise UsageError(f"-o {output!r}: the picture is a PNG; give a name that ends in .png")


def read_pictures(paths: Sequence[str], detector: Detector) -> Any:
    """Image files as the model takes them, uint8 (N, C, H, W).

    Raises
    ------
    UsageError
        One cannot be read.
    """
    import numpy as np

    from vaeguard import ImageRule, UnreadableError, UsageError, decode_image

    channels, height, width = detector.info.image_shape
    try:
        return np.stack([decode_image(path, ImageRule((height, width), channels)) for path in paths])
    except UnreadableError as error:
        raise UsageError(str(error)) from error


def say_parity(parity: Parity) -> None:
    """Show how far an exported model is from PyTorch, as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table("output", "largest relative error", title=f"{parity.images} images, {parity.random} of them noise")
    for name, error in parity.errors.items():
        table.add_row(name, f"{error:.1e}")
    Console().print(table)
    click.echo(
        f"allowed {parity.tolerance:g}; {parity.swapped} changed places, {parity.decisions} decisions differ, bits "
        + ("are the same in any batch" if parity.same_bits else "depend on the batch")
    )


def find_model(model: str | None) -> str:
    """`-m`, or the latest run, which is then named on stderr."""
    if model:
        return model
    from pathlib import Path

    from vaeguard import latest_run

    latest = latest_run()
    # The link may point elsewhere before this command ends; the run it means now is meant to the end.
    run, here = latest.resolve(), Path.cwd()
    say(f"model: {latest} -> {run.name}")
    return str(run.relative_to(here) if run.is_relative_to(here) else run)


def typed(*names: str) -> bool:
    """Whether one of these options stands on the command line."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) == click.core.ParameterSource.COMMANDLINE for name in names)
