"""Parts of exported files."""

import numpy as np
import onnx
import pytest
from onnx.utils import Extractor

from vaeguard.engines.onnx_cutting import cut
from vaeguard.engines.sessions import Session
from vaeguard.restoration.denoiser import DIRECT_INPUTS, DIRECT_OUTPUTS, SHIPPED
from vaeguard.settings.restoration import ESTIMATES
from vaeguard.storage.files import read_sealed

PARTS = [(("image",), ESTIMATES), (DIRECT_INPUTS, DIRECT_OUTPUTS)]


def named(entries):
    return {entry.name for entry in entries}


@pytest.mark.parametrize("kind", ["photo", "colour"])
@pytest.mark.parametrize(("inputs", "outputs"), PARTS)
def test_a_part_holds_what_onnx_extracts(kind, inputs, outputs):
    content = read_sealed(SHIPPED / f"{kind}.onnx")
    whole, part = onnx.load_from_string(content), onnx.load_from_string(cut(content, inputs, outputs))
    onnx.checker.check_model(part)
    assert len(part.graph.node) < len(whole.graph.node)
    assert part.metadata_props == whole.metadata_props
    expected = Extractor(whole).extract_model(list(inputs), list(outputs)).graph
    for found, wanted in ((part.graph.node, expected.node), (part.graph.initializer, expected.initializer)):
        assert named(found) == named(wanted)
    assert named(part.graph.input) == set(inputs)
    assert named(part.graph.output) == set(outputs)


@pytest.mark.parametrize(("inputs", "outputs"), PARTS)
def test_a_part_gives_the_bits_of_the_whole(inputs, outputs):
    session = Session(read_sealed(SHIPPED / "photo.onnx"), "photo.onnx", "cpu", 1)
    rng = np.random.default_rng(0)
    feeds = {"image": rng.random((1, 1, 64, 72), np.float32), "noise": np.full((1, 1, 32, 36), 0.1, np.float32)}
    whole = session.run(outputs, feeds)
    part = session.part(inputs, outputs).run(outputs, {name: feeds[name] for name in inputs})
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one, other)
