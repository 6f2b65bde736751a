"""Random wear of clean pages and photographs, as time and scanners cause it, for training on clean images.

Everything random is drawn from one generator, so the same seed gives the same wear. The ideas are common in the field
(ocrodeg, Augraphy, BSRGAN); each is a few array operations here.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Rng = np.random.Generator


def degrade_document(page: Floats, rng: Rng, *, other: Floats | None = None) -> tuple[Floats, Floats]:
    """Wear a clean page by faded ink, stained, folded and unevenly lit paper, print from the back, and a scanner.

    Parameters
    ----------
    page : ndarray
        Shape (H, W), 1 paper to 0 ink.
    rng : Generator
        The source of everything random.
    other : ndarray, optional
        The page on the back, of the same shape; None for an empty back.

    Returns
    -------
    worn : ndarray
        Shape (H, W), within [0, 1].
    target : ndarray
        The target of cleaning: the page with its faded ink, on paper without stains.
    """
    ink, faded = fade(1 - page, rng)
    if other is not None and rng.random() < 0.4:
        back = ndimage.gaussian_filter(1 - other[:, ::-1], rng.uniform(0.8, 3))
        ink = np.maximum(ink, back * np.float32(rng.uniform(0.05, 0.45)) * clouds(page.shape, rng, 100))
    paper = worn_paper(page.shape, rng)
    worn = paper * (1 - ink)
    return scan(worn, rng), 1 - faded


def degrade_photo(photo: Floats, rng: Rng) -> tuple[Floats, float]:
    """Wear a clean photograph by scaling, dust, grain and JPEG compression.

    Parameters
    ----------
    photo : ndarray
        Shape (H, W), within [0, 1].
    rng : Generator
        The source of everything random.

    Returns
    -------
    worn : ndarray
        Shape (H, W), within [0, 1].
    noise : float
        The standard deviation of the change by grain and JPEG.
    """
    if rng.random() < 0.3:
        photo = _resampled(photo, rng.uniform(0.7, 0.95))
    if rng.random() < 0.3:
        photo = dust(photo, rng)
    photo = np.clip(photo, 0, 1).astype(np.float32)
    worn = np.clip(photo + grain(photo, rng), 0, 1).astype(np.float32)
    if rng.random() < 0.4:
        worn = jpeg(worn, int(rng.integers(40, 96)))
    return worn, float((worn - photo).std())


def worn_paper(shape: tuple[int, int], rng: Rng) -> Floats:
    """Paper of shape `shape` with texture, uneven light, stains, folds and wrinkles, mostly 0.4 to 1."""
    paper = np.full(shape, rng.uniform(0.7, 1.0), np.float32)
    if rng.random() < 0.7:
        paper *= 1 - np.float32(rng.uniform(0, 0.4)) * clouds(shape, rng, rng.uniform(80, 400))
    for wavelength in (1.5, 3.0, 8.0, 20.0):
        if rng.random() < 0.5:
            paper *= 1 + np.float32(rng.uniform(0, 0.06)) * (2 * clouds(shape, rng, wavelength) - 1)
    for _ in range(rng.integers(0, 5) if rng.random() < 0.6 else 0):
        paper *= 1 - stain(shape, rng)
    for _ in range(rng.integers(0, 5) if rng.random() < 0.4 else 0):
        paper *= 1 + fold(shape, rng)
    if rng.random() < 0.3:
        paper *= 1 - np.float32(rng.uniform(0.05, 0.4)) * wrinkles(shape, rng)
    return np.clip(paper, 0.02, 1.05)


def fade(ink: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """Ink of uneven strength with holes, 1 full to 0 none, in the shape of `ink`; and the same without the holes."""
    strength = np.float32(rng.uniform(0.35, 1.0))
    faded = ink * strength * (1 - np.float32(rng.uniform(0, 0.25)) * clouds(ink.shape, rng, rng.uniform(10, 120)))
    if rng.random() < 0.3:
        holes = np.float32(rng.uniform(0.1, 0.5)) * (clouds(ink.shape, rng, 1.5) > rng.uniform(0.6, 0.9))
        return faded * (1 - holes), faded
    return faded, faded


def stain(shape: tuple[int, int], rng: Rng) -> Floats:
    """The darkening by one stain, a ragged blob or ring that is darker along its edge; 0 to about 0.6."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    centre = rng.uniform(-0.1, 1.1, 2) * shape
    radius = rng.uniform(0.05, 0.45) * min(shape)
    stretch = rng.uniform(0.5, 1.0)
    distance = np.hypot(y - centre[0], (x - centre[1]) * stretch).astype(np.float32) / np.float32(radius)
    distance += np.float32(rng.uniform(0.02, 0.35)) * (2 * clouds(shape, rng, rng.uniform(0.2, 1.0) * radius + 4) - 1)
    soft = np.float32(rng.uniform(0.5, 6) / radius)
    inside = _step((1 - distance) / soft)
    edge = np.exp(-(((distance - 1) * np.float32(radius / rng.uniform(1.5, 8))) ** 2))
    if rng.random() < 0.4:  # the foot of a cup
        thickness = np.float32(rng.uniform(0.05, 0.35))
        inside = inside * _step((distance - 1 + thickness) / soft)
    body = inside * np.float32(rng.uniform(0.0, 0.45)) + edge * np.float32(rng.uniform(0.0, 0.3))
    whole: Floats = body * (1 - np.float32(rng.uniform(0, 0.6)) * clouds(shape, rng, rng.uniform(5, 60)))
    return whole


