"""Scoring and denoising without the packages that only training needs, in this environment and in one of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import bars
from vaeguard_cli import main

import vaeguard
from vaeguard import packages

CHECKOUT = Path(__file__).resolve().parents[1]
OF_TRAINING = ["torch", "torchvision", "sklearn", "onnx", "onnx_ir", "onnxscript", "safetensors"]
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OF_TRAINING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from vaeguard_cli.main import main
main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, bars_run):
    """A folder with a run, its exported model, images of three classes, and a scan."""
    home = tmp_path_factory.mktemp("light")
    vaeguard.export(vaeguard.load(bars_run, "cpu"), home / "model.onnx")
    images, labels = bars(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (home / "parts" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(home / "parts" / f"class{label}" / f"{number}.png")
    (home / "run").symlink_to(bars_run)
    (home / "scans").mkdir()
    page = np.full((120, 160), 240, np.uint8)
    page[40:44, 20:140] = 30
    Image.fromarray(page).save(home / "scans" / "page.png", dpi=(300, 300))
    return home


STEPS = (
    ("score parts -m model.onnx -o scores.csv", 0),
    ("evaluate parts -m model.onnx --normal-classes class0,class1 -o evaluation", 0),
    ("report evaluation", 0),
    ("verify model.onnx", 0),
    ("denoise scans -o clean --residual", 0),
    ("check clean", 0),
    ("undo clean -o originals", 0),
    ("fit parts", 2),
    ("score parts -m run -o other.csv", 2),
)


def assert_all_work(home, folder, command, line):
    home = shutil.copytree(home, folder / "home", symlinks=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for step, code in STEPS:
        done = subprocess.run(
            [*command, *step.split()], cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, (step, done.stderr)
        if code:
            assert (
                f"error: this command needs the package torch, which is not installed; run: {line}; exported"
                in done.stderr
            )
    assert (home / "originals" / "page.png").read_bytes() == (home / "scans" / "page.png").read_bytes()
    assert json.loads((home / "evaluation" / "report.json").read_text())["kind"] == "evaluation"


def environment(folder, wheel, extras=""):
    """The Python of a new environment with a wheel of this checkout."""
    subprocess.run([sys.executable, CHECKOUT / ".ci" / "wheels", folder], check=True, capture_output=True)
    (wheel,) = folder.glob(wheel)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", CHECKOUT / "constraints.txt"]
    subprocess.run([*command, f"{wheel}{extras}"], check=True)
    return python


@pytest.mark.slow
def test_scoring_and_denoising_need_no_package_of_training(home, tmp_path):
    assert_all_work(home, tmp_path, [sys.executable, "-c", WITHOUT], "pip install vaeguard")


@pytest.mark.nightly
def test_the_full_wheel_installs_and_works_alone(tmp_path):
    python = environment(tmp_path, "vaeguard-*.whl")
    steps = (
        "fit --normal-classes 0-8 --epochs 5",
        "evaluate",
        "unpack digits -o scans",
        "denoise scans --noise 10",
        "export -o model.onnx",
        "verify model.onnx",
    )
    for step in steps:
        command = [python.with_name("vaeguard"), *step.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (step, done.stderr)


@pytest.mark.nightly
def test_the_light_wheel_installs_and_works_alone(tmp_path, home):
    python = environment(tmp_path, "vaeguard_runtime-*.whl", "[cpu]")
    assert_all_work(home, tmp_path, [python.with_name("vaeguard")], "pip install 'vaeguard-runtime[fit]'")


@pytest.mark.parametrize(
    ("there", "line", "extra"),
    [
        ({"vaeguard"}, "pip install vaeguard", "pip install 'vaeguard[cluster]'"),
        ({"vaeguard-runtime"}, "pip install 'vaeguard-runtime[fit]'", "pip install 'vaeguard-runtime[cluster]'"),
    ],
)
def test_the_line_that_installs_what_is_missing(there, line, extra, monkeypatch):
    monkeypatch.setattr(packages, "has", lambda name: name in there)
    assert (packages.install_line(), packages.install_line("cluster")) == (line, extra)
    said, code = main._fault(ModuleNotFoundError("No module named 'sklearn'", name="sklearn.metrics"))
    assert (said, code) == (f"this command needs the package scikit-learn, which is not installed; run: {line}", 2)


def test_a_module_of_ones_own_that_is_missing_is_a_fault():
    said, code = main._fault(ModuleNotFoundError("No module named 'vaeguard.x'", name="vaeguard.x"))
    assert said.startswith("this is a bug in vaeguard (ModuleNotFoundError")
    assert code == 1
