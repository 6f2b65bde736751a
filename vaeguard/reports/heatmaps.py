"""A folder where each flagged image is drawn beside its restoration and heatmap, and with its heat and its spots."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError
from vaeguard.reports.overlays import draw_overlay
from vaeguard.reports.pictures import draw_reconstructions
from vaeguard.storage.store import Store, job_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vaeguard.data.source import Original
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.statistics.spots import Spot

PLACE_NAME = "heatmaps.txt"
"""The file in the folder of a job that names its folder of heatmaps."""
PICTURE, OVERLAY = ".png", ".overlay.png"
"""What is added to the name of an image for its two pictures."""
LONGEST_NAME = 200
"""The most bytes of a file's name, so that these can be added."""


@dataclass(frozen=True)
class HeatmapFolder:
    """A folder for the pictures of flagged images, which `score_files` draws under their paths.

    With `.png` added, an image lies beside its restoration and heatmap; with `.overlay.png` added, it is drawn in its
    own size, at most 4,000 pixels a side, with its heat and its spots.

    All heatmaps share the scale that the fit found for normal images, if the model has one; otherwise each has its own.
    """

    path: Path

    def check(self, inputs: Iterable[str | Path]) -> None:
        """Refuse a folder among the inputs, since the next run would take its pictures for images.

        Raises
        ------
        UsageError
            The folder lies in one of the folders of `inputs`, or a glob finds it.
        """
        place = self.path.resolve()
        for given in map(str, inputs):
            root = Path(given.partition("**")[0]) if "**" in given else Path(given)
            if (root.is_dir() and place.is_relative_to(root.resolve())) or _is_found(self.path, given):
                raise UsageError(
                    f"`heatmaps` is {str(self.path)!r}, which is inside {given!r}, where the images"
                    " are; choose a separate folder"
                )

    def begin(self, job: Path) -> None:
        """Name the folder in the folder of the job, for a run that resumes the job after an interruption."""
        with Store(job).put(PLACE_NAME) as part:
            part.file(PLACE_NAME).write_text(str(self.path.resolve()), "utf-8")
            part.finish({"written": part.digests()})

    def draw(self, info: DetectorInfo, original: Original, inspection: Inspection, spots: Sequence[Spot]) -> None:
        """Draw one image, of which this is the inspection: beside its restoration and heatmap, and under its heat."""
        assert inspection.heatmap is not None
        name, scale = original.name, info.heatmap_scale
        draw_reconstructions(heatmap_path(self.path, name), original.pixels[None], inspection, [0], [name], scale)
        place, (heatmap,) = heatmap_path(self.path, name, OVERLAY), inspection.heatmap
        draw_overlay(place, original.picture, heatmap, spots, scale=scale, size=original.size)


def _is_found(folder: str | Path, pattern: str) -> bool:
    """Whether the glob `pattern`, without `**`, finds `folder` or a folder above it."""
    # Links in a pattern cannot be resolved, so both paths are compared as they are written.
    parts, wanted = (Path(os.path.abspath(path)).parts for path in (folder, pattern))  # noqa: PTH100
    return len(wanted) <= len(parts) and all(map(fnmatch.fnmatch, parts, wanted))


def heatmap_path(folder: Path, name: str, ending: str = PICTURE) -> Path:
    """The path of a picture of the image that a table calls `name`, always below `folder`."""
    anchor = Path(name).anchor
    # Absolute names have a folder of their own, so that `/x/a.png` and `x/a.png` are different files.
    parts = ["_" if part == ".." else "_root" if part == anchor else part for part in Path(name).parts]
    *above, last = parts
    if len(last.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        last = hashlib.sha256(last.encode("utf-8", "surrogateescape")).hexdigest()
    return folder.joinpath(*above, f"{last}{ending}")


def drawn_before(output: str | Path) -> str | None:
    """The folder of heatmaps that an interrupted job of the table `output` was drawing into."""
    try:
        return (job_folder(output) / PLACE_NAME).read_text(encoding="utf-8")
    except OSError:
        return None
