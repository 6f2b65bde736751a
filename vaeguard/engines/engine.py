"""What all engines have in common, of detectors and denoisers, under PyTorch and ONNX Runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod

from vaeguard.devices import instead
from vaeguard.errors import OutOfMemoryError


class Engine(ABC):
    """A model on a device, which takes less at a time where memory does not suffice.

    Attributes
    ----------
    device : str
        Where it runs: `cpu`, `cuda` or `tensorrt`.
    """

    device: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Text that differs wherever the bits of a result might: engine and device, and last the model's digest."""

    def smaller(self, size: int, least: int, unit: str, error: MemoryError) -> int:
        """Half of a size that did not fit in memory, and at least `least`.

        Parameters
        ----------
        size, least : int
            Of a block of images or a tile.
        unit : str
            What did not fit, for the message.
        error : MemoryError
            What was raised.

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
