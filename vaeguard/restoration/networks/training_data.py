"""The training data of a denoiser: pairs of scans, clean images that are degraded, or noisy scans alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.data.folders import list_images
from vaeguard.data.images import read_bytes
from vaeguard.errors import UnreadableError, UsageError
from vaeguard.restoration.formats.isolated import scan_pages
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.formats.scans import SCAN_SUFFIXES
from vaeguard.restoration.networks.batches import PatchSpec, page_batches, pair_batches, photo_batches, seen_batches
from vaeguard.restoration.networks.training import stein_estimate
from vaeguard.restoration.noise import grain_of, photo_noise, print_noise
from vaeguard.restoration.page import page_kind
from vaeguard.restoration.paper import divided
from vaeguard.settings.restoration import DEGRADATIONS, DenoiserSpec
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.restoration.networks.batches import Batch
    from vaeguard.restoration.networks.direct import DirectDenoiser

    Floats = npt.NDArray[np.float32]
    Levels = npt.NDArray[np.uint8]

MOST_PIXELS = 64_000_000
"""The most pixels of a collection in memory; larger collections are sampled."""
LARGEST_PAGE = 4_000_000
"""The most pixels of a page; a part of about so many pixels is cut from larger pages."""
HELD_OUT = 0.1
"""The share of the images that judge the result."""
JUDGED_BATCHES = 40
JUDGING_SEED = 1000
LEAST_ERROR = 1e-6
"""The least squared error, since an estimate from few patches may be negative."""
MOST_FIT = 0.9
"""The share of the images that must be at least as large as a patch."""
SMALLEST_PATCH = 16
"""The least side of a patch, in pixels."""
PAGE_SIDE = 640
"""The side of the parts that are cut from clean pages, in pixels."""


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
        The numbers of images to learn from, and to judge by.
    errors : list of (path, reason)
        Files that could not be used.
    learn, judged : callable
        Functions that return endless batches for a seed.
    grain : (float, float) or None
        The result of `grain_of` for the collection, for `adapt` alone, whose batches have no clean images.
    fingerprint : str
        SHA-256 (hex) of the images: a killed fit can be resumed with the same images only.
    """

    kind: str
    mode: str
    images: int
    held_out: int
    errors: list[tuple[str, str]]
    learn: Callable[[int], Iterator[Batch]] = field(repr=False)
    judged: Callable[[int], Iterator[Batch]] = field(repr=False)
    grain: tuple[float, float] | None = None
    fingerprint: str = ""

    __repr__ = brief

    def judge(self, direct: DirectDenoiser) -> tuple[float, float]:
        """The PSNR in dB of the noisy and of the restored images; without clean images by Stein's estimate."""
        device = next(direct.parameters()).device
        sums = np.zeros(2)
        batches = self.judged(JUDGING_SEED)
        with torch.no_grad():
            for _ in range(JUDGED_BATCHES):
                first, second, noise = (values.to(device) for values in next(batches))
                if self.grain:
                    sums += [float(second.square().mean()), float(stein_estimate(direct, first, second, noise).mean())]
                else:
                    restored = direct(second, noise)[0].clamp(0, 1)
                    sums += [float((image - first).square().mean()) for image in (second, restored)]
        before, after = -10 * np.log10(np.maximum(sums / JUDGED_BATCHES, LEAST_ERROR))
        return float(before), float(after)

    def with_truth(self, direct: DirectDenoiser, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of (clean, noisy, noise); without clean images, restored ones count as clean and get fresh grain."""
        device = next(direct.parameters()).device
        for first, second, noise in batches:
            if self.grain:
                with torch.no_grad():
                    restored = direct(first.to(device), noise.to(device))[0].clamp(0, 1).cpu()
                yield restored, restored + second, noise
            else:
                yield first, second, noise


@dataclass(frozen=True)
class _Scan:
    """One grey page, 0 to 1, with the clean page if the page is one of a pair."""

    path: str
    plane: Floats
    clean: Floats | None = None


def denoiser_source(
    *,
    noisy: str | Path | None = None,
    clean: str | Path | Sequence[Levels] | None = None,
    degrade: str | None = None,
    adapt: str | Path | None = None,
    spec: DenoiserSpec | None = None,
) -> DenoiserSource:
    """Open the training data of a denoiser, in one of three ways.

    `noisy` and `clean` are pairs. `clean` with `degrade` makes noisy images from clean ones. `adapt` needs no clean
    images; the denoiser learns the grain of the scans that are to be cleaned.

    Parameters
    ----------
    noisy, adapt : path or None
        Folders of scans, searched recursively.
    clean : path, sequence of ndarray, or None
        A folder of scans, with the names of those in `noisy` if that is given; or grey images, uint8 of shape (H, W).
    degrade : str or None
        `photo` (noise of all strengths), `gaussian:25` (noise with a standard deviation of 25 grey levels), or
        `document` (pages of print: stains, folds, fading and more).
    spec : DenoiserSpec or None
        The settings of patches, and the seed.

    Raises
    ------
    UsageError
        The parameters contradict each other, or there is nothing to train on.
    """
    spec = spec or DenoiserSpec()
    if adapt is not None:
        if noisy is not None or clean is not None or degrade is not None:
            raise UsageError("`adapt` needs no clean images; remove `noisy`, `clean` and `degrade`")
        return _adapted(adapt, spec)
    if noisy is not None:
        if degrade is not None or not isinstance(clean, str | Path):
            raise UsageError(
                "`noisy` needs `clean`, the folder of the same images without noise, and no other source; give only"
                " `noisy` and `clean`"
            )
        return _paired(Path(noisy), Path(clean), spec)
    if degrade is None or clean is None:
        raise UsageError(
            "a denoiser needs training images; give `noisy` and `clean`, or `clean` and `degrade`, or `adapt`"
        )
    return _degraded(clean, degrade, spec)


def _adapted(folder: str | Path, spec: DenoiserSpec) -> DenoiserSource:
    errors: list[tuple[str, str]] = []
    scans = _read([(path, None) for path in list_images([folder], SCAN_SUFFIXES)], spec.seed, errors)
    kinds = [page_kind(_levels(scan.plane)) for scan in scans]
    printed = {scan.path for scan, kind in zip(scans, kinds, strict=True) if kind == "document"}
    reason = (
        "it has a printed page, which was skipped, because the removal of stains can be learned only from clean pages;"
        " give `noisy` and `clean` instead of `adapt`"
    )
    errors += [(path, reason) for path in sorted(printed)]
    photos = [scan for scan, kind in zip(scans, kinds, strict=True) if kind == "photo"]
    learn, judge, patch = _halves(photos, spec, errors, folder)
    planes = [[scan.plane for scan in part] for part in (learn, judge or learn)]
    grain = grain_of(planes[0])
    return DenoiserSource(
        kind="photo",
        mode="adapt",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=lambda seed: seen_batches(planes[0], spec.seed + seed, patch, grain=grain),
        judged=lambda seed: seen_batches(planes[1], spec.seed + seed, patch, grain=grain),
        fingerprint=_fingerprint(learn, judge),
        grain=grain,
    )


def _paired(noisy: Path, clean: Path, spec: DenoiserSpec) -> DenoiserSource:
    for name, folder in (("noisy", noisy), ("clean", clean)):
        if not folder.is_dir():
            raise UsageError(f"`{name}` is {str(folder)!r}, which is not a folder; give the folder of the images")
    errors: list[tuple[str, str]] = []
    scans = _read(_pairs(noisy, clean, errors), spec.seed, errors)
    kinds = [page_kind(_levels(scan.clean)) for scan in scans if scan.clean is not None]
    kind = max(("photo", "document"), key=kinds.count)
    learn, judge, patch = _halves(scans, spec, errors, noisy)
    pairs = [[_pair(scan, kind) for scan in part] for part in (learn, judge)]
    return DenoiserSource(
        kind=kind,
        mode="pairs",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=lambda seed: pair_batches(pairs[0], spec.seed + seed, patch),
        judged=lambda seed: pair_batches(pairs[1] or pairs[0], spec.seed + seed, patch),
        fingerprint=_fingerprint(learn, judge),
    )


def _pairs(noisy: Path, clean: Path, errors: list[tuple[str, str]]) -> list[tuple[str, str | None]]:
    """Each noisy file with the clean file of its name, whatever the suffix; without exactly one, it is an error."""
    by_name: dict[Path, list[str]] = {}
    for path in list_images([clean], SCAN_SUFFIXES):
        by_name.setdefault(Path(path).relative_to(clean).with_suffix(""), []).append(path)
    names: list[tuple[str, str | None]] = []
    for path in list_images([noisy], SCAN_SUFFIXES):
        inside = Path(path).relative_to(noisy)
        others = by_name.get(inside.with_suffix(""), [])
        exact = str(clean / inside)
        if len(others) == 1 or exact in others:
            names.append((path, exact if exact in others else others[0]))
        elif others:
            listed = " and ".join(repr(Path(other).name) for other in others)
            errors.append((path, f"several images in {str(clean)!r} have its name ({listed}); keep only one of them"))
        else:
            errors.append((path, f"{str(clean)!r} has no image of that name"))
    return names


def _pair(scan: _Scan, kind: str) -> tuple[Floats, Floats, float]:
    """A pair as the denoiser sees it, documents divided by their paper, and the deviation of the noise."""
    assert scan.clean is not None
    if kind == "photo":
        return scan.plane, scan.clean, photo_noise(scan.plane)
    page = divided(scan.plane)
    return page, np.minimum(divided(scan.clean), np.float32(1)), print_noise(page)


def _degraded(clean: str | Path | Sequence[Levels], degrade: str, spec: DenoiserSpec) -> DenoiserSource:
    kind, _, level = degrade.partition(":")
    if kind not in ("photo", "document", "gaussian") or bool(level) != (kind == "gaussian"):
        raise UsageError(f"`degrade` is {degrade!r}; choose from {', '.join(DEGRADATIONS)}, such as gaussian:25")
    noise = _noise_level(degrade, level) if level else None
    errors: list[tuple[str, str]] = []
    if isinstance(clean, str | Path):
        scans = _read([(path, None) for path in list_images([clean], SCAN_SUFFIXES)], spec.seed, errors)
        where: str | Path = clean
    else:
        order = np.random.default_rng(spec.seed).permutation(len(clean))
        scans = [_Scan(f"image {k}", clean[k].astype(np.float32) / np.float32(255)) for k in order]
        where = "the images"
    learn, judge, patch = _halves(scans, spec, errors, where)

    def batches(part: list[_Scan]) -> Callable[[int], Iterator[Batch]]:
        if kind == "document":
            cutter = _Cutter(part)
            return lambda seed: page_batches(cutter, spec.seed + seed, patch)
        levels = [_levels(scan.plane) for scan in part]
        return lambda seed: photo_batches(levels, spec.seed + seed, patch, noise=noise, worn=kind == "photo")

    return DenoiserSource(
        kind="document" if kind == "document" else "photo",
        mode="degrade",
        images=len(learn),
        held_out=len(judge),
        errors=errors,
        learn=batches(learn),
        judged=batches(judge or learn),
        fingerprint=_fingerprint(learn, judge),
    )


def _noise_level(degrade: str, level: str) -> float:
    try:
        noise = float(level)
    except ValueError:
        noise = -1.0
    if not 0 < noise <= 255:
        raise UsageError(
            f"`degrade` is {degrade!r}, but {level!r} is not a standard deviation in levels; use 0 to 255, as in"
            " gaussian:25"
        )
    return noise / 255


class _Cutter:
    """Cuts parts of clean pages, divided by their paper."""

    def __init__(self, scans: Sequence[_Scan]) -> None:
        self.pages = [np.minimum(divided(scan.plane), np.float32(1)) for scan in scans]

    def __call__(self, rng: np.random.Generator) -> Floats:
        page = self.pages[rng.integers(len(self.pages))]
        page = np.pad(page, [(0, max(0, PAGE_SIDE - side)) for side in page.shape], constant_values=1)
        top, left = (rng.integers(side - PAGE_SIDE + 1) for side in page.shape)
        return page[top : top + PAGE_SIDE, left : left + PAGE_SIDE]


def _halves(
    scans: list[_Scan], spec: DenoiserSpec, errors: list[tuple[str, str]], where: str | Path
) -> tuple[list[_Scan], list[_Scan], PatchSpec]:
    """Scans to learn from, scans to judge by, and the drawing of patches; `scans` are in random order already.

    Patches are as large as nine of ten scans allow; smaller scans are listed among the errors.
    """
    sides = [min(scan.plane.shape) for scan in scans]
    size = min(spec.patch_size, int(np.quantile(sides, 1 - MOST_FIT, method="lower")) // 8 * 8 if sides else 0)
    if size < SMALLEST_PATCH:
        reason = f" ({errors[0][0]!r}: {errors[0][1]})" if errors else ""
        raise UsageError(
            f"{str(where)!r} contains too few images of at least 16x16 pixels to train on{reason}; give larger images"
        )
    large = [scan for scan, side in zip(scans, sides, strict=True) if side >= size]
    errors += [
        (scan.path, f"it is smaller than the {size} pixels of a patch")
        for scan, side in zip(scans, sides, strict=True)
        if side < size
    ]
    held_out = min(len(large) - 1, max(1, round(HELD_OUT * len(large)))) if len(large) > 1 else 0
    return large[held_out:], large[:held_out], PatchSpec(size=size, batch=spec.batch_size)


def _fingerprint(*parts: Sequence[_Scan]) -> str:
    digest = hashlib.sha256()
    for scan in (scan for part in parts for scan in part):
        for plane in (scan.plane, scan.clean):
            if plane is not None:
                digest.update(plane.tobytes())
    return digest.hexdigest()


def _read(names: Sequence[tuple[str, str | None]], seed: int, errors: list[tuple[str, str]]) -> list[_Scan]:
    """Grey pages of scans, each with the clean page if there are pairs, in random order, up to `MOST_PIXELS` pixels.

    Unreadable scans, and whole pairs whose pages do not agree, go to `errors`.
    """
    rng = np.random.default_rng(seed)
    scans: list[_Scan] = []
    pixels = 0
    for number in rng.permutation(len(names)):
        path, clean = names[number]
        try:
            pages = _pages(path, clean, rng)
            # If one page of a pair is missing, the pages before it may be matched wrongly as well.
            for scan in list(pages) if clean else pages:
                scans.append(scan)
                pixels += scan.plane.size * (1 if clean is None else 2)
                if pixels > MOST_PIXELS:
                    return scans
        except UnreadableError as error:
            errors.append((error.path, error.reason))
    return scans


def _pages(path: str, clean: str | None, rng: np.random.Generator) -> Iterator[_Scan]:
    """The pages of a scan with those of the clean file; a part is cut from large pages.

    Raises
    ------
    UnreadableError
        A file cannot be read, or the two do not agree.
    """
    for plane, other in _side_by_side(path, clean):
        if other is not None and other.shape != plane.shape:
            sizes = f"its size (height, width) is {plane.shape}, but that of {clean!r} is {other.shape}"
            raise UnreadableError(path, f"{sizes}; give images of the same size")
        rows = max(1, min(plane.shape[0], LARGEST_PAGE // plane.shape[1]))
        part = slice(top := int(rng.integers(plane.shape[0] - rows + 1)), top + rows)
        yield _Scan(path, plane[part].copy(), None if other is None else other[part].copy())


def _side_by_side(path: str, clean: str | None) -> Iterator[tuple[Floats, Floats | None]]:
    """The pages of a scan, each with that of the clean file, if there is one.

    Raises
    ------
    UnreadableError
        A file cannot be read, or the files have different numbers of pages.
    """
    if clean is None:
        yield from ((page, None) for page in _grey_pages(path))
        return
    for page, other in zip_longest(_grey_pages(path), _grey_pages(clean)):
        if page is None or other is None:
            more = "more" if other is None else "fewer"
            raise UnreadableError(
                path, f"it has {more} grey or colour pages than {clean!r}; both files must have the same number"
            )
        yield page, other


def _grey_pages(path: str) -> Iterator[Floats]:
    """The pages of a scan that have shades, as the mean of their colours, 0 to 1.

    Raises
    ------
    UnreadableError
        The scan cannot be read, or has no such page.
    """
    any_page = False
    for page in scan_pages(read_bytes(path), path):
        if page.pixels.dtype == np.bool_:
            continue
        any_page = True
        full = np.float32(np.iinfo(page.pixels.dtype).max)
        yield colours_of(page.pixels).mean(axis=2, dtype=np.float32) / full
    if not any_page:
        raise UnreadableError(path, "it has no page in grey or colour; leave this file out")


def _levels(page: Floats) -> Levels:
    return np.round(255 * page).astype(np.uint8)
