"""MNIST, 784-200-200-50 (Burda et al., 2016): test negative ELBO and importance-weighted bound, k = 5,000.

python -m benchmarks.importance_bound -o RUNS [--epochs 400] [--images 0] [--only NAME]

Each fit is a run folder in RUNS: a run that is there is measured, one that was cut off goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vaeguard
from benchmarks.common import data_dir, rows_before, write_result

PRESET = vaeguard.preset("mlp-200-200-50")
# Shares so small that almost all of the 60,000 images are trained on.
DRAWN = replace(PRESET.training, validation=0.01, calibration=0.01)
GIVEN = replace(DRAWN, binarise=False)
CONTINUOUS = replace(PRESET.model, likelihood="continuous-bernoulli")
FITS = {
    "pixels drawn black or white anew every epoch": (PRESET.model, DRAWN),
    "the same without warm-up of the rate": (PRESET.model, replace(DRAWN, kl_warmup=0)),
    "pixels drawn black or white once": (PRESET.model, GIVEN),
    "grey pixels, continuous Bernoulli": (CONTINUOUS, GIVEN),
    "grey pixels, cross-entropy, measured on black and white ones": (PRESET.model, GIVEN),
}
PUBLISHED = {
    "fit": "published: VAE, k = 1, one stochastic layer (Burda et al., 2016, table 1)",
    "neg_iwae, nats": 86.76,
}


def binarised(images: vaeguard.ImageSet) -> vaeguard.ImageSet:
    """The same images with every pixel black or white, with its grey value as probability, once and for all."""
    uniform = np.random.default_rng(1).random(images.images.shape, dtype=np.float32)
    return vaeguard.from_array(np.uint8(255) * (uniform < images.images / np.float32(255)).astype(np.uint8))


def place(runs: Path, name: str, epochs: int) -> Path:
    """The run folder of a fit of so many epochs."""
    return runs / f"{name.replace(' ', '-').replace(',', '')}-{epochs}"


def fitted(train: vaeguard.ImageSet, name: str, runs: Path, epochs: int) -> Any:
    """The detector of a run, fitted where it is not there yet."""
    folder = place(runs, name, epochs)
    if (folder / "model.safetensors").is_file():
        return vaeguard.load(folder)
    model, training = FITS[name]
    images = binarised(train) if name.endswith("once") else train
    training = replace(training, epochs=epochs, patience=epochs, kl_warmup=min(training.kl_warmup, epochs // 2))
    return vaeguard.fit(images, model=model, training=training, run=folder, resume=folder.is_dir())


def said(done: int, total: int, text: str) -> None:
    """Say how far it is, now and then."""
    if done % 500 == 0:
        print(f"{text} {done}/{total}", flush=True)


def main() -> None:
    """Fit, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=PRESET.training.epochs, help="the table names them")
    parser.add_argument("--images", type=int, default=0, help="0: all 10,000 test images")
    parser.add_argument("--only", nargs="+", choices=FITS, default=list(FITS))
    options = parser.parse_args()
    train, test = (vaeguard.open_images("mnist", split=split, data_dir=data_dir()) for split in ("train", "test"))
    rows = rows_before("importance_bound", "fit")
    rows = {fit: row for fit, row in rows.items() if fit != PUBLISHED["fit"]}
    for name in options.only:
        detector = fitted(train, name, options.output, options.epochs)
        found = vaeguard.evaluate_generative(detector, test, images=options.images, progress=said)
        history = vaeguard.read_report(place(options.output, name, options.epochs))["history"]
        error = found.bounds.neg_iwae.std(ddof=1) / np.sqrt(len(found.bounds.neg_iwae))
        fit = f"{name}, {len(history)} epochs"
        rows[fit] = {
            "fit": fit,
            "neg_iwae, nats": f"{found.bounds.neg_iwae.mean():.2f} ± {error:.2f}",
            "neg_elbo, nats": f"{found.bounds.neg_elbo.mean():.2f}",
            "rate": f"{found.bounds.rate.mean():.2f}",
            "bits per dimension": f"{found.bounds.bits_per_dimension:.3f}",
            "active units": f"{found.units.active.sum()} of 50",
            "test images": len(found.bounds.neg_elbo),
            "minutes of training": f"{sum(row['seconds'] for row in history) / 60:.0f}",
        }
        print(rows[fit], flush=True)
    note = (
        "Upper bounds of −log p(x), mean ± standard error over the test images; lower is better. Of Bernoulli fits the"
        " official test part, every pixel drawn black or white once (seed 0); of the continuous one grey pixels with"
        " uniform noise of one level, nats of the density on [0, 1], bits of 8-bit pixels: not to be compared with the"
        " others. One seed. Recipe: Adam, 0.001 falling by a cosine, batches of 100, weight of the rate rising over 50"
        " epochs except where the row says otherwise, 58,800 training images; the published fit took batches of 20 for"
        " 3,280 epochs, on pixels drawn anew every time."
    )
    title = "MNIST, 784-200-200-50: how likely test images are"
    write_result("importance_bound", title, [*rows.values(), PUBLISHED], [note], k=found.samples)


if __name__ == "__main__":
    main()
