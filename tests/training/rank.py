"""One of two processes of `test_fit_processes.py`: python rank.py CASE FOLDER."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import vaeguard
from vaeguard import ModelSpec, TrainSpec
from vaeguard.models.vae import VAE
from vaeguard.training import loop, vae_task
from vaeguard.training.processes import joined
from vaeguard.training.vae_task import Examples, VAETask

CASES = {
    "mlp": ("mlp", 12, {"augment_warp": 0.0}),
    "free bits": ("mlp", 12, {"augment_warp": 1.0, "augment_shift": 1, "augment_flip": True, "free_bits": 0.5}),
    "conv": ("conv", 4, {"augment_warp": 0.0, "input_noise": 0.1, "binarise": True}),
}
"""The kind of model, the epochs of five steps and the settings of each training in float64."""
STOPPED = TrainSpec(epochs=40, batch_size=32, patience=1, learning_rate=0.03, device="cpu", bf16=False)
"""A training that ends early."""


def images():
    return np.random.default_rng(0).integers(0, 256, (300, 1, 16, 16), dtype=np.uint8)


def trained(case):
    """The weights after a short training in float64, of 250 images in batches of 62, the last of which has 2.

    The last of the 50 validation images is a batch of its own, of which one process has nothing.
    """
    kind, epochs, settings = CASES[case]
    before, torch_unit, validated = torch.get_default_dtype(), vae_task.to_unit, vae_task.VALIDATED
    torch.set_default_dtype(torch.float64)
    vae_task.to_unit, vae_task.VALIDATED = lambda pixels: pixels.double() / 255, 49
    try:
        torch.manual_seed(0)
        model = ModelSpec(kind=kind, hidden=(16,), latent=3, width=2, pseudo_classes=0).resolved((1, 16, 16), ())
        training = TrainSpec(epochs=epochs, batch_size=62, device="cpu", bf16=False, **settings).sized(model.view)
        parts = (Examples(images(), None, np.arange(*part)) for part in ((250,), (250, 300)))
        task = VAETask(VAE(model), training, *parts)
        loop.train(task.start(), task)
    finally:
        torch.set_default_dtype(before)
        vae_task.to_unit, vae_task.VALIDATED = torch_unit, validated
    return {name: values.contiguous() for name, values in task.net.state_dict().items()}


def fitted(run, *, resume=False):
    model = ModelSpec(kind="mlp", hidden=(16,), latent=3, pseudo_classes=6)
    return vaeguard.fit(images(), model=model, training=STOPPED, run=run, resume=resume)


def main(case, folder):
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.0
    if case == "dead" and rank == 1:
        VAETask.finish_step = lambda _, state, __: os._exit(9) if len(state.history) == 1 else None
    with joined():
        if case == "weights":
            for name in CASES:
                save_file(trained(name), folder / f"{name} {rank}")
        else:
            fitted(None if rank else folder / "run", resume=case == "resumed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
