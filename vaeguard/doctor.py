"""Examine the installation and the machine; each check is one row with its result and the remedy.

Heavy packages are imported in separate processes, so a broken package costs one row of the table, not all of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vaeguard.packages import FULL, LIGHT, has, install_line, installed, is_light
from vaeguard.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["ok", "warn", "fail"]

MIN_FREE_BYTES = 2**30
"""Less free space for the cache is a warning."""
PROBE_SECONDS = 180
"""The longest time for the import of a package."""
EXTRAS = {"tune": "optuna", "tensorboard": "tensorboard", "cluster": "ray", "derive": "doxapy"}
"""Extras of vaeguard that commands need, and the package of each extra."""
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Packages that install the same module `onnxruntime`, and so overwrite each other."""
ONNX_FLOOR = ">=1.28"

TORCH_PROBE = """
import json, torch
devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
problem = ""
if devices:
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices,
                  "problem": problem, "threads": torch.get_num_threads()}))
"""
TORCHVISION_PROBE = """
import json, torch, torchvision
torch.ops.torchvision.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
print(json.dumps({"version": torchvision.__version__}))
"""
NEGATION = (
    "08093a320a0b0a017812017922034e65671201705a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808011204"
    "0a02080142040a001012"
)
"""An ONNX file of one operator: `y = -x` for float32 (1,)."""
# The GPU package lists CUDA on every machine, but may silently run on the CPU; only a session shows the device.
ONNX_PROBE = f"""
import json, onnxruntime
offered = onnxruntime.get_available_providers()
cuda = "CUDAExecutionProvider" in offered
if cuda and hasattr(onnxruntime, "preload_dlls"):
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
wanted = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
session = onnxruntime.InferenceSession(bytes.fromhex({NEGATION!r}), providers=wanted)
session.run(None, {{"x": __import__("numpy").ones(1, "float32")}})
print(json.dumps({{"version": onnxruntime.__version__, "offered": offered, "used": session.get_providers()[0]}}))
"""


@dataclass(frozen=True)
class Check:
    """The result of one check: its name, status and finding, and what to do (empty if nothing)."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """The worst status of all checks."""
        statuses = {check.status for check in self.checks}
        return "fail" if "fail" in statuses else "warn" if "warn" in statuses else "ok"

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values that JSON can hold."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def rich_table(self) -> Table:
        """Return the checks as a table for a terminal, with the status as a coloured word."""
        from rich.markup import escape
        from rich.table import Column, Table

        table = Table("check", "status", *(Column(name, overflow="fold") for name in ("found", "what to do")))
        colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for check in self.checks:
            colour = colours[check.status]
            table.add_row(check.name, f"[{colour}]{check.status}[/]", escape(check.found), escape(check.advice))
        return table


def examine(data_dir: str | Path | None = None) -> Examination:
    """Check Python, packages, engines, processor, disk and data sets; a failed check raises no error.

    Parameters
    ----------
    data_dir : path or None
        Folder of named data sets; None takes `$VAEGUARD_DATA`, else `data/`.
    """
    torch = _probe(TORCH_PROBE)
    training = [check_torch(torch), check_torchvision(_probe(TORCHVISION_PROBE))]
    return Examination(
        (
            check_python(),
            check_distributions(),
            *check_packages(),
            check_extras(),
            check_onnx_packages(installed(ONNX_RUNTIMES)),
            *([] if is_light() and not installed(("torch",)) else training),
            check_onnxruntime(_probe(ONNX_PROBE), gpu=isinstance(torch, dict) and bool(torch["devices"])),
            check_telemetry(),
            check_processor(),
            check_cache(),
            check_data(data_dir),
        )
    )


def check_python() -> Check:
    """Name the version of Python, which is recent enough, since otherwise this module could not be imported."""
    found = f"{platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}"
    return Check("Python", "ok", found)


def check_distributions() -> Check:
    """Name the distribution that is installed, and check that there are not both, which hold the same modules."""
    there = installed((FULL,)).get(FULL, "a checkout")
    if is_light():
        return Check(
            "vaeguard", "ok", f"{there}, without the packages for training", f"if you need them: {install_line()}"
        )
    if has(FULL) and has(LIGHT):
        remedy = f"pip uninstall -y {FULL} {LIGHT} && {install_line()}"
        return Check("vaeguard", "fail", f"{FULL} and {LIGHT} are installed, and overwrite each other's files", remedy)
    return Check("vaeguard", "ok", there)


def check_packages() -> list[Check]:
    """Check each required package against the floor in vaeguard's metadata; all packages that pass share one row."""
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(text) for text in _requirements()]
    except (OSError, KeyError, ValueError) as error:
        advice = f"install vaeguard again: {install_line()}, or pip install -e . in its checkout"
        return [Check("packages", "fail", f"vaeguard's own requirements cannot be read ({error})", advice)]
    # The user may choose among the packages of ONNX Runtime, which `check_onnx_packages` checks.
    stated = [package for package in stated if package.name not in ONNX_RUNTIMES]
    required = [package for package in stated if not package.marker or package.marker.evaluate({"extra": ""})]
    problems, passed = [], []
    for package in required:
        version = installed((package.name,)).get(package.name)
        remedy = f'pip install "{package.name}{package.specifier}"'
        if version is None:
            problems.append(Check(package.name, "fail", "not installed", remedy))
        elif not package.specifier.contains(version, prereleases=True):
            finding = f"{version}, but vaeguard needs {package.specifier}"
            problems.append(Check(package.name, "fail", finding, remedy))
        else:
            passed.append(f"{package.name} {version}")
    return [Check("packages", "ok", ", ".join(passed)), *problems] if passed else problems


