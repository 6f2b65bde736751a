"""A run as an ONNX file, compared with the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.engines.model_file import load
from vaeguard.engines.run_folder import calibration_images
from vaeguard.errors import UsageError
from vaeguard.storage.places import check_supported
from vaeguard.workflows.buckets import publishing
from vaeguard.workflows.opening import find_model
from vaeguard.workflows.outcome import ExportSettings, Outcome

if TYPE_CHECKING:
    from vaeguard.engines.parity import Parity
    from vaeguard.workflows.outcome import Reporter


@publishing("output", lambda name: lambda other: other.startswith(name.removesuffix(".onnx")) and "." in other)
def export_run(
    output: str, reporter: Reporter, *, model: str | None = None, settings: ExportSettings | None = None,
    triton: str | None = None,
) -> Outcome:  # fmt: skip
    """Export a run to the file `output`; with `triton`, also to a model repository in that folder.

    Raises
    ------
    UsageError, VaeguardError
        As by `vaeguard.export`; or the repository holds a model already.
    """
    from vaeguard.engines.exported_parts import part_paths
    from vaeguard.engines.exporting import export
    from vaeguard.engines.triton import write_triton

    settings = settings or ExportSettings()
    check_supported([triton], "`triton`")
    if triton and (Path(triton) / "vaeguard").exists():
        raise UsageError(f"`triton` {triton!r} already contains a model; choose a different folder, or delete it")
    path = find_model(model, reporter)
    choices: dict[str, Any] = asdict(settings)
    parity = export(load(path, "cpu"), output, images=_images(path, reporter), **choices)
    parts = {part: str(part_path) for part, part_path in part_paths(output).items()} if settings.parts else None
    if triton:
        write_triton(output, triton)
    return Outcome(output, {"parts": parts, "triton": triton, "parity": parity})


def verify_export(
    exported: str, reporter: Reporter, *, model: str | None = None, device: str = "auto", tolerance: float | None = None
) -> Parity:
    """Compare an exported file with the run `model`, or with what it carries of that run; see `vaeguard.verify`.

    Raises
    ------
    UsageError
        `exported` is no export of the run.
    """
    from vaeguard.engines.verifying import verify

    if model is None:
        return verify(load(exported, device), tolerance=tolerance)
    return verify(load(exported, device), load(model, "cpu"), _images(model, reporter), tolerance)


def _images(model: str, reporter: Reporter) -> Any:
    images = calibration_images(model)
    if images is None:
        reporter.say(
            f"note: {model!r} has no calibration images, so the exported model is compared on random noise only"
        )
    return images
