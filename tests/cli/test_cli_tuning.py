"""`vaeguard tune` as a command."""

import json
import signal
import time
from importlib import import_module
from importlib.metadata import entry_points

import pytest
from command import run, run_apart, start

import vaeguard

pytestmark = pytest.mark.slow

SPEC = "[model]\nhidden = [16]\nlatent = 4\npseudo_classes = 0\n[training]\nepochs = 2\n"
SEARCH = ("tune", "digits", "--normal-classes", "0-8", "--spec", "small.toml")


def wait_for_trials(process, journal, count):
    """Wait until so many trials are finished; a journal is there from the first on."""
    while process.poll() is None and (not journal.exists() or journal.read_text().count('"found"') < count):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("tuning")
    (home / "small.toml").write_text(SPEC)
    (home / "other").mkdir()
    (home / "other" / "report.json").write_text('{"format": 1, "kind": "fit"}')
    return home


@pytest.fixture(scope="module")
def killed(home):
    """A search killed after its second trial and resumed: what the journal held before, and what was said after."""
    journal = home / "killed" / "study.journal"
    process = start(home, *SEARCH, "--trials", "300", "-o", "killed")
    wait_for_trials(process, journal, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lines = [line for line in journal.read_text().splitlines() if line.endswith("}")]
    before = [json.loads(line)["user_attr"]["found"] for line in lines if '"found"' in line]
    return before, run(home, *SEARCH, "--trials", str(len(before) + 1), "-o", "killed", "--json")


@pytest.mark.nightly
def test_a_killed_search_goes_on(killed):
    before, done = killed
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["trials"]) == len(before) + 1 >= 3
    assert report["trials"][: len(before)] == before
    assert report["kind"] == "tuning"


@pytest.mark.nightly
def test_interrupted_it_says_how_to_go_on(home):
    process = start(home, *SEARCH, "--trials", "300", "-o", "interrupted")
    wait_for_trials(process, home / "interrupted" / "study.journal", 1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert "finished trials are in interrupted. To continue, run the same command again" in error


def test_the_best_settings_are_fitted_as_it_says(home, killed):
    done = run(home, *SEARCH, "--trials", "1", "--time", "1h", "-o", "killed", "--channels", "1")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 15
    assert "Next: vaeguard fit digits --normal-classes 0-8 --channels 1 --spec killed/best.toml" in done.stdout
    fit = run(home, "fit", "digits", "--normal-classes", "0-8", "--spec", "killed/best.toml", "-o", "run")
    assert fit.returncode == 0, fit.stderr
    best = vaeguard.read_report(home / "killed")
    settings = best["trials"][best["best"]]["settings"]
    fitted = vaeguard.read_report(home / "run")
    assert ",".join(map(str, fitted["model"]["hidden"])) == settings["hidden"]
    assert (fitted["model"]["latent"], fitted["training"]["beta"]) == (settings["latent"], settings["beta"])
    assert fitted["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--normal-classes", "0-7", "-o", "killed"), "a search that differs in data, normal classes or seed", 2),
        (("--groups", "none.csv", "-o", "killed"), "table of groups 'none.csv'", 2),
        (("--time", "soon"), "'soon' is not a time above 0", 2),
        (("--time", "0m"), "'0m' is not a time", 2),
        (("--trials", "0"), "--trials", 2),
        (("-o", "other"), "is the report of a fit", 2),
    ],
)
def test_bad_arguments_get_one_sentence(home, killed, arguments, message, code):
    done = run(home, *SEARCH, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.lower().startswith("error")]) == 1


def test_without_optuna_it_says_what_to_install(home):
    (home / "without").mkdir()
    (home / "without" / "optuna.py").write_text("raise ImportError('not here')\n")
    done = run_apart(home, *SEARCH, PYTHONPATH=str(home / "without"))
    assert done.returncode == 1
    assert done.stderr == "error: the search needs Optuna; run: pip install 'vaeguard[tune]'\n"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("45", 45), ("2h5s", 7205)])
def test_times_are_read(text, seconds):
    (command,) = entry_points(group="console_scripts", name="vaeguard")
    duration = import_module(command.module.replace("main", "tune")).Duration()
    assert duration.convert(text, None, None) == seconds
