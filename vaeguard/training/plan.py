"""The plan of a fit: every open choice is settled before anything is computed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.data.image_set import ImageSet, as_image_set
from vaeguard.data.regions import digest_of_region, read_region
from vaeguard.data.shards import in_shards
from vaeguard.data.split import Split, normal_numbers, split_for
from vaeguard.devices import cores, has_bf16, pick_device
from vaeguard.errors import UsageError
from vaeguard.models.pretrained import pretrained
from vaeguard.settings.choice import with_features
from vaeguard.settings.specs import to_dict
from vaeguard.training.processes import check_fit
from vaeguard.training.vae_task import epochs_for, images_an_epoch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.engines.record import LineageRecord
    from vaeguard.models.backbones import Backbone
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    Rows = npt.NDArray[np.int64]

CHANGES = ("augment_warp", "augment_shift", "augment_rotate", "augment_noise", "augment_flip", "input_noise")
"""Settings of a training that change the pixels that are learned."""
TRAINING_CROPS = 12_800
"""The least random patches to train on per epoch."""


@dataclass(frozen=True)
class FitPlan:
    """A fit with every open choice settled: device, precision and threads are in `training`."""

    image_set: ImageSet
    normal: tuple[int, ...]
    model: ModelSpec
    training: TrainSpec
    split: Split
    network: Backbone | None = None
    """The frozen network of a model of features."""
    region: npt.NDArray[np.bool_] | None = None
    """The pixels that count, (H, W)."""
    grouped: bool = False
    """Whether the split keeps images of the same object together."""
    lineage: LineageRecord | None = None
    """What a refit came from."""
    finish: bool = False
    """Whether a resumed fit ends with the epochs that it has."""

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """The training images that can be looked up: all, unless they stay in their files."""
        return _known(self.image_set, self.split)

    def settings(self) -> dict[str, Any]:
        """The settings with which a checkpoint must agree."""
        data = {"fingerprint": self.image_set.fingerprint, "split": self.split.digest()}
        if self.network:
            data["network"] = self.network.sha256
        return {"model": to_dict(self.model), "training": to_dict(self.training), "data": data}


def plan_fit(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None,
    groups: npt.ArrayLike | None,
    normal_classes: str | int | Sequence[str | int] | None,
    model: ModelSpec,
    training: TrainSpec,
    roi: str | Path | npt.ArrayLike | None = None,
    *,
    training_only: npt.ArrayLike | None = None,
    network: Backbone | None = None,
    download: bool = False,
) -> FitPlan:
    """Settle every open choice of a fit; the parameters are those of `vaeguard.fit`, and two of a refit.

    `training_only`, bool (N,), marks normal images that must not calibrate, since they were chosen by their score.
    `network` is that of an earlier fit, with its weights; None reads the one that `model.features` names.

    Raises
    ------
    UsageError
        Too few normal images or groups, an unknown class, or a spec that does not suit the data.
    """
    image_set = as_image_set(images, labels)
    image_set = replace(image_set, regions=image_set.regions or bool(model.regions))
    _check_regions(image_set)
    model = replace(model, pixel_range=_pixel_range(model, image_set), regions=image_set.regions)
    normal = normal_numbers(image_set, normal_classes)
    # Which images are held out depends on what is learned.
    shape = image_set.image_shape
    model = with_features(model, training, shape, vectors=image_set.vectors)
    split = split_for(image_set, normal, model, training, groups, training_only)
    region = None
    if roi is not None:
        if image_set.vectors:
            raise UsageError("`roi` is for images, but the data are vectors; remove `roi`")
        region = read_region(roi, image_set.images.shape[2:])
    if region is not None:
        model = replace(model, region=digest_of_region(region), region_share=float(region.mean()))
    if model.features and network is None:
        taken = replace(model, image_shape=shape).tiled().graph_shape
        network = pretrained(model.features, taken, download=download)
    plan = _plan(image_set, normal, split, model, training, network)
    if region is not None and in_shards(image_set.images) and not plan.model.features:
        raise UsageError("`roi` needs images that fit into the cache, or a model of features; remove `roi`")
    return replace(plan, region=region, grouped=groups is not None)


def _check_regions(image_set: ImageSet) -> None:
    """Refuse regions of single images in data that have no channel for them, or that stay in their files."""
    if image_set.regions and (image_set.vectors or image_set.image_shape[0] not in (1, 3)):
        raise UsageError(
            "`model.regions` needs grey or RGB images with one more channel, which is their region; add that channel,"
            " or remove `model.regions`"
        )
    if image_set.regions and in_shards(image_set.images):
        raise UsageError(
            "regions of single images need images that fit into the cache; set `model.regions` to False, or use"
            " fewer or smaller images"
        )


def _pixel_range(model: ModelSpec, image_set: ImageSet) -> tuple[int, ...] | None:
    """The range of pixels with which the images were read; later images must be read with the same."""
    if model.pixel_range not in (None, image_set.pixel_range):
        raise UsageError(
            f"`model.pixel_range` is {model.pixel_range}, but the images were read with {image_set.pixel_range}; open"
            " the images with an ImageRule that has the range of the model"
        )
    return image_set.pixel_range


def _plan(
    image_set: ImageSet, normal: tuple[int, ...], split: Split, model: ModelSpec, training: TrainSpec,
    network: Backbone | None,
) -> FitPlan:  # fmt: skip
    shape = image_set.image_shape
    names = tuple(image_set.class_names[k] for k in normal)
    model = replace(model, features=network.name if network else "").resolved(
        shape,
        names,
        images=len(_known(image_set, split)),
        vectors=image_set.vectors,
        feature_count=sum(network.channels) if network else 0,
    )
    training = training.sized(model.view)
    _check(model, training, names)
    device = pick_device(training.device)
    check_fit(model, device)
    training = replace(
        training,
        epochs=epochs_of(model, training, images_an_epoch(image_set.images, len(split.training), training)),
        device=device,
        # bfloat16 resolves the 256 steps of pixels, but not features and contrasts.
        bf16=has_bf16(device) and model.view.grey_levels if training.bf16 is None else training.bf16,
        threads=training.threads or _threads(model),
        folds=split.fold_count,
        augment_warp=float(model.pseudo_classes > 0) if training.augment_warp is None else training.augment_warp,
    )
    return FitPlan(image_set, normal, model, training, split, network)


def _known(image_set: ImageSet, split: Split) -> npt.NDArray[np.int64]:
    shards = in_shards(image_set.images)
    return np.intersect1d(split.training, shards.held) if shards else split.training


def _check(model: ModelSpec, training: TrainSpec, classes: Sequence[str]) -> None:
    """Refuse a training that does not suit the model or the classes."""
    _check_changes(model, training)
    if model.kind == "conv" and training.images_per_step == 1:
        raise UsageError(
            "`training.batch_size` is 1, which leaves the batch norm of a conv model without statistics; set it to 2 or"
            " more"
        )
    _check_binarise(model, training)
    if model.autoencoder and (training.free_bits or training.kl_warmup):
        raise UsageError(
            "an autoencoder has no KL divergence in its loss; set `training.free_bits` and `training.kl_warmup` to 0"
        )
    if training.balance and model.features:
        raise UsageError(
            "`training.balance` does not work with a model of features, which learns cells of images, not whole"
            " images; remove `training.balance`"
        )
    if training.balance and len(classes) < 2:
        raise UsageError(
            "`training.balance` needs at least two labelled normal classes; use class sub-folders, or remove"
            " `training.balance`"
        )


def _check_changes(model: ModelSpec, training: TrainSpec) -> None:
    unfit = None if model.view.unit else next((name for name in CHANGES if getattr(training, name)), None)
    if unfit:
        learned = "the model learns features of a network" if model.features else "the data are vectors"
        raise UsageError(f"`training.{unfit}` is for pixels from 0 to 1, but {learned}; remove this setting")


def _check_binarise(model: ModelSpec, training: TrainSpec) -> None:
    if training.binarise and not (model.view.grey_levels and model.likelihood_facts.support == "binary"):
        raise UsageError(
            "`training.binarise` makes pixels black or white, which needs a `model.likelihood` of 'bernoulli' and no"
            " `model.patch`; remove `training.binarise`"
        )


def epochs_of(model: ModelSpec, training: TrainSpec, images: int) -> int:
    """The most epochs of a fit on `images` training images; an epoch of patches has many patches of each image."""
    view = model.view
    epochs = epochs_for(training, images * repeats_of(images) if view.windows else images)
    return min(epochs, view.epochs) if view.epochs and training.epochs is None else epochs


def repeats_of(images: int) -> int:
    """How many patches an epoch has of each of `images` training images."""
    return -(-TRAINING_CROPS // images)


def _threads(model: ModelSpec) -> int:
    """One thread where steps are so short that more threads slow them down, otherwise torch's own choice."""
    tiny = model.kind == "mlp" and int(np.prod(model.vae_shape)) * model.hidden_sizes[0] < 100_000
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # the processes of this machine share its cores
    most = torch.get_num_threads() if here == 1 else min(torch.get_num_threads(), max(1, cores() // here))
    return 1 if tiny else most