def check_extras() -> Check:
    """Name the installed optional packages and how to install the others; none of them is required."""
    versions = installed(tuple(EXTRAS.values()))
    found = ", ".join(f"{package} {versions.get(package, 'not installed')}" for package in EXTRAS.values())
    missing = ",".join(extra for extra, package in EXTRAS.items() if package not in versions)
    advice = f"to add the missing ones: {install_line(missing)}" if missing else ""
    return Check("optional packages", "ok", found, advice)


def check_onnx_packages(versions: dict[str, str]) -> Check:
    """Check that exactly one package of ONNX Runtime is installed; `versions` are those of the installed ones."""
    from packaging.specifiers import SpecifierSet

    found = ", ".join(f"{name} {version}" for name, version in versions.items()) or "none"
    wanted = _wanted_onnxruntime()
    if len(versions) > 1:
        remedy = f'pip uninstall -y {" ".join(versions)} && pip install "{wanted}"'
        return Check("ONNX Runtime package", "fail", f"{found}: these packages overwrite each other's files", remedy)
    if not versions:
        return Check("ONNX Runtime package", "fail", found, f'pip install "{wanted}"')
    ((name, version),) = versions.items()
    if not SpecifierSet(ONNX_FLOOR).contains(version, prereleases=True):
        remedy = f'pip install "{name}{ONNX_FLOOR}"'
        return Check("ONNX Runtime package", "fail", f"{found}, but vaeguard needs {ONNX_FLOOR}", remedy)
    return Check("ONNX Runtime package", "ok", found)


def check_torch(probe: dict[str, Any] | str) -> Check:
    """Check that PyTorch can be imported, and that it computes on the CUDA device, if any."""
    if isinstance(probe, str):
        advice = "training needs PyTorch: pip install --force-reinstall torch torchvision"
        return Check("PyTorch", "fail", probe, advice)
    devices = ", ".join(probe["devices"])
    built = f"built for CUDA {probe['cuda']}" if probe["cuda"] else "built for the CPU"
    found = f"{probe['version']}, {built}, {devices or 'no CUDA device'}, {counted(probe['threads'], 'thread')}"
    if probe["problem"]:
        advice = "update the driver of the GPU, or run commands with --device cpu"
        return Check("PyTorch", "fail", f"{found}; computing on the GPU fails: {probe['problem']}", advice)
    return Check("PyTorch", "ok", found)


def check_torchvision(probe: dict[str, Any] | str) -> Check:
    """Check that torchvision's compiled operators work with the installed PyTorch."""
    if isinstance(probe, str):
        advice = "to install matching versions, run: pip install --upgrade torch torchvision"
        return Check("torchvision", "fail", probe, advice)
    return Check("torchvision", "ok", f"{probe['version']}; its compiled operators work")


