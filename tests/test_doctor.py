from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vaeguard import doctor
from vaeguard.doctor import Check, Examination, examine

TORCH = {"version": "2.15", "cuda": "13.0", "devices": ["GPU"], "problem": "", "threads": 2}
ONNX_ON_CPU = {"version": "1.31", "offered": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
ONNX_ON_CPU |= {"used": "CPUExecutionProvider"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No heavy imports: the probes answer at once."""
    answers = {doctor.TORCH_PROBE: TORCH, doctor.TORCHVISION_PROBE: {"version": "0.30"}, doctor.ONNX_PROBE: ONNX_ON_CPU}
    monkeypatch.setattr(doctor, "_probe", answers.__getitem__)
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("quick")
def test_every_part_has_a_row_and_the_whole_is_json(tmp_path: Path) -> None:
    found = examine(tmp_path)
    names = [check.name for check in found.checks]
    for name in ("Python", "packages", "ONNX Runtime package", "PyTorch", "torchvision", "ONNX Runtime", "processor"):
        assert name in names
    assert names[-2:] == ["cache", "data sets"]
    assert json.loads(json.dumps(found.to_dict()))["status"] == found.status
    assert all(check.advice for check in found.checks if check.status != "ok")


def test_the_worst_check_is_the_status() -> None:
    fine, odd, bad = (Check("x", status, "") for status in ("ok", "warn", "fail"))
    assert Examination((fine, fine)).status == "ok"
    assert Examination((odd, fine)).status == "warn"
    assert Examination((odd, bad, fine)).status == "fail"


def test_the_table_shows_brackets_as_they_are() -> None:
    console = Console(file=StringIO(), width=160)
    console.print(Examination((Check("x", "fail", "[red]found[/red]", "pip install [dev]"),)).rich_table())
    assert "[red]found[/red]" in console.file.getvalue()
    assert "pip install [dev]" in console.file.getvalue()


def test_packages_of_this_environment_meet_their_floors() -> None:
    rows = doctor.check_packages()
    assert rows[0].name == "packages"
    assert "numpy" in rows[0].found


def test_old_and_missing_packages_fail_with_the_command_that_mends(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = [
        "numpy>=99",
        "no-such-package>=1",
        "pillow>=1",
        "other>=1; sys_platform == 'none'",
        "x>=1; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor, "_requirements", lambda: stated)
    fine, old, missing = doctor.check_packages()
    assert (fine.status, old.status, missing.status) == ("ok", "fail", "fail")
    assert old.advice == 'pip install "numpy>=99"'
    assert missing.found == "not installed"


def test_extras_have_a_version_or_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"optuna": "4.9", "tensorboard": "2.30", "ray": "2.59", "doxapy": "0.9"}
    monkeypatch.setattr(doctor, "installed", lambda names: {name: found[name] for name in names if name in found})
    assert doctor.check_extras() == Check(
        "optional packages", "ok", "optuna 4.9, tensorboard 2.30, ray 2.59, doxapy 0.9"
    )
    del found["optuna"]
    row = doctor.check_extras()
    assert (row.status, row.found) == ("ok", "optuna not installed, tensorboard 2.30, ray 2.59, doxapy 0.9")
    assert row.advice.endswith("pip install 'vaeguard[tune]'")
    found.clear()
    assert doctor.check_extras().advice.endswith("pip install 'vaeguard[tune,tensorboard,cluster,derive]'")


def test_requirements_come_from_the_checkout_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", requires)
    monkeypatch.setattr(doctor, "__file__", str(Path(__file__).parents[1] / "vaeguard" / "doctor.py"))
    assert any(text.startswith("torch>=") for text in doctor._requirements())
    monkeypatch.setattr(doctor, "__file__", "/nowhere/vaeguard/doctor.py")
    (row,) = doctor.check_packages()
    assert (row.status, "pip install" in row.advice) == ("fail", True)


def test_both_onnx_runtimes_fail_with_the_commands_that_mend() -> None:
    row = doctor.check_onnx_packages({"onnxruntime": "1.30", "onnxruntime-gpu": "1.28"})
    assert row.status == "fail"
    assert row.advice.startswith('pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime')
    assert doctor.check_onnx_packages({"onnxruntime": "1.30"}).status == "ok"
    assert doctor.check_onnx_packages({}).status == "fail"
    old = doctor.check_onnx_packages({"onnxruntime": "1.20"})
    assert (old.status, "onnxruntime>=1.28" in old.advice) == ("fail", True)


def test_an_onnx_runtime_that_only_claims_cuda_is_seen_through() -> None:
    row = doctor.check_onnxruntime(ONNX_ON_CPU, gpu=False)
    assert row.status == "ok"
    assert "runs on CPU" in row.found
    assert "CUDA does not work here" in row.found
    assert doctor.check_onnxruntime(ONNX_ON_CPU, gpu=True).status == "warn"
    on_gpu = ONNX_ON_CPU | {"used": "CUDAExecutionProvider"}
    assert doctor.check_onnxruntime(on_gpu, gpu=True) == Check("ONNX Runtime", "ok", "1.31, runs on CUDA")


def test_imports_that_fail_become_rows_with_advice() -> None:
    for row in (
        doctor.check_torch("ImportError: x"),
        doctor.check_torchvision("RuntimeError: operator torchvision::nms does not exist"),
        doctor.check_onnxruntime("AttributeError: y", gpu=False),
        doctor.check_torch(TORCH | {"problem": "driver too old"}),
    ):
        assert row.status == "fail"
        assert row.advice


def test_probes_run_apart_and_say_why_they_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder was searched')")
    assert doctor._probe("import json; print('noise'); print(json.dumps({'a': 1}))") == {"a": 1}
    assert doctor._probe("import no_such_module") == "ModuleNotFoundError: No module named 'no_such_module'"
    assert doctor._probe("import os; os._exit(7)") == "stopped with exit code 7"
    assert "no JSON" in str(doctor._probe("pass"))
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
    assert "no answer" in str(doctor._probe("import time; time.sleep(60)"))
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert "cannot start" in str(doctor._probe("pass"))


@pytest.mark.slow
def test_the_real_probes_answer() -> None:
    for code in (doctor.TORCH_PROBE, doctor.TORCHVISION_PROBE, doctor.ONNX_PROBE):
        assert isinstance(doctor._probe(code), dict), doctor._probe(code)


@pytest.mark.parametrize(("value", "status"), [("1", "ok"), ("100000", "warn"), ("0", "warn"), ("many", "warn")])
def test_thread_settings_are_checked(value: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    row = doctor.check_processor()
    assert (row.status, f"OMP_NUM_THREADS={value}" in row.found) == (status, True)


def test_the_cache_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path / "cache"))
    assert "0 B used" in doctor.check_cache().found
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "file").write_bytes(bytes(2500))
    assert "2.5 KB used" in doctor.check_cache().found
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 2**80)
    assert doctor.check_cache().status == "warn"


def test_data_sets_are_found_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    for part in ("images-idx3", "labels-idx1"):
        (tmp_path / "mnist" / f"train-{part}-ubyte.gz").touch()
    assert "mnist" in doctor.check_data(tmp_path).found
    monkeypatch.setenv("VAEGUARD_DATA", str(tmp_path))
    assert doctor.check_data(None) == doctor.check_data(tmp_path)
    row = doctor.check_data(tmp_path / "nowhere")
    assert (row.status, bool(row.advice)) == ("warn", True)
