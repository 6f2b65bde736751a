"""The denoiser that ONNX Runtime runs, tile by tile: strips of a plane in, clean strips out, without torch."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.devices import instead
from vaeguard.errors import RefusedError
from vaeguard.files import read_sealed
from vaeguard.restoration.noise import finest_noise, photo_noise, print_noise
from vaeguard.restoration.spec import STRIDES
from vaeguard.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

TILE = 1024
"""Side of a tile with its halo, in pixels; memory grows with its square."""
SMALLEST_TILE = 192
DIRECT_INPUTS, DIRECT_OUTPUTS = ("image", "noise"), ("restored", "spread")
SHIPPED = Path(__file__).parents[1] / "weights"


class Denoiser:
    """A denoiser exported to ONNX; it restores grey planes of any size.

    Each pixel depends only on those nearer than the halo, so tiles that overlap by it give the bits of the whole image.
    Beyond the borders of the image there is nothing, as around the patches of the training: continued as in a mirror,
    small images would take up to twice the time, and come out no better.

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
    grid : int
        Tiles start at multiples of this.
    ladder : dict or None
        The shape of the ladder VAE in the file, if there is one to draw samples from.
    interval : float
        So many times the spread that the network states hold nine of ten clean pixels.
    card : dict
        Where the weights come from.
    fingerprint : str
        Differs wherever the bits of a result might.
    """

    def __init__(self, session: Session, digest: str) -> None:
        self._whole = self._direct = session
        self.device = session.device
        settings = session.record["denoiser"]
        self.kind: str = settings["kind"]
        self.grid: int = settings["grid"]
        self.interval: float = settings["interval"]
        self.card: dict[str, Any] = session.record["card"]
        self.ladder: dict[str, Any] | None = settings.get("ladder")
        self.fingerprint = f"onnx {self.device} {digest}"
        self._grain: list[float] | None = settings.get("grain")
        self._halo: int = settings["halo"]
        self._tile = TILE
        self._lock = threading.Lock()
        self._sampler: Session | None = None
        if self.ladder:
            self._direct = session.part(DIRECT_INPUTS, DIRECT_OUTPUTS)

    def halo(self, samples: int = 0) -> int:
        """How many pixels away a pixel may still matter, for so many samples; a multiple of `grid`.

        Raises
        ------
        RefusedError
            There is no ladder VAE in the file to draw samples from.
        """
        if not samples:
            return -(-self._halo // self.grid) * self.grid
        if not self.ladder:
            raise RefusedError(f"the {self.kind} denoiser has no ladder VAE to draw samples from; leave out --samples")
        reach: int = max(self.ladder["halo"], self._halo)
        return -(-reach // self.grid) * self.grid

    def noise_of(self, plane: Floats) -> float:
        """The deviation of the noise of a plane of this denoiser's kind, shape (H, W), in the plane's unit.

        A denoiser that was adapted to a collection knows how wide its grain is, and measures by that.
        """
        if self._grain:
            return self._grain[1] * finest_noise(plane)
        return print_noise(plane) if self.kind == "document" else photo_noise(plane)

    def restore(
        self, plane: Floats, noise: float, *, spread: bool = False, samples: int = 0
    ) -> tuple[Floats, Floats | None]:
        """Restore a plane.

        Parameters
        ----------
        plane : ndarray
            Shape (H, W), mostly 0 to 1.
        noise : float
            Standard deviation of its noise in the same unit.
        spread : bool
            Also return how sure that is.
        samples : int
            Take the mean of so many samples of the posterior, instead of one direct pass; `spread` stays that of the
            direct pass.

        Returns
        -------
        restored : ndarray
            Shape (H, W).
        spread : ndarray or None
            Half of the interval that holds the clean value of a pixel in nine of ten cases, in the same shape.

        Raises
        ------
        MemoryError
            It does not suffice for the smallest tile.
        """
        return self.restore_rows(plane, noise, spread=spread, samples=samples)

    def restore_rows(
        self,
        rows: Floats,
        noise: float,
        *,
        spread: bool = False,
        samples: int = 0,
        start: int = 0,
        context: tuple[int, int] = (0, 0),
    ) -> tuple[Floats, Floats | None]:
        """Restore rows of a page to the bits that they have in the whole.

        Row `start` of the page, a multiple of `grid`, is the first to be restored. `context` says how many rows before
        it and after the last one are there for those between: `halo(samples)`, or fewer where the page ends.
        """
        if not samples:
            restored, wide = self._tiles(rows, context, self.halo(), lambda tile, *_: self._direct_tile(tile, noise))
            return restored, np.float32(self.interval) * wide if spread else None
        return self._sampled(rows, noise, samples, start, context, spread=spread)

    def _sampled(
        self, rows: Floats, noise: float, samples: int, start: int, context: tuple[int, int], *, spread: bool
    ) -> tuple[Floats, Floats | None]:
        halo, wide = self.halo(samples), None
        if spread:
            above, below = (max(0, side - self.halo()) for side in context)
            needed = rows[above : len(rows) - below]
            wide = self.restore_rows(needed, noise, spread=True, context=(context[0] - above, context[1] - below))[1]
        assert self.ladder
        session, latent = self._opened_sampler(), self.ladder["latent"]
        total = np.zeros((len(rows) - sum(context), rows.shape[1]), np.float32)
        for sample in range(samples):
            chance = _Chance(sample, start - context[0], rows.shape, latent)

            def draw(tile: Floats, top: int, left: int, chance: _Chance = chance) -> tuple[Floats, Floats]:
                feeds = {**_feeds(tile, noise), **chance.within(top, left, *tile.shape)}
                drawn = session.run(("sample",), feeds)[0][0, 0]
                return drawn, drawn

            total += self._tiles(rows, context, halo, draw)[0]
        return total / np.float32(samples), wide

    def _opened_sampler(self) -> Session:
        with self._lock:
            if self._sampler is None:
                inputs = (*DIRECT_INPUTS, *(f"chance_{stride}" for stride in STRIDES))
                self._sampler = self._whole.part(inputs, ("sample",))
            return self._sampler

    def _direct_tile(self, tile: Floats, noise: float) -> tuple[Floats, Floats]:
        restored, spread = self._direct.run(DIRECT_OUTPUTS, _feeds(tile, noise))
        return restored[0, 0], spread[0, 0]

    def _tiles(
        self,
        rows: Floats,
        context: tuple[int, int],
        halo: int,
        run: Callable[[Floats, int, int], tuple[Floats, Floats]],
    ) -> tuple[Floats, Floats]:
        """The two results of `run` for the rows without context, tile by tile; it takes a tile and where it starts.

        A tile reaches a halo further than what is taken of it, but not beyond the page: there the network pads as it
        did around the patches that it was trained on.
        """
        above = context[0]
        height, width = len(rows) - sum(context), rows.shape[1]
        rows = np.pad(rows, [(0, -side % self.grid) for side in rows.shape], mode="symmetric")
        results = np.empty((2, height, width), np.float32)
        top = 0
        while top < height:
            size = self._tile
            step = size - 2 * halo
            bottom = min(top + step, height)
            first, last = self._reach(above + top, above + bottom, halo)
            left = 0
            while left < width:
                right = min(left + step, width)
                begin, end = self._reach(left, right, halo)
                try:
                    found = run(rows[first:last, begin:end], first, begin)
                except MemoryError as error:
                    self._shrink(size, halo, error)
                    break
                at = above + top - first
                for result, values in zip(results, found, strict=True):
                    result[top:bottom, left:right] = values[at : at + bottom - top, left - begin : right - begin]
                left = right
            else:
                top = bottom
        return results[0], results[1]

    def _reach(self, start: int, stop: int, halo: int) -> tuple[int, int]:
        """Where a tile begins and ends of which `start` to `stop` are taken; slices end at the page by themselves."""
        return max(0, start - halo), -(-(stop + halo) // self.grid) * self.grid

    def _shrink(self, size: int, halo: int, error: MemoryError) -> None:
        """Go on with tiles of half the `size` that did not fit; other threads may have found the same."""
        with self._lock:
            if self._tile < size:
                return
            smaller = size // 2 // self.grid * self.grid
            if smaller < max(SMALLEST_TILE, 2 * halo + self.grid):
                raise MemoryError(
                    f"not enough memory on {self.device} for a tile of {size}x{size} pixels; close other programs"
                    f"{instead(self.device)}"
                ) from error
            self._tile = smaller


class _Chance:
    """Standard normal noise for the latents of some rows of a page, the same wherever tiles and strips begin."""

    def __init__(self, sample: int, first: int, shape: tuple[int, ...], latent: Sequence[int]) -> None:
        height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in shape)
        self.fields: dict[int, Floats] = {}
        for stride, channels in zip(STRIDES, latent, strict=True):
            rows = range(first // stride, (first + height) // stride)
            drawn = [
                np.random.default_rng((sample, stride, row)).standard_normal((width // stride, channels), np.float32)
                for row in rows
            ]
            self.fields[stride] = np.stack(drawn).transpose(2, 0, 1)

    def within(self, top: int, left: int, height: int, width: int) -> dict[str, Floats]:
        """What the sampler takes for a tile, all in pixels."""
        return {
            f"chance_{stride}": np.ascontiguousarray(
                field[None, :, top // stride : (top + height) // stride, left // stride : (left + width) // stride]
            )
            for stride, field in self.fields.items()
        }


def _feeds(tile: Floats, noise: float) -> dict[str, Floats]:
    return {"image": np.ascontiguousarray(tile)[None, None], "noise": np.full((1, 1, 1, 1), noise, np.float32)}


def read_denoiser(path: str | Path, device: str = "auto", threads: int | None = None) -> Denoiser | None:
    """Read a denoiser from an `.onnx` file, after checking every bit of it; None if it holds an anomaly model.

    Raises
    ------
    RefusedError
        The file is damaged, or no model of vaeguard.
    UsageError
        There is no such file, or `device` cannot be used.
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
    found = read_denoiser(path, device, threads) if path.is_file() else None
    if found is None:
        raise RefusedError(f"{str(path)!r} is missing or no denoiser; install vaeguard anew")
    return found
