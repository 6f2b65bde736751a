"""`vaeguard reconstruct`."""

from __future__ import annotations

import click

from vaeguard import as_objects

from .inputs import check_of_images, check_picture, find_model, open_images_for
from .options import data_dir_option, download_option, engine_option, json_option, model_option
from .output import complain_of_left_out, print_json


@click.command()
@click.argument("data", required=False)
@model_option
@click.option("-o", "--output", default="reconstructions.png", show_default=True, help="Picture to write.")
@click.option("-n", "count", type=click.IntRange(1, 20), default=4, show_default=True, help="Images of each kind.")
@click.option("--by", default="score", show_default=True, metavar="TERM", help="Order by the score or by one of its"
              " terms: recon_error shows the best and the worst reconstructions.")  # fmt: skip
@engine_option
@data_dir_option
@download_option
@json_option
def reconstruct(
    data: str | None, model: str | None, output: str, count: int, by: str, device: str, data_dir: str | None,
    download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw input, restoration and heatmap of the least, the middling and the most anomalous images of DATA.

    Without DATA it is the named set that the model was fitted on.
    """
    from vaeguard import UsageError, draw_reconstructions, load, pick_examples, score_set

    check_picture(output)
    path = find_model(model)
    detector = load(path, device)
    check_of_images(detector, path)
    if by not in {"score", *detector.info.term_names}:
        raise UsageError(f"--by {by!r} is no term of this model; it has score, {', '.join(detector.info.term_names)}")
    images = open_images_for(data, detector, data_dir, download=download)
    check_picture(output, images.paths)
    found = score_set(detector, images)
    rows = pick_examples(found.score if by == "score" else found.terms[by], 3 * count)
    chosen = images.images[rows]
    paths = [images.paths[row] for row in rows]
    inspection, hottest = detector.inspect(chosen, pictures=True), detector.info.heatmap_scale
    draw_reconstructions(output, chosen, inspection, range(len(rows)), paths, hottest)
    if as_json:
        print_json({"output": output, "images": paths, "errors": as_objects(images.errors)})
    else:
        click.echo(f"{len(rows)} of {len(images.images)} images, by {by}, lowest to highest -> {output}")
    complain_of_left_out(images.errors)