def fold(shape: tuple[int, int], rng: Rng) -> Floats:
    """The brightening (above 0) and darkening (below 0) by one crease, at most about 0.3."""
    height, width = shape
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05) if rng.random() < 0.5 else rng.uniform(0, np.pi)
    y, x = np.ogrid[:height, :width]
    offset = rng.uniform(0.1, 0.9)
    along = (x - offset * width) * np.float32(np.cos(angle)) + (y - offset * height) * np.float32(np.sin(angle))
    along = along.astype(np.float32) + np.float32(rng.uniform(0, 4)) * (2 * clouds(shape, rng, 40) - 1)
    line = np.exp(-((along / np.float32(rng.uniform(0.6, 3))) ** 2)) * np.float32(rng.uniform(-0.3, 0.2))
    shade = np.tanh(along / np.float32(rng.uniform(5, 60))) * np.float32(rng.uniform(-0.08, 0.08))
    crease: Floats = (line + shade) * (np.float32(0.5) + np.float32(0.5) * clouds(shape, rng, 60))
    return crease


def wrinkles(shape: tuple[int, int], rng: Rng) -> Floats:
    """Crumpled paper, 0 to 1: facets of several sizes with sharp borders."""
    total = np.zeros(shape, np.float32)
    for wavelength in rng.uniform(15, 120, 3):
        total += np.abs(2 * clouds(shape, rng, wavelength) - 1) ** np.float32(rng.uniform(0.5, 1.0))
    return total / np.float32(3)


def scan(page: Floats, rng: Rng) -> Floats:
    """A page as scanned: with blur, dust, resampling, noise of many kinds, rounding and JPEG compression."""
    if rng.random() < 0.6:
        page = ndimage.gaussian_filter(page, rng.uniform(0.2, 0.9))
    if rng.random() < 0.3:
        page = _resampled(page, rng.uniform(0.6, 0.95))
    if rng.random() < 0.3:
        page = dust(page, rng)
    page = page + grain(page, rng)
    page = np.clip(page, 0, 1).astype(np.float32)
    return jpeg(page, int(rng.integers(25, 96))) if rng.random() < 0.4 else page


def grain(image: Floats, rng: Rng) -> Floats:
    """Poisson-Gaussian noise for `image`, often wider than a pixel, with a standard deviation up to 0.1."""
    level = rng.uniform(0, 0.1) * rng.random()
    noise = rng.standard_normal(image.shape, np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, rng.uniform(0.3, 1.2))
        noise /= noise.std()
    mix = np.float32(rng.random())
    scaled: Floats = np.float32(level) * np.sqrt(mix + (1 - mix) * np.clip(image, 0, 1)) * noise
    return scaled


def dust(image: Floats, rng: Rng) -> Floats:
    """`image` with dark or bright specks of one or a few pixels."""
    specks = (rng.random(image.shape, np.float32) < 10 ** rng.uniform(-5, -3)).astype(np.float32)
    specks = np.clip(ndimage.gaussian_filter(specks, rng.uniform(0.3, 1.5)) * 8, 0, 1)
    level = np.float32(rng.choice([rng.uniform(0, 0.5), 1.0]))
    covered: Floats = image + specks * np.float32(rng.uniform(0.3, 1)) * (level - image)
    return covered


def jpeg(image: Floats, quality: int) -> Floats:
    """`image` after JPEG compression at `quality` (1 to 95)."""
    file = io.BytesIO()
    Image.fromarray(np.round(255 * image).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / np.float32(255)


def clouds(shape: tuple[int, ...], rng: Rng, wavelength: float) -> Floats:
    """Smooth random values within [0, 1] that change over about `wavelength` pixels."""
    height, width = shape
    knots = [max(2, int(np.ceil(side / wavelength)) + 1) for side in (height, width)]
    coarse = rng.random(knots, np.float32)
    large = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    smooth: Floats = np.clip(np.asarray(large), 0, 1)
    return smooth


def _resampled(image: Floats, factor: float) -> Floats:
    height, width = image.shape
    less = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(less, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _step(value: Floats) -> Floats:
    return np.clip(0.5 + value / 2, 0, 1)
