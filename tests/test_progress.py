from __future__ import annotations

from vaeguard import progress


def test_a_bar_without_a_terminal_prints_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with progress.progress_bar("fitting") as bar:
        for done in range(1, 4):
            bar(done, 3, f"epoch {done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fitting, 33 %: epoch 1"
    assert lines[-1].startswith("fitting, 100 %: epoch 3 (0 s left)")


def test_a_long_time_is_told_in_minutes(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    now = iter((0.0, 0.0, 100.0, 200.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar() as bar:
        for done in (1, 2, 3):
            bar(done, 5)
    assert capsys.readouterr().err.splitlines() == ["20 %", "40 % (5 min left)", "60 % (3 min left)"]
