"""What a denoiser is trained on: pairs of scans, clean images that are degraded, or noisy scans alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.denoise_spec import DEGRADATIONS, DenoiserSpec
from vaeguard.denoiser_batches import PatchSpec, page_batches, pair_batches, photo_batches, seen_batches
from vaeguard.denoiser_training import stein_estimate
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.folders import list_images
from vaeguard.images import read_bytes
from vaeguard.noise import grain_of, photo_noise, print_noise
from vaeguard.paper import block_pixels
from vaeguard.restoration import divided_page, page_kind
from vaeguard.scans import SCAN_SUFFIXES, scan_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.denoiser_batches import Batch
    from vaeguard.direct import DirectDenoiser

    Floats = npt.NDArray[np.float32]
    Levels = npt.NDArray[np.uint8]

MOST_PIXELS = 64_000_000
"""Of a collection, so many pixels are held in memory; larger collections are sampled."""
LARGEST_PAGE = 4_000_000
"""Of a larger page, a part of so many pixels is taken."""
HELD_OUT = 0.1
JUDGED_BATCHES = 40
PAGE_SIDE = 640
LETTERS_PER_BLOCK = 3


@dataclass(frozen=True)
class DenoiserSource:
    """Batches to learn from and to judge by.

    Attributes
    ----------
    kind : str
        `photo` or `document`.
    mode : str
        `pairs`, `degrade` or `adapt`; the batches of `adapt` have no clean images.
    images, held_out : int
        To learn from, and to judge by.
    errors : list of (path, reason)
        Files that could not be used.
    learn, judged : callable
        Endless batches, from a seed.
    grain_width : float
        Of the grain to adapt to, in pixels.
    """

    kind: str
    mode: str
    images: int
    held_out: int
    errors: list[tuple[str, str]]
    learn: Callable[[int], Iterator[Batch]]
    judged: Callable[[int], Iterator[Batch]]
    grain_width: float = 0.0

    def judge(self, direct: DirectDenoiser) -> tuple[float, float]:
        """PSNR in dB of what goes in and of what comes out; without clean images by Stein's estimate."""
        device = next(direct.parameters()).device
        sums = np.zeros(2)
        batches = self.judged(1)
        with torch.no_grad():
            for _ in range(JUDGED_BATCHES):
                first, second, noise = (each.to(device) for each in next(batches))
                if self.mode == "adapt":
                    sums += [float(second.square().mean()), float(stein_estimate(direct, first, second, noise).mean())]
                else:
                    restored = direct(second, noise)[0].clamp(0, 1)
                    sums += [float((each - first).square().mean()) for each in (second, restored)]
        before, after = -10 * np.log10(np.maximum(sums / JUDGED_BATCHES, 1e-10))
        return float(before), float(after)

    def with_truth(self, direct: DirectDenoiser, seed: int) -> Iterator[Batch]:
        """Batches of (clean, noisy, noise); where nothing is clean, what is restored is, and gets fresh grain."""
        device = next(direct.parameters()).device
        for first, second, noise in self.judged(seed):
            if self.mode == "adapt":
                with torch.no_grad():
                    restored = direct(first.to(device), noise.to(device))[0].clamp(0, 1).cpu()
                yield restored, restored + second, noise
            else:
                yield first, second, noise


def denoiser_source(
    *,
    noisy: str | Path | None = None,
    clean: str | Path | Sequence[Levels] | None = None,
    degrade: str | None = None,
    adapt: str | Path | None = None,
    spec: DenoiserSpec | None = None,
) -> DenoiserSource:
    """Find what to train a denoiser on. What is given says how.

    `noisy` and `clean` are pairs; `clean` with `degrade` makes noisy images up; `adapt` needs no clean images at all,
    and learns the grain of the scans that are to be cleaned.

    Parameters
    ----------
    noisy, adapt : path or None
        Folders of scans, searched recursively.
    clean : path, sequence of ndarray, or None
        A folder of scans, where there is `noisy` with the same names; or grey images, uint8 of shape (H, W).
    degrade : str or None
        `photo` (noise of all strengths), `gaussian:25` (noise of a deviation of 25 levels of 255), or `document`
        (pages of print: stains, folds, fading and more).
    spec : DenoiserSpec or None
        Patches and seed.

    Raises
    ------
    UsageError
        The sources do not go together, or hold nothing to train on.
    """
    spec = spec or DenoiserSpec()
    if adapt is not None:
        if noisy is not None or degrade is not None:
            raise UsageError("--adapt needs no clean images; leave out --noisy, --clean and --degrade")
        return _adapted(adapt, spec)
    if noisy is not None:
        if degrade is not None or not isinstance(clean, str | Path):
            raise UsageError("--noisy goes with --clean, the folder of the same images without noise, and nothing else")
        return _paired(Path(noisy), Path(clean), spec)
    if degrade is None or clean is None:
        raise UsageError(
            "--model ladder cleans scans: give --noisy and --clean, or clean images and --degrade photo, or --adapt"
        )
    return _degraded(clean, degrade, spec)


