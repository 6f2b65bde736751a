"""The command `vaeguard`: runs the subcommand, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import threading

import click

from vaeguard import InputsSkippedError, VaeguardError
from vaeguard.packages import install_line, own_version

from .output import warnings_on_stderr

# Networks of large images spend most of their time on fresh pages unless PyTorch may ask for huge ones.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

SECTIONS = {
    "Find anomalies": {
        "fit": "Fit a model on normal images.",
        "tune": "Find good settings for a fit, using normal images only.",
        "score": "Score images with a fitted model.",
        "watch": "Score new images in a folder as they arrive.",
        "refit": "Fit a model again, with images that you reviewed and found normal.",
        "evaluate": "Measure how well a model separates anomalies from normal images.",
    },
    "Clean scans": {
        "denoise": "Clean a folder of scans.",
        "undo": "Restore the pixels of the original scans, bit for bit.",
        "check": "Check that clean scans have not changed since they were written.",
        "fit-denoiser": "Train your own denoiser.",
    },
    "Split a job": {
        "gather": "Combine the shares of a job that was split with --piece.",
    },
    "Look inside a model": {
        "reconstruct": "Draw images with their reconstructions and heatmaps, from least to most anomalous.",
        "sample": "Generate images that look normal to the model.",
        "interpolate": "Morph one image into another through the latent space.",
        "traverse": "Show what each latent unit does.",
        "embed": "Save the latent vectors of images as a table.",
        "likelihood": "Measure how good a model is as a generative model.",
    },
    "Deploy": {
        "export": "Export a model as one ONNX file, and compare the file with the PyTorch model.",
        "verify": "Check that an exported model gives the same results as the PyTorch model.",
    },
    "Measure and report": {
        "report": "Show the report of a run, an evaluation, a benchmark, scores or clean scans.",
        "compare": "Compare several evaluations side by side.",
        "benchmark": "Compare VAEs with simple methods on public data sets, and write a report.",
    },
    "Other": {
        "unpack": "Save a data set as PNG files, in one folder per class.",
        "doctor": "Check the installation, and suggest how to fix problems.",
    },
}
"""The summaries of all commands, by section of the help."""
COMMANDS = [name for section in SECTIONS.values() for name in section]
EXAMPLES = """\b
vaeguard fit --normal-classes 0-8   fits a model on the built-in digits 0 to 8
vaeguard score images/              uses the latest model to score images
vaeguard denoise scans/             saves clean copies of the scans to scans-clean/"""


class LazyGroup(click.Group):
    """A group that imports a command only when it runs, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names in the order of the help."""
        return COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f".{name}", __package__), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; the error for a misspelt name has a hint."""
        close = difflib.get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and close and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands with their summaries, without importing them."""
        for title, summaries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(summaries.items()))


@click.group(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(own_version(), prog_name="vaeguard")
def vaeguard() -> None:
    """Find anomalous images, and clean up scans.

    The models that find anomalies are variational autoencoders, fitted on normal images only.
    """


def main() -> None:
    """Run the command line; exit codes are those of `vaeguard.errors`, 130 when interrupted."""
    # Threads that spin while they wait make training ten times slower as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_closed()
    _escape_unencodable()
    try:
        with warnings_on_stderr():
            code = vaeguard.main(standalone_mode=False)
    except VaeguardError as error:
        code = _print_error(str(error), error.exit_code)
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _print_error(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        code = _print_interruption(error)
        _leave_threads(code)
    except MemoryError:
        code = _print_error("not enough memory; close other programs, or use smaller or fewer images", 1)
    except OSError as error:
        code = _print_error(f"cannot access {error.filename or 'stdout or a file'}: {error.strerror or error}", 1)
    except Exception as error:
        if os.environ.get("VAEGUARD_DEBUG"):
            raise
        code = _print_error(*_fault(error))
    sys.exit(code if isinstance(code, int) else 0)


def _fault(error: Exception) -> tuple[str, int]:
    """What to say of an error that no code expects, with the exit code: mostly a package that is not there."""
    package = ((error.name or "") if isinstance(error, ModuleNotFoundError) else "").partition(".")[0]
    if not package or package.startswith("vaeguard"):
        report = "please set VAEGUARD_DEBUG=1, run the command again, and report what it prints"
        return f"this is a bug in vaeguard ({type(error).__name__}: {error}); {report}", 1
    needless = package in {"torch", "safetensors"}
    without = "; exported models (.onnx) and `vaeguard denoise` work without it" if needless else ""
    name = {"sklearn": "scikit-learn"}.get(package, package)
    return f"this command needs the package {name}, which is not installed; run: {install_line()}{without}", 2


def _open_closed() -> None:
    """Open closed streams on the null device; otherwise the next file that is opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            os.set_inheritable(number, True)  # the processes that decode need them as well
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


def _escape_unencodable() -> None:
    """Print characters that a terminal or a pipe cannot encode as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_threads(code: int) -> None:
    """Exit at once if a worker thread is still in a library call: Python would wait for it, with nothing to save."""
    if any(thread.name.startswith("vaeguard-") for thread in threading.enumerate()):
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
            stream.flush()
        os._exit(code)


def _print_interruption(error: BaseException) -> int:
    # A workflow says how to continue.
    click.echo(str(error.__cause__ or "") or "Interrupted", err=True)
    return 130


def _print_error(message: str, code: int) -> int:
    prefix = "" if code == InputsSkippedError.exit_code else "error: "
    # A file name may contain a newline, but the message must be one line.
    click.echo(prefix + " ".join(message.split()), err=True)
    return code
