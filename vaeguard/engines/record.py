"""The record of a model file: typed, and read and written only here."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError
from vaeguard.settings.checks import check_fits, check_not_negative, check_one_of, check_positive, settle_types
from vaeguard.settings.evaluation import check_fpr
from vaeguard.settings.model import MOST_VALUES, ModelSpec
from vaeguard.settings.specs import Spec, from_dict, to_dict
from vaeguard.settings.training import TrainSpec
from vaeguard.statistics.spots import LARGEST, MOST_PEAKS
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

DETECTOR, DENOISER = "detector", "denoiser"
"""Kinds of model files."""


PIXELS = ("uint8", "float32")
"""The types of pixels that an exported model may take."""
OWN_OUTPUTS = ("score", "p_value", "anomaly", "restored", "heatmap")
"""The outputs of every exported model, besides its terms."""
LONGEST_REASON = 200
APPEARANCE = ("brightness", "sharpness")
"""What is known of the appearance of normal images."""


@dataclass(frozen=True)
class Checked:
    """A part of a record, whose values have the types of their annotations."""

    def __post_init__(self) -> None:
        settle_types(self)
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not math.isfinite(value):
                raise UsageError(f"`{name}` is {value}; it must be finite")
            if isinstance(value, int) and value < 0:
                raise UsageError(f"`{name}` is {value}; it must not be negative")


@dataclass(frozen=True)
class SplitRecord(Checked):
    """Numbers of images for training, early stopping and calibration, and a digest of the split.

    With folds, every part has all images, each judged by a model that has not seen its fold. `grouped` says whether
    images of the same object were kept together.
    """

    training: int
    validation: int
    calibration: int
    folds: int
    grouped: bool
    sha256: str


@dataclass(frozen=True)
class DataRecord(Checked):
    """The data of a fit: see `ImageSet`."""

    name: str
    named: bool
    fingerprint: str
    images: int
    split: SplitRecord


@dataclass(frozen=True)
class CalibrationRecord(Checked):
    """The number of images that rank the score, and what is known of normal images.

    `heatmap_scale` is the strangeness that hardly any of their pixels reaches; `peaks` are the largest of each image,
    sorted, of up to `MOST_PEAKS` of them. `brightness` and `sharpness` are those of some normal images
    (`statistics.appearance`), which a watch compares with later ones.
    """

    images: int
    heatmap_scale: float | None = None
    peaks: tuple[float, ...] = ()
    brightness: tuple[float, ...] = ()
    sharpness: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("heatmap_scale", self.heatmap_scale)
        if not all(low <= high for low, high in pairwise((0.0, *self.peaks, LARGEST))) or len(self.peaks) > MOST_PEAKS:
            raise UsageError(f"`peaks` must be at most {MOST_PEAKS:,} sorted numbers, none of them below 0")
        for name in APPEARANCE:
            for value in getattr(self, name):
                check_not_negative(name, value)


@dataclass(frozen=True)
class BackboneRecord(Checked):
    """The frozen network of a model of features: name, digest and licence of its weights, channels of its maps."""

    name: str
    sha256: str
    licence: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class ClassRecord(Checked):
    """How well a fit describes one of its normal classes.

    It holds numbers of images, means over the validation images of the class (None if there are none), and the share of
    its calibration images that would be flagged. Only a guided model has `class_accuracy`.
    """

    name: str
    training: int
    draws: int
    validation: int
    distortion: float | None
    rate: float | None
    class_accuracy: float | None
    neg_elbo: float | None
    calibration: int
    flagged: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in (self.class_accuracy, self.flagged):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"a share of the class {self.name!r} is {value}; it must lie between 0 and 1")
        means = (self.validation, self.distortion), (self.calibration, self.flagged)
        if any((mean is None) != (images == 0) for images, mean in means):
            raise UsageError(f"the means of the class {self.name!r} do not fit the numbers of its images")


@dataclass(frozen=True)
class LineageRecord(Checked):
    """What a refit came from: SHA-256 of the model before and of the labels, and numbers of confirmed images.

    `training_only` normal images were chosen by their score, `audited` ones at random; the model learned from all of
    these, and from none of the `defects`.
    """

    model: str
    labels: str
    training_only: int
    audited: int
    defects: int


@dataclass(frozen=True)
class OnnxRecord(Checked):
    """How a model was exported: type of pixels, precision, false-alarm rate, opset, and what PyTorch said.

    `answers` are PyTorch's score, p-value and terms for noise (`parity.random_images`) with the digest `noise`.
    """

    pixels: str
    fp16: bool
    fpr: float
    opset: int
    noise: str = ""
    answered: tuple[str, ...] = ()
    answers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("pixels", self.pixels, PIXELS)
        check_fpr(self.fpr)


@dataclass(frozen=True)
class ModelRecord(Checked):
    """The record of a model file.

    Attributes
    ----------
    model, training : specs
        The settings, with every open choice resolved.
    class_names : tuple of str
        The names of all classes of the training data.
    normal_classes : tuple of str
        The classes that the model was fitted on; empty if the data had none.
    data : DataRecord
        The data of the fit.
    calibration : CalibrationRecord
        The images that rank the score.
    best_epoch : dict
        The row of the history whose weights the model has.
    finished_epochs : int
        How many epochs the training had; fewer than `training.epochs` if it ended early.
    classes : tuple of ClassRecord
        One record for each normal class.
    versions : dict of str
        Versions of the packages at the fit.
    hardware : str
        The device of the fit.
    backbone : BackboneRecord or None
        The network of a model of features.
    lineage : LineageRecord or None
        What the model was refitted from.
    format : int or None
        Format of the file; None for a model that was not read from a file.
    terms : tuple of str
        The terms among the outputs of an exported model.
    onnx : OnnxRecord or None
        How the model was exported, if it was.
    """

    model: ModelSpec
    training: TrainSpec
    class_names: tuple[str, ...]
    normal_classes: tuple[str, ...]
    data: DataRecord
    calibration: CalibrationRecord
    best_epoch: dict[str, int | float]
    finished_epochs: int
    versions: dict[str, str]
    hardware: str
    classes: tuple[ClassRecord, ...] = ()
    backbone: BackboneRecord | None = None
    lineage: LineageRecord | None = None
    format: int | None = None
    terms: tuple[str, ...] = ()
    onnx: OnnxRecord | None = None

    __repr__ = brief

    @property
    def epoch(self) -> int:
        """The epoch whose weights the model has, from 1."""
        return int(self.best_epoch["epoch"])

    @property
    def of_fit(self) -> ModelRecord:
        """The record of the fit, without the values that a file or an export adds."""
        return replace(self, format=None, terms=(), onnx=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON can hold, in the order of the file."""
        values: dict[str, Any] = {
            "kind": DETECTOR,
            "model": to_dict(self.model),
            "training": to_dict(self.training),
            "class_names": list(self.class_names),
            "normal_classes": list(self.normal_classes),
            "data": asdict(self.data),
            "calibration": {
                **_without(asdict(self.calibration), "heatmap_scale", keep=self.model.view.pictures),
                "peaks": list(self.calibration.peaks),
            },
            "best_epoch": dict(self.best_epoch),
            "finished_epochs": self.finished_epochs,
            "classes": [_without(asdict(row), "class_accuracy", keep=bool(self.model.guided)) for row in self.classes],
            "backbone": None if self.backbone is None else asdict(self.backbone),
            "versions": dict(self.versions),
            "hardware": self.hardware,
        }
        if self.lineage:
            values["lineage"] = asdict(self.lineage)
        if self.format is not None:
            values = {"format": self.format, **values}
        return values if self.onnx is None else {**values, "terms": list(self.terms), "onnx": asdict(self.onnx)}


