"""Folds: a model of features that learns from all images, and for each fold a head that leaves it out.

Whitening and VAE, the *head* of the model, learn in seconds once the frozen network has seen the images. So a head is
fitted for each fold, on the cells of the other folds, with the same settings and fewer cells a step, and inspects the
images of its fold as if they were new (cross-conformal prediction: Vovk, 2015; CV+: Barber et al., 2021). All heads
learn in one loop and end at the same step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vaeguard.models.cells import Cells
from vaeguard.models.shares import batch_share
from vaeguard.models.vae import VAE
from vaeguard.models.whiten import Whiten
from vaeguard.training.vae_task import Batch, Batches, Examples, VAETask, forward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from vaeguard.models.graph import InferenceGraph
    from vaeguard.settings.training import TrainSpec
    from vaeguard.training.loop import State


FOLD_CELLS = 256
"""The most cells of a step from which the head of a fold learns: five then cost about as much as the head of all."""


class Head(nn.Module):
    """What follows the frozen network: whitening and VAE."""

    def __init__(self, whiten: Whiten, vae: VAE) -> None:
        super().__init__()
        self.whiten, self.vae = whiten, vae


class Heads(nn.Module):
    """The head of a graph, and one for each fold.

    Parameters
    ----------
    graph : InferenceGraph
        A graph of features.
    folds : int
        The number of folds.
    """

    def __init__(self, graph: InferenceGraph, folds: int) -> None:
        super().__init__()
        assert isinstance(graph.places, Cells)
        self.of_all = Head(graph.places.whiten, graph.vae)
        features = len(self.of_all.whiten.offset)
        self.of_folds: list[Head] = [Head(Whiten(features), VAE(graph.vae.spec)) for _ in range(folds)]
        self.modules_of_folds = nn.ModuleList(self.of_folds)

    def __iter__(self) -> Iterator[tuple[int, Head]]:
        """Each fold with the head that leaves it out; the head of all leaves out −1, which is no fold."""
        yield -1, self.of_all
        yield from enumerate(self.of_folds)

    def whiten(self, cells: Tensor, folds: Tensor) -> None:
        """Fit every head's whitening to the cells (n, F) of its folds; `folds` (n,) are those of the cells."""
        mean = cells.double().mean(0)
        sums, products, counts = [], [], []
        for fold in range(len(self.of_folds)):
            centred = cells[folds == fold].double() - mean
            sums.append(centred.sum(0))
            products.append(centred.T @ centred)
            counts.append(len(centred))
        for left_out, head in self:
            kept = [fold for fold in range(len(counts)) if fold != left_out]
            count = sum(counts[fold] for fold in kept)
            shift = torch.stack([sums[fold] for fold in kept]).sum(0) / count
            square = torch.stack([products[fold] for fold in kept]).sum(0) / count
            head.whiten.fit_moments(mean + shift, square - shift.outer(shift))

    def attach(self, graph: InferenceGraph, fold: int) -> None:
        """Give `graph` the head that leaves `fold` out; −1 is the head of all."""
        assert isinstance(graph.places, Cells)
        head = self.of_all if fold < 0 else self.of_folds[fold]
        graph.places.whiten, graph.vae = head.whiten, head.vae


class FoldedTask(VAETask):
    """Heads and the cells that they learn; the weights after the last epoch are kept.

    A step draws cells of all images. The head of all learns from these, and each other head from some of those that are
    not of the fold that it leaves out. Losses of validation are means over cells by the heads that have not seen their
    images.

    Parameters
    ----------
    heads : Heads
        The heads; their whitening is fitted here.
    spec : TrainSpec
        The settings, with every choice settled.
    cells : Examples
        Features of cells (n, 1, 1, F), whose labels are their folds.
    checked : Examples
        Some of these, ordered by fold.
    """

    # A choice of the epoch by the held-out images would make these unlike new ones.
    keeps_last = True

    def __init__(self, heads: Heads, spec: TrainSpec, cells: Examples, checked: Examples) -> None:
        heads.to(spec.device)
        assert cells.labels is not None
        heads.whiten(
            torch.from_numpy(cells.images).flatten(1).to(spec.device), torch.from_numpy(cells.labels).to(spec.device)
        )
        super().__init__(heads.of_all.vae, spec, cells, checked)
        self.net = self.heads = heads
        self.training.whole = True  # each head has its own share of these cells
        self.checks = [(vae, Batches(part, vae, self.validation.device)) for vae, part in left_out(heads, checked)]

    def loss(self, state: State, batch: Batch, step: int) -> Tensor:
        """The sum of the objectives of all heads."""
        noise, beta = state.generators["noise"], self._beta(len(state.history), step)
        objectives, folds = [], batch.labels
        assert folds is not None
        for fold, head in self.heads:
            seen = batch.images if fold < 0 else batch.images[torch.nonzero(folds != fold)[:FOLD_CELLS, 0]]
            if not len(seen):  # a last batch of few cells
                continue
            share = batch_share(len(seen))
            value, terms = forward(head.vae, Batch(head.whiten(share.of(seen)), share=share), self.spec, beta, noise)
            objectives.append(value)
            if fold < 0:
                self.means.add(terms, value.item())
        return torch.stack(objectives).sum()


@torch.no_grad()
def left_out(heads: Heads, cells: Examples) -> list[tuple[VAE, Examples]]:
    """The VAE of each fold with the cells of this fold, which it has not seen, whitened and without labels."""
    assert cells.labels is not None
    parts = []
    for fold, head in enumerate(heads.of_folds):
        rows = cells.rows[cells.labels[cells.rows] == fold]
        seen = head.whiten(torch.from_numpy(cells.images[rows]).to(head.whiten.offset.device)).cpu().numpy()
        parts.append((head.vae, Examples(seen, None, np.arange(len(rows)))))
    return parts
