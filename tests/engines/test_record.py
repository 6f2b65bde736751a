import json
import math
from dataclasses import replace

import pytest
from toy import toy_record

from vaeguard.engines.record import CalibrationRecord, ClassRecord, OnnxRecord, read_record
from vaeguard.errors import RefusedError
from vaeguard.settings.model import ModelSpec

CLASS = ClassRecord("a", 5, 5, 1, 2.0, 1.0, 0.5, 3.0, 0, None)
RECORDS = {
    "plain": toy_record(images=9),
    "guided": toy_record(classes=("a", "b"), calibration=CalibrationRecord(9, 0.5), model=ModelSpec()),
    "vectors": toy_record((1, 1, 9), vectors=True),
    "exported": toy_record(terms=("kl",), onnx=OnnxRecord("uint8", False, 0.05, 20)),
}
RECORDS = {name: replace(record, format=3) for name, record in RECORDS.items()}
RECORDS["guided"] = replace(
    RECORDS["guided"], classes=(CLASS, replace(CLASS, name="b")), best_epoch={"epoch": 2, "loss": 1.5}
)


def written(record):
    return json.loads(json.dumps(record.to_dict()))


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_written_reads_the_same(name):
    record = RECORDS[name]
    assert read_record(written(record), "m") == record
    assert written(read_record(written(record), "m")) == written(record)


def test_what_a_model_has_not_is_not_written():
    plain, guided, vectors = (written(RECORDS[name]) for name in ("plain", "guided", "vectors"))
    assert not {"onnx", "terms"} & plain.keys()
    assert "class_accuracy" in guided["classes"][0]
    assert "heatmap_scale" in guided["calibration"]
    assert "heatmap_scale" not in vectors["calibration"]


def values_within(values, place=()):
    for name, value in values.items():
        yield (*place, name)
        if isinstance(value, dict) and name not in {"best_epoch", "versions"}:
            yield from values_within(value, (*place, name))


def changed(place, change):
    values = written(RECORDS["guided"])
    inner = values
    for name in place[:-1]:
        inner = inner[name]
    change(inner, place[-1])
    return values


# The scale of heatmaps may be unknown.
PLACES = [place for place in values_within(written(RECORDS["guided"])) if place[-1] != "heatmap_scale"]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_what_is_missing_or_of_another_type_is_refused(place):
    for change in (dict.pop, lambda values, name: values.update({name: {"nonsense": []}})):
        with pytest.raises(RefusedError, match="'runs/m'"):
            read_record(changed(place, change), "runs/m")


@pytest.mark.parametrize("peaks", [[2.0, 1.0], [-1.0, 1.0], [1.0, math.nan], [1.0, math.inf], [0.5] * 1001, [1, 2]])
def test_peaks_that_no_fit_writes_are_refused(peaks):
    with pytest.raises(RefusedError, match="peaks"):
        read_record(changed(("calibration", "peaks"), lambda values, name: values.update({name: peaks})), "runs/m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "denoiser"}, "'m' is a denoiser, which cleans scans and computes no scores"),
        ({"denoiser": {}, "card": {}}, "'m' is a denoiser"),
        ({"kind": "checkpoint"}, "'m' contains a checkpoint"),
        (written(RECORDS["exported"]) | {"part": "decoder"}, "'m' is only the decoder of a model"),
    ],
)
def test_the_file_of_something_else_is_called_by_its_name(values, message):
    with pytest.raises(RefusedError, match=message):
        read_record(values, "m")
