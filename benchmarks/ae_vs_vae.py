"""What the KL term changes: an autoencoder and a VAE of the same size on MNIST and Fashion-MNIST, 9 kept out.

python -m benchmarks.ae_vs_vae [--seeds 3] [--data mnist fashion-mnist]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import vaeguard
from benchmarks.common import RESULTS, data_dir, spread, write_result
from vaeguard.evaluation.sample_quality import SampleJudge, frechet_distance
from vaeguard.reports.pictures import draw_grid

PRESET = vaeguard.preset("mlp-400-400-20")
EPOCHS = 20
KNOWN = 10_000
"""Training images of the nearest-neighbour judge."""
PAIRS, DRAWN, NOISE = 2000, 2000, 0.3
PICTURED = 10
FITS = {"autoencoder": True, "VAE": False}

Pixels = np.ndarray[Any, Any]


class Truth:
    """Normal images of one set, and judges that know nothing of any VAE."""

    def __init__(self, name: str, seed: int) -> None:
        train, test = (vaeguard.open_images(name, split=split, data_dir=data_dir()) for split in ("train", "test"))
        assert train.labels is not None
        assert test.labels is not None
        self.train, self.normal_classes = train, list(train.class_names[:9])
        self.anomalous = test.labels == 9
        self.test, self.normal = test.images, test.images[~self.anomalous]
        self.classes = test.labels[~self.anomalous]
        generator = np.random.default_rng(seed)
        rows = generator.permutation(np.flatnonzero(train.labels != 9))
        known, others = rows[:KNOWN], rows[KNOWN : 2 * KNOWN]
        self.neighbours = KNeighborsClassifier(5).fit(flat(train.images[known]), train.labels[known])
        self.nearest = NearestNeighbors(n_neighbors=1).fit(flat(train.images[known]))
        self.known = train.images[known]
        self.judge = SampleJudge(train.images[others], train.labels[others], seed)
        picked = generator.permutation(len(self.normal))
        self.real, self.other = self.normal[picked[:DRAWN]], self.normal[picked[DRAWN : 2 * DRAWN]]
        first, second = (generator.permutation(len(self.normal)) for _ in range(2))
        different = self.classes[first] != self.classes[second]
        self.pairs = np.stack([first[different], second[different]], 1)[:PAIRS]
        self.usual = np.quantile(self.distance(self.other), 0.95)

    def distance(self, images: Pixels) -> Pixels:
        """How far each image is from the nearest known one."""
        found: Pixels = self.nearest.kneighbors(flat(images))[0][:, 0]
        return found


def flat(images: Pixels) -> Pixels:
    """Rows of values in [0, 1]."""
    rows = images.reshape(len(images), -1)
    return rows / np.float32(255) if rows.dtype == np.uint8 else rows


def measured(detector: Any, truth: Truth, seed: int) -> dict[str, float]:
    """Samples, interpolation, anomalies, denoising."""
    generator = np.random.default_rng(seed)
    target = truth.judge.features(truth.real)
    latents = detector.encode(truth.known).mean
    standard = generator.standard_normal((DRAWN, latents.shape[1])).astype(np.float32)
    fitted = generator.multivariate_normal(latents.mean(0), np.cov(latents, rowvar=False), DRAWN)
    ends = detector.encode(truth.normal[truth.pairs.ravel()]).mean.reshape(-1, 2, latents.shape[1])
    middle = detector.decode(ends.mean(1))
    seen = truth.neighbours.predict(flat(middle))
    of_one = (seen[:, None] == truth.classes[truth.pairs]).any(1)
    near = truth.distance(middle) <= truth.usual
    mixed = flat(truth.normal[truth.pairs[:, 0]]) / 2 + flat(truth.normal[truth.pairs[:, 1]]) / 2
    mixed_of_one = (truth.neighbours.predict(mixed)[:, None] == truth.classes[truth.pairs]).any(1)
    noise = NOISE * generator.standard_normal(truth.other.shape)
    noisy = (truth.other / 255 + noise).clip(0, 1).astype(np.float32)
    restored = detector.decode(detector.encode(noisy).mean)
    found = detector.inspect(truth.test)
    return {
        "samples of N(0, 1): distance from real": frechet_distance(
            target, truth.judge.features(detector.decode(standard))
        ),
        "samples of a normal distribution fitted to the latents": frechet_distance(
            target, truth.judge.features(detector.decode(fitted))
        ),
        "midpoints of one of the two classes": float(of_one.mean()),
        "midpoints as near real images as these are": float(near.mean()),
        "midpoints of which either holds": float((of_one | near).mean()),
        "the same of plain means of two images: of one of the two classes": float(mixed_of_one.mean()),
        "the same of plain means: as near real images": float((truth.distance(mixed) <= truth.usual).mean()),
        "ROC-AUC, recon_error": float(roc_auc_score(truth.anomalous, found.terms["recon_error"])),
        "ROC-AUC, neg_elbo": float(roc_auc_score(truth.anomalous, found.terms["neg_elbo"])),
        "ROC-AUC, score": float(roc_auc_score(truth.anomalous, found.score)),
        "denoising, PSNR in dB": psnr(flat(restored), flat(truth.other)),
        "denoising, PSNR of the noisy images": psnr(flat(noisy), flat(truth.other)),
    }


def psnr(found: Pixels, clean: Pixels) -> float:
    """Mean over the images."""
    return float((-10 * np.log10(np.square(found - clean).mean(1))).mean())


def draw(detectors: dict[str, Any], truth: Truth, name: str) -> None:
    """Samples of N(0, 1) and walks of both, as one picture."""
    rows = []
    standard = np.random.default_rng(0).standard_normal((PICTURED, PRESET.model.latent_size)).astype(np.float32)
    for fit, detector in detectors.items():
        rows.append((f"{fit}: N(0, 1)", detector.decode(standard)))
    for number, pair in enumerate(truth.pairs[:3]):
        rows += [
            (f"{fit}: walk {number + 1}", detector.interpolate(truth.normal[pair], PICTURED))
            for fit, detector in detectors.items()
        ]
    draw_grid(RESULTS / f"ae_vs_vae_{name}.png", rows)


def main() -> None:
    """Fit both on each set, measure, draw, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion-mnist"])
    options = parser.parse_args()
    rows = []
    for name in options.data:
        found: dict[str, list[dict[str, float]]] = {fit: [] for fit in FITS}
        for seed in range(options.seeds):
            truth, detectors = Truth(name, seed), {}
            for fit, plain in FITS.items():
                model = replace(PRESET.model, autoencoder=plain)
                training = replace(PRESET.training, epochs=EPOCHS, seed=seed)
                detectors[fit] = vaeguard.fit(
                    truth.train, normal_classes=truth.normal_classes, model=model, training=training
                )
                found[fit].append(measured(detectors[fit], truth, seed))
                print(name, fit, seed, found[fit][-1], flush=True)
            if seed == 0:
                draw(detectors, truth, name)
        rows += [
            {"data": name, "what": what, **{fit: spread([run[what] for run in runs]) for fit, runs in found.items()}}
            for what in found["VAE"][0]
        ]
    note = (
        f"784-400-400-20, cross-entropy, {EPOCHS} epochs, classes 0 to 8; the autoencoder differs by having neither"
        " noise nor KL term. Mean ± standard deviation over the seeds. Distances: squared Fréchet distance between"
        " features of a small classifier of other real images, "
        f"{DRAWN:,} samples against as many test images (lower is better)."
        f" Midpoints: halfway between the latents of {PAIRS:,} pairs of test images of two classes; the class is told"
        f" by 5 nearest neighbours among {KNOWN:,} training images, and near means within the distance that 95 % of"
        " real test images keep from these; smooth images lie near all others, so beside it stand plain means of two"
        " images, and two of nine classes are 22 % by chance. ROC-AUC: class 9 against 0 to 8 of the official test"
        f" part. Denoising: Gaussian noise of {NOISE} on test images, the decoder's mean of what is encoded;"
        " neither was fitted for it."
    )
    notes = [
        note,
        *(f"![Samples and walks, {name}](ae_vs_vae_{name}.png)" for name in options.data),
    ]  # fmt: skip
    write_result("ae_vs_vae", "What the KL term changes: autoencoder and VAE", rows, notes, seeds=options.seeds)


if __name__ == "__main__":
    main()
