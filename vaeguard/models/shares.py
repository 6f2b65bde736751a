"""Shares of a batch: several processes compute one batch together, and the result is that of one process.

Each process draws the random numbers of the whole batch and uses those of its share. What examples have in common, such
as statistics of a batch norm and the loss, is computed from all shares, so that all processes hold the same weights and
decide alike.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as processes
import torch.nn.functional as F
from torch import nn

from vaeguard.errors import LostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt
    from _typeshed import DataclassInstance
    from torch import Tensor

    _Losses = TypeVar("_Losses", bound=DataclassInstance)


TOGETHER = threading.Event()
"""Set while this process fits together with others; a program may have joined processes for purposes of its own."""


def are_together() -> bool:
    """Whether several processes fit together."""
    return TOGETHER.is_set()


class BatchShare(NamedTuple):
    """The examples `first` to `last` of a batch of `whole` examples.

    If it is `divided`, every process has a share of the batch, which may be empty, or all of it.
    """

    first: int
    last: int
    whole: int
    divided: bool = False

    def of(self, values: Any, axis: int = 0) -> Any:
        """The part of the values of the whole batch, a tensor or an array."""
        return values[(slice(None),) * axis + (slice(self.first, self.last),)]

    def gathered(self, values: Tensor) -> Tensor:
        """The values of the whole batch, (whole, ...), from those of each share; gradients stay with their share."""
        if not self.divided:
            return values
        gathered: Tensor = _Gathered.apply(values, self)
        return gathered

    def losses(self, losses: _Losses) -> _Losses:
        """The losses of the whole batch, a dataclass of tensors with a row for each example; a field may be None."""
        if not self.divided:
            return losses
        parts = {field.name: getattr(losses, field.name) for field in fields(losses)}
        given: dict[str, Tensor] = {name: part for name, part in parts.items() if part is not None}
        kind = reduce(torch.promote_types, (part.dtype for part in given.values()))
        widths = [math.prod(part.shape[1:]) for part in given.values()]
        columns = [part.to(kind).reshape(len(part), width) for part, width in zip(given.values(), widths, strict=True)]
        split = torch.split(self.gathered(torch.cat(columns, 1)), widths, 1)
        shapes = zip(given.items(), split, strict=True)
        whole = {name: some.reshape(-1, *part.shape[1:]).to(part.dtype) for (name, part), some in shapes}
        return replace(losses, **whole)


def batch_share(count: int) -> BatchShare:
    """The share of this process in a batch of `count` examples; all of them if it is alone."""
    if not are_together():
        return BatchShare(0, count, count)
    rank, ranks = processes.get_rank(), processes.get_world_size()
    return BatchShare(count * rank // ranks, count * (rank + 1) // ranks, count, divided=True)


@dataclass(frozen=True)
class Draws:
    """Random numbers of `generator` for a share of a batch: the same as one process draws for these examples.

    Examples are along `axis` of the shapes, whose size there is that of the share. Without a share, a batch is whole.
    """

    generator: torch.Generator
    share: BatchShare | None = None

    def uniform(self, *shape: int, axis: int = 0) -> Tensor:
        """Numbers in [0, 1)."""
        return self._drawn(torch.rand, shape, axis)

    def normal(self, *shape: int, axis: int = 0) -> Tensor:
        """Standard normal numbers."""
        return self._drawn(torch.randn, shape, axis)

    def bernoulli(self, chances: Tensor) -> Tensor:
        """0 or 1, with these chances of 1, (n, ...)."""
        share = self.share or BatchShare(0, len(chances), len(chances))
        others = (share.first, share.whole - share.last)
        whole = F.pad(chances, (0, 0) * (chances.ndim - 1) + others)
        drawn: Tensor = share.of(torch.bernoulli(whole, generator=self.generator))
        return drawn

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...], axis: int) -> Tensor:
        if self.share is None:
            return draw(shape, generator=self.generator, device=self.generator.device)
        whole = (*shape[:axis], self.share.whole, *shape[axis + 1 :])
        drawn: Tensor = self.share.of(draw(whole, generator=self.generator, device=self.generator.device), axis)
        return drawn


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the whole batch of all processes; torch's own SyncBatchNorm refuses CPUs."""

    def forward(self, values: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not (self.training and are_together()):
            return super().forward(values)
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        count = add_up(exact.new_tensor(values.numel() // values.shape[1]))
        mean = _summed(exact.sum((0, 2, 3))) / count
        centred = exact - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(values.dtype)


def add_up(values: Tensor) -> Tensor:
    """Add the values of all processes, in place."""
    with _reached():
        processes.all_reduce(values)
    return values


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes, if there are several."""
    if not are_together():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    whole = add_up(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(whole, [gradient.numel() for gradient in gradients])
    for gradient, values in zip(gradients, parts, strict=True):
        gradient.copy_(values.view(gradient.shape))


def share_weights(net: nn.Module) -> None:
    """Give `net` the weights that it has in the first process."""
    if not are_together():
        return
    for values in net.state_dict().values():
        whole = values.contiguous()
        with _reached():
            processes.broadcast(whole, 0)
        values.copy_(whole)


def from_first(make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` gives in the first process, which alone calls it."""
    if not are_together():
        return make()
    content = make() if is_first() else b""
    length = torch.tensor([len(content)])
    with _reached():
        processes.broadcast(length, 0)
        values = torch.frombuffer(bytearray(content.ljust(int(length), b"\0") or b"\0"), dtype=torch.uint8)
        processes.broadcast(values, 0)
    return values[: int(length)].numpy().tobytes()


def arrays_from_first(make: Callable[[], Sequence[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
    """The arrays that `make` gives in the first process, which alone calls it."""
    if not are_together():
        return [*make()]

    def packed() -> bytes:
        file = io.BytesIO()
        np.savez(file, *make())
        return file.getvalue()

    with np.load(io.BytesIO(from_first(packed))) as arrays:
        return [*arrays.values()]


def is_first() -> bool:
    """Whether this process is the first one, which alone speaks and writes, or the only one."""
    return not are_together() or processes.get_rank() == 0


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of each transport its own kind
        raise LostError("another process of this fit has ended or cannot be reached") from error


class _Gathered(torch.autograd.Function):
    """All processes compute the same of the whole, so that the gradient of a share needs no message."""

    @staticmethod
    def forward(context: Any, values: Tensor, share: BatchShare) -> Tensor:
        context.share = share
        whole = values.new_zeros((share.whole, *values.shape[1:]))
        whole[share.first : share.last] = values
        return add_up(whole)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        part: Tensor = context.share.of(gradients[0])
        return part, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        del context
        return add_up(values.clone())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        del context
        return add_up(gradients[0].clone())


def _summed(values: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(values)
    return summed
