from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from vaeguard.data import streams
from vaeguard.data.images import ImageRule, write_png
from vaeguard.data.streams import map_ahead, stream_images
from vaeguard.errors import UsageError


@pytest.fixture
def hundred(tmp_path):
    paths = []
    for number in range(100):
        path = tmp_path / f"{number:03d}.png"
        write_png(path, np.full((1, 4, 4), number, np.uint8))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(("batch_size", "jobs"), [(1, 2), (7, 1), (7, 3), (33, 2), (64, None), (1000, 2)])
def test_a_stream_keeps_the_order_and_lists_errors(hundred, batch_size, jobs):
    hundred[40] += ".gone"
    batches = list(stream_images(iter(hundred), ImageRule((4, 4), 1), batch_size=batch_size, jobs=jobs))
    assert [path for batch in batches for path in batch.paths] == hundred[:40] + hundred[41:]
    expected = [number for number in range(100) if number != 40]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches])[:, 0, 0, 0], expected)
    assert [error for batch in batches for error in batch.errors] == [(hundred[40], "the file does not exist")]
    sizes = [len(batch.paths) + len(batch.errors) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert len(batches[-1].images) == len(batches[-1].paths)


def test_a_batch_without_readable_files_is_empty_but_has_its_shape():
    (batch,) = stream_images(["/nowhere/1.png", "/nowhere/2.png"], ImageRule((4, 5), 3))
    assert batch.images.shape == (0, 3, 4, 5)
    assert len(batch.errors) == 2


def test_a_stream_needs_a_whole_rule():
    with pytest.raises(UsageError, match="size and a number of channels"):
        stream_images([], ImageRule((4, 4)))


def test_a_stream_reads_only_a_little_ahead(hundred):
    taken = []
    source = (taken.append(path) or path for path in hundred * 20)
    stream = stream_images(source, ImageRule((4, 4), 1), batch_size=8, jobs=2)
    next(stream)
    time.sleep(0.05)
    assert len(taken) <= 64
    stream.close()


def test_map_ahead_is_bounded_ordered_and_stops_its_threads():
    before = {*threading.enumerate()}
    started = []
    results = map_ahead(lambda item: started.append(item) or item * 2, range(1000), jobs=3, ahead=5)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    time.sleep(0.02)
    assert len(started) <= 8
    results.close()
    assert {*threading.enumerate()} <= before
    assert list(map_ahead(str, [], jobs=1, ahead=2)) == []


def test_map_ahead_waits_for_a_thread_that_does_not_stop_no_longer_than_its_patience(monkeypatch):
    monkeypatch.setattr(streams, "PATIENCE", 0.05)
    told, leave = threading.Event(), threading.Event()
    results = map_ahead(lambda item: item and leave.wait(10), range(9), jobs=1, ahead=3, stop=told.set)
    assert next(results) == 0
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5
    assert told.is_set()
    leave.set()


def test_tiny_files_are_decoded_by_one_thread(hundred):
    assert streams.default_jobs(hundred) == 1
    assert streams.default_jobs([]) >= 1