def _without(values: dict[str, Any], name: str, *, keep: bool) -> dict[str, Any]:
    """`values`, without the one called `name` unless `keep` is true."""
    return values if keep else {key: value for key, value in values.items() if key != name}


def parse_record(text: str | bytes, name: str) -> dict[str, Any]:
    """The JSON object in a model file, unchecked; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The text is no JSON object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise RefusedError(
            f"{name!r} was not written by vaeguard (its record of the fit is missing); give a model file that"
            " vaeguard wrote"
        )
    return values


def read_record(values: Mapping[str, Any], name: str) -> ModelRecord:
    """The record of a detector from the JSON of its file; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The file is of another kind, lacks a value, or has a value of another type.
    """
    _check_kind(values, name)
    try:
        record = _typed_record(values)
        _check_together(record)
    except KeyError as error:
        raise RefusedError(f"the model file {name!r} lacks the value {error}; fit the model again") from error
    except (TypeError, ValueError, AttributeError, UsageError) as error:
        raise RefusedError(
            f"the model file {name!r} does not work with this version of vaeguard ({reason_of(error)}); fit the"
            " model again"
        ) from error
    return record


def reason_of(error: Exception) -> str:
    """A short reason; the values of a record are no parameters of a caller, so they are not marked as such."""
    return str(error).replace("`", "'")[:LONGEST_REASON]


def _typed_record(values: Mapping[str, Any]) -> ModelRecord:
    data, calibration = values["data"], values["calibration"]
    onnx, network = values.get("onnx"), values["backbone"]
    return ModelRecord(
        model=_spec(ModelSpec, values["model"]),
        training=_spec(TrainSpec, values["training"]),
        class_names=values["class_names"],
        normal_classes=values["normal_classes"],
        data=DataRecord(**{**data, "split": SplitRecord(**data["split"])}),
        calibration=CalibrationRecord(
            **{**calibration, **{name: calibration[name] for name in ("peaks", *APPEARANCE)}}
        ),
        best_epoch=values["best_epoch"],
        finished_epochs=values["finished_epochs"],
        classes=tuple(ClassRecord(**{"class_accuracy": None, **row}) for row in values["classes"]),
        lineage=LineageRecord(**values["lineage"]) if "lineage" in values else None,
        backbone=None if network is None else BackboneRecord(**network),
        versions=values["versions"],
        hardware=values["hardware"],
        format=values["format"],
        terms=values["terms"] if onnx else (),
        onnx=OnnxRecord(**onnx) if onnx else None,
    )


def _check_together(record: ModelRecord) -> None:
    """Refuse values that contradict each other or that no fit writes."""
    if not record.model.is_resolved:
        raise ValueError("some settings of the model are missing")
    for name, value in record.best_epoch.items():
        check_fits(name, value)
        if not math.isfinite(value):
            raise ValueError(f"`{name}` is {value}")
    shape, outputs = record.model.shape, (*record.terms, *OWN_OUTPUTS)
    names = tuple(row.name for row in record.classes)
    network = record.backbone
    faults = (
        (record.epoch < 1, f"the epoch is {record.epoch}"),
        (
            len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MOST_VALUES,
            f"the shape of an image is {shape}",
        ),
        (
            (record.model.features, record.model.feature_count)
            != ((network.name, sum(network.channels)) if network else ("", 0)),
            "the network recorded for the features is not that of the model",
        ),
        (not _tiles_fit(record.model), f"the tiles are {record.model.tile} with an overlap of {record.model.overlap}"),
        (record.model.classes != record.normal_classes, "the classes of the model are not its normal classes"),
        (names not in ((), record.normal_classes), f"the classes are called {', '.join(names)}"),
        (len(set(outputs)) < len(outputs), "a term has the name of another output"),
    )
    if fault := next((fault for wrong, fault in faults if wrong), None):
        raise ValueError(fault)


def _tiles_fit(model: ModelSpec) -> bool:
    """Whether tile and overlap are those that a fit settles."""
    if model.tile is None:
        return model.overlap is None
    fits = len(model.tile) == 2 and all(tile <= side for tile, side in zip(model.tile, model.shape[1:], strict=True))
    return fits and model.tiled() == model


def _spec(kind: type[Spec], values: Mapping[str, Any]) -> Spec:
    """A spec from values for every setting, since a default may have been another one at the fit."""
    if missing := [item.name for item in fields(kind) if item.name not in values]:
        raise KeyError(missing[0])
    return from_dict(kind, dict(values))


def _check_kind(values: Mapping[str, Any], name: str) -> None:
    """Refuse a file of anything but a whole detector."""
    kind = DENOISER if DENOISER in values else values.get("kind")
    kind = kind if isinstance(kind, str) else "something"
    if kind == DENOISER:
        raise RefusedError(
            f"{name!r} is a denoiser, which cleans scans and computes no scores; use it with `vaeguard denoise`, or"
            " give an anomaly model"
        )
    if kind != DETECTOR:
        raise RefusedError(f"{name!r} contains a {kind}, not an anomaly model; give the run folder of a fit")
    if "part" in values:
        part = str(values["part"])[:20]
        raise RefusedError(
            f"{name!r} is only the {part} of a model and computes no scores; use the whole model, exported"
            " beside it, or run this part with ONNX Runtime"
        )
