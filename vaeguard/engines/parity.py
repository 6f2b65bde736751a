"""Whether an exported file agrees with PyTorch: in every output, and for a detector in the order and the decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.engines.detector import as_images
from vaeguard.engines.inspection import concatenate
from vaeguard.engines.sessions import Session
from vaeguard.engines.tiling import Tiling
from vaeguard.errors import RefusedError
from vaeguard.statistics.false_alarms import FPRS, flag
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Floats, Images, Inspection
    from vaeguard.engines.tiling import Firsts

BATCHES = (1, 7, 64, 256)
RANDOM_IMAGES = 64
FEWEST_RANDOM = 8
EXAMPLE_PIXELS = 2**22
"""The most pixels in images of noise, or in tiles of images, unless these are the fewest."""
INSIDE = 0.9
"""The share of the pixels of noise that count, if the model looks at regions of single images."""
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3, "tensorrt": 1e-3}
"""Largest relative error allowed between float32 engines, by the device of the exported model.

On the CPU, models of real data differ by 1e-6; with few calibration images, the steps of the score enlarge a rounding.
"""
HALF_TOLERANCE = 2e-2
"""Largest relative error allowed if the exported model computes in float16."""
LOOSE_SHARE = 0.01
"""The share of decisions that may differ unless the arithmetic is float32 on the CPU."""

ADVICE = (
    "if one of these is a term that hardly varies between images, its error is only rounding: fit longer, leave the"
    " term out with `model.without`, or raise `tolerance`"
)


@dataclass(frozen=True)
class Parity:
    """How much an exported model differs from its reference on the same images.

    Attributes
    ----------
    images : int
        Number of images compared, noise included.
    random : int
        Number of images of noise.
    tolerance : float
        The largest relative error allowed.
    errors : dict of str to float
        Largest relative error of each output: the difference divided by the value, or by the output's mean magnitude
        if that is larger (a heatmap is zero in places).
    swapped : int
        Number of neighbours in the reference's order of scores that changed places, although their scores differ by
        more than the tolerance.
    decisions : int
        Number of decisions whether to flag an image, at false-alarm rates of 1, 5 and 10 %, that differ.
    same_bits : bool
        Whether an image gave the same bits in batches of 1, 7, 64 and 256; required in float32 on the CPU.
    problems : tuple of str
        The comparisons that failed; empty if none did.
    """

    images: int
    random: int
    tolerance: float
    errors: dict[str, float]
    swapped: int = 0
    decisions: int = 0
    same_bits: bool = True
    problems: tuple[str, ...] = ()

    __repr__ = brief

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values that JSON can hold."""
        return {**vars(self), "problems": list(self.problems), "passed": not self.problems}

    def plus(self, errors: dict[str, float]) -> Parity:
        """A copy with the relative `errors` of further outputs."""
        return replace(
            self, errors=self.errors | errors, problems=(*self.problems, *_exceeding(errors, self.tolerance))
        )

    def check(self, name: str, advice: str = ADVICE) -> None:
        """Refuse the model `name` if there are problems.

        Raises
        ------
        RefusedError
            There are problems; the message lists them and ends with `advice`.
        """
        if self.problems:
            raise RefusedError(
                f"the results of {name!r} differ from those of PyTorch ({'; '.join(self.problems)}); {advice}"
            )


def compare(
    reference: Detector,
    other: Detector,
    images: Images | None,
    *,
    half: bool = False,
    tolerance: float | None = None,
) -> Parity:
    """Compare `other` with `reference` on `images` and on noise, in batches of 1, 7, 64 and 256.

    Parameters
    ----------
    reference, other : Detector
        Two engines of the same model.
    images : ndarray or None
        Images as `Detector.inspect` takes them; of large images, some tiles are compared.
    half : bool
        Whether `other` computes in float16.
    tolerance : float or None
        Largest relative error allowed; None takes that of the device of `other`.
    """
    examples, first = with_noise(images, reference.info)
    return compared(reference.inspect_tiles(examples, first, pictures=True), other, examples, first, half, tolerance)


def compared(
    expected: Inspection, other: Detector, examples: Images, first: Firsts, half: bool, tolerance: float | None
) -> Parity:
    """Compare `other` with the results `expected` for the tiles `examples` at `first`, see `compare`."""
    by_batch = [_inspect(other, examples, first, size) for size in BATCHES]
    inspected = by_batch[-1]
    exact = other.device == "cpu" and not half
    tolerance = tolerance or (HALF_TOLERANCE if half else TOLERANCE[other.device])
    errors = {name: relative_error(values, outputs(inspected)[name]) for name, values in outputs(expected).items()}
    swapped = _swapped(expected.score, inspected.score, tolerance)
    decisions = sum(int((flag(expected.p_value, fpr) != flag(inspected.p_value, fpr)).sum()) for fpr in FPRS)
    same_bits = all(_same_bits(inspected, other_batch) for other_batch in by_batch[:-1])
    allowed = 0 if exact else int(LOOSE_SHARE * len(FPRS) * len(examples))
    failures = {
        f"{swapped} images have a different rank": swapped > 0,
        f"{decisions} decisions to flag an image differ, at false-alarm rates of 1, 5 and 10 %": decisions > allowed,
        "the bits of an image's results depend on its batch": exact and not same_bits,
    }
    # P-values come in steps, so the decisions are compared in their place.
    problems = _exceeding({name: error for name, error in errors.items() if name != "p_value"}, tolerance)
    problems += [failure for failure, failed in failures.items() if failed]
    random = _examples_of(other.info.graph_shape)
    return Parity(len(examples), random, tolerance, errors, swapped, decisions, same_bits, tuple(problems))


