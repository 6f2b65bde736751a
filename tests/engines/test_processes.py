"""Detectors in copies and in other processes."""

import copy
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from toy import bars

import vaeguard


@pytest.fixture(params=["torch", "onnx"])
def detector(request, bars_run, bars_onnx):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield vaeguard.load(bars_run if request.param == "torch" else bars_onnx, "cpu", threads=3)
    torch.set_num_threads(threads)


def test_a_copy_gives_the_same_bits(detector):
    images = bars(50)[0]
    expected = detector.inspect(images, pictures=True)
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        for name, values in vars(other.inspect(images, pictures=True)).items():
            np.testing.assert_equal(values, getattr(expected, name))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_uses_the_detector_of_its_parent(detector):
    images = bars(300)[0]
    torch.ones(512, 512) @ torch.ones(512, 512)  # starts the threads that a fork loses
    expected = detector.inspect(images).score
    queue = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: queue.put(detector.inspect(images).score), daemon=True
    )
    process.start()
    np.testing.assert_allclose(queue.get(timeout=120), expected, rtol=1e-5)
    process.join(60)
    assert process.exitcode == 0


def test_an_empty_batch_gives_empty_results(detector):
    inspected = detector.inspect(np.zeros((0, 1, 8, 8), np.uint8), pictures=True)
    assert inspected.score.shape == inspected.p_value.shape == (0,)
    assert (inspected.restored.shape, inspected.heatmap.shape) == ((0, 1, 8, 8), (0, 8, 8))
