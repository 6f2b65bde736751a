"""Look over the installation and the machine, and say in one row each what is there and what to mend.

Heavy packages are tried in a process of their own: a broken one then costs a row of the table, not the doctor.
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

from vaeguard.storage.provenance import installed

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["ok", "warn", "fail"]

MIN_FREE_BYTES = 2**30
PROBE_SECONDS = 180
EXTRAS = {"tune": "optuna", "tensorboard": "tensorboard"}
"""Extras of vaeguard that a command needs, and the package that each brings."""
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Packages that all install the module `onnxruntime` and overwrite each other."""
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
# The GPU package lists CUDA on every machine, and silently runs on the CPU: only a session tells.
ONNX_PROBE = """
import json, onnxruntime
from onnx import TensorProto, helper
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
offered = onnxruntime.get_available_providers()
cuda = "CUDAExecutionProvider" in offered
if cuda and hasattr(onnxruntime, "preload_dlls"):
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
wanted = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=wanted)
session.run(None, {"x": __import__("numpy").ones(1, "float32")})
print(json.dumps({"version": onnxruntime.__version__, "offered": offered, "used": session.get_providers()[0]}))
"""


@dataclass(frozen=True)
class Check:
    """One thing looked at: its name, whether it is well, what was found, and what to do (empty if nothing)."""

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
        found = {check.status for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values that JSON can hold."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}

    def rich_table(self) -> Table:
        """Return the checks as a table for a terminal; the status is also a word, not only a colour."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("check", "status", "found", "what to do")
        colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for check in self.checks:
            colour = colours[check.status]
            table.add_row(check.name, f"[{colour}]{check.status}[/]", escape(check.found), escape(check.advice))
        return table


def examine(data_dir: str | Path | None = None) -> Examination:
    """Look over Python, packages, engines, processor, disk and data sets; never raises for what it finds.

    Parameters
    ----------
    data_dir : path or None
        Folder of named data sets; None takes `$VAEGUARD_DATA`, else `data/`.
    """
    torch = _probe(TORCH_PROBE)
    return Examination(
        (
            check_python(),
            *check_packages(),
            check_extras(),
            check_onnx_packages(installed(ONNX_RUNTIMES)),
            check_torch(torch),
            check_torchvision(_probe(TORCHVISION_PROBE)),
            check_onnxruntime(_probe(ONNX_PROBE), gpu=isinstance(torch, dict) and bool(torch["devices"])),
            check_processor(),
            check_cache(),
            check_data(data_dir),
        )
    )


def check_python() -> Check:
    """Say which Python this is."""
    # Without the floor that pyproject.toml sets nothing here could be imported.
    found = f"{platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}"
    return Check("Python", "ok", found)


def check_packages() -> list[Check]:
    """Check each required package against the floor that vaeguard's metadata states; one row for all that is well."""
    from packaging.requirements import Requirement

    try:
        stated = [Requirement(text) for text in _requirements()]
    except (OSError, KeyError, ValueError) as error:
        advice = "install it with `pip install vaeguard`, or `pip install -e .` in its checkout"
        return [Check("packages", "fail", f"vaeguard's own requirements cannot be read ({error})", advice)]
    # Which ONNX Runtime it is, is the user's choice, and `check_onnx_packages` looks at it.
    stated = [one for one in stated if one.name not in ONNX_RUNTIMES]
    required = [one for one in stated if not one.marker or one.marker.evaluate({"extra": ""})]
    problems, fine = [], []
    for one in required:
        version = installed((one.name,)).get(one.name)
        mend = f'pip install "{one.name}{one.specifier}"'
        if version is None:
            problems.append(Check(one.name, "fail", "not installed", mend))
        elif not one.specifier.contains(version, prereleases=True):
            problems.append(Check(one.name, "fail", f"{version}, but vaeguard needs {one.specifier}", mend))
        else:
            fine.append(f"{one.name} {version}")
    return [Check("packages", "ok", ", ".join(fine)), *problems] if fine else problems


def check_extras() -> Check:
    """Name the optional packages that are installed, and how to get the others; without them nothing is wrong."""
    versions = installed(tuple(EXTRAS.values()))
    found = ", ".join(f"{package} {versions.get(package, 'not installed')}" for package in EXTRAS.values())
    missing = ",".join(extra for extra, package in EXTRAS.items() if package not in versions)
    advice = f"only where it is wanted: pip install 'vaeguard[{missing}]'" if missing else ""
    return Check("optional packages", "ok", found, advice)


def check_onnx_packages(versions: dict[str, str]) -> Check:
    """Check that exactly one of the packages that contain ONNX Runtime is installed; `versions` has those."""
    from packaging.specifiers import SpecifierSet

    found = ", ".join(f"{name} {version}" for name, version in versions.items()) or "none"
    wanted = _wanted_onnxruntime()
    if len(versions) > 1:
        mend = f'pip uninstall -y {" ".join(versions)} && pip install "{wanted}"'
        return Check("ONNX Runtime package", "fail", f"{found}: they overwrite each other", mend)
    if not versions:
        return Check("ONNX Runtime package", "fail", found, f'pip install "{wanted}"')
    ((name, version),) = versions.items()
    if not SpecifierSet(ONNX_FLOOR).contains(version, prereleases=True):
        mend = f'pip install "{name}{ONNX_FLOOR}"'
        return Check("ONNX Runtime package", "fail", f"{found}, but vaeguard needs {ONNX_FLOOR}", mend)
    return Check("ONNX Runtime package", "ok", found)


def check_torch(probe: dict[str, Any] | str) -> Check:
    """Check that PyTorch imports, and that each CUDA device it sees computes."""
    if isinstance(probe, str):
        return Check("PyTorch", "fail", probe, "training needs it: pip install --force-reinstall torch torchvision")
    devices = ", ".join(probe["devices"])
    built = f"built for CUDA {probe['cuda']}" if probe["cuda"] else "built for the CPU"
    found = f"{probe['version']}, {built}, {devices or 'no CUDA device'}, {probe['threads']} threads"
    if probe["problem"]:
        advice = "update the GPU's driver, or set `device` to 'cpu'"
        return Check("PyTorch", "fail", f"{found}; computing on it fails: {probe['problem']}", advice)
    return Check("PyTorch", "ok", found)


def check_torchvision(probe: dict[str, Any] | str) -> Check:
    """Check that torchvision's compiled operators fit the PyTorch beside it."""
    if isinstance(probe, str):
        advice = "install a pair made for each other: pip install --upgrade torch torchvision"
        return Check("torchvision", "fail", probe, advice)
    return Check("torchvision", "ok", f"{probe['version']}, its operators work")


def check_onnxruntime(probe: dict[str, Any] | str, *, gpu: bool) -> Check:
    """Check which device a session of ONNX Runtime really runs on; `gpu` says whether PyTorch sees one."""
    if isinstance(probe, str):
        advice = f"pip uninstall -y {' '.join(installed(ONNX_RUNTIMES)) or 'onnxruntime'} && "
        return Check("ONNX Runtime", "fail", probe, f'{advice}pip install "{_wanted_onnxruntime()}"')
    used = probe["used"].removesuffix("ExecutionProvider")
    found = f"{probe['version']}, runs on {used}"
    if used == "CPU" and "CUDAExecutionProvider" in probe["offered"]:
        found += " (the package offers CUDA, but no session gets it here)"
    if used == "CPU" and gpu:
        advice = (
            "PyTorch sees a GPU that ONNX Runtime does not use; give both the same CUDA version, or set `device` to"
            " 'cpu'"
        )
        return Check("ONNX Runtime", "warn", found, advice)
    return Check("ONNX Runtime", "ok", found)


def check_processor() -> Check:
    """Check how many cores this process may use, and whether a thread setting overloads them."""
    from vaeguard.devices import cores

    total, usable = os.cpu_count() or 1, cores()
    settings = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)}
    found = ", ".join([f"{usable} of {total} cores usable", *(f"{name}={value}" for name, value in settings.items())])
    for name, value in settings.items():
        if not value.isdecimal() or not 1 <= int(value) <= usable:
            return Check("processor", "warn", found, f"set {name} to a number from 1 to {usable}, or unset it")
    return Check("processor", "ok", found)