def _adapted(folder: str | Path, spec: DenoiserSpec) -> DenoiserSource:
    pages, errors = _pages(list_images([folder], SCAN_SUFFIXES), spec)
    for name, _ in (page for page in pages if page_kind(_levels(page[1])) == "document"):
        errors.append((name, "it is a page of print: its stains can only be learned from clean pages; use pairs"))
    refused = {name for name, _ in errors}
    images = [page for name, page in pages if name not in refused]
    learn, judge, patch = _halves(images, spec, errors, str(folder))
    return DenoiserSource(
        kind="photo",
        mode="adapt",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=lambda seed: seen_batches(learn, spec.seed + seed, patch),
        judged=lambda seed: seen_batches(judge or learn, spec.seed + seed, patch),
        grain_width=grain_of(images)[0],
    )


def _paired(noisy: Path, clean: Path, spec: DenoiserSpec) -> DenoiserSource:
    errors: list[tuple[str, str]] = []
    pairs: list[tuple[Floats, Floats]] = []
    found = {str(Path(path).relative_to(clean).with_suffix("")): path for path in list_images([clean], SCAN_SUFFIXES)}
    paths = list_images([noisy], SCAN_SUFFIXES)
    kinds: list[str] = []
    pixels = 0
    for path in np.random.default_rng(spec.seed).permutation(paths).tolist():
        other = found.get(str(Path(path).relative_to(noisy).with_suffix("")))
        if other is None:
            errors.append((path, f"there is no image of that name in {str(clean)!r}"))
            continue
        try:
            before, after = (_grey_page(each) for each in (path, other))
        except UnreadableError as error:
            errors.append((error.path, error.reason))
            continue
        if before.shape != after.shape:
            errors.append((path, f"it is {before.shape} and {other!r} {after.shape}, height and width"))
            continue
        kinds.append(page_kind(_levels(after)))
        pairs.append((before, after))
        pixels += before.size
        if pixels > MOST_PIXELS:
            break
    kind = max(("photo", "document"), key=kinds.count)
    told = [_with_noise(before, after, kind) for before, after in pairs]
    learn, judge, patch = _halves(told, spec, errors, str(noisy))
    return DenoiserSource(
        kind=kind,
        mode="pairs",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=lambda seed: pair_batches(learn, spec.seed + seed, patch),
        judged=lambda seed: pair_batches(judge or learn, spec.seed + seed, patch),
    )


def _with_noise(before: Floats, after: Floats, kind: str) -> tuple[Floats, Floats, float]:
    """A pair as the denoiser sees it, a document divided by its paper, and how strong its noise is."""
    if kind == "photo":
        return before, after, photo_noise(before)
    divided = divided_page(before)
    return divided, np.minimum(divided_page(after), np.float32(1)), print_noise(divided)


def _degraded(clean: str | Path | Sequence[Levels], degrade: str, spec: DenoiserSpec) -> DenoiserSource:
    kind, _, level = degrade.partition(":")
    if kind not in ("photo", "document", "gaussian") or bool(level) != (kind == "gaussian"):
        raise UsageError(f"--degrade {degrade!r} is none of {', '.join(DEGRADATIONS)}, such as gaussian:25")
    try:
        noise = float(level) / 255 if level else None
    except ValueError as error:
        raise UsageError(f"--degrade {degrade!r}: {level!r} is no number of levels, such as gaussian:25") from error
    errors: list[tuple[str, str]] = []
    if isinstance(clean, str | Path):
        pages, errors = _pages(list_images([clean], SCAN_SUFFIXES), spec)
        images = [page for _, page in pages]
    else:
        images = [image.astype(np.float32) / np.float32(255) for image in clean]
    learn, judge, patch = _halves(images, spec, errors, str(clean) if isinstance(clean, str | Path) else "the images")

    def batches(some: Sequence[Floats]) -> Callable[[int], Iterator[Batch]]:
        if kind == "document":
            return lambda seed: page_batches(_Cutter(some), spec.seed + seed, patch)
        return lambda seed: photo_batches([_levels(image) for image in some], spec.seed + seed, patch, noise=noise)

    return DenoiserSource(
        kind="document" if kind == "document" else "photo",
        mode="degrade",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=batches(learn),
        judged=batches(judge or learn),
    )