def check_onnxruntime(probe: dict[str, Any] | str, *, gpu: bool) -> Check:
    """Check which device a session of ONNX Runtime runs on; `gpu` is whether PyTorch sees a GPU."""
    if isinstance(probe, str):
        advice = f"pip uninstall -y {' '.join(installed(ONNX_RUNTIMES)) or 'onnxruntime'} && "
        return Check("ONNX Runtime", "fail", probe, f'{advice}pip install "{_wanted_onnxruntime()}"')
    used = probe["used"].removesuffix("ExecutionProvider")
    found = f"{probe['version']}, runs on {used}"
    if used == "CPU" and "CUDAExecutionProvider" in probe["offered"]:
        found += " (the package supports CUDA, but CUDA does not work here)"
    if used == "CPU" and gpu:
        advice = (
            "PyTorch sees a GPU that ONNX Runtime does not use; install PyTorch and ONNX Runtime for the same CUDA"
            " version, or run commands with --device cpu"
        )
        return Check("ONNX Runtime", "warn", found, advice)
    return Check("ONNX Runtime", "ok", found)


def check_telemetry() -> Check:
    """Tell whether ONNX Runtime may report its use to its maker, which vaeguard prevents unless the user allows it."""
    value = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    found = f"ORT_DISABLE_TELEMETRY={value}"
    if value == "1":
        return Check("telemetry", "ok", f"{found}: ONNX Runtime sends no usage data")
    advice = "unset ORT_DISABLE_TELEMETRY, or set it to 1"
    return Check("telemetry", "warn", f"{found}: ONNX Runtime may send usage data", advice)


def check_processor() -> Check:
    """Check the number of cores that this process may use, and whether a setting of threads exceeds it."""
    from vaeguard.devices import cores

    total, usable = os.cpu_count() or 1, cores()
    settings = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)}
    found = ", ".join(
        [f"{usable} of {total} cores can be used", *(f"{name}={value}" for name, value in settings.items())]
    )
    for name, value in settings.items():
        if not value.isdecimal() or not 1 <= int(value) <= usable:
            return Check("processor", "warn", found, f"set {name} to a number from 1 to {usable}, or unset it")
    return Check("processor", "ok", found)


def check_cache() -> Check:
    """Check that the cache of decoded images is writable, and report its size and the free space."""
    from vaeguard.data.cache import cache_folder

    folder = cache_folder()
    advice = "set $VAEGUARD_CACHE to a writable folder with enough space"
    try:
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("cache", "fail", f"{folder}: {error.strerror}", advice)
    found = f"{folder}: {_size(used)} used, {_size(free)} free"
    if not os.access(existing, os.W_OK):
        return Check("cache", "fail", f"{found}, but the folder is not writable", advice)
    if free < MIN_FREE_BYTES:
        return Check("cache", "warn", found, f"free some space, or {advice}")
    return Check("cache", "ok", found)


def check_data(data_dir: str | Path | None) -> Check:
    """Name the data sets found in the data folder."""
    from vaeguard.data.named_sets import data_folder, find_sets

    folder = data_folder(data_dir)
    advice = "set $VAEGUARD_DATA to the folder of the data sets"
    try:
        names = find_sets(folder)
    except OSError as error:
        return Check("data sets", "warn", f"{folder}: {error.strerror}", advice)
    if (data_dir or os.environ.get("VAEGUARD_DATA")) and not folder.is_dir():
        return Check("data sets", "warn", f"{folder} does not exist", advice)
    digits = "; the data set digits is built in" if installed(("scikit-learn",)) else ""
    return Check("data sets", "ok", f"{folder}: {', '.join(names) or 'none'}{digits}")


def _probe(code: str) -> dict[str, Any] | str:
    """Run `code`, which prints one JSON object, in a new Python process; return the object, or why there is none."""
    try:
        # -P prevents the import of a file such as `torch.py` from the working folder.
        process = subprocess.run(  # noqa: S603 -- our own interpreter, our own constant text
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} seconds"
    except OSError as error:
        return f"cannot start Python: {error.strerror}"
    if process.returncode == 0:
        try:
            result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return f"printed no JSON, but {process.stdout[-100:]!r}"
        return result
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"stopped with exit code {process.returncode}"


def _requirements() -> list[str]:
    """The requirements of vaeguard, from its installed metadata or else from the checkout."""
    try:
        return importlib.metadata.requires(LIGHT if is_light() else FULL) or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        stated: list[str] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
        return stated


def _wanted_onnxruntime() -> str:
    gpu = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("win32", "AMD64")}
    return f"{'onnxruntime-gpu' if gpu else 'onnxruntime'}{ONNX_FLOOR}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
