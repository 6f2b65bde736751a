"""`fit`: from normal images to a calibrated detector and, if asked, a run folder."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from vaeguard.classes import parse_classes
from vaeguard.devices import has_bf16, pick_device
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.files import write_text
from vaeguard.graph import InferenceGraph
from vaeguard.image_set import ImageSet
from vaeguard.model_file import save
from vaeguard.models import VAE
from vaeguard.packed import from_array
from vaeguard.spec import ModelSpec, TrainSpec, to_dict
from vaeguard.torch_detector import TorchDetector
from vaeguard.training import Examples, Progress, State, start, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MIN_NORMAL = 20
CHECKPOINT_SECONDS = 5.0


@dataclass(frozen=True)
class Split:
    """Row numbers of the normal images: to train on, to stop and shape the score by, to rank the score by."""

    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]

    def digest(self) -> str:
        """SHA-256 of the three lists, hex."""
        parts = (self.training, self.validation, self.calibration)
        return hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()


def fit(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None = None,
    *,
    normal_classes: str | Sequence[str] | None = None,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TorchDetector:
    """Fit a VAE on normal images and calibrate its anomaly score on others of them.

    Parameters
    ----------
    images : ImageSet or ndarray
        From `vaeguard.open_images`, or uint8 (0..255) or float32 ([0, 1]) of shape (N, C, H, W) or (N, H, W).
    labels : array of int or str, shape (N,), optional
        Classes of an array's images.
    normal_classes : str or sequence of str, optional
        `"0-8"`, `"good,ok"` or names. Images of other classes are not looked at. Default: all.
    model, training : specs
        What to fit and how.
    run : path, optional
        Run folder to write `model.safetensors`, `history.csv` and `report.json` to.
    resume : bool
        Go on from the checkpoint in `run`, if there is one.
    progress : callable, optional
        Called with steps done, steps in all, a line of text.

    Returns
    -------
    TorchDetector

    Raises
    ------
    UsageError
        Too few normal images, an unknown class, a spec that does not suit the data.
    VaeguardError
        Training diverged.
    """
    training = training or TrainSpec()
    device = pick_device(training.device)
    if training.bf16 is None:
        training = replace(training, bf16=has_bf16(device))
    image_set = images if isinstance(images, ImageSet) else from_array(images, labels)
    normal, class_rows = _normal_rows(image_set, normal_classes)
    names = tuple(image_set.class_names[k] for k in normal)
    shape = image_set.images.shape
    model = (model or ModelSpec()).resolved((shape[1], shape[2], shape[3]), names)
    split = split_rows(class_rows, training)
    settings = {
        "model": to_dict(model),
        "training": to_dict(training),
        "data": {"fingerprint": image_set.fingerprint, "split": split.digest()},
    }
    torch.set_num_threads(training.threads or _threads(model))
    targets = _targets(image_set, normal)
    state = _train(
        model, training, image_set, targets, split, settings, device, Path(run) if run else None, resume, progress
    )
    record = _record(image_set, names, model, training, split, state, device)
    detector = _calibrated(state.vae, image_set.images, split, record, device)
    if run:
        _write_run(Path(run), detector, state, image_set, split)
    return detector


def _threads(model: ModelSpec) -> int:
    """One thread where a step is so short that threads cost more than they bring, otherwise torch's own choice."""
    shape = model.image_shape or (0, 0, 0)
    tiny = model.kind == "mlp" and int(np.prod(shape)) * model.hidden[0] < 100_000
    return 1 if tiny else torch.get_num_threads()


def split_rows(class_rows: Sequence[npt.NDArray[np.int64]], spec: TrainSpec) -> Split:
    """Split each class's rows at random by `spec`'s shares and seed; every class is in every part that it can fill."""
    generator = np.random.default_rng(spec.seed)
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for rows in class_rows:
        shuffled = generator.permutation(rows)
        valid = max(1, round(spec.validation * len(rows)))
        calibrate = max(1, round(spec.calibration * len(rows)))
        for part, some in zip(parts, np.split(shuffled, [-valid - calibrate, -calibrate]), strict=True):
            part.append(some)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def _normal_rows(
    image_set: ImageSet, normal_classes: str | Sequence[str] | None
) -> tuple[tuple[int, ...], list[npt.NDArray[np.int64]]]:
    """The numbers of the normal classes, and the rows of each (one list for images without labels)."""
    normal: tuple[int, ...] = ()
    if image_set.labels is None:
        if normal_classes is not None:
            raise UsageError(f"--normal-classes given, but {image_set.name!r} has no classes; use class sub-folders")
        class_rows = [np.arange(len(image_set.images))]
    else:
        normal = tuple(map(int, np.unique(image_set.labels)))
        if normal_classes is not None:
            text = normal_classes if isinstance(normal_classes, str) else ",".join(normal_classes)
            normal = parse_classes(text, image_set.class_names)
        class_rows = [np.flatnonzero(image_set.labels == k) for k in normal]
    for k, rows in zip(normal, class_rows, strict=False):
        if len(rows) < 3:
            name = image_set.class_names[k]
            raise UsageError(f"class {name!r} of {image_set.name!r} has {len(rows)} images; a normal class needs 3")
    count = sum(map(len, class_rows))
    if count < MIN_NORMAL:
        raise UsageError(f"{image_set.name!r} has {count} normal images; fitting needs at least {MIN_NORMAL}")
    return normal, class_rows


