"""Runs the cases in one checkout: each command in a process forked from one that has loaded the libraries."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cases import SETTINGS, Case, Step

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = """
torch torch.onnx torchvision pandas pyarrow.parquet sklearn.cluster sklearn.decomposition sklearn.ensemble
sklearn.manifold sklearn.metrics sklearn.neighbors sklearn.svm onnxruntime onnx onnxscript onnx_ir PIL.Image pikepdf
tifffile imagecodecs rich.table rich.progress click safetensors.numpy safetensors.torch jinja2 optuna scipy.ndimage
scipy.stats filelock torch.onnx._internal.exporter._core torch.onnx._internal.exporter._compat
torch.onnx._internal.fx.passes torch.onnx._internal.exporter._torchlib.ops onnxscript.function_libs.torch_lib.ops
torch.export._trace torch._functorch.aot_autograd torch._export.serde.serialize torch._inductor.codecache
"""
"""What takes long to import, and is the same for both checkouts."""
DATE = (2026, 1, 2, 3, 4, 5, 4, 2, 0)
"""When everything happens: dates would get into digests."""
CPU_SECONDS, SECONDS = 300, 1800
"""Of the processor, and in all, after which a command is killed: the machine may be busy."""


@dataclass
class Outcome:
    """What one command printed, and with which exit code it ended."""

    command: str
    code: int
    stdout: str
    stderr: str
    seconds: float
    respelled: bool


@dataclass
class Side:
    """A checkout, the folder in which its cases run, and which commands and options it knows."""

    checkout: Path
    home: Path
    helps: dict[str, str] = field(default_factory=dict)

    @property
    def packages(self) -> Path:
        """The folder from which Python imports this checkout."""
        return self.home / "packages"

    def help_of(self, verb: str) -> str:
        """All that the command says of itself, empty for one that does not exist."""
        if verb not in self.helps:
            folder = self.home / "helps"
            folder.mkdir(exist_ok=True)
            outcomes = [run_command(self, folder, [*verb.split(), option]) for option in ("--help", "--help-all")]
            self.helps[verb] = " ".join(outcome.stdout for outcome in outcomes if outcome.code == 0)
        return self.helps[verb]


def load_libraries() -> None:
    """Import what both checkouts use, before any process is forked."""
    for name in LIBRARIES.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def prepare(side: Side, corpus: Path) -> None:
    """Make the folder of a side, with its packages under the names under which they are installed."""
    side.packages.mkdir(parents=True, exist_ok=True)
    for name, folder in (("vaeguard", "vaeguard"), ("vaeguard_cli", "cli")):
        if not (side.packages / name).is_symlink():
            (side.packages / name).symlink_to(side.checkout / folder)
    shutil.copytree(corpus, side.home / "corpus", dirs_exist_ok=True)


def run_case(side: Side, case: Case) -> None:
    """Run the steps of a case anew, and write what came of them to `<name>.json`."""
    folder = side.home / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, source in case.given:
        _copy(side.home / source, folder / name)
    given = digests(folder)
    outcomes = [asdict(_run_step(side, folder, step)) for step in case.steps]
    record = {"case": repr(case), "given": given, "outcomes": outcomes}
    record_of(side, case).write_text(json.dumps(record, indent=1))


def record_of(side: Side, case: Case) -> Path:
    """Where it stands what the commands of a case printed."""
    return side.home / f"{case.name}.json"


def digests(folder: Path) -> dict[str, str]:
    """Of every file below a folder, and of every link the place that it names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"link to {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _run_step(side: Side, folder: Path, step: Step) -> Outcome:
    command, respelled = spelled(side, step)
    if command[:1] == ["flip"]:
        return _flip(folder / command[1])
    outcome = run_command(side, folder, command, step.until, step.stdin)
    outcome.respelled = respelled
    return outcome


def _flip(path: Path) -> Outcome:
    if path.exists():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    return Outcome(f"flip {path.name}", 0, "", "" if path.exists() else "the file does not exist", 0, respelled=False)


def spelled(side: Side, step: Step) -> tuple[list[str], bool]:
    """The command as this checkout spells it, and whether another checkout may spell it otherwise."""
    choices = [shlex.split(text) for text in step.spellings]
    known = [words for words in choices if _known(side, words)]
    words = [*known, *(words for words in choices if words and side.help_of(words[0])), choices[-1]][0]
    verb = words[0] if words else ""
    options = any(word in SETTINGS for word in words)
    return (_with_settings(side, verb, words) if options else words), options or len(choices) > 1


def _known(side: Side, words: list[str]) -> bool:
    """Whether the checkout has the command and all options that do not only set a setting."""
    text = side.help_of(words[0]) if words else ""
    return bool(text) and all(word in SETTINGS or _has(text, word) for word in words if word.startswith("--"))


def _has(text: str, option: str) -> bool:
    return any(option == word.strip(",") for part in text.split() for word in part.split("/"))


def _with_settings(side: Side, verb: str, words: list[str]) -> list[str]:
    text = side.help_of(verb)
    if not _has(text, "--set"):
        return words
    found, rest = [], iter(words)
    for word in rest:
        if word in SETTINGS and not _has(text, word):
            setting = SETTINGS[word]
            found += ["--set", setting.format(next(rest)) if "{}" in setting else setting]
        else:
            found.append(word)
    return found


def run_command(side: Side, folder: Path, words: list[str], until: str = "", stdin: str = "") -> Outcome:
    """What a command prints and its exit code; interrupted once the file `until` is there."""
    streams = side.home / "streams"
    streams.mkdir(exist_ok=True)
    (streams / "0").write_text(stdin)
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        _be_command(side, folder, words, streams)
    if until:
        _interrupt(process, folder / until)
    _, status = os.waitpid(process, 0)
    printed = ((streams / name).read_text(encoding="utf-8", errors="backslashreplace") for name in "12")
    seconds = time.monotonic() - started
    return Outcome(shlex.join(["vaeguard", *words]), os.waitstatus_to_exitcode(status), *printed, seconds, False)


def _interrupt(process: int, path: Path) -> None:
    deadline = time.monotonic() + SECONDS / 2
    while not path.exists() and time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.02)
    os.kill(process, signal.SIGINT)


def _be_command(side: Side, folder: Path, words: list[str], streams: Path) -> None:
    """In the forked process: be the command `vaeguard` of this checkout."""
    code = 70
    try:
        _set_up(side, folder, words, streams)
        code = _run_main(side)
    except BaseException:  # noqa: BLE001  (whatever ends it is a result)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _set_up(side: Side, folder: Path, words: list[str], streams: Path) -> None:
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate("012"):
        file = os.open(streams / name, os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    os.chdir(folder)
    cache, data = side.home / "cache", side.home / "corpus/data"
    os.environ |= {"VAEGUARD_CACHE": str(cache), "VAEGUARD_DATA": str(data), "COLUMNS": "120"}
    sys.argv = ["vaeguard", *words]
    sys.path.insert(0, str(side.packages))
    strftime = time.strftime
    time.strftime = lambda form, when=DATE: strftime(form, when)  # type: ignore[assignment]


def _run_main(side: Side) -> int:
    assert "vaeguard" not in sys.modules
    main: Any = importlib.import_module("vaeguard_cli.main")
    assert str(sys.modules["vaeguard"].__file__).startswith(str(side.packages))
    try:
        main.main()
    except SystemExit as end:
        threading._shutdown()
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
