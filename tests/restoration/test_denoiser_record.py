"""The record of a denoiser's file is read as it was written, or refused in one sentence."""

from dataclasses import replace

import pytest

from vaeguard import RefusedError
from vaeguard.restoration.denoiser_record import (
    DenoiserRecord,
    DirectRecord,
    EstimatorRecord,
    LadderRecord,
    read_denoiser_record,
)

PLAIN = DenoiserRecord("photo", 36, 4, 2.0, DirectRecord(40, 6), {"recipe": "none"})
WHOLE = replace(PLAIN, planes=3, grain=(1.0, 0.5), estimator=EstimatorRecord(3), ladder=LadderRecord(6, (2, 3, 4), 90))


@pytest.mark.parametrize("record", [PLAIN, WHOLE])
def test_a_record_is_read_as_it_was_written(record):
    assert read_denoiser_record({"format": 1, **record.to_dict()}, "a.onnx") == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, "'kind' is None"),
        ({"halo": "wide"}, "'halo' is 'wide'"),
        ({"direct": {"width": 40}}, "depth"),
        ({"direct": 7}, "a.onnx"),
        ({"ladder": {"width": 6, "latent": ["2"], "halo": 9}}, "'latent' is"),
        ({"colour": 1}, "colour"),
    ],
)
def test_another_record_is_refused(change, message):
    values = PLAIN.to_dict()
    with pytest.raises(RefusedError, match=message):
        read_denoiser_record({**values, "denoiser": values["denoiser"] | change}, "a.onnx")


def test_other_files_are_refused():
    for values in ({}, {"denoiser": 7, "card": {}}, {"denoiser": {}}, {"denoiser": {"kind": "photo"}, "card": {}}):
        with pytest.raises(RefusedError, match=r"a\.onnx"):
            read_denoiser_record(values, "a.onnx")
