"""Commands where streams, homes and terminals are not as usual, and what they tell others."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command import COMMAND, run, run_apart
from PIL import Image

from vaeguard.data.cache import cache_folder
from vaeguard.doctor import check_telemetry

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path, bars_onnx):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "m.onnx").symlink_to(bars_onnx)
    return tmp_path


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_no_work(home, closed):
    line = f"'{COMMAND}' score images -m m.onnx -o s.csv {closed}"
    assert subprocess.run(["sh", "-c", line], cwd=home, check=False).returncode == 0
    assert len((home / "s.csv").read_text().splitlines()) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_that_is_full_is_named(home):
    line = f"'{COMMAND}' score images -m m.onnx -o s.csv > /dev/full"
    done = subprocess.run(["sh", "-c", line], cwd=home, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search("error: cannot access stdout or a file: No space left on device", done.stderr)


def test_a_user_without_a_home_gets_no_folder_called_tilde(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "VAEGUARD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a number that is no user
    monkeypatch.chdir(tmp_path)
    assert cache_folder().is_absolute()
    assert "~" not in str(cache_folder())


@pytest.mark.nightly
def test_names_are_whole_on_a_narrow_terminal(home):
    wide, narrow = (run(home, "doctor", COLUMNS=columns).stdout for columns in ("80", "10"))
    assert re.sub(r"\d", "0", narrow) == re.sub(r"\d", "0", wide)


@pytest.mark.parametrize(("value", "expected", "status"), [(None, "1", "ok"), ("0", "0", "warn")])
def test_onnx_runtime_sends_nothing_unless_the_user_allows_it(home, monkeypatch, value, expected, status):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if value:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    code = "import os, sys, vaeguard; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [expected, "False"]
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", expected)
    assert check_telemetry().status == status


def test_a_score_opens_no_connection_and_writes_no_device_id(home):
    assert run_apart(home, "score", "images", "-m", "m.onnx", "-o", "s.csv", HOME=str(home)).returncode == 0
    assert not (home / ".cache" / "Microsoft").exists()
