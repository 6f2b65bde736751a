"""Small images with classes: bright bars, class k at column k."""

from __future__ import annotations

import numpy as np


def bars(n=240, classes=3, size=8, seed=0):
    """uint8 images (n, 1, size, size) and their labels (n,), int64."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = generator.integers(0, 60, (n, 1, size, size))
    images[np.arange(n), 0, :, 2 * labels] += generator.integers(120, 190, (n, 1))
    return images.astype(np.uint8), labels