def check_cache() -> Check:
    """Check the folder that decoded images are cached in: writable, how large, how much room is left."""
    from vaeguard.data.cache import cache_folder

    folder = cache_folder()
    advice = "point $VAEGUARD_CACHE at a folder with room"
    try:
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("cache", "fail", f"{folder}: {error.strerror}", advice)
    found = f"{folder}: {_size(used)} used, {_size(free)} free"
    if not os.access(existing, os.W_OK):
        return Check("cache", "fail", f"{found}, not writable", advice)
    if free < MIN_FREE_BYTES:
        return Check("cache", "warn", found, f"free some space, or {advice}")
    return Check("cache", "ok", found)


def check_data(data_dir: str | Path | None) -> Check:
    """Name the data sets found in the data folder."""
    from vaeguard.data.named_sets import data_folder, find_sets

    folder = data_folder(data_dir)
    advice = "set `data_dir` or $VAEGUARD_DATA to the folder of the data sets"
    try:
        names = find_sets(folder)
    except OSError as error:
        return Check("data sets", "warn", f"{folder}: {error.strerror}", advice)
    if (data_dir or os.environ.get("VAEGUARD_DATA")) and not folder.is_dir():
        return Check("data sets", "warn", f"{folder} does not exist", advice)
    return Check("data sets", "ok", f"{folder}: {', '.join(names) or 'none'}; digits are always there")


def _probe(code: str) -> dict[str, Any] | str:
    """Run `code` in a fresh Python that prints one JSON object; return that, or in words why it did not."""
    try:
        # -P: a file `torch.py` in the working folder must not be taken for the package.
        ran = subprocess.run(  # noqa: S603 -- our own interpreter, our own constant text
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} seconds"
    except OSError as error:
        return f"cannot start Python: {error.strerror}"
    if ran.returncode == 0:
        try:
            found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return f"printed no JSON, but {ran.stdout[-100:]!r}"
        return found
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"stopped with exit code {ran.returncode}"


def _requirements() -> list[str]:
    """Return what vaeguard requires: from its installed metadata, else from the checkout it runs in."""
    try:
        return importlib.metadata.requires("vaeguard") or []
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
