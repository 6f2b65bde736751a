"""Spots by a fitted and by an exported model."""

import numpy as np
import pytest
from toy import bars

import vaeguard
from vaeguard import UsageError
from vaeguard.engines.run_folder import calibration_images


@pytest.fixture(params=["run", "onnx"])
def detector(request, bars_run, bars_onnx):
    return vaeguard.load(bars_run if request.param == "run" else bars_onnx, "cpu")


def marked():
    """A bar with a bright pixel beside it, which no normal image has."""
    image = bars(1)[0]
    image[0, 0, 5, 6] = 255
    return image


def test_a_model_keeps_the_peaks_of_its_calibration_images(detector, bars_run):
    heatmaps = detector.inspect(calibration_images(bars_run), pictures=True).heatmap
    assert len(detector.info.peaks) == detector.info.calibrated_on
    assert np.allclose(detector.info.peaks, np.sort(heatmaps.max((1, 2))), rtol=1e-4)


def test_both_engines_place_a_spot_in_the_original(detector):
    heatmap = detector.inspect(marked(), pictures=True).heatmap[0]
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    for sizes, factor in ((None, 1), ([(80, 80)], 10)):
        (spots,) = detector.spots(marked(), sizes=sizes)
        first = spots[0]
        assert (first.rank, first.peak) == (1, pytest.approx(heatmap.max()))
        assert first.left <= column * factor < (column + 1) * factor <= first.left + first.width
        assert first.top <= row * factor < (row + 1) * factor <= first.top + first.height
        peaks = detector.info.peaks
        assert first.p_value == pytest.approx((1 + np.count_nonzero(peaks >= first.peak)) / (1 + len(peaks)))


def test_normal_images_have_few_spots(detector, bars_run):
    found = detector.spots(calibration_images(bars_run))
    assert sum(map(bool, found)) <= 0.2 * len(found)


def test_spots_need_a_size_for_each_image(detector):
    with pytest.raises(UsageError, match="`sizes` has 2 sizes for 1 images"):
        detector.spots(marked(), sizes=[(8, 8), (8, 8)])
