"""Anomaly detection and denoising of images with variational autoencoders, fitted on normal images only.

>>> import vaeguard
>>> detector = vaeguard.fit(vaeguard.open_images("digits"), normal_classes="0-8")  # doctest: +SKIP
>>> detector.inspect(batch).score  # doctest: +SKIP

Names load what they need on first use, so that `import vaeguard` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeguard.benchmarking.report import BenchmarkReport
    from vaeguard.benchmarking.running import benchmark
    from vaeguard.benchmarking.spec import BENCHMARKS, BenchmarkSpec
    from vaeguard.classes import parse_classes
    from vaeguard.detector import Detector
    from vaeguard.devices import has_bf16
    from vaeguard.doctor import examine
    from vaeguard.errors import (
        InputsSkippedError,
        RefusedError,
        UnreadableError,
        UsageError,
        VaeguardError,
        as_objects,
    )
    from vaeguard.evaluation import check_evaluation_folder, evaluate, write_evaluation
    from vaeguard.exported_parts import part_paths
    from vaeguard.exporting import export, verify
    from vaeguard.files import check_apart
    from vaeguard.fitting import fit
    from vaeguard.generation import embeddings, interpolate_latents, quantile_grid
    from vaeguard.generative_evaluation import (
        GenerativeEvaluation,
        evaluate_generative,
        write_generative,
    )
    from vaeguard.inspection import DetectorInfo, Inspection
    from vaeguard.latents import STEPS, latent_units
    from vaeguard.likelihood_bounds import LikelihoodBounds, bound_likelihood
    from vaeguard.metrics import auc_interval
    from vaeguard.model_file import load, save
    from vaeguard.parity import Parity
    from vaeguard.pictures import draw_grid, draw_reconstructions, pick_examples
    from vaeguard.presets import PRESETS, preset
    from vaeguard.provenance import environment
    from vaeguard.pseudo_anomalies import make_pseudo_anomalies, pseudo_anomaly_kinds
    from vaeguard.reading.data_sets import (
        ImageSet,
        data_of_fit,
        from_array,
        is_named,
        list_images,
        open_images,
        open_packed,
        write_images,
    )
    from vaeguard.reading.images import ImageRule, decode_image
    from vaeguard.reading.inputs import read_list
    from vaeguard.reporting.comparison import compare_reports
    from vaeguard.reporting.embedding import write_embedding_report
    from vaeguard.reporting.report_file import (
        check_place,
        finite,
        read_report,
        remake_page,
        remove_report,
        report_path,
        without_pictures,
        write_report,
    )
    from vaeguard.reporting.scans import write_scan_report
    from vaeguard.reporting.scores import write_score_report
    from vaeguard.reporting.terminal import show_report
    from vaeguard.restoration.batches import PatchSpec, page_batches, photo_batches, seen_batches
    from vaeguard.restoration.degrade import degrade_document
    from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
    from vaeguard.restoration.denoising import DenoiseSummary, ScanPlan, denoise_scans, plan_scans
    from vaeguard.restoration.direct import DirectDenoiser
    from vaeguard.restoration.exporting import read_networks, write_denoiser
    from vaeguard.restoration.fitting import FittedDenoiser, fit_denoiser
    from vaeguard.restoration.ladder import LadderVAE
    from vaeguard.restoration.noise import grain_of
    from vaeguard.restoration.ocr import check_tesseract, read_text
    from vaeguard.restoration.page import PageReport, RestoredPage, page_kind, restore_page
    from vaeguard.restoration.places import default_output
    from vaeguard.restoration.spec import (
        DEGRADATIONS,
        PAPERS,
        RESTORE_KINDS,
        DenoiseOutputs,
        DenoiserSpec,
        RestoreSettings,
    )
    from vaeguard.restoration.training import (
        fit_spread,
        interval_of,
        paired_elbo_loss,
        supervised_loss,
        train_network,
        unsupervised_loss,
    )
    from vaeguard.restoration.training_data import DenoiserSource, denoiser_source
    from vaeguard.restoration.undoing import default_originals, undo_scans, undone
    from vaeguard.runs import calibration_images, latest_run, new_folder, new_run, point_latest, prepare_run
    from vaeguard.sample_quality import SampleJudge, frechet_distance
    from vaeguard.scoring import ScoreSummary, drawn_before, fpr_note, score_files, score_set
    from vaeguard.spec import (
        BOUND_IMAGES,
        DEFAULT_FPR,
        DEVICES,
        ENGINE_DEVICES,
        IMPORTANCE_SAMPLES,
        PROJECTIONS,
        ModelSpec,
        TrainSpec,
        from_dict,
        to_dict,
    )
    from vaeguard.tables import check_replaced, check_table_path, read_table, write_table
    from vaeguard.training import TrainingWarning
    from vaeguard.triton import write_triton
    from vaeguard.tuning.search import Tuning, tune
    from vaeguard.tuning.search_space import DEFAULT_TRIALS
    from vaeguard.tuning.study import Trial, check_optuna
    from vaeguard.tuning.trials import Comparison
    from vaeguard.watching import watch_files

_HOMES = {
    "benchmarking.report": ("BenchmarkReport",),
    "benchmarking.running": ("benchmark",),
    "benchmarking.spec": ("BENCHMARKS", "BenchmarkSpec"),
    "classes": ("parse_classes",),
    "devices": ("has_bf16",),
    "doctor": ("examine",),
    "errors": ("InputsSkippedError", "RefusedError", "UnreadableError", "UsageError", "VaeguardError", "as_objects"),
    "evaluation": ("check_evaluation_folder", "evaluate", "write_evaluation"),
    "exported_parts": ("part_paths",),
    "exporting": ("export", "verify"),
    "files": ("check_apart",),
    "fitting": ("fit",),
    "generation": ("embeddings", "interpolate_latents", "quantile_grid"),
    "generative_evaluation": ("GenerativeEvaluation", "evaluate_generative", "write_generative"),
    "inspection": ("DetectorInfo", "Inspection"),
    "latents": ("STEPS", "latent_units"),
    "likelihood_bounds": ("LikelihoodBounds", "bound_likelihood"),
    "metrics": ("auc_interval",),
    "model_file": ("load", "save"),
    "parity": ("Parity",),
    "pictures": ("draw_grid", "draw_reconstructions", "pick_examples"),
    "presets": ("PRESETS", "preset"),
    "provenance": ("environment",),
    "pseudo_anomalies": ("make_pseudo_anomalies", "pseudo_anomaly_kinds"),
    "reading.images": ("ImageRule", "decode_image"),
    "reading.inputs": ("read_list",),
    "reading.data_sets": (
        "ImageSet",
        "data_of_fit",
        "from_array",
        "is_named",
        "list_images",
        "open_images",
        "open_packed",
        "write_images",
    ),
    "reporting.comparison": ("compare_reports",),
    "reporting.embedding": ("write_embedding_report",),
    "reporting.report_file": (
        "check_place",
        "finite",
        "read_report",
        "remake_page",
        "remove_report",
        "report_path",
        "without_pictures",
        "write_report",
    ),
    "reporting.scans": ("write_scan_report",),
    "reporting.scores": ("write_score_report",),
    "reporting.terminal": ("show_report",),
    "restoration.batches": ("PatchSpec", "page_batches", "photo_batches", "seen_batches"),
    "restoration.degrade": ("degrade_document",),
    "restoration.denoiser": ("Denoiser", "read_denoiser", "shipped_denoiser"),
    "restoration.denoising": ("DenoiseSummary", "ScanPlan", "denoise_scans", "plan_scans"),
    "restoration.places": ("default_output",),
    "restoration.direct": ("DirectDenoiser",),
    "restoration.exporting": ("read_networks", "write_denoiser"),
    "restoration.fitting": ("FittedDenoiser", "fit_denoiser"),
    "restoration.ladder": ("LadderVAE",),
    "restoration.noise": ("grain_of",),
    "restoration.ocr": ("check_tesseract", "read_text"),
    "restoration.page": ("PageReport", "RestoredPage", "page_kind", "restore_page"),
    "restoration.training_data": ("DenoiserSource", "denoiser_source"),
    "restoration.spec": (
        "DEGRADATIONS",
        "PAPERS",
        "RESTORE_KINDS",
        "DenoiseOutputs",
        "DenoiserSpec",
        "RestoreSettings",
    ),
    "restoration.training": (
        "fit_spread",
        "interval_of",
        "paired_elbo_loss",
        "supervised_loss",
        "train_network",
        "unsupervised_loss",
    ),
    "restoration.undoing": ("default_originals", "undo_scans", "undone"),
    "runs": ("calibration_images", "latest_run", "new_folder", "new_run", "point_latest", "prepare_run"),
    "sample_quality": ("SampleJudge", "frechet_distance"),
    "scoring": ("ScoreSummary", "drawn_before", "fpr_note", "score_files", "score_set"),
    "spec": (
        "BOUND_IMAGES",
        "DEFAULT_FPR",
        "DEVICES",
        "ENGINE_DEVICES",
        "IMPORTANCE_SAMPLES",
        "PROJECTIONS",
        "ModelSpec",
        "TrainSpec",
        "from_dict",
        "to_dict",
    ),
    "tables": ("check_replaced", "check_table_path", "read_table", "write_table"),
    "training": ("TrainingWarning",),
    "triton": ("write_triton",),
    "tuning.search": ("Tuning", "tune"),
    "tuning.search_space": ("DEFAULT_TRIALS",),
    "tuning.study": ("Trial", "check_optuna"),
    "tuning.trials": ("Comparison",),
    "watching": ("watch_files",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BENCHMARKS",
    "BOUND_IMAGES",
    "DEFAULT_FPR",
    "DEFAULT_TRIALS",
    "DEGRADATIONS",
    "DEVICES",
    "ENGINE_DEVICES",
    "IMPORTANCE_SAMPLES",
    "PAPERS",
    "PRESETS",
    "PROJECTIONS",
    "RESTORE_KINDS",
    "STEPS",
    "BenchmarkReport",
    "BenchmarkSpec",
    "Comparison",
    "DenoiseOutputs",
    "DenoiseSummary",
    "Denoiser",
    "DenoiserSource",
    "DenoiserSpec",
    "Detector",
    "DetectorInfo",
    "DirectDenoiser",
    "FittedDenoiser",
    "GenerativeEvaluation",
    "ImageRule",
    "ImageSet",
    "InputsSkippedError",
    "Inspection",
    "LadderVAE",
    "LikelihoodBounds",
    "ModelSpec",
    "PageReport",
    "Parity",
    "PatchSpec",
    "RefusedError",
    "RestoreSettings",
    "RestoredPage",
    "SampleJudge",
    "ScanPlan",
    "ScoreSummary",
    "TrainSpec",
    "TrainingWarning",
    "Trial",
    "Tuning",
    "UnreadableError",
    "UsageError",
    "VaeguardError",
    "as_objects",
    "auc_interval",
    "benchmark",
    "bound_likelihood",
    "calibration_images",
    "check_apart",
    "check_evaluation_folder",
    "check_optuna",
    "check_place",
    "check_replaced",
    "check_table_path",
    "check_tesseract",
    "compare_reports",
    "data_of_fit",
    "decode_image",
    "default_originals",
    "default_output",
    "degrade_document",
    "denoise_scans",
    "denoiser_source",
    "draw_grid",
    "draw_reconstructions",
    "drawn_before",
    "embeddings",
    "environment",
    "evaluate",
    "evaluate_generative",
    "examine",
    "export",
    "finite",
    "fit",
    "fit_denoiser",
    "fit_spread",
    "fpr_note",
    "frechet_distance",
    "from_array",
    "from_dict",
    "grain_of",
    "has_bf16",
    "interpolate_latents",
    "interval_of",
    "is_named",
    "latent_units",
    "latest_run",
    "list_images",
    "load",
    "make_pseudo_anomalies",
    "new_folder",
    "new_run",
    "open_images",
    "open_packed",
    "page_batches",
    "page_kind",
    "paired_elbo_loss",
    "parse_classes",
    "part_paths",
    "photo_batches",
    "pick_examples",
    "plan_scans",
    "point_latest",
    "prepare_run",
    "preset",
    "pseudo_anomaly_kinds",
    "quantile_grid",
    "read_denoiser",
    "read_list",
    "read_networks",
    "read_report",
    "read_table",
    "read_text",
    "remake_page",
    "remove_report",
    "report_path",
    "restore_page",
    "save",
    "score_files",
    "score_set",
    "seen_batches",
    "shipped_denoiser",
    "show_report",
    "supervised_loss",
    "to_dict",
    "train_network",
    "tune",
    "undo_scans",
    "undone",
    "unsupervised_loss",
    "verify",
    "watch_files",
    "without_pictures",
    "write_denoiser",
    "write_embedding_report",
    "write_evaluation",
    "write_generative",
    "write_images",
    "write_report",
    "write_scan_report",
    "write_score_report",
    "write_table",
    "write_triton",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"vaeguard.{_HOME[name]}"), name)
    raise AttributeError(f"module 'vaeguard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
