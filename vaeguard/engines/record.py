"""The record of a model file: typed, and read and written only here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError
from vaeguard.settings.checks import settle_types
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.specs import Spec, from_dict, to_dict
from vaeguard.settings.training import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

DETECTOR, DENOISER = "detector", "denoiser"
"""Kinds of model files."""


@dataclass(frozen=True)
class Checked:
    """A part of a record, whose values have the types of their annotations."""

    def __post_init__(self) -> None:
        settle_types(self)


@dataclass(frozen=True)
class SplitRecord(Checked):
    """Numbers of images for training, early stopping and calibration, and a digest of the split."""

    training: int
    validation: int
    calibration: int
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
    """The number of images that rank the score, and the strangeness of their strangest pixels, if known."""

    images: int
    heatmap_scale: float | None = None


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


@dataclass(frozen=True)
class OnnxRecord(Checked):
    """How a model was exported: type of pixels, precision, false-alarm rate and opset."""

    pixels: str
    fp16: bool
    fpr: float
    opset: int


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
    classes : tuple of ClassRecord
        One record for each normal class.
    versions : dict of str
        Versions of the packages at the fit.
    hardware : str
        The device of the fit.
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
    versions: dict[str, str]
    hardware: str
    classes: tuple[ClassRecord, ...] = ()
    format: int | None = None
    terms: tuple[str, ...] = ()
    onnx: OnnxRecord | None = None

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
            "calibration": _without(asdict(self.calibration), "heatmap_scale", keep=self.model.view.pictures),
            "best_epoch": dict(self.best_epoch),
            "classes": [_without(asdict(row), "class_accuracy", keep=bool(self.model.guided)) for row in self.classes],
            "versions": dict(self.versions),
            "hardware": self.hardware,
        }
        if self.format is not None:
            values = {"format": self.format, **values}
        return values if self.onnx is None else {**values, "terms": list(self.terms), "onnx": asdict(self.onnx)}


def _without(values: dict[str, Any], name: str, *, keep: bool) -> dict[str, Any]:
    """`values`, without the one called `name` unless `keep` is true."""
    return values if keep else {key: value for key, value in values.items() if key != name}


def read_record(values: Mapping[str, Any], name: str) -> ModelRecord:
    """The record of a detector from the JSON of its file; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The file is of another kind, lacks a value, or has a value of another type.
    """
    _check_kind(values, name)
    try:
        data, onnx = values["data"], values.get("onnx")
        record = ModelRecord(
            model=_spec(ModelSpec, values["model"]),
            training=_spec(TrainSpec, values["training"]),
            class_names=values["class_names"],
            normal_classes=values["normal_classes"],
            data=DataRecord(**{**data, "split": SplitRecord(**data["split"])}),
            calibration=CalibrationRecord(**values["calibration"]),
            best_epoch=values["best_epoch"],
            classes=tuple(ClassRecord(**{"class_accuracy": None, **row}) for row in values["classes"]),
            versions=values["versions"],
            hardware=values["hardware"],
            format=values["format"],
            terms=values["terms"] if onnx else (),
            onnx=OnnxRecord(**onnx) if onnx else None,
        )
    except KeyError as error:
        raise RefusedError(f"the model file {name!r} does not say {error}; fit the model anew") from error
    except (TypeError, ValueError, AttributeError, UsageError) as error:
        raise RefusedError(
            f"the model file {name!r} does not fit this vaeguard ({error}); fit the model anew"
        ) from error
    if not record.model.is_resolved:
        raise RefusedError(f"the model file {name!r} leaves settings of the model open; fit the model anew")
    return record


def _spec(kind: type[Spec], values: Mapping[str, Any]) -> Spec:
    """A spec from values for every setting, since a default may have been another one at the fit."""
    if missing := [item.name for item in fields(kind) if item.name not in values]:
        raise KeyError(missing[0])
    return from_dict(kind, dict(values))


def _check_kind(values: Mapping[str, Any], name: str) -> None:
    """Refuse a file of anything but a whole detector."""
    kind = DENOISER if DENOISER in values else values.get("kind")
    if kind == DENOISER:
        raise RefusedError(
            f"{name!r} holds a denoiser, which cleans scans and gives no scores; clean scans with it, or give a model"
            " of anomalies"
        )
    if kind != DETECTOR:
        raise RefusedError(f"{name!r} holds a {kind}, not a model of anomalies; give a run folder")
    if "part" in values:
        raise RefusedError(
            f"{name!r} is only the {values['part']} of a model and gives no scores; use the whole model, which was"
            " exported beside it, or run this part with ONNX Runtime"
        )