class _Cutter:
    """Cuts parts of clean pages, divided by their paper, and tells how large their letters may be."""

    def __init__(self, pages: Sequence[Floats]) -> None:
        self.pages = [np.minimum(divided_page(page), np.float32(1)) for page in pages]

    def __call__(self, rng: np.random.Generator) -> tuple[Floats, int]:
        page = self.pages[rng.integers(len(self.pages))]
        letters = LETTERS_PER_BLOCK * block_pixels(page.shape[1])
        page = np.pad(page, [(0, max(0, PAGE_SIDE - side)) for side in page.shape], constant_values=1)
        top, left = (rng.integers(side - PAGE_SIDE + 1) for side in page.shape)
        return page[top : top + PAGE_SIDE, left : left + PAGE_SIDE], letters


def _halves(
    images: list[Any], spec: DenoiserSpec, errors: list[tuple[str, str]], where: str
) -> tuple[list[Any], list[Any], PatchSpec]:
    """Images to learn from, those to judge by, and how patches are drawn; all are shuffled already."""
    sides = [min(_plane(image).shape) for image in images]
    size = min(spec.patch_size, max(sides, default=0) // 8 * 8)
    if size < 16:
        reason = f" ({errors[0][0]!r}: {errors[0][1]})" if errors else ""
        raise UsageError(f"{where!r} holds nothing of at least 16x16 pixels to train on{reason}; give larger images")
    large = [image for image, side in zip(images, sides, strict=True) if side >= size]
    apart = min(len(large) - 1, max(1, round(HELD_OUT * len(large)))) if len(large) > 1 else 0
    return large[apart:], large[:apart], PatchSpec(size=size, batch=spec.batch_size)


def _plane(image: Any) -> Floats:
    plane: Floats = image[0] if isinstance(image, tuple) else image
    return plane


def _pages(paths: list[str], spec: DenoiserSpec) -> tuple[list[tuple[str, Floats]], list[tuple[str, str]]]:
    """Grey pages in random order, as many as memory may hold, and what could not be read."""
    errors: list[tuple[str, str]] = []
    pages: list[tuple[str, Floats]] = []
    pixels = 0
    rng = np.random.default_rng(spec.seed)
    for path in rng.permutation(paths).tolist():
        try:
            pages.append((path, _part(_grey_page(path), rng)))
        except UnreadableError as error:
            errors.append((path, error.reason))
            continue
        pixels += pages[-1][1].size
        if pixels > MOST_PIXELS:
            break
    return pages, errors


def _part(page: Floats, rng: np.random.Generator) -> Floats:
    """A part of a page that would be too large."""
    rows = max(1, min(page.shape[0], LARGEST_PAGE // page.shape[1]))
    top = int(rng.integers(page.shape[0] - rows + 1))
    return page[top : top + rows]


def _grey_page(path: str) -> Floats:
    """The first page of a scan, as the mean of its colours, 0 to 1.

    Raises
    ------
    UnreadableError
        It cannot be read, or is bilevel.
    """
    try:
        page = next(scan_pages(read_bytes(path), path))
    except (StopIteration, RefusedError) as error:
        raise UnreadableError(path, str(error) or "it has no page that can be restored") from error
    if page.pixels.dtype == np.bool_:
        raise UnreadableError(path, "it is bilevel and has no grain; leave it out")
    full = np.float32(np.iinfo(page.pixels.dtype).max)
    planes = page.pixels[..., None] if page.pixels.ndim == 2 else page.pixels
    colours = planes[..., : planes.shape[2] - (planes.shape[2] in (2, 4))]
    grey: Floats = colours.mean(axis=2, dtype=np.float32) / full
    return grey


def _levels(page: Floats) -> Levels:
    return np.round(255 * page).astype(np.uint8)
