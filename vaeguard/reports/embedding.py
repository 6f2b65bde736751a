"""The report of a table of latents: every image as a point in a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import spread_out
from vaeguard.reports.gallery import data_uri
from vaeguard.reports.kinds import ReportFigures, Verdict, percent
from vaeguard.reports.pictures import picture_of
from vaeguard.reports.report_file import JSON_NAME, heading, write_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.reports.report_file import Report

DRAWN = 5000
"""The most points that are drawn, as more would hide each other."""
PICTURED = 150
"""The most points with a picture."""
SIDE = 32
"""The longest side of a picture, in pixels."""


def write_embedding_report(
    table: str | Path, image_set: ImageSet, columns: Mapping[str, Any], projection: str, *, command: str = ""
) -> Path:
    """Draw the latents of images as points, into a report beside their table.

    Parameters
    ----------
    table : path
        The table of latents; the report is `<table>.report.json` and `<table>.report.html`.
    image_set : ImageSet
        The images.
    columns : dict
        The table, as `latents.latent_table` returns it.
    projection : str
        The projection of the latent to a plane: `pca`, the two principal components, or `tsne`, where neighbours stay
        neighbours but distances mean little (van der Maaten & Hinton, 2008). A latent of two units is not projected.
    command : str
        The command line, which the report names.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    VaeguardError
        The report cannot be written.
    """
    means = np.stack([values for name, values in columns.items() if name.startswith("mean_")], 1)
    rows = spread_out(len(means), DRAWN)
    points, method, explained = in_plane(means[rows], projection)
    pictured = spread_out(len(rows), PICTURED)
    classes = [] if image_set.labels is None else list(image_set.class_names)
    report: Report = {
        **heading("embedding", f"{image_set.name}: the latent space", command=command),
        "data": image_set.name,
        "images": len(means),
        "units": means.shape[1],
        "projection": method,
        "explained": explained,
        "classes": classes,
        "points": {
            "x": _rounded(points[:, 0]),
            "y": _rounded(points[:, 1]),
            "class": None if image_set.labels is None else image_set.labels[rows].tolist(),
            "path": [image_set.paths[row] for row in rows],
        },
        "pictured": pictured.tolist(),
        "pictures": {
            f"point-{at}": {"image": data_uri(picture_of(image_set.images[rows[at]]), SIDE)} for at in pictured.tolist()
        },
    }
    return write_report(f"{table}.{JSON_NAME}", report)


def in_plane(means: npt.NDArray[np.floating], projection: str) -> tuple[npt.NDArray[Any], str, float | None]:
    """Two coordinates for each of N latents, (N, 2), the projection, and the share of variance that the plane keeps.

    The share is None unless the plane is that of principal components. The sign of a component is chosen so that its
    largest weight is positive, and the seed of t-SNE is fixed.
    """
    from sklearn.decomposition import PCA

    if means.shape[1] == 2:
        return means, "none", None
    if means.shape[1] == 1 or len(means) < 3:
        return np.stack([means[:, 0], np.zeros(len(means))], 1), "none", None
    if projection == "tsne":
        from sklearn.manifold import TSNE

        nearest = min(30.0, (len(means) - 1) / 3)
        return TSNE(perplexity=nearest, init="pca", random_state=0).fit_transform(means), "tsne", None
    pca = PCA(2, random_state=0).fit(means)
    return pca.transform(means), "pca", float(pca.explained_variance_ratio_.sum())


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    rounded: list[float] = np.round(values.astype(float), 3).tolist()
    return rounded


class Figures(ReportFigures):
    """The figures of an embedding that its verdict takes."""

    images: int
    units: int
    projection: str
    explained: float | None

    def verdict(self) -> Verdict:
        """Return the number of latents, and their projection."""
        projections = {
            "none": "as they are",
            "tsne": "in a plane by t-SNE",
            "pca": "in the plane of their first two principal components",
        }
        share = "" if self.explained is None else f", which explain {percent(self.explained)} of the variance"
        sentence = f"{self.images:,} latent vectors of {self.units} units, {projections[self.projection]}{share}."
        return Verdict("Images in the latent space", sentence)
