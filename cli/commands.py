"""The base of all commands: it reads their specs, names options in place of parameters, and prints their results."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from vaeguard import VaeguardError, preset
from vaeguard.settings.field import help_of
from vaeguard.settings.overrides import layered, settings_of
from vaeguard.storage.places import check_supported

from .output import say, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Function = Callable[..., Any]
    Decorator = Callable[[Function], Function]

PARAMETERS = {
    **dict.fromkeys(("run", "folder", "path"), "output"),
    "inputs": "images",
    "detector": "model",
    "model": "path",
    "like": "aggregate",
}
"""Parameters of the library, and their names in commands that have no parameter of the same name."""
INTO_BUCKETS = {"score", "evaluate", "likelihood", "fit", "export", "denoise"}
"""Commands whose output may be a URL."""
ELSEWHERE = {
    "data_dir": "$VAEGUARD_DATA",
    "download": "--download (of `vaeguard fit` and `vaeguard unpack`)",
    "roi": "--roi (of `vaeguard fit`)",
    "piece": "--piece",
    "fit_denoiser": "`vaeguard fit-denoiser`",
}
"""The text for parameters that are options of other commands only, or variables."""
_WHOLE = "\N{NON-BREAKING HYPHEN}"
"""Stands for a hyphen while lines are broken."""


class Text(click.types.StringParamType):
    """Text that a shell completes to a path."""

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Leave it to the shell to list files."""
        return [CompletionItem(incomplete, type="file")]


class WholeNames(click.HelpFormatter):
    """Writes help in which no line ends within a name such as efficientnet-lite0, so that names can be copied."""

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        super().write_text(text.replace("-", _WHOLE))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their texts."""
        super().write_dl([(name, text.replace("-", _WHOLE)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """The help."""
        return super().getvalue().replace(_WHOLE, "-")


class HelpContext(click.Context):
    """The context of a command."""

    formatter_class = WholeNames


class SpecCommand(click.Command):
    """A command with settings, `specs`, which its options and `--set` change."""

    context_class = HelpContext

    def __init__(self, *arguments: Any, specs: Mapping[str, type], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.specs = specs

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with options named in errors."""
        with self._errors_with_options():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, with options named in errors."""
        with self._errors_with_options():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _errors_with_options(self) -> Iterator[None]:
        try:
            yield
        except (VaeguardError, KeyboardInterrupt) as error:
            error.args = (with_options(str(error), self), *error.args[1:])
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options, and then the settings without an option, unless only --help-all lists these."""
        super().format_options(ctx, formatter)
        brief = any(param.name == "help_all" for param in self.params) and not ctx.meta.get("help_all")
        rows = [(f"{name}=...", help_of(item)) for name, item in self._settings_without_option()]
        if rows and not brief:
            with formatter.section("Settings, changed by --set NAME=VALUE"):
                formatter.write_dl(rows)

    def _settings_without_option(self) -> Iterator[tuple[str, Any]]:
        options = {param.name for param in self.params}
        for section, spec in self.specs.items():
            yield from ((f"{section}.{name}", item) for name, item in settings_of(spec).items() if name not in options)


def with_options(text: str, command: click.Command | None) -> str:
    """A text of the library with the options of `command` in place of parameters, which are in backticks."""
    translated = re.sub(r"`([a-z_]+(?:\.[a-z_]+)?)(?:=([^`]*))?`", functools.partial(_option_for, command), text)
    return translated.replace("set --set ", "set ")


def _option_for(command: click.Command | None, match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    params = {param.name: param for param in command.params} if command else {}
    bare = name.rpartition(".")[2]
    param = params.get(bare) or params.get(PARAMETERS.get(bare, bare))
    if isinstance(param, click.Option):
        return _typed(param, value)
    if param:
        return param.metavar or bare.upper()
    for section, spec in getattr(command, "specs", {}).items():
        if bare in settings_of(spec) and name in (bare, f"{section}.{bare}"):
            return f"--set {section}.{bare}" + (f"={_plain(value)}" if value else "")
    return ELSEWHERE.get(name, str(match[0]))


def _typed(option: click.Option, value: str | None) -> str:
    names = option.secondary_opts if value == "False" and option.secondary_opts else option.opts
    longest = max(names, key=len)
    return longest if value is None or option.is_flag else f"{longest} {_plain(value)}"


def _plain(value: str) -> str:
    """A value as users type it: without Python's quotes and capitals."""
    return value.lower() if value in ("True", "False", "None") else value.strip("'\"")


def command(*options: Decorator, specs: Mapping[str, type] | None = None, **attributes: Any) -> Callable[[Any], Any]:
    """Turn a function into a command with these arguments and options, in this order."""

    def decorate(body: Function) -> click.Command:
        @functools.wraps(body)
        def run(*, as_json: bool = False, **values: Any) -> None:
            if body.__name__ not in INTO_BUCKETS:
                check_supported([values.get("output")], "`output` of this command")
            result = body(**values)
            if result:
                show(result, as_json=as_json)

        decorated: Any = run
        for option in reversed(options):
            decorated = option(decorated)
        made: click.Command = click.command(
            body.__name__.replace("_", "-"), cls=SpecCommand, specs=specs or {}, **attributes
        )(decorated)
        for param in made.params:
            if param.type is click.STRING:
                param.type = Text()
        return made

    return decorate


def settled(values: dict[str, Any], **bases: Any) -> list[Any]:
    """The specs of the running command, from `--preset`, `--spec`, `--set` and the options in `values`, later ones win.

    `bases` are specs to start from. Values that belong to no spec stay in `values`.
    """
    specs: Mapping[str, type] = click.get_current_context().command.specs  # type: ignore[attr-defined]
    if name := values.pop("preset", None):
        settings = preset(name)
        say(f"Preset {name}: {settings.about}")
        bases = {"model": settings.model, "training": settings.training}
    options: dict[str, dict[str, Any]] = {}
    for section, spec in specs.items():
        typed = {name: values.pop(name) for name in settings_of(spec) if name in values}
        options[section] = {name: value for name, value in typed.items() if value is not None}
    starts = {section: bases[section] if section in bases else spec() for section, spec in specs.items()}
    return layered(starts, values.pop("spec", None), values.pop("set", ()), options)