def _targets(image_set: ImageSet, normal: tuple[int, ...]) -> npt.NDArray[np.int64] | None:
    """Class numbers counted among the normal classes only; −1 for the others."""
    if image_set.labels is None:
        return None
    lookup = np.full(len(image_set.class_names), -1, dtype=np.int64)
    lookup[list(normal)] = np.arange(len(normal))
    targets: npt.NDArray[np.int64] = lookup[image_set.labels]
    return targets


def _train(
    model: ModelSpec, training: TrainSpec, image_set: ImageSet, targets: npt.NDArray[np.int64] | None, split: Split,
    settings: dict[str, Any], device: str, run: Path | None, resume: bool, progress: Progress | None,
) -> State:  # fmt: skip
    torch.manual_seed(training.seed)
    state = start(VAE(model), training, device)
    checkpoint = run / CHECKPOINT_NAME if run else None
    if checkpoint and resume and checkpoint.exists():
        read_checkpoint(checkpoint, state, settings)
    written = time.monotonic()

    def after_epoch(state: State) -> None:
        nonlocal written
        if checkpoint and time.monotonic() - written > CHECKPOINT_SECONDS:
            write_checkpoint(checkpoint, state, settings)
            written = time.monotonic()

    learn, validate = (Examples(image_set.images, targets, rows) for rows in (split.training, split.validation))
    try:
        train(state, learn, validate, training, after_epoch=after_epoch, progress=progress)
    except VaeguardError as error:
        if not checkpoint:
            raise
        state.vae.load_state_dict(state.best_weights)
        write_checkpoint(checkpoint, state, settings)
        kept = f"the weights of epoch {state.best_epoch + 1}" if state.history else "the initial weights"
        raise VaeguardError(f"{error}; {kept} are kept in {str(checkpoint)!r}") from error
    except KeyboardInterrupt:
        if checkpoint and state.history:
            write_checkpoint(checkpoint, state, settings)
        raise
    return state


def _calibrated(
    vae: VAE, images: npt.NDArray[np.uint8], split: Split, record: dict[str, Any], device: str
) -> TorchDetector:
    detector = TorchDetector(InferenceGraph(vae, len(split.calibration)), record, device)
    calibration = detector.graph.calibration
    # Shaped by one set of normal images, ranked by another, so that the ranks stay exchangeable with new images'.
    terms = detector.inspect(images[split.validation]).terms
    calibration.cpu().fit_score(np.stack([terms[name] for name in detector.info.term_names], 1))
    calibration.to(device)
    scores = detector.inspect(images[split.calibration]).score
    calibration.normal_scores.copy_(torch.from_numpy(np.sort(scores)))
    return detector


def _record(
    image_set: ImageSet, names: tuple[str, ...], model: ModelSpec, training: TrainSpec, split: Split, state: State,
    device: str,
) -> dict[str, Any]:  # fmt: skip
    sizes = {part: len(rows) for part, rows in asdict(split).items()}
    packages = ("vaeguard", "torch", "numpy", "safetensors")
    return {
        "kind": "detector",
        "model": to_dict(model),
        "training": to_dict(replace(training, threads=torch.get_num_threads())),
        "class_names": list(image_set.class_names),
        "normal_classes": list(names),
        "data": {
            "name": image_set.name,
            "fingerprint": image_set.fingerprint,
            "images": len(image_set.images),
            "split": {**sizes, "sha256": split.digest()},
        },
        "calibration": {"images": len(split.calibration)},
        "best_epoch": state.history[state.best_epoch],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "hardware": hardware(device),
    }


def hardware(device: str) -> str:
    """The processor that did the work, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _write_run(run: Path, detector: TorchDetector, state: State, image_set: ImageSet, split: Split) -> None:
    from vaeguard.pictures import draw_history, draw_reconstructions, pick_examples
    from vaeguard.tables import write_table

    columns = {name: np.array([row[name] for row in state.history]) for name in state.history[0]}
    write_table(run / "history.csv", columns)
    draw_history(run / "history.png", state.history)
    scores = detector.inspect(image_set.images[split.calibration]).score
    rows = split.calibration[pick_examples(scores, 12)]
    shown, paths = image_set.images[rows], [image_set.paths[row] for row in rows]
    draw_reconstructions(
        run / "reconstructions.png", shown, detector.inspect(shown, pictures=True), range(len(rows)), paths
    )
    write_text(run / "report.json", json.dumps(detector.info.record, indent=2) + "\n")
    # The model comes last: where it is, the run is complete.
    save(detector, run)
    (run / CHECKPOINT_NAME).unlink(missing_ok=True)
