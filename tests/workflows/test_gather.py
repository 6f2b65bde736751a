"""Shares and their joining, as a user types them."""

import json
import shutil
from pathlib import Path

import numpy as np
from command import run
from PIL import Image


def test_shares_end_well_and_gather_ends_as_one_command_does(tmp_path, bars_onnx):
    (tmp_path / "images").mkdir()
    for number in range(30):
        Image.fromarray(np.full((8, 8), 8 * number, np.uint8)).save(tmp_path / f"images/{number:02d}.png")
    (tmp_path / "images/07.png").write_bytes(b"no image")
    shutil.copy(bars_onnx, tmp_path / "model.onnx")
    score = ("score", "images", "-m", "model.onnx", "--json")
    whole = run(tmp_path, *score, "-o", "whole.csv")
    early = run(tmp_path, "gather", "s.csv")
    assert (early.returncode, early.stdout) == (2, "")
    share = run(tmp_path, *score, "-o", "s.csv", "--piece", "1/1")
    assert share.returncode == 0
    assert json.loads(share.stdout).keys() >= {"share", "inputs", "errors", "parts", "finished"}
    joined = run(tmp_path, "gather", "s.csv", "--json")
    assert (joined.returncode, whole.returncode) == (3, 3)
    facts = [json.loads(done.stdout) for done in (joined, whole)]
    changing = {"output", "seconds", "resumed", "drift"}
    assert facts[0].keys() | {"drift"} == facts[1].keys()
    assert all(facts[0][name] == facts[1][name] for name in facts[0].keys() - changing)
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    reports = [json.loads((tmp_path / f"{name}.csv.report.json").read_text()) for name in ("s", "whole")]
    assert all(
        reports[0][name] == reports[1][name] for name in reports[1].keys() - {"title", "command", "made", "seconds"}
    )
    refused = run(tmp_path, *score, "-o", "h.csv", "--piece", "1/2", "--heatmaps", "seen")
    assert (refused.returncode, refused.stderr.startswith("error: --heatmaps does not work with --piece")) == (2, True)
    run(tmp_path, *score, "-o", "m.csv", "--piece", "1/1")
    Path(tmp_path / "model.onnx").unlink()
    alone = run(tmp_path, "gather", "m.csv")
    assert alone.returncode == 3
    assert "note: no report was written, because the model cannot be opened" in alone.stderr
