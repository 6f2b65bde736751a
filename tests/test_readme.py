"""The README promises nothing that is not there."""

import re
from pathlib import Path

import pytest

from vaeguard.settings.presets import PRESETS

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "data/README.md"])
def test_every_linked_file_exists(page):
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (CHECKOUT / page).parent.joinpath(target).exists(), target


def test_every_command_and_benchmark_exists():
    commands = set(re.findall(r"(?:^|`|\$ )vaeguard ([a-z]+(?:-[a-z]+)?)\b", README, re.MULTILINE))
    assert {"fit", "score", "evaluate", "reconstruct", "doctor"} <= commands
    for command in commands:
        assert (CHECKOUT / "cli" / f"{command.replace('-', '_')}.py").exists(), command
    for name in re.findall(r"python -m benchmarks\.(\w+)", README):
        assert (CHECKOUT / "benchmarks" / f"{name}.py").exists(), name


def test_presets_and_columns_are_listed():
    from vaeguard.models.terms import term_names
    from vaeguard.settings.model import ModelSpec

    for name in (*PRESETS, *term_names(ModelSpec(guided=True)), "score", "p_value", "anomaly"):
        assert f"`{name}`" in README, name


def test_the_python_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    quick = "training=vaeguard.TrainSpec(epochs=2), run="
    exec(compile(code.replace("run=", quick, 1), "README.md", "exec"), {})
    assert (tmp_path / "runs/digits/model.safetensors").exists()
