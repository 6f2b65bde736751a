"""The denoiser that ONNX Runtime runs, tile by tile: strips of a plane in, clean strips out, without torch."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.errors import RefusedError, VaeguardError
from vaeguard.files import read_sealed
from vaeguard.sessions import Session

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

TILE = 1024
"""Side of a tile with its halo, in pixels; memory grows with its square."""
SMALLEST_TILE = 192
SHIPPED = Path(__file__).parent / "weights"


class Denoiser:
    """A denoiser exported to ONNX; it restores grey planes of any size.

    Each pixel depends only on those nearer than `halo`, so tiles that overlap by it give the bits of the whole image.

    Parameters
    ----------
    session : Session
        The open file.
    digest : str
        Of the file.

    Attributes
    ----------
    kind : str
        What it was trained for: `photo` or `document`.
    halo : int
        In pixels, a multiple of `grid`.
    grid : int
        Tiles start at multiples of this.
    fingerprint : str
        Differs wherever the bits of a result might.
    """

    def __init__(self, session: Session, digest: str) -> None:
        self._session = session
        self.device = session.device
        settings = session.record["denoiser"]
        self.kind: str = settings["kind"]
        self.halo: int = settings["halo"]
        self.grid: int = settings["grid"]
        self.interval: float = settings["interval"]
        self.fingerprint = f"onnx {self.device} {digest}"
        self._tile = TILE
        self._lock = threading.Lock()

    def restore(self, plane: Floats, noise: float, *, spread: bool = False) -> tuple[Floats, Floats | None]:
        """Restore a plane.

        Parameters
        ----------
        plane : ndarray
            Shape (H, W), mostly 0 to 1.
        noise : float
            Standard deviation of its noise in the same unit.
        spread : bool
            Also return the expected absolute error.

        Returns
        -------
        restored : ndarray
            Shape (H, W).
        spread : ndarray or None
            Half of the interval that holds the clean value of a pixel in nine of ten cases, in the same shape.
        """
        return self.restore_rows(mirrored(plane, self.halo, (self.halo, self.halo)), noise, spread=spread)

    def restore_rows(self, rows: Floats, noise: float, *, spread: bool = False) -> tuple[Floats, Floats | None]:
        """Restore the middle of `rows`; `halo` pixels at each side are context only.

        The first row of the middle must lie on the grid of the page.
        """
        height, width = (side - 2 * self.halo for side in rows.shape)
        restored = np.empty((height, width), np.float32)
        wide = np.empty((height, width), np.float32) if spread else None
        top = 0
        while top < height:
            size = self._tile
            step = size - 2 * self.halo
            bottom = min(top + step, height)
            left = 0
            while left < width:
                right = min(left + step, width)
                tile = rows[top : bottom + 2 * self.halo, left : right + 2 * self.halo]
                try:
                    found = self._run(tile, noise, spread=spread)
                except MemoryError as error:
                    self._shrink(size, error)
                    break
                inside = slice(self.halo, self.halo + bottom - top), slice(self.halo, self.halo + right - left)
                restored[top:bottom, left:right] = found[0][inside]
                if wide is not None:
                    wide[top:bottom, left:right] = found[1][inside] * np.float32(self.interval)
                left = right
            else:
                top = bottom
        return restored, wide

    def _run(self, tile: Floats, noise: float, *, spread: bool) -> list[Floats]:
        height, width = tile.shape
        # What is added never reaches the middle.
        filled = np.pad(tile, ((0, -height % self.grid), (0, -width % self.grid)), mode="edge")
        feeds = {"image": filled[None, None], "noise": np.full((1, 1, 1, 1), noise, np.float32)}
        wanted = ("restored", "spread") if spread else ("restored",)
        return [values[0, 0] for values in self._session.run(wanted, feeds)]

    def _shrink(self, size: int, error: MemoryError) -> None:
        """Go on with tiles of half the `size` that did not fit; other threads may have found the same."""
        with self._lock:
            if self._tile < size:
                return
            smaller = size // 2 // self.grid * self.grid
            if smaller < max(SMALLEST_TILE, 2 * self.halo + self.grid):
                raise VaeguardError(
                    f"not enough memory on {self.device} for a tile of {size}x{size} pixels; close other programs, or "
                    "use --device cpu"
                ) from error
            self._tile = smaller


def mirrored(plane: Floats, sides: int, ends: tuple[int, int]) -> Floats:
    """`plane` continued beyond its borders as in a mirror: by `sides` columns, and by `ends` rows above and below."""
    return np.pad(plane, (ends, (sides, sides)), mode="symmetric")


def read_denoiser(path: str | Path, device: str = "auto", threads: int | None = None) -> Denoiser | None:
    """Read a denoiser from an `.onnx` file, after checking every bit of it; None if it holds an anomaly model.

    Raises
    ------
    RefusedError
        The file is missing, damaged, or no model of vaeguard.
    UsageError
        `device` cannot be used.
    """
    session = Session(content := read_sealed(path), str(path), device, threads)
    if "denoiser" not in session.record:
        return None
    return Denoiser(session, hashlib.sha256(content).hexdigest())


def shipped_denoiser(kind: str, device: str = "auto", threads: int | None = None) -> Denoiser:
    """The denoiser for `photo` or `document` that comes with the package; its model card lies beside it.

    Raises
    ------
    RefusedError
        The installation is damaged.
    UsageError
        `device` cannot be used.
    """
    path = SHIPPED / f"{kind}.onnx"
    found = read_denoiser(path, device, threads)
    if found is None:
        raise RefusedError(f"{str(path)!r} is no denoiser; install vaeguard anew")
    return found
