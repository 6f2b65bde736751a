import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.storage import files
from vaeguard.storage.files import (
    UNSEALED,
    locked,
    read_sealed,
    seal,
    sweep,
    sweep_all,
    write_first,
    write_text,
    writing,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.csv"
    write_text(target, "old")
    with pytest.raises(KeyError), writing(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with writing(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_folder_that_cannot_be_synced_does_not_fail_a_write(tmp_path, monkeypatch):
    sync, folders = os.fsync, []

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            folders.append(handle)
            raise OSError(errno.EINVAL, "Invalid argument")  # as some network shares say
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert folders


def test_the_mask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    """It belongs to all threads: put aside in one of them, it may be lost for the others."""
    mask = _umask()
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask was set"))
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VaeguardError, match="cannot write .*file/a.txt"):
        write_text(tmp_path / "file" / "a.txt", "x")


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0))
def test_every_flipped_bit_is_noticed(tmp_path_factory, before, after, bit):
    assume(b"vaeguard-sha256:" not in before + after)
    path = tmp_path_factory.mktemp("seal") / "m"
    content = seal(before + UNSEALED.encode() + after)
    path.write_bytes(content)
    assert read_sealed(path) == content
    bit %= 8 * len(content)
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    with pytest.raises(RefusedError):
        read_sealed(path)


def test_a_missing_file_is_a_wrong_name(tmp_path):
    with pytest.raises(UsageError, match="no model at '.*none'; fit one, or give another path"):
        read_sealed(tmp_path / "none")


WRITER = """
import sys, time
from pathlib import Path
from vaeguard.storage.files import writing
with writing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", ["scores.csv", "a letter from the archive of the year 1904.png.page-1.residual.png"])
def test_what_a_killed_process_left_is_swept_and_nothing_that_lives(tmp_path, name):
    command = [sys.executable, "-c", WRITER, tmp_path / "deep" / name]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    temporary = Path(writer.stdout.readline().strip())
    foreign = [temporary.with_name(other) for other in (".scores-vaeguard-abcdefgh.csv", f"{temporary.name}.csv")]
    foreign += [temporary.with_name(".scores-vaeguard-0123456789ab.csv")]
    for path in foreign:
        path.write_text("somebody else's")
    with writing(tmp_path / "deep" / "own.csv") as own:
        sweep(tmp_path / "deep")
        assert temporary.exists(), "its process lives"
        assert own.exists(), "this process lives"
        writer.kill()
        writer.communicate()
        sweep_all(tmp_path)
        assert own.exists()
    assert not temporary.exists()
    assert {path.name for path in temporary.parent.iterdir()} == {path.name for path in foreign} | {"own.csv"}


@pytest.mark.parametrize("write", [write_first, files.write_bytes])
def test_a_sweep_of_another_process_at_any_moment_leaves_what_is_written(tmp_path, monkeypatch, write):
    def swept(function):
        def call(*given, **named):
            monkeypatch.setattr(files, function.__name__, function)
            monkeypatch.setattr(files, "_OPEN", set())  # another process does not know them
            sweep(tmp_path)
            return function(*given, **named)

        monkeypatch.setattr(files, function.__name__, call)

    swept(files._lock)
    swept(files._sync)
    write(tmp_path / "plan.json", b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_link_in_place_of_a_temporary_file_stays(tmp_path):
    with writing(tmp_path / "a.csv") as temporary:
        name = temporary
    (tmp_path / "other").write_text("somebody else's")
    name.symlink_to(tmp_path / "other")
    sweep(tmp_path)
    assert name.is_symlink()


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("x"), Path.mkdir])
def test_a_lock_of_somebody_else_stays(tmp_path, make):
    make(tmp_path / "lock")
    with pytest.raises(UsageError, match="is not a lock file of vaeguard"), locked(tmp_path, "lock", "busy"):
        pass
    assert os.path.lexists(tmp_path / "lock")