def session_errors(
    content: bytes,
    feeds: Mapping[str, npt.NDArray[Any]],
    expected: Mapping[str, Floats],
    sizes: Sequence[int] = BATCHES,
) -> dict[str, float]:
    """Largest relative error of each output of an exported file, see `Parity.errors`.

    Parameters
    ----------
    content : bytes
        Content of the file.
    feeds : mapping of ndarray
        The inputs by name, with equally many rows.
    expected : mapping of float32
        PyTorch's outputs by name.
    sizes : sequence of int
        Sizes of the batches in which the rows are run.
    """
    session, wanted = Session(content, "the exported file", "cpu"), list(expected)
    rows = len(next(iter(feeds.values())))
    errors = dict.fromkeys(wanted, 0.0)
    for size in sizes:
        batches = ({name: values[at : at + size] for name, values in feeds.items()} for at in range(0, rows, size))
        outputs_of_batches = [session.run(wanted, batch) for batch in batches]
        for name, parts in zip(wanted, zip(*outputs_of_batches, strict=True), strict=True):
            error = relative_error(expected[name], np.concatenate(parts))
            errors[name] = float(np.max([errors[name], error]))  # np.max keeps NaN, Python's max may not
    return errors


def with_noise(images: Images | None, info: DetectorInfo) -> tuple[Images, Firsts]:
    """`images`, if any, or some of their tiles as the graph takes them, and after them noise of their type.

    Also the first row and column of each.
    """
    noise = random_images(info)
    first = np.zeros((len(noise), 2), np.int64)
    images = None if images is None else as_images(images, info)
    if images is None or not len(images):
        return noise, first
    if images.dtype != noise.dtype:
        noise = noise.astype(np.float32) / np.float32(255)
    tiling = Tiling(info.record.model)
    most = len(images) if len(tiling) == 1 else _examples_of(info.graph_shape)
    tiles, at = tiling.spread(images, np.arange(len(images)), most)
    return np.concatenate([tiles, noise]), np.concatenate([at, first])


def _examples_of(shape: tuple[int, int, int]) -> int:
    """The number of examples of `shape` (C, H, W): fewer of large images, for which a comparison takes long."""
    return int(np.clip(EXAMPLE_PIXELS // np.prod(shape), FEWEST_RANDOM, RANDOM_IMAGES))


def random_images(info: DetectorInfo) -> Images:
    """Noise as the graph takes it: pixels of all levels at several contrasts, or vectors of several magnitudes."""
    rng = np.random.default_rng(0)
    shape = (_examples_of(info.graph_shape), *info.graph_shape)
    if not info.view.pictures:
        spread = rng.choice([0.1, 1.0, 10.0], (shape[0], 1, 1, 1))
        return (spread * rng.standard_normal(shape)).astype(np.float32)
    contrast = rng.uniform(0, 1, (shape[0], 1, 1, 1))
    noise = np.round(255 * contrast * rng.uniform(0, 1, shape)).astype(np.uint8)
    if info.record.model.regions:  # nearly all pixels count, or few places would
        noise[:, -1] = np.where(rng.uniform(0, 1, noise[:, -1].shape) < INSIDE, 255, 0)
    return noise


def outputs(inspection: Inspection) -> dict[str, Floats]:
    """All results of an inspection with pictures, by name."""
    pictures = {"restored": inspection.restored, "heatmap": inspection.heatmap}
    named = {"score": inspection.score, "p_value": inspection.p_value, **inspection.terms}
    return {**named, **{name: picture for name, picture in pictures.items() if picture is not None}}


def _inspect(detector: Detector, images: Images, first: Firsts, size: int) -> Inspection:
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    return concatenate([detector.inspect_tiles(images[part], first[part], pictures=True) for part in parts])


def _exceeding(errors: dict[str, float], tolerance: float) -> list[str]:
    return [f"{name} has a relative error of {error:.2g}" for name, error in errors.items() if not error <= tolerance]


def relative_error(expected: Floats, actual: Floats) -> float:
    """The largest relative error of an output, see `Parity.errors`; NaN if a value is NaN."""
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.maximum(np.abs(wide), np.abs(wide[np.isfinite(wide)]).mean())
        relative = np.where(expected == actual, 0, np.abs(wide - other) / size)
    return float(relative.max())


def _swapped(expected: Floats, actual: Floats, tolerance: float) -> int:
    order = np.argsort(expected, kind="stable")
    expected, actual = expected[order].astype(np.float64), actual[order]
    apart = np.diff(expected) > 2 * tolerance * np.maximum(expected[1:], 1e-6)
    return int(np.count_nonzero(apart & (np.diff(actual) < 0)))


def _same_bits(one: Inspection, two: Inspection) -> bool:
    return all(values.tobytes() == outputs(two)[name].tobytes() for name, values in outputs(one).items())
