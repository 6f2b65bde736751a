"""The operators of convolutional networks in ONNX files, as PyTorch computes them.

Each takes the settings of its node, and its inputs: tensors, numbers, lists of numbers, or None for one left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Settings = dict[str, Any]
    Operator = Callable[..., Tensor | tuple[Tensor, ...]]

KEPT_CAST = 1
"""The number of float32 among the types of ONNX."""


def _padded(image: Tensor, settings: Settings, kernel: Sequence[int], value: float = 0.0) -> Tensor:
    """The image with the padding of a convolution or pooling around it."""
    strides, dilations = settings.get("strides", (1, 1)), settings.get("dilations", (1, 1))
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    same = settings.get("auto_pad", "NOTSET")
    if same in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, side, stride, dilation in zip(image.shape[2:], kernel, strides, dilations, strict=True):
            needed = max((-(-size // stride) - 1) * stride + (side - 1) * dilation + 1 - size, 0)
            half = needed // 2
            sides.append((half, needed - half) if same == "SAME_UPPER" else (needed - half, half))
        (top, bottom), (left, right) = sides
    return F.pad(image, (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else image


def _conv(settings: Settings, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.ndim != 4:
        raise ValueError(f"its Conv has {weight.ndim - 2} dimensions instead of 2")
    return F.conv2d(
        _padded(image, settings, weight.shape[2:]),
        weight,
        bias,
        settings.get("strides", (1, 1)),
        0,
        settings.get("dilations", (1, 1)),
        settings.get("group", 1),
    )


def _batch_norm(
    settings: Settings, image: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return F.batch_norm(image, mean, variance, scale, offset, eps=settings.get("epsilon", 1e-5))


def _layer_norm(settings: Settings, values: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    axis = settings.get("axis", -1) % values.ndim
    return F.layer_norm(values, values.shape[axis:], scale, offset, settings.get("epsilon", 1e-5))


def _max_pool(settings: Settings, image: Tensor) -> Tensor:
    kernel = settings["kernel_shape"]
    padded = _padded(image, settings, kernel, value=-torch.inf)
    strides, dilations = settings.get("strides", (1, 1)), settings.get("dilations", (1, 1))
    return F.max_pool2d(padded, kernel, strides, 0, dilations, ceil_mode=bool(settings.get("ceil_mode", 0)))


def _average_pool(settings: Settings, image: Tensor) -> Tensor:
    kernel, strides = settings["kernel_shape"], settings.get("strides", (1, 1))
    pads, ceil = settings.get("pads", (0, 0, 0, 0)), bool(settings.get("ceil_mode", 0))
    if settings.get("auto_pad", "NOTSET") != "NOTSET" or tuple(pads[:2]) != tuple(pads[2:]):
        raise ValueError("its AveragePool is padded unevenly")
    return F.avg_pool2d(image, kernel, strides, tuple(pads[:2]), ceil, bool(settings.get("count_include_pad", 0)))


def _clip(settings: Settings, values: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = settings.get("min", low), settings.get("max", high)
    return values if low is None and high is None else torch.clamp(values, low, high)


def _reduce_mean(settings: Settings, values: Tensor, axes: list[int] | None = None) -> Tensor:
    axes = settings.get("axes", axes) or list(range(values.ndim))
    return values.mean(tuple(axes), keepdim=bool(settings.get("keepdims", 1)))


def _pad(
    settings: Settings, values: Tensor, pads: list[int] | None = None, value: Any = None, axes: Any = None
) -> Tensor:
    pads = settings.get("pads", pads) or []
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        settings.get("mode", "constant")
    ]
    half = len(pads) // 2
    chosen = [axis % values.ndim for axis in axes or range(half)]
    sides = {axis: (pads[at], pads[half + at]) for at, axis in enumerate(chosen)}
    ordered = [side for axis in reversed(range(values.ndim)) for side in sides.get(axis, (0, 0))]
    if mode != "constant":
        if values.ndim != 4 or any(ordered[4:]):
            raise ValueError("its Pad reflects more than height and width")
        return F.pad(values, ordered[:4], mode)
    return F.pad(values, ordered, mode, float(settings.get("value", value or 0.0)))


def _resize(
    settings: Settings, image: Tensor, _region: Any = None, _scales: Any = None, sizes: list[int] | None = None
) -> Tensor:
    place, kind = settings.get("coordinate_transformation_mode", "half_pixel"), settings.get("mode", "nearest")
    if sizes:
        size = sizes[2:]
    else:
        factors = settings["scales"][2:]
        size = [int(side * factor) for side, factor in zip(image.shape[2:], factors, strict=True)]
    if kind == "linear" and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(image, size, mode="bilinear", align_corners=place == "align_corners")
    if kind == "nearest" and place in ("asymmetric", "half_pixel"):
        return F.interpolate(image, size, mode="nearest" if place == "asymmetric" else "nearest-exact")
    raise ValueError(f"its Resize is {kind} and {place}, which is not supported")


def _reshape(settings: Settings, values: Tensor, shape: list[int]) -> Tensor:
    kept = not settings.get("allowzero", 0)
    return values.reshape([values.shape[at] if kept and not side else side for at, side in enumerate(shape)])


def _split(settings: Settings, values: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    axis, sizes = settings.get("axis", 0), settings.get("split", sizes)
    parts = settings.get("num_outputs", 2)
    return torch.split(values, sizes or -(-values.shape[axis] // parts), axis)


def _slice(
    _: Settings, values: Tensor, starts: list[int], ends: list[int], axes: Any = None, steps: Any = None
) -> Tensor:
    places = [slice(None)] * values.ndim
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        places[axes[at] if axes else at] = slice(start, end, steps[at] if steps else 1)
    return values[tuple(places)]


def _unsqueeze(settings: Settings, values: Tensor, axes: list[int] | None = None) -> Tensor:
    for axis in settings.get("axes", axes) or []:
        values = values.unsqueeze(axis)
    return values


def _squeeze(settings: Settings, values: Tensor, axes: list[int] | None = None) -> Tensor:
    chosen = settings.get("axes", axes)
    return values.squeeze(tuple(chosen)) if chosen else values.squeeze()


def _hard_sigmoid(settings: Settings, values: Tensor) -> Tensor:
    alpha, beta = settings.get("alpha", 0.2), settings.get("beta", 0.5)
    if (round(6 * alpha, 6), beta) == (1, 0.5):
        return F.hardsigmoid(values)
    return torch.clamp(values * alpha + beta, 0, 1)


def _cast(settings: Settings, values: Tensor) -> Tensor:
    if settings["to"] != KEPT_CAST:
        raise ValueError("it computes in a type other than float32")
    return values


OPERATORS: dict[str, Operator] = {
    "Add": lambda _, a, b: a + b,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda settings, *parts: torch.cat(parts, settings["axis"]),
    "Conv": _conv,
    "Div": lambda _, a, b: a / b,
    "Dropout": lambda _, values, *__: values,
    "Elu": lambda settings, values: F.elu(values, settings.get("alpha", 1.0)),
    "Erf": lambda _, values: torch.erf(values),
    "Exp": lambda _, values: values.exp(),
    "Gelu": lambda settings, values: F.gelu(values, approximate=settings.get("approximate", "none")),
    "GlobalAveragePool": lambda _, image: image.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, values: F.hardswish(values),
    "Identity": lambda _, values: values,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda settings, values: F.leaky_relu(values, settings.get("alpha", 0.01)),
    "MatMul": lambda _, a, b: a @ b,
    "MaxPool": _max_pool,
    "Mul": lambda _, a, b: a * b,
    "Neg": lambda _, values: -values,
    "Pad": _pad,
    "Pow": lambda _, values, power: values**power,
    "PRelu": lambda _, values, slope: torch.where(values < 0, values * slope, values),
    "ReduceMean": _reduce_mean,
    "Relu": lambda _, values: values.relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda _, values: values.sigmoid(),
    "Slice": _slice,
    "Softplus": lambda _, values: F.softplus(values),
    "Split": _split,
    "Sqrt": lambda _, values: values.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Tanh": lambda _, values: values.tanh(),
    "Transpose": lambda settings, values: values.permute(settings.get("perm", tuple(range(values.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
}
"""By name."""
