"""A denoiser in ONNX Runtime, without torch: strips of an image in, clean strips out, tile by tile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.engines.engine import Engine
from vaeguard.engines.sessions import open_session
from vaeguard.errors import RefusedError
from vaeguard.restoration.denoiser_record import read_denoiser_record
from vaeguard.restoration.noise import CELL, finest_noise, photo_noise, print_noise
from vaeguard.settings.restoration import ESTIMATES, STRIDES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from vaeguard.engines.sessions import Session
    from vaeguard.restoration.denoiser_record import DenoiserRecord, LadderRecord

    Floats = npt.NDArray[np.float32]

TILE = 1024
"""The side of a tile with its halo, in pixels; memory grows with its square."""
SMALLEST_TILE = 192
ESTIMATED_SIDE = 1024
"""The side of the largest part of an image whose noise is estimated at a time, in pixels."""
DIRECT_INPUTS = ("image", "noise")
DIRECT_OUTPUTS = ("restored", "spread")
SAMPLES = ("sample", "kl")
"""The outputs of a ladder VAE."""
SHIPPED = Path(__file__).parents[1] / "weights"


class Denoiser(Engine):
    """A denoiser exported to ONNX; it restores grey planes, or red, green and blue together, of any size.

    Each pixel depends only on pixels nearer than the halo, so tiles that overlap by the halo give the bits of the whole
    image. The image is not continued beyond its borders, like the patches of the training: with mirrored borders, small
    images would take up to twice the time and come out no better.

    Parameters
    ----------
    session : Session
        The open file.

    Raises
    ------
    RefusedError
        The file is not a denoiser.

    Attributes
    ----------
    kind : str
        The kind of page that the denoiser was trained for: `photo`, `colour` or `document`.
    planes : int
        1 for grey planes, 3 for red, green and blue.
    levels : int
        The number of deviations that describe the noise: 1 in grey; 2 in colour, for brightness and for differences of
        colours.
    grid : int
        Tiles start at multiples of this.
    ladder : LadderRecord or None
        The shape of the ladder VAE in the file; None if there is none to draw samples from.
    interval : float
        The factor from the spread that the network states to half of an interval with nine of ten clean pixels.
    card : dict
        The origin of the weights.
    """

    def __init__(self, session: Session) -> None:
        record = read_denoiser_record(session.record, session.name)
        self._whole = self._direct = session
        self.device = session.device
        self.kind, self.planes, self.grid, self.interval = record.kind, record.planes, record.grid, record.interval
        self.levels = 1 if self.planes == 1 else 2
        self.estimates = record.estimator is not None
        self.card: dict[str, Any] = record.card
        self.ladder: LadderRecord | None = record.ladder
        self._grain, self._halo, self._noise_map = record.grain, record.halo, record.noise_map
        self._tile = TILE
        self._lock = threading.Lock()
        self._sampler: Session | None = None
        _check_values(session, record)
        self._estimator = session.part(("image",), ESTIMATES) if self.estimates else None
        if self.ladder or self.estimates:
            self._direct = session.part(DIRECT_INPUTS, DIRECT_OUTPUTS)

    @property
    def fingerprint(self) -> str:
        """A digest of the file, with the device."""
        return self._whole.fingerprint

    def halo(self, samples: int = 0) -> int:
        """The largest distance in pixels at which a pixel may matter, as a multiple of `grid`.

        `samples` is the number of samples, as for `restore`.

        Raises
        ------
        RefusedError
            The file has no ladder VAE to draw samples from.
        """
        if not samples:
            return -(-self._halo // self.grid) * self.grid
        if not self.ladder:
            raise RefusedError(f"the {self.kind} denoiser has no ladder VAE to sample from; set `samples` to 0")
        reach = max(self.ladder.halo, self._halo)
        return -(-reach // self.grid) * self.grid

    def noise_of(self, plane: Floats) -> float:
        """The deviation of the noise of a plane of this denoiser's kind, shape (H, W), in the plane's unit.

        A denoiser that was adapted to a collection knows the width of its grain, and measures by this width.
        """
        if self._grain:
            return self._grain[1] * finest_noise(plane)
        return print_noise(plane) if self.kind == "document" else photo_noise(plane)

    def estimate(self, image: Floats) -> tuple[Floats, Floats]:
        """Estimate the noise of an image in each cell of 8x8 pixels.

        Parameters
        ----------
        image : ndarray
            Shape (planes, H, W), 0 to 1; rows and columns beyond a multiple of 8 are left out.

        Returns
        -------
        log_deviation : ndarray
            The logarithm of the deviation of the noise plus half a level, in levels of 0 to 255, shape
            (levels, H // 8, W // 8).
        log_precision : ndarray
            The logarithm of the precision of `log_deviation`, 1 over its expected squared error, in the same shape.

        Raises
        ------
        RefusedError
            The file has no estimator.
        """
        if self._estimator is None:
            raise RefusedError(f"the {self.kind} denoiser cannot estimate noise; give `noise`")
        height, width = (side // CELL for side in image.shape[1:])
        estimates = np.empty((2, self.levels, height, width), np.float32)
        side = ESTIMATED_SIDE // CELL
        for top in range(0, height, side):
            for left in range(0, width, side):
                bottom, right = min(top + side, height), min(left + side, width)
                part = image[None, :, CELL * top : CELL * bottom, CELL * left : CELL * right]
                shape = (1, self.levels, bottom - top, right - left)
                outputs = self._estimator.run(ESTIMATES, {"image": np.ascontiguousarray(part)}, (shape, shape))
                estimates[:, :, top:bottom, left:right] = [output[0] for output in outputs]
        return estimates[0], estimates[1]

    def restore(
        self, image: Floats, noise: float | Floats, *, spread: bool = False, samples: int = 0
    ) -> tuple[Floats, Floats | None]:
        """Restore an image.

        Parameters
        ----------
        image : ndarray
            Shape (H, W), or (3, H, W) in colour; mostly 0 to 1.
        noise : float or ndarray
            The standard deviation of the noise in the same unit; or a map at half the resolution, with odd sides
            rounded up: shape (H / 2, W / 2), in colour (2, H / 2, W / 2) for brightness and differences of colours.
        spread : bool
            Also return the uncertainty of each pixel.
        samples : int
            The number of samples of the posterior whose mean is taken, instead of one direct pass; `spread` stays that
            of the direct pass.

        Returns
        -------
        restored : ndarray
            In the shape of `image`.
        spread : ndarray or None
            Half of the interval that holds the clean value of a pixel in nine of ten cases, in colour that of the mean
            of its planes: shape (H, W).

        Raises
        ------
        OutOfMemoryError
            Even the smallest tile does not fit into memory.
        """
        return self.restore_rows(image, noise, spread=spread, samples=samples)

    def restore_rows(
        self,
        rows: Floats,
        noise: float | Floats,
        *,
        spread: bool = False,
        samples: int = 0,
        start: int = 0,
        context: tuple[int, int] = (0, 0),
    ) -> tuple[Floats, Floats | None]:
        """Restore rows of a page to the same bits as in the whole page.

        Row `start` of the page, a multiple of `grid`, is the first to be restored. `context` is the number of rows
        before and after the restored ones that are given as context: `halo(samples)`, or fewer at the ends of the page.
        A map of noise covers all rows, context included.
        """
        if not samples:
            noise_of_tile = self._noise_of_tiles(noise, rows)
            restored, deviations = self._tiles(
                rows,
                context,
                self.halo(),
                lambda tile, top, left: self._direct_tile(tile, noise_of_tile(tile, top, left)),
            )
            return restored, np.float32(self.interval) * deviations if spread else None
        return self._sampled(rows, noise, samples, start, context, spread=spread)

    def _sampled(
        self, rows: Floats, noise: float | Floats, samples: int, start: int, context: tuple[int, int], *, spread: bool
    ) -> tuple[Floats, Floats | None]:
        halo, half_widths = self.halo(samples), None
        if spread:
            above, below = (max(0, side - self.halo()) for side in context)
            needed, near = slice(above, len(rows) - below), noise
            if np.shape(noise)[-2:] not in {(), (1, 1)}:
                near = np.asarray(noise)[..., above // 2 : -(-needed.stop // 2), :]
            shorter = context[0] - above, context[1] - below
            half_widths = self.restore_rows(rows[needed], near, spread=True, context=shorter)[1]
        assert self.ladder
        session, latent = self._opened_sampler(), self.ladder.latent
        noise_of_tile = self._noise_of_tiles(noise, rows)
        total = np.zeros((len(rows) - sum(context), rows.shape[1]), np.float32)
        for sample in range(samples):
            latent_noise = _LatentNoise(sample, start - context[0], rows.shape, latent)

            def draw(
                tile: Floats, top: int, left: int, latent_noise: _LatentNoise = latent_noise
            ) -> tuple[Floats, Floats]:
                feeds = {**_feeds(tile, noise_of_tile(tile, top, left)), **latent_noise.within(top, left, *tile.shape)}
                drawn = _finite(session, session.run(("sample",), feeds, ((1, 1, *tile.shape),)))[0][0, 0]
                return drawn, drawn

            total += self._tiles(rows, context, halo, draw)[0]
        return total / np.float32(samples), half_widths

    def _noise_of_tiles(self, noise: float | Floats, rows: Floats) -> Callable[[Floats, int, int], Floats]:
        """A function that returns the noise of a tile, which starts at a row and a column, as the network takes it."""
        whole = np.asarray(noise, np.float32)
        if not self._noise_map:
            return lambda *_: np.full((1, 1, 1, 1), whole.mean(), np.float32)
        if whole.ndim == 0:
            whole = np.broadcast_to(whole, (self.levels, 1, 1))
        whole = whole[None] if whole.ndim == 2 else whole
        if whole.shape[1:] != (1, 1):
            sides = (-(-side // self.grid) * self.grid // 2 for side in rows.shape[-2:])
            ends = [(0, wanted - side) for wanted, side in zip(sides, whole.shape[1:], strict=True)]
            whole = np.pad(whole, [(0, 0), *ends], mode="edge")

        def noise_of_tile(tile: Floats, top: int, left: int) -> Floats:
            height, width = (side // 2 for side in tile.shape[-2:])
            part = whole
            if whole.shape[1:] != (1, 1):
                part = whole[:, top // 2 : top // 2 + height, left // 2 : left // 2 + width]
            return np.ascontiguousarray(np.broadcast_to(part, (self.levels, height, width)))[None]

        return noise_of_tile

    def _opened_sampler(self) -> Session:
        with self._lock:
            if self._sampler is None:
                inputs = (*DIRECT_INPUTS, *map(latent_input, STRIDES))
                self._sampler = self._whole.part(inputs, ("sample",))
            return self._sampler

    def _direct_tile(self, tile: Floats, noise: Floats) -> tuple[Floats, Floats]:
        size = tile.shape[-2:]
        shapes = (1, self.planes, *size), (1, 1, *size)
        restored, spread = _finite(self._direct, self._direct.run(DIRECT_OUTPUTS, _feeds(tile, noise), shapes))
        return restored[0] if tile.ndim == 3 else restored[0, 0], spread[0, 0]

    def _tiles(
        self,
        rows: Floats,
        context: tuple[int, int],
        halo: int,
        run: Callable[[Floats, int, int], tuple[Floats, Floats]],
    ) -> tuple[Floats, Floats]:
        """The two results of `run` for the rows without context, tile by tile.

        `run` takes a tile, and the row and column where it starts. A tile has a halo around the part that is used, but
        ends at the borders of the page, where the network pads as it did around its training patches.
        """
        above = context[0]
        height, width = rows.shape[-2] - sum(context), rows.shape[-1]
        ends = [(0, -side % self.grid) for side in rows.shape[-2:]]
        rows = np.pad(rows, [(0, 0)] * (rows.ndim - 2) + ends, mode="symmetric")
        results = np.empty((*rows.shape[:-2], height, width), np.float32), np.empty((height, width), np.float32)
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
                    outputs = run(rows[..., first:last, begin:end], first, begin)
                except MemoryError as error:
                    least = max(SMALLEST_TILE, 2 * halo + self.grid)
                    smaller = self.smaller(size, least, f"a tile of {size}x{size} pixels", error)
                    # Another thread may have shrunk the tile further.
                    self._tile = min(self._tile, smaller // self.grid * self.grid)
                    break
                at = above + top - first
                for result, values in zip(results, outputs, strict=True):
                    part = values[..., at : at + bottom - top, left - begin : right - begin]
                    result[..., top:bottom, left:right] = part
                left = right
            else:
                top = bottom
        return results[0], results[1]

    def _reach(self, start: int, stop: int, halo: int) -> tuple[int, int]:
        """The begin and end of a tile whose part `start` to `stop` is used; the end may lie beyond the page."""
        return max(0, start - halo), -(-(stop + halo) // self.grid) * self.grid


def _check_values(session: Session, record: DenoiserRecord) -> None:
    """Refuse a file whose inputs and outputs are not those of its record."""
    channels, outputs = {"image": record.planes, "noise": record.levels}, [*DIRECT_OUTPUTS]
    if record.estimator:
        outputs += ESTIMATES
    if record.ladder:
        channels |= {latent_input(stride): size for stride, size in zip(STRIDES, record.ladder.latent, strict=True)}
        outputs += SAMPLES
    inputs = {name: ("float32", size) for name, size in channels.items()}
    session.check_values(inputs, dict.fromkeys(outputs, "float32"))


def _finite(session: Session, results: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Results of a network, none of them NaN or infinite, which no pixel can be."""
    if not all(np.isfinite(result).all() for result in results):
        raise RefusedError(f"the denoiser {session.name!r} gives values that are not finite; fit it again")
    return results


def latent_input(stride: int) -> str:
    """The name of the input that holds the noise of the latent of this stride."""
    return f"chance_{stride}"


class _LatentNoise:
    """Standard normal noise for the latents of some rows of a page, which does not depend on tiles and strips."""

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
        """The inputs of the sampler for a tile, whose place and size are in pixels."""
        return {
            latent_input(stride): np.ascontiguousarray(
                field[None, :, top // stride : (top + height) // stride, left // stride : (left + width) // stride]
            )
            for stride, field in self.fields.items()
        }


def _feeds(tile: Floats, noise: Floats) -> dict[str, Floats]:
    planes = tile if tile.ndim == 3 else tile[None]
    return {"image": np.ascontiguousarray(planes)[None], "noise": noise}


def read_denoiser(path: str | Path, device: str = "auto", threads: int | None = None) -> Denoiser:
    """Read a denoiser from an `.onnx` file, after checking the digest of the file.

    Raises
    ------
    RefusedError
        The file is damaged, or not a denoiser of vaeguard.
    UsageError
        There is no such file, or `device` cannot be used.
    """
    return Denoiser(open_session(path, device, threads))


def shipped_denoiser(kind: str, device: str = "auto", threads: int | None = None) -> Denoiser:
    """The denoiser for `photo` (grey), `colour` or `document` that comes with the package, beside its model card.

    Raises
    ------
    RefusedError
        The installation is damaged.
    UsageError
        `device` cannot be used.
    """
    path = SHIPPED / f"{kind}.onnx"
    if not path.is_file():
        raise RefusedError(f"{str(path)!r} is missing; reinstall vaeguard")
    return read_denoiser(path, device, threads)
