from pathlib import Path

import numpy as np
import pytest

import vaeguard
from vaeguard import UsageError, VaeguardError
from vaeguard.data.image_set import from_array
from vaeguard.engines.run_folder import followed
from vaeguard.settings.model import ModelSpec
from vaeguard.workflows.runs import latest_run, new_run, point_latest, prepare_run


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    images = from_array(np.zeros((3, 8, 8), np.uint8))
    runs = [new_run(images, ModelSpec(), tmp_path) for _ in range(5)]
    assert len(set(runs)) == 5
    assert all(run.is_dir() and run.name.startswith("array-mlp-") for run in runs)


def test_a_folder_of_other_files_is_no_run(tmp_path):
    prepare_run(tmp_path / "new", resume=False)
    prepare_run(tmp_path / "new", resume=False)
    (tmp_path / "new" / "history.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"contains other files, such as 'history\.csv'"):
        prepare_run(tmp_path / "new", resume=False)


def test_a_fit_that_did_not_come_to_write_all_can_go_on(tmp_path):
    for name in ("checkpoint.safetensors", "model.safetensors", "history.csv"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="to continue it, add `resume`"):
        prepare_run(tmp_path, resume=False)
    prepare_run(tmp_path, resume=True)
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(UsageError, match="contains a finished model"):
        prepare_run(tmp_path, resume=True)


def test_no_run_yet_is_a_wrong_call_that_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="no run at .*latest' yet; fit a model"):
        latest_run(tmp_path / "runs")


def test_latest_points_at_the_last_run_inside_or_elsewhere(tmp_path):
    inside, elsewhere = tmp_path / "runs" / "a", tmp_path / "b"
    for run in (inside, elsewhere):
        run.mkdir(parents=True)
        point_latest(run, tmp_path / "runs")
        assert latest_run(tmp_path / "runs").resolve() == run
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"a", "latest"}


def test_without_links_latest_is_a_file_with_the_name_of_the_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    inside, elsewhere = tmp_path / "runs" / "a", tmp_path / "b"
    for run in (inside, elsewhere):
        run.mkdir(parents=True)
        point_latest(run, tmp_path / "runs")
        latest = tmp_path / "runs" / "latest"
        assert latest.is_file()
        assert latest_run(tmp_path / "runs") == Path(followed(str(latest))) == run
    with pytest.raises(UsageError, match="no model at '.*/b/model.safetensors'"):
        vaeguard.load(latest)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_what_is_called_latest_and_is_no_link_stays(tmp_path, make):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    make(tmp_path / "runs" / "latest")
    with pytest.raises(VaeguardError, match="latest' is not a link and was not changed"):
        point_latest(tmp_path / "runs" / "a", tmp_path / "runs")
    assert not (tmp_path / "runs" / "latest").is_symlink()
    assert len([*(tmp_path / "runs").iterdir()]) == 2
