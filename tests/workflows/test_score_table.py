from pathlib import Path

from PIL import Image
from toy import bars

from vaeguard import workflows
from vaeguard.workflows.outcome import Reporter


def test_spots_that_go_with_their_table_are_named(bars_onnx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for number, image in enumerate(bars(6, seed=1)[0]):
        Image.fromarray(255 - image[0]).save(f"images/{number}.png")
    said = []
    reporter, options = Reporter(say=said.append), {"model": str(bars_onnx), "report": False}
    workflows.score_table(["images"], "scores.csv", reporter, heatmaps="look", **options)
    assert Path("spots.csv").exists()
    assert not any("spots" in line for line in said)
    workflows.score_table(["images"], "scores.csv", reporter, fpr=0.01, **options)
    assert not Path("spots.csv").exists()
    assert "note: 'spots.csv' was removed, because it listed the spots of the earlier table" in said
