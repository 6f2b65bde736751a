"""The base of all engines: detectors and denoisers, under PyTorch and ONNX Runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod

from vaeguard.devices import instead
from vaeguard.errors import OutOfMemoryError


class Engine(ABC):
    """A model on a device, which works in smaller blocks if memory does not suffice.

    Attributes
    ----------
    device : str
        The device that it runs on: `cpu`, `cuda` or `tensorrt`.
    """

    device: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Text that differs whenever the bits of a result may differ; its last word is the model's digest."""

    def smaller(self, size: int, least: int, unit: str, error: MemoryError) -> int:
        """Half of a size that did not fit in memory, but at least `least`.

        Parameters
        ----------
        size, least : int
            Size of a block of images or of a tile, and the least size.
        unit : str
            The block or tile that did not fit, for the message.
        error : MemoryError
            The error of the engine.

        Raises
        ------
        OutOfMemoryError
            Not even the least size fits.
        """
        if size <= least:
            raise OutOfMemoryError(
                f"not enough memory on {self.device} for {unit}; close other programs{instead(self.device)}"
            ) from error
        return max(least, size // 2)
