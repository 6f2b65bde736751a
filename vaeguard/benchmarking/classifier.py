"""A plain classifier of the normal classes with the VAE's encoder, which shows what labels alone bring."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.data.split import class_targets, normal_numbers, split_normal
from vaeguard.devices import pick_device
from vaeguard.models.shares import Draws
from vaeguard.models.vae import VAE
from vaeguard.training.augment import augment
from vaeguard.training.vae_task import epochs_for

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.benchmarking.tasks import ImageTask
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

SCORE_ROWS = 256


class Classifier:
    """Logits of the normal classes from the encoder's last stage; trained for as many epochs as a fit at most."""

    def __init__(self, task: ImageTask, model: ModelSpec, training: TrainSpec, progress: Progress) -> None:
        self.device = pick_device(training.device)
        normal = normal_numbers(task.train, task.normal_classes)
        channels, height, width = task.train.images.shape[1:]
        model = model.resolved((channels, height, width), tuple(task.train.class_names[k] for k in normal))
        training = training.sized(model.view)
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.network = _network(model).to(self.device)
            _train(self, task, normal, training, progress)

    def scores(self, images: Bytes) -> dict[str, Floats]:
        """Scores (N,) of uint8 images (N, C, H, W), higher = more anomalous.

        `max_softmax` is −log of the largest class probability (Hendrycks and Gimpel, 2017), `max_logit` minus the
        largest logit (Hendrycks et al., 2022).
        """
        self.network.eval()
        starts = range(0, len(images), SCORE_ROWS)
        with torch.inference_mode():
            logits = torch.cat([self.network(self.unit(images[at : at + SCORE_ROWS])).cpu() for at in starts])
        largest = logits.max(1).values
        return {"max_softmax": (logits.logsumexp(1) - largest).numpy(), "max_logit": (-largest).numpy()}

    def unit(self, images: Bytes) -> Tensor:
        """Images on the device, in [0, 1]."""
        return torch.from_numpy(np.array(images)).to(self.device).float() / 255


def _network(model: ModelSpec) -> nn.Sequential:
    vae = VAE(model)
    head = nn.Linear(vae.posterior_mean.in_features, len(model.classes))
    return nn.Sequential(*vae.stages, nn.Flatten(), head)


def _train(
    classifier: Classifier, task: ImageTask, normal: tuple[int, ...], spec: TrainSpec, progress: Progress
) -> None:
    shares = {"validation": spec.validation, "calibration": spec.calibration}
    rows = split_normal(task.train, normal, **shares, seed=spec.seed).training
    labels = class_targets(task.train, normal)
    assert labels is not None
    network = classifier.network
    optimizer = torch.optim.AdamW(network.parameters(), spec.step_size, weight_decay=spec.weight_decay)
    if spec.augment_warp is None:
        spec = replace(spec, augment_warp=1.0)  # as the guided fit: the comparison is about the model alone
    noise = torch.Generator(classifier.device).manual_seed(spec.seed)
    order = np.random.default_rng(spec.seed)
    epochs = epochs_for(spec, len(rows))
    steps = max(1, len(rows) // spec.images_per_step)
    network.train()
    for step in range(epochs * steps):
        if step % steps == 0:
            shuffled = order.permutation(rows)
        batch = shuffled[step % steps * spec.images_per_step :][: spec.images_per_step]
        if spec.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * step / (epochs * steps)))
            optimizer.param_groups[0]["lr"] = spec.step_size * share
        image = augment(classifier.unit(task.train.images[batch]), spec, Draws(noise))
        target = torch.from_numpy(labels[batch]).to(classifier.device)
        loss = F.cross_entropy(network(image), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress(step + 1, epochs * steps, f"epoch {step // steps + 1}/{epochs}")
