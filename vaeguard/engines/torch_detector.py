"""The detector that PyTorch runs: the inference graph behind NumPy arrays."""

from __future__ import annotations

import functools
import hashlib
import os
from typing import TYPE_CHECKING

import torch

from vaeguard.devices import is_out_of_memory
from vaeguard.engines import generation
from vaeguard.engines.detector import Detector, as_images, block_rows, filled
from vaeguard.errors import UsageError
from vaeguard.wording import counted

if TYPE_CHECKING:
    from vaeguard.engines.generation import Encoding
    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.tiling import Firsts
    from vaeguard.models.graph import InferenceGraph

BLOCK_ROWS = {"mlp": 256, "conv": 64}
_FORKED: list[bool] = []
"""Holds an item in a forked process until a detector is used there."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))


class TorchDetector(Detector):
    """A fitted model; `vaeguard.fit` and `vaeguard.load` make one.

    Matrix products round differently at different batch sizes. All blocks have one size, so an image's bits do not
    depend on the images around it.

    Parameters
    ----------
    graph : InferenceGraph
        The fitted graph; it is moved to `device` and set to evaluation mode.
    record : ModelRecord
        The record of the model file.
    device : str
        `cpu` or `cuda`.
    """

    def __init__(self, graph: InferenceGraph, record: ModelRecord, device: str = "cpu") -> None:
        super().__init__(record, graph.term_names, device)
        # Convolutions round differently with each layout of the weights, so fitted and loaded models share one layout.
        self._graph = graph.eval().to(device).to(memory_format=torch.channels_last)
        spec = graph.vae.spec
        # One image has many patches, which fill a block.
        self.block = block_rows(self.info.graph_shape, BLOCK_ROWS[spec.kind or ""]) if spec.view.whole else 1

    @property
    def graph(self) -> InferenceGraph:
        """The fitted graph; a forked process computes in one thread, since a fork copies no others."""
        if _FORKED:
            _FORKED.clear()
            torch.set_num_threads(1)
        return self._graph

    @functools.cached_property
    def fingerprint(self) -> str:
        """Engine, device and number of threads, on which the bits depend, and the digest of weights and calibration."""
        digest = hashlib.sha256()
        for name, tensor in self.graph.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return f"torch {self.device} {torch.get_num_threads()} {digest.hexdigest()}"

    def run(self, images: Images, wanted: tuple[str, ...], first: Firsts | None) -> dict[str, Floats]:
        """The results named in `wanted` for 1 to `block` images, or tiles whose first rows and columns are `first`."""
        graph, block = self.graph, torch.from_numpy(filled(images, self.block))
        try:
            with torch.inference_mode():
                tiles = None if first is None else torch.from_numpy(filled(first, self.block)).to(self.device)
                results = graph(block.to(self.device), tiles)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            if "forked subprocess" in str(error):
                raise UsageError(
                    "a model on a CUDA device cannot be used in a forked process; start processes with 'spawn', or load"
                    " the model in each process"
                ) from error
            raise
        return {name: results[name][: len(images)].cpu().numpy() for name in wanted}

    def encode(self, images: Images) -> Encoding:
        """The posterior of `images`, given as to `inspect`: mean and log-variance, see `generation.encode`."""
        return generation.encode(self.graph, as_images(images, self.info))

    def decode(self, latents: Floats) -> Floats:
        """The decoder's mean images for latents (N, L): float32 (N, C, H, W), see `generation.decode`."""
        return generation.decode(self.graph, latents)

    def sample(
        self,
        count: int,
        *,
        class_: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        like: Images | None = None,
    ) -> Floats:
        """New images, float32 (count, C, H, W), from the prior, from the prior of a class, or around images.

        See `generation.sample_latents`.
        """
        like = None if like is None else as_images(like, self.info)
        latents = generation.sample_latents(
            self.graph, count, class_=class_, temperature=temperature, seed=seed, like=like
        )
        return generation.decode(self.graph, latents)

    def interpolate(self, ends: Images, steps: int, *, spherical: bool = False) -> Floats:
        """Images between two `ends` (2, C, H, W): float32 (steps, C, H, W), including both restored ends.

        See `generation.interpolate_latents`.
        """
        if len(ends) != 2:
            raise UsageError(
                f"{counted(len(ends), 'image', 'was were')} given, but an interpolation is between two; give two"
            )
        first, last = self.encode(ends).mean
        return generation.decode(self.graph, generation.interpolate_latents(first, last, steps, spherical=spherical))
