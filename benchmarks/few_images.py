"""Few good images: how well defects are told and how many sound images are flagged at 5 %, over draws of the good ones.

python -m benchmarks.few_images CACHE [--cases boards:20 screws:100] [--draws 20] [--epochs E]

The sound screws of the test part are photographed brighter than those to fit on, so the sound ones to judge are held
out of the latter. Boards come in pairs of a sound and a defective one, and no pair is on both sides. The maps of the
frozen network do not depend on the draw: they are computed once and kept in the folder CACHE (some gigabytes), and so
is what was found in each draw, so that the same command continues after an interruption. After a change of the code,
use a new folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import t

import vaeguard
from benchmarks.common import data_dir, spread, write_result
from vaeguard.benchmarking.defects import open_deeppcb
from vaeguard.data.images import ImageRule, decode_image
from vaeguard.evaluation.evaluating import measure_detector
from vaeguard.models.cells import Cells
from vaeguard.statistics.false_alarms import flag
from vaeguard.storage.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]

CASES = ("boards:20", "boards:50", "screws:20", "screws:50", "screws:100")
JUDGED = 60
"""The most images of each kind to judge in a draw."""
FPR = 0.05


def boards() -> tuple[Images, Images, bool]:
    """Sound and defective boards; those of one number are a pair."""
    surfaces = open_deeppcb(data_dir(), (640, 640))
    normal = np.array([kind == "" for kind in surfaces.kinds])
    return surfaces.images[normal], surfaces.images[~normal], True


def screws() -> tuple[Images, Images, bool]:
    """Sound and damaged screws."""
    folder, rule = data_dir() / "screws", ImageRule((512, 512), 1)
    parts = [sorted((folder / part).glob("*.jpg")) for part in ("train/good", "test/bad")]
    good, bad = (np.stack([decode_image(path, rule) for path in paths]) for paths in parts)
    return good, bad, False


def remembered(folder: Path) -> AbstractContextManager[object]:
    """A patch by which the features of an image are computed once and kept in `folder`, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    compute = Cells.features

    def features(self: Cells, image: torch.Tensor) -> torch.Tensor:
        path = folder / f"{hashlib.sha256(image.numpy().tobytes()).hexdigest()}.npy"
        if not path.exists():
            np.save(path, compute(self, image).half().numpy())
        return torch.from_numpy(np.load(path)).float()

    return patch.object(Cells, "features", features)


def draw(good: Images, bad: Images, paired: bool, count: int, seed: int, epochs: int | None) -> dict[str, float]:
    """Fit on `count` good images and judge others."""
    order = np.random.default_rng(seed).permutation(len(good))
    fitted, judged = order[:count], order[count:]
    some = judged if paired else np.random.default_rng(seed).permutation(len(bad))
    tested = np.concatenate([good[judged[:JUDGED]], bad[some[:JUDGED]]])
    anomalous = np.arange(len(tested)) >= len(judged[:JUDGED])
    training = vaeguard.TrainSpec(seed=seed, device="cpu", threads=1, epochs=epochs)
    detector = vaeguard.fit(good[np.sort(fitted)], features="efficientnet-lite0", training=training)
    measured = measure_detector(detector, tested, anomalous)
    flagged = flag(measured.inspection.p_value, FPR)
    return {
        "roc_auc": measured.metrics[0].roc_auc,
        "false_alarms": float(flagged[~anomalous].mean()),
        "caught": float(flagged[anomalous].mean()),
    }


def kept(place: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What an earlier run found, or what `measure` finds now."""
    if not place.exists():
        write_text(place, json.dumps(measure()))
    found: dict[str, float] = json.loads(place.read_text())
    print(place.stem, found, flush=True)
    return found


def main() -> None:
    """Measure every case, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    rows = []
    with remembered(options.cache):
        for case in options.cases:
            name, count = case.split(":")
            images = {"boards": boards, "screws": screws}[name]()
            found = [
                kept(
                    options.cache / f"{name}-{count}-{seed}-{options.epochs or 'default'}.json",
                    partial(draw, *images, int(count), seed, options.epochs),
                )
                for seed in range(options.draws)
            ]
            rates = np.array([row["false_alarms"] for row in found])
            half = t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / np.sqrt(len(rates))
            rows.append({
                "data": name,
                "good images": int(count),
                "ROC-AUC": spread([row["roc_auc"] for row in found]),
                f"false alarms at {FPR:g}": f"{rates.mean():.3f}",
                "95 % interval of the mean": f"{rates.mean() - half:.3f} to {rates.mean() + half:.3f}",
                "caught": spread([row["caught"] for row in found]),
            })  # fmt: skip
            print(rows[-1], flush=True)
    note = (
        f"Mean ± standard deviation over {options.draws} draws of the good images; up to {JUDGED} sound and {JUDGED}"
        " defective images are judged in each. The model has learned from all good images, and its score is ranked by"
        " folds (docs/explanation/score.md)."
    )
    settings = {"draws": options.draws, "epochs": options.epochs or "default"}
    write_result("few_images", "Few good images", rows, [note], **settings)


if __name__ == "__main__":
    main()
