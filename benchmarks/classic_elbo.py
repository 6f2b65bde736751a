"""MNIST, the classic 784-400-400-20 VAE, 10 epochs, batch 128: test negative ELBO beside the tutorial's own loop.

python -m benchmarks.classic_elbo [--epochs 10] [--threads 1]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

import vaeguard
from benchmarks.common import data_dir, write_result
from benchmarks.train_throughput import TutorialMlp


def our_nats(train: vaeguard.ImageSet, test: np.ndarray[Any, Any], epochs: int) -> dict[str, Any]:
    """Fit the preset and measure nats per test image."""
    chosen = vaeguard.preset("mlp-400-400-20")
    # Shares so small that almost all of the 60,000 images are trained on, as in the tutorial.
    training = vaeguard.TrainSpec(epochs=epochs, schedule="constant", validation=0.01, calibration=0.01)
    detector = vaeguard.fit(train, model=chosen.model, training=training)
    plug_in = detector.inspect(test).terms["neg_elbo"].mean()
    encoding = detector.encode(test)
    assert encoding.logvar is not None
    deviation = np.exp(encoding.logvar / 2)
    noise = np.random.default_rng(0).standard_normal(deviation.shape, dtype=np.float32)
    latent = (encoding.mean + deviation * noise).astype(np.float32)
    chance = detector.decode(latent).astype(float).clip(1e-7, 1 - 1e-7)
    image = test / 255
    cross_entropy = -(image * np.log(chance) + (1 - image) * np.log(1 - chance)).sum((1, 2, 3))
    rate = 0.5 * (deviation**2 + encoding.mean**2 - 1 - encoding.logvar).sum(1)
    return {
        "loop": "vaeguard fit --preset mlp-400-400-20",
        "images": detector.info.record.data.split.training,
        "test neg_elbo, one sample": float((cross_entropy + rate).mean()),
        "test neg_elbo, at the posterior mean": float(plug_in),
        "test rate": float(rate.mean()),
    }


def tutorial_nats(train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], epochs: int) -> dict[str, Any]:
    """The tutorial's loop: Adam 1e-3, BCE summed + KL, test loss with one sample."""
    torch.manual_seed(0)
    model = TutorialMlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(train)), 128):
            optimizer.zero_grad()
            loss = model.loss(torch.from_numpy(train[rows.numpy()]).float() / 255)
            (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        loss = model.loss(torch.from_numpy(test).float() / 255) / len(test)
    return {"loop": "tutorial", "images": len(train), "test neg_elbo, one sample": float(loss)}


def main() -> None:
    """Fit both and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = (vaeguard.open_images("mnist", split=split, data_dir=data_dir()) for split in ("train", "test"))
    rows = [
        our_nats(train, test.images, options.epochs),
        tutorial_nats(train.images, test.images, options.epochs),
    ]
    notes = ["Binary cross-entropy of grey pixels, nats per image of the 10,000 test images; all ten classes, seed 0."]
    write_result("classic_elbo", f"MNIST, 784-400-400-20, {options.epochs} epochs: nats per test image", rows, notes,
                 epochs=options.epochs, batch=128, threads=options.threads)  # fmt: skip


if __name__ == "__main__":
    main()
