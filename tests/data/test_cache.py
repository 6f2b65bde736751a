from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
import pytest

from vaeguard.data import cache
from vaeguard.data.cache import cache_folder, decode_files, digest_array, take
from vaeguard.data.folders import Files
from vaeguard.data.images import ImageRule, write_png
from vaeguard.errors import VaeguardError
from vaeguard.storage.files import temporary_beside

RULE = ImageRule((6, 6), 1)


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VAEGUARD_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path, own):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        write_png(folder / f"{number:02d}.png", np.full((1, 6, 6), number, np.uint8))
    return folder


def open_folder(folder, rule=RULE):
    return decode_files([files_of(folder)], rule, lambda: (rule, None), str(folder))


def files_of(folder):
    return Files(sorted(map(str, folder.iterdir())))


def forbidden(*_args, **_options):
    raise AssertionError("decoded again")


def test_the_second_opening_decodes_nothing(folder, monkeypatch):
    first = open_folder(folder)
    np.testing.assert_array_equal(first.images[:, 0, 0, 0], np.arange(20))
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr(cache, "read", forbidden)
    second = open_folder(folder)
    assert second.key == first.key
    np.testing.assert_array_equal(second.images, first.images)
    monkeypatch.undo()


def test_content_order_and_rule_are_the_key(folder):
    keys = {open_folder(folder).key, open_folder(folder, ImageRule((5, 5), 1)).key}
    write_png(folder / "03.png", np.full((1, 6, 6), 99, np.uint8))
    changed = open_folder(folder)
    assert changed.images[3, 0, 0, 0] == 99
    (folder / "03.png").rename(folder / "03b.png")
    assert open_folder(folder).key == changed.key
    (folder / "03b.png").rename(folder / "05b.png")
    keys |= {changed.key, open_folder(folder).key}
    assert len(keys) == 4


def test_unreadable_files_leave_no_holes_and_are_remembered(folder, monkeypatch):
    (folder / "05.png").write_bytes(b"")
    (folder / "07.png").write_bytes(b"text")
    first = open_folder(folder)
    monkeypatch.setattr(cache, "read", forbidden)
    for decoded in (first, open_folder(folder)):
        np.testing.assert_array_equal(decoded.images[:, 0, 0, 0], [n for n in range(20) if n not in (5, 7)])
        assert set(decoded.errors) == {5, 7}


def test_files_that_are_all_unreadable_are_an_error(folder):
    for content in (b"", b"text"):
        for path in folder.iterdir():
            path.write_bytes(content)
        with pytest.raises(VaeguardError, match="no image in .* can be read .20 files.; the first is '00.png'"):
            open_folder(folder)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [cut, lengthen, type(cache_folder()).unlink, partial(type(cache_folder()).write_text, data="{}")]
)
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_damaged_entry_is_rebuilt(folder, own, suffix, damage):
    open_folder(folder)
    (entry,) = own.glob(f"*.{suffix}")
    damage(entry)
    np.testing.assert_array_equal(open_folder(folder).images[:, 0, 0, 0], np.arange(20))


def test_a_flipped_bit_in_the_record_is_noticed(folder, own, monkeypatch):
    (folder / "05.png").write_bytes(b"")
    open_folder(folder)
    (entry,) = own.glob("*.json")
    flip(entry)
    monkeypatch.setattr(cache, "read", forbidden)
    with pytest.raises(AssertionError, match="decoded again"):
        open_folder(folder)


def test_only_whole_entries_appear_and_old_remains_are_swept(folder, own, monkeypatch):
    own.mkdir()
    left, mine = temporary_beside(own / "vaeguard-1.npy"), own / ".vaeguard-mine.npy"
    for path in (left, mine, own / "other.npy"):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    monkeypatch.setattr(cache, "read", forbidden)
    with pytest.raises(AssertionError):
        open_folder(folder)
    assert sorted(path.name for path in own.iterdir()) == [mine.name, "other.npy"]


def test_entries_that_were_not_used_for_thirty_days_go_when_one_is_built(folder, own):
    sizes = [ImageRule((side, side), 1) for side in (3, 4, 5)]
    keys = [open_folder(folder, rule).key for rule in sizes]
    (own / "vaeguard-notes.json").write_text("mine")
    month = 30 * 86_400
    for path in own.iterdir():
        age = month - 3600 if keys[2] in path.name else month + 3600
        os.utime(path, (time.time() - age, time.time() - age))
    assert open_folder(folder, sizes[1]).key == keys[1]  # used again, and nothing built
    assert len(list(own.iterdir())) == 7
    keys[0] = open_folder(folder).key
    kept = [f"vaeguard-{key}{suffix}" for key in keys for suffix in (".npy", ".json")]
    assert sorted(path.name for path in own.iterdir()) == sorted([*kept, "vaeguard-notes.json"])


def test_progress_counts_recognising_and_decoding(folder):
    seen = []
    decode_files([files_of(folder)], RULE, lambda: (RULE, None), str(folder), progress=lambda *each: seen.append(each))
    assert seen[:20] == [(n, 20, "") for n in range(1, 21)]
    assert seen[-1] == (20, 20, "")
    assert seen[20][0] <= 20


def test_a_full_disk_is_told_in_one_sentence(folder, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(cache, "read", full)
    with pytest.raises(VaeguardError, match="No space left on device.*VAEGUARD_CACHE"):
        open_folder(folder)


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("VAEGUARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "vaeguard"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "vaeguard"
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path / "file" / "cache"))
    assert cache_folder().name.startswith("vaeguard-cache-")
    assert not (tmp_path / "own").exists()


def test_taking_rows_equals_numpy_also_when_they_go_to_disk(folder, monkeypatch):
    images = open_folder(folder).images
    monkeypatch.setattr(cache, "_BATCH_BYTES", 40)
    for rows in ([], [3, 1, 1, 19], list(range(0, 20, 2)), list(range(4, 20)), [-1], [-2, -1, 0]):
        indices = np.array(rows, np.int64)
        np.testing.assert_array_equal(take(images, indices), np.asarray(images)[indices])
    assert isinstance(take(images, np.arange(0, 20, 2)), np.memmap)


def test_the_digest_follows_pixels_shape_and_details(monkeypatch):
    images = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    digests = {digest_array(images), digest_array(images.reshape(3, 4, 4, 1)), digest_array(images, "a")}
    digests.add(digest_array(images[::-1]))
    assert len(digests) == 4
    monkeypatch.setattr(cache, "_BATCH_BYTES", 16)
    assert digest_array(images) in digests
