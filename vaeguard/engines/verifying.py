"""Whether an exported file says what PyTorch says: that of its run, or what the file itself carries of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.engines.inspection import Inspection
from vaeguard.engines.onnx_detector import OnnxDetector
from vaeguard.engines.parity import compare, compared, outputs, with_noise
from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Images
    from vaeguard.engines.parity import Parity
    from vaeguard.engines.record import OnnxRecord
    from vaeguard.engines.torch_detector import TorchDetector


def verify(
    exported: Detector, detector: Detector | None = None, images: Images | None = None, tolerance: float | None = None
) -> Parity:
    """Compare an exported model with its PyTorch original on `images`, if any, and on noise.

    Without `detector`, the scores, p-values and terms of noise are compared with those of PyTorch that were stored in
    the file at the export; this needs neither the run nor PyTorch. `exported` and `detector` are loaded models, and
    `images` an array as `Detector.inspect` takes it.

    Raises
    ------
    UsageError
        `exported` was not exported from `detector`, or it contains no results to compare with.
    """
    if not isinstance(exported, OnnxDetector):
        raise UsageError(
            "`exported` is not an exported model; give an .onnx file (in Python, the model that `vaeguard.load` returns"
            " for it)"
        )
    onnx = exported.info.record.onnx
    assert onnx is not None
    if detector is None:
        examples, first = with_noise(None, exported.info)
        expected = _carried(onnx, exported.info.term_names, len(examples))
        if expected is None or onnx.noise != _digest(examples):
            raise UsageError(
                "the exported model contains no results of PyTorch to compare with; also give the run from which"
                " it was exported"
            )
        return compared(expected, exported, examples, first, onnx.fp16, tolerance)
    detector = of_torch(detector)
    if exported.info.image_shape != detector.info.image_shape or exported.info.term_names != detector.info.term_names:
        raise UsageError(
            "the exported model does not match this run in shape or terms; give the run from which it was exported"
        )
    if exported.info.record.of_fit != detector.info.record.of_fit:
        raise UsageError("the exported model came from a different run; give the run from which it was exported")
    return compare(detector, exported, images, half=onnx.fp16, tolerance=tolerance)


def answers_of(detector: Detector) -> dict[str, Any]:
    """What an exported file carries of PyTorch's results: see `OnnxRecord`."""
    examples, first = with_noise(None, detector.info)
    said = outputs(detector.inspect_tiles(examples, first, pictures=False))
    answered = tuple(name for name, values in said.items() if np.isfinite(values).all())
    answers = tuple(value for name in answered for value in said[name].tolist())
    return {"noise": _digest(examples), "answered": answered, "answers": answers}


def _carried(onnx: OnnxRecord, terms: Sequence[str], images: int) -> Inspection | None:
    """The results that a file carries, or None if they are not those of so many images."""
    names = set(onnx.answered)
    if not {"score", "p_value"} <= names <= {"score", "p_value", *terms} or len(onnx.answers) != images * len(names):
        return None
    rows = np.array(onnx.answers, np.float32).reshape(-1, images)
    answers = dict(zip(onnx.answered, rows, strict=True))
    return Inspection(answers.pop("score"), answers.pop("p_value"), answers)


def _digest(examples: Images) -> str:
    return hashlib.sha256(examples.tobytes()).hexdigest()


def of_torch(detector: Detector) -> TorchDetector:
    """`detector`, if it is a model of PyTorch on the CPU.

    Raises
    ------
    UsageError
        It is an exported one, or on another device.
    """
    from vaeguard.engines.torch_detector import TorchDetector

    if not isinstance(detector, TorchDetector):
        raise UsageError("the model is already exported; give the run folder from which it was exported")
    if detector.device != "cpu":
        raise UsageError("exported files are compared with PyTorch on the CPU; load the model with `device` 'cpu'")
    return detector
