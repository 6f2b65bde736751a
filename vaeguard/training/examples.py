"""The examples that a fit learns from: images, patches of them, or cells of their features."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.data.own_regions import LOOK_HERE
from vaeguard.data.shards import in_shards
from vaeguard.data.split import class_targets
from vaeguard.engines.tiling import Tiling
from vaeguard.models.cells import Cells
from vaeguard.models.shares import BatchShare, arrays_from_first, batch_share
from vaeguard.training.plan import repeats_of
from vaeguard.training.pseudo_classes import PseudoClasses, pseudo_labels
from vaeguard.training.vae_task import Examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.engines.tiling import Tile
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.progress import Progress
    from vaeguard.training.plan import FitPlan

    Rows = npt.NDArray[np.int64]

TRAINING_CELLS = 100_000
"""The least cells to train on, if the images have as many."""
TRAINING_TILES = 256
"""The least tiles from which cells are drawn, if the images have as many."""
VALIDATION_CELLS = 10_000
"""The least cells to validate on, if the images have as many."""
VALIDATION_CROPS = 2048
"""The least random patches to validate on per epoch."""


def examples_of(
    plan: FitPlan, graph: InferenceGraph, images: npt.NDArray[Any], progress: Progress | None
) -> tuple[Examples, Examples]:
    """The training and the validation examples."""
    targets = class_targets(plan.image_set, plan.normal)
    if isinstance(graph.places, Cells):
        # Convolutions run faster with channels last.
        graph.eval().to(plan.training.device).to(memory_format=torch.channels_last)
        make = _cell_examples if plan.split.folds is None else _folded_examples
        return make(plan, graph, progress)
    if graph.whiten is not None:
        images = graph.whiten(torch.tensor(images)).numpy()
    rows = [plan.split.training, plan.split.validation]
    pseudo: Sequence[npt.NDArray[np.int64] | None] = (None, None)
    classes_of = None
    if plan.model.pseudo_classes:
        clusters, seed = plan.model.pseudo_classes, plan.training.seed
        if in_shards(images):
            classes_of = PseudoClasses(images, plan.known, clusters, seed).of
            pseudo = None, classes_of(images[rows[1]])
        else:
            pseudo = arrays_from_first(lambda: pseudo_labels(images, rows[0], rows[1], clusters, seed))
    if plan.model.view.windows:
        repeats = repeats_of(len(rows[0])), -(-VALIDATION_CROPS // len(rows[1]))
        rows = [np.tile(part, times) for part, times in zip(rows, repeats, strict=True)]
    regions = plan.image_set.images[:, -1] if plan.model.regions else None
    learn, validate = (
        Examples(images, targets, *parts, region=plan.region, regions=regions)
        for parts in zip(rows, pseudo, strict=True)
    )
    return replace(learn, classes_of=classes_of), validate


def _cell_examples(plan: FitPlan, graph: InferenceGraph, progress: Progress | None) -> tuple[Examples, Examples]:
    """Cells drawn at random from the training and the validation images, whitened by those of the training images."""
    parts = plan.split.training, plan.split.validation
    shares = [-(-most // len(rows)) for rows, most in zip(parts, (TRAINING_CELLS, VALIDATION_CELLS), strict=True)]
    wanted = np.repeat(shares, [len(rows) for rows in parts])
    features, counts = _drawn(plan, graph, np.concatenate(parts), wanted, progress)
    assert isinstance(graph.places, Cells)
    cells = graph.places
    learned = int(counts[: len(parts[0])].sum())
    cells.whiten.fit(features[:learned])
    with torch.no_grad():
        values = cells.whiten(features).cpu().numpy()[:, None, None, :]
    origins, rows = np.repeat(np.concatenate(parts), counts), np.arange(len(values))
    learn, validate = (Examples(values, None, part, origins=origins[part]) for part in np.split(rows, [learned]))
    return learn, validate


def _folded_examples(plan: FitPlan, graph: InferenceGraph, progress: Progress | None) -> tuple[Examples, Examples]:
    """Cells drawn at random from all images, with their folds as labels, and some of these in the order of folds."""
    images, folds = plan.split.training, plan.split.folds
    assert folds is not None
    wanted = np.full(len(images), -(-TRAINING_CELLS // len(images)))
    features, counts = _drawn(plan, graph, images, wanted, progress)
    values, labels = features.cpu().numpy()[:, None, None, :], np.repeat(folds, counts)
    rows, origins = np.arange(len(values)), np.repeat(images, counts)
    some = np.random.default_rng(plan.training.seed).permutation(rows)[:VALIDATION_CELLS]
    some = some[np.argsort(labels[some], kind="stable")]
    return Examples(values, labels, rows, origins=origins), Examples(values, labels, some, origins=origins[some])


@torch.no_grad()
def _drawn(
    plan: FitPlan, graph: InferenceGraph, rows: Rows, wanted: Rows, progress: Progress | None
) -> tuple[Tensor, Rows]:
    """The features of `wanted` cells (n,), or of all if there are fewer, of each of `rows` (n,), and their numbers."""
    draw, parts, counts = torch.Generator().manual_seed(plan.training.seed), [], []
    tiles = _tiles_inside(plan, plan.region)
    most_tiles = -(-TRAINING_TILES // len(rows))
    share = batch_share(len(rows))
    for number, (row, most) in enumerate(zip(rows, wanted, strict=True)):
        image = plan.image_set.images[row] if plan.model.regions else None
        if image is not None:
            own = image[-1] >= LOOK_HERE
            tiles = _tiles_inside(plan, own if plan.region is None else own & plan.region)
        chosen = torch.randperm(len(tiles), generator=draw)[:most_tiles].tolist() if len(tiles) > 1 else [0]
        some = [tiles[at] for at in chosen]
        counted = [_counted(graph, tile, image) for tile in some]
        cells = torch.randperm(int(sum(map(torch.count_nonzero, counted))), generator=draw)[:most]
        counts.append(len(cells))
        if share.first <= number < share.last:
            features = _features(graph, plan.image_set.images[row], some, counted)
            parts.append(features[cells.to(features.device)])
            if progress:
                progress(number + 1, share.last, f"features of image {number + 1}/{share.last}")
    return _of_all(graph, parts, share, np.array(counts)), np.array(counts)


def _tiles_inside(plan: FitPlan, inside: npt.NDArray[np.bool_] | None) -> list[Tile]:
    """The tiles that have pixels `inside` (H, W), or all of them if none has."""
    tiles = [*Tiling(plan.model).tiles]
    return tiles if inside is None else [tile for tile in tiles if inside[tile.at].any()] or tiles


def _counted(graph: InferenceGraph, tile: Tile, image: npt.NDArray[Any] | None) -> Tensor:
    """Which cells of a tile count, bool (P,); `image` matters only if it has a region of its own."""
    assert isinstance(graph.places, Cells)
    cells = graph.places
    pixels = None if image is None else torch.tensor(image[None, :, *tile.at], device=cells.mean.device)
    inside = graph.inside(pixels, _first_of(graph, tile))
    if inside is None:
        return torch.ones(cells.grid[0] * cells.grid[1], dtype=torch.bool, device=cells.mean.device)
    return cells.counted(inside)[0]


def _features(graph: InferenceGraph, image: npt.NDArray[Any], tiles: Sequence[Tile], counted: list[Tensor]) -> Tensor:
    """The features of all cells that count, (n, F), of one image or of tiles of it."""
    assert isinstance(graph.places, Cells)
    cells, features = graph.places, []
    for tile, some in zip(tiles, counted, strict=True):
        pixels = torch.tensor(image[None, :, *tile.at], device=cells.mean.device)
        features.append(cells.features(graph.prepared(pixels, _first_of(graph, tile))).flatten(0, 2)[some])
    return torch.cat(features)


def _first_of(graph: InferenceGraph, tile: Tile) -> Tensor | None:
    """The first row and column of a tile, (1, 2); None if an image is not cut."""
    assert isinstance(graph.places, Cells)
    return torch.tensor([tile.first], device=graph.places.mean.device) if graph.vae.spec.tile else None


def _of_all(graph: InferenceGraph, parts: list[Tensor], share: BatchShare, counts: Rows) -> Tensor:
    """The features of the cells of all images, from those of the images of each process."""
    assert isinstance(graph.places, Cells)
    offset = graph.places.whiten.offset
    own = torch.cat(parts) if parts else offset.new_empty((0, len(offset)))
    first, last = int(counts[: share.first].sum()), int(counts[: share.last].sum())
    return share._replace(first=first, last=last, whole=int(counts.sum())).gathered(own)


def digest(examples: Examples) -> str:
    """The digest of what another machine may compute in another way, and a resumed fit compares."""
    computed = examples.images if examples.origins is not None else examples.pseudo
    return "" if computed is None else hashlib.sha256(computed.tobytes()).hexdigest()
