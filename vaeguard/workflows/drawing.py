"""Pictures drawn from a model, and its latents as a table."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

from vaeguard.engines.model_file import load
from vaeguard.engines.run_folder import calibration_images
from vaeguard.errors import UsageError
from vaeguard.evaluation.scoring import score_set
from vaeguard.reports.pictures import draw_grid, draw_reconstructions, pick_examples
from vaeguard.reports.report_file import check_place, remove_report
from vaeguard.storage.tables import check_replaced, check_table_path, write_table
from vaeguard.wording import counted
from vaeguard.workflows.opening import (
    check_of_images,
    check_picture,
    find_model,
    open_for,
    open_generative,
    read_pictures,
)
from vaeguard.workflows.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.workflows.outcome import Reporter


def reconstruct_to(
    data: str | None, output: str, reporter: Reporter, *, model: str | None = None, count: int = 4, by: str = "score"
) -> Outcome:
    """Draw the `count` least, medium and most anomalous images of `data`, ordered by the score or a term.

    Raises
    ------
    UsageError
        There is no such term, the model takes vectors, or the picture cannot be written to `output`.
    """
    check_picture(output)
    path = find_model(model, reporter)
    detector = load(path)
    check_of_images(detector, path)
    if by not in {"score", *detector.info.term_names}:
        raise UsageError(
            f"`by` is {by!r}, which is neither the score nor a term of this model; choose from score,"
            f" {', '.join(detector.info.term_names)}"
        )
    images = open_for(detector, data, reporter)
    check_picture(output, images.paths)
    scored = score_set(detector, images)
    rows = pick_examples(scored.score if by == "score" else scored.terms[by], 3 * count)
    chosen, paths = images.images[rows], [images.paths[row] for row in rows]
    inspection = detector.inspect(chosen, pictures=True)
    draw_reconstructions(output, chosen, inspection, range(len(rows)), paths, detector.info.heatmap_scale)
    return Outcome(output, {"images": paths, "of": len(images.images)}, errors=images.errors, left_out=images.left_out)


def sample_to(
    output: str, reporter: Reporter, *, model: str | None = None, count: int = 64, aggregate: bool = False,
    **options: Any,
) -> Outcome:  # fmt: skip
    """Draw `count` new images from the prior; with `aggregate`, around the latents of calibration images.

    `options` are those of `detector.sample`.

    Raises
    ------
    UsageError
        There are no calibration images, or as by `detector.sample`.
    """
    check_picture(output)
    model = find_model(model, reporter)
    detector = open_generative(model)
    like = _calibration_images(model) if aggregate else None
    images = detector.sample(count, like=like, **options)
    columns = math.ceil(math.sqrt(count))
    draw_grid(output, [("", images[at : at + columns]) for at in range(0, count, columns)])
    return Outcome(output)


def _calibration_images(model: str) -> Any:
    images = calibration_images(model)
    if images is None:
        raise UsageError(f"{model!r} has no calibration images; give the run folder of the fit, which contains them")
    return images


def interpolate_to(
    images: Sequence[str], output: str, reporter: Reporter, *, model: str | None = None, steps: int = 10,
    spherical: bool = False,
) -> Outcome:  # fmt: skip
    """Draw the interpolation between two images, or the square between four.

    Raises
    ------
    UsageError
        The number of images is neither two nor four.
    """
    from vaeguard.engines.generation import interpolate_latents

    check_picture(output, images)
    if len(images) not in (2, 4):
        raise UsageError(f"{counted(len(images), 'image', 'was were')} given; give two, or four for a square")
    detector = open_generative(find_model(model, reporter))
    ends = read_pictures(images, detector)
    if len(images) == 2:
        rows = [("", detector.interpolate(ends, steps, spherical=spherical))]
    else:
        top_left, top_right, bottom_left, bottom_right = detector.encode(ends).mean
        left = interpolate_latents(top_left, bottom_left, steps, spherical=spherical)
        right = interpolate_latents(top_right, bottom_right, steps, spherical=spherical)
        lines = [interpolate_latents(a, b, steps, spherical=spherical) for a, b in zip(left, right, strict=True)]
        rows = [("", detector.decode(line)) for line in lines]
    draw_grid(output, rows)
    return Outcome(output)


def traverse_to(output: str, reporter: Reporter, *, model: str | None = None) -> Outcome:
    """Draw what each unit of the latent does, in order of falling rate.

    Raises
    ------
    UsageError
        The run has no calibration images, or the model sees patches.
    """
    from vaeguard.evaluation.latents import STEPS, latent_units

    check_picture(output)
    model = find_model(model, reporter)
    detector = open_generative(model)
    units = latent_units(detector.graph, _calibration_images(model))
    if units.traversals is None:
        raise UsageError("a model of patches has no latent vector for a whole image; fit a model without `patch`")
    rows = []
    for unit, pictures in zip(units.traversed.tolist(), units.traversals, strict=True):
        state = "" if units.active[unit] else ", inactive"
        rows.append((f"unit {unit}, {units.rate[unit]:.2f} nats{state}", pictures))
    draw_grid(output, rows)
    return Outcome(output, {"steps": STEPS, "units": units})


def embed_table(
    data: str | None, output: str, reporter: Reporter, *, model: str | None = None,
    split: Literal["train", "test"] = "test", plot: str | None = None,
) -> Outcome:  # fmt: skip
    """Write the latents of the images of `data` into a table; with `plot`, also a report with their projection.

    Raises
    ------
    UsageError
        The table cannot be written to `output`, or the model is an exported file.
    """
    from vaeguard.evaluation.latents import latent_table
    from vaeguard.reports.embedding import write_embedding_report

    check_table_path(output)
    known = re.compile(r"path|class|(mean|logvar)_\d+").fullmatch
    check_replaced(output, "latents", lambda columns: "mean_0" in columns[:3], known)
    check_place(f"{output}.report.json", "embedding")
    detector = open_generative(find_model(model, reporter), vectors=True)
    images = open_for(detector, data, reporter, split)
    columns = latent_table(detector, images)
    write_table(output, columns)
    remove_report(f"{output}.report.json", "embedding")  # of an earlier table
    page = write_embedding_report(output, images, columns, plot, command=reporter.command) if plot else None
    facts = {"images": len(images), "columns": list(columns), "report": page and str(page)}
    return Outcome(output, facts, errors=images.errors, left_out=images.left_out)
