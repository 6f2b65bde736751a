import errno
import os
import stat

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.storage.files import UNSEALED, read_sealed, seal, sweep, sweep_all, write_text, writing


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
    with pytest.raises(UsageError, match="no model at '.*none'; fit one, or name another"):
        read_sealed(tmp_path / "none")


def test_what_a_killed_process_left_is_swept_and_nothing_of_others(tmp_path):
    one, other = (tmp_path / f"scores-of-the-camera-in-the-north-{number}.csv" for number in (1, 2))
    with writing(one) as temporary:
        temporary.write_text("half")
        sweep(other)
        assert temporary.exists(), "another file whose name begins alike is still being written"
        backup = one.with_name(f".{one.stem}-20251128{one.suffix}")
        backup.write_text("somebody else's")
        sweep(one)
        assert backup.exists()
        backup.unlink()
        assert not temporary.exists()
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == [one.name]


def test_pictures_of_a_scan_with_a_long_name_are_swept_with_it(tmp_path):
    scan = "a letter from the archive of 1904.png"
    with writing(tmp_path / f"{scan}.page-1.residual.png") as temporary:
        temporary.write_text("half")
        sweep_all(tmp_path, ["another letter from the archive of 1904.png"])
        assert temporary.exists()
        sweep_all(tmp_path, [scan])
        assert not temporary.exists()
        temporary.write_text("whole")
