"""MNIST: how well 20 latent units serve as features, beside 20 principal components.

python -m benchmarks.latent_features [--seeds 3]
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vaeguard
from benchmarks.common import data_dir, spread, write_result

SIZE = 20
PROBED = 20_000
PRESET = vaeguard.preset("mlp-400-400-20")
FITS = {
    "VAE, plain: --preset mlp-400-400-20": (PRESET.model, PRESET.training),
    f"VAE as fitted by default: --set model.guided=false --latent {SIZE}": (
        vaeguard.ModelSpec(latent=SIZE, guided=False),
        vaeguard.TrainSpec(),
    ),
}


def measured(
    train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], labels: tuple[Any, Any], seed: int
) -> list[float]:
    """Accuracy of a linear probe; accuracy and normalised mutual information of ten clusters with the classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(train, labels[0])
    clusters = KMeans(10, n_init=10, random_state=seed).fit(train).predict(test)
    counts = confusion_matrix(labels[1], clusters)
    best = counts[linear_sum_assignment(-counts)].sum() / counts.sum()
    return [probe.score(test, labels[1]), best, normalized_mutual_info_score(labels[1], clusters)]


def main() -> None:
    """Fit, embed, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    train, test = (vaeguard.open_images("mnist", split=split, data_dir=data_dir()) for split in ("train", "test"))
    assert train.labels is not None
    assert test.labels is not None
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        some = np.random.default_rng(seed).permutation(len(train))[:PROBED]
        labels = train.labels[some], test.labels
        learn, judge = (
            images.reshape(len(images), -1) / np.float32(255) for images in (train.images[some], test.images)
        )
        pca = PCA(SIZE, random_state=seed).fit(learn)
        name = f"{SIZE} principal components"
        found.setdefault(name, []).append(measured(pca.transform(learn), pca.transform(judge), labels, seed))
        for name, (model, training) in FITS.items():
            detector = vaeguard.fit(train, model=model, training=replace(training, seed=seed))
            embedded = [detector.encode(images).mean for images in (train.images[some], test.images)]
            found.setdefault(name, []).append(measured(embedded[0], embedded[1], labels, seed))
            print(name, seed, found[name][-1], flush=True)
    columns = ("linear probe, accuracy", "k-means, accuracy", "k-means, normalised mutual information")
    rows = [
        {"features": name, **{
            column: spread(values) for column, values in zip(columns, np.array(runs).T, strict=True)
        }}
        for name, runs in found.items()
    ]  # fmt: skip
    note = (
        "Means of the posterior, of fits that see no label: a multilayer perceptron, and the convolutional network of"
        " the defaults with its pseudo-classes and warps, on about 48,000 images each. The probe is a logistic"
        " regression on standardised features, the ten clusters are of features as they are, both of"
        f" {PROBED:,} training images, and so are the principal components; all figures are of the 10,000 test images,"
        " mean ± standard deviation over the seeds of fit, choice of images and clusters."
    )
    write_result("latent_features", f"MNIST: {SIZE} features for other tasks", rows, [note], seeds=options.seeds)


if __name__ == "__main__":
    main()
