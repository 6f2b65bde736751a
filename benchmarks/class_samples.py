"""MNIST, a prior per class: how many images drawn for a class a classifier of its own takes for that class.

python -m benchmarks.class_samples [--seeds 3] [--samples 1000] [--only FIT]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import vaeguard
from benchmarks.common import data_dir, rows_before, spread, write_result
from vaeguard.evaluation.sample_quality import SampleJudge

JUDGED_ON = 20_000
PRESET = vaeguard.preset("mlp-per-class")
GUIDED = vaeguard.ModelSpec(kind="mlp", latent=20, prior="per-class")
FITS = {
    "vaeguard fit --preset mlp-per-class": (PRESET.model, PRESET.training),
    "vaeguard fit --model mlp --latent 20 --set model.prior=per-class": (GUIDED, vaeguard.TrainSpec()),
    "the same with --set model.pseudo_classes=0 --epochs 20": (
        replace(GUIDED, pseudo_classes=0),
        vaeguard.TrainSpec(epochs=20),
    ),
}


def main() -> None:
    """Fit, draw, judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=FITS, default=list(FITS), help="rows of others stay as they are")
    options = parser.parse_args()
    train, test = (vaeguard.open_images("mnist", split=split, data_dir=data_dir()) for split in ("train", "test"))
    names, truth = np.array(train.class_names), np.array(test.labels)
    rows = rows_before("class_samples", "fit")
    for fit in options.only:
        model, training = FITS[fit]
        shares = np.empty((options.seeds, len(names)))
        accuracies = []
        for seed in range(options.seeds):
            judge = _judge(train, seed)
            accuracies.append((judge.classes(test.images) == names[truth]).mean())
            detector = vaeguard.fit(train, model=model, training=replace(training, seed=seed))
            for number, name in enumerate(names):
                drawn = detector.sample(options.samples, class_=str(name), seed=seed)
                shares[seed, number] = (judge.classes(drawn) == name).mean()
            print(fit, seed, shares[seed].round(3), flush=True)
        rows[fit] = {
            "fit": fit,
            **{f"class {name}": spread(shares[:, k]) for k, name in enumerate(names)},
            "mean of ten": spread(shares.mean(1)),
            "judge on real test images": spread(accuracies),
        }
    note = (
        f"Share of {options.samples} images drawn from the prior of a class (the decoder's mean image) that"
        " are taken for that class, mean ± standard deviation over the seeds of fit, samples and judge. The judge is"
        f" scikit-learn's multilayer perceptron, trained on {JUDGED_ON:,} real images, and knows nothing of the VAE."
    )
    title = "MNIST: images drawn for a class, as an independent classifier sees them"
    settings = {"seeds": options.seeds, "samples": options.samples}
    write_result("class_samples", title, list(rows.values()), [note], **settings)


def _judge(train: vaeguard.ImageSet, seed: int) -> SampleJudge:
    some = np.random.default_rng(seed).permutation(len(train))[:JUDGED_ON]
    assert train.labels is not None
    return SampleJudge(train.images[some], np.array(train.class_names)[train.labels[some]], seed)


if __name__ == "__main__":
    main()
