"""A fit by two processes on this machine, over loopback, has the result of one."""

import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import run_apart
from rank import CASES, STOPPED, fitted, trained
from safetensors.torch import load_file

import vaeguard
from vaeguard import ModelSpec, UsageError
from vaeguard.models import shares
from vaeguard.training import processes
from vaeguard.training.processes import PLACE

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")

RANK = Path(__file__).with_name("rank.py")


def place(folder, rank, count):
    return {
        PLACE: f"file://{folder}/store-{count}",
        "WORLD_SIZE": str(count),
        "GLOO_SOCKET_IFNAME": "lo",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "OMP_NUM_THREADS": "1",
    }


def together(case, folder):
    """The two processes of a case, after their end."""
    (folder / "store-2").unlink(missing_ok=True)
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", RANK, case, folder],
            env=os.environ | place(folder, rank, 2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate()[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, printed, strict=True)]


@pytest.fixture
def group(tmp_path, monkeypatch):
    """This process as the only one of a group."""
    for name, value in place(tmp_path, 0, 1).items():
        monkeypatch.setenv(name, value)
    with processes.joined():
        yield


@pytest.mark.slow
def test_two_processes_learn_the_weights_of_one(tmp_path):
    assert together("weights", tmp_path) == [(0, ""), (0, "")]
    for case in CASES:
        alone = trained(case)
        one, two = (load_file(tmp_path / f"{case} {rank}") for rank in range(2))
        assert all(torch.equal(one[name], two[name]) for name in alone)
        layers = [(one[name], values) for name, values in alone.items() if name.endswith("weight")]
        apart = max((both - single).abs().max() / single.abs().max() for both, single in layers)
        assert apart <= (1e-6 if case == "conv" else 1e-12), case


@pytest.mark.slow
@pytest.mark.nightly
def test_a_dead_process_ends_a_fit_that_resumes_and_ends_early(tmp_path):
    (failed, said), (dead, _) = together("dead", tmp_path)
    assert (failed, dead) == (1, 9)
    assert "LostError: another process of this fit has ended or cannot be reached" in said
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert together("resumed", tmp_path) == [(0, ""), (0, "")]
    alone, both = fitted(tmp_path / "alone"), vaeguard.load(tmp_path / "run")
    records = [detector.info.record for detector in (alone, both)]
    assert records[0].finished_epochs == records[1].finished_epochs < STOPPED.epochs
    assert records[0].best_epoch == pytest.approx(records[1].best_epoch, rel=1e-3)
    np.testing.assert_array_equal(alone.info.fitted_on, both.info.fitted_on)


@pytest.mark.nightly
def test_the_command_starts_processes_of_which_one_speaks(tmp_path):
    settings = ("--epochs", 2, "--set", "model.hidden=16", "--latent", 2)
    done = run_apart(tmp_path, "fit", "digits", "--normal-classes", "0-8", *settings, "--processes", 2, "-o", "run")
    assert done.returncode == 0
    assert done.stderr.count("run folder: run") == done.stdout.count("Fitted in") == 1
    assert vaeguard.load(tmp_path / "run").info.record.finished_epochs == 2


@pytest.mark.usefixtures("group")
def test_processes_that_would_fit_something_else_are_refused(monkeypatch):
    settings = {"model": {"latent": 3}, "training": {"seed": 0, "threads": 1}}
    assert processes.agreed(settings) == settings
    monkeypatch.setattr(processes, "from_first", lambda make: make().replace(b'"latent": 3', b'"latent": 4'))
    with pytest.raises(UsageError, match=r"latent \(4 there, 3 here\); use the same command"):
        processes.agreed(settings)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("dropout", "device", "said"), [(0.5, "cpu", "`model.dropout` is"), (0.0, "cuda", "2 proc")])
def test_what_several_processes_cannot_fit_is_refused(monkeypatch, dropout, device, said):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=f"^{said}"):
        processes.check_fit(replace(ModelSpec(), dropout=dropout), device)


def test_a_refused_fit_ends_the_others_and_not_the_program_that_called_it(monkeypatch):
    started, watching, ended = [], [], []

    def start():
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        watching.append(threading.Thread(target=processes._watch, args=(started[0],)))
        watching[0].start()
        return started[0]

    for name, value in (("_start", start), ("_group", lambda _: nullcontext()), ("GRACE", 0.1)):
        monkeypatch.setattr(processes, name, value)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(UsageError), processes._started(2):
        raise UsageError("refused")
    watching[0].join()
    assert started[0].returncode
    assert not ended


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_the_others_end_when_the_first_process_is_killed():
    code = "import os; from vaeguard.training import processes; me = os.getpid(); os.fork() or processes._end_with(me)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, timeout=120)  # to the end of both


def test_a_process_group_of_another_program_is_left_alone(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert not shares.batch_share(4).divided
        processes.leave()
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_processes_of_a_job_start_no_others(monkeypatch):
    for name in processes.GIVEN:
        monkeypatch.setenv(name, "2")
    with (
        pytest.raises(UsageError, match="`processes` is 3, but this is already one of 2 processes"),
        processes.joined(3),
    ):
        pass
