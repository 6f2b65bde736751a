"""`vaeguard reconstruct`."""

from __future__ import annotations

import click

from .common import (
    data_dir_option,
    device_option,
    download_option,
    find_model,
    json_option,
    model_option,
    print_json,
    say,
)


@click.command()
@click.argument("data", default="digits")
@model_option
@click.option("-o", "--output", default="reconstructions.png", show_default=True, help="Picture to write.")
@click.option("-n", "count", type=click.IntRange(1, 20), default=4, show_default=True, help="Images of each kind.")
@device_option
@data_dir_option
@download_option
@json_option
def reconstruct(
    data: str, model: str | None, output: str, count: int, device: str, data_dir: str | None, download: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Draw input, restoration and heatmap of the least, the middling and the most anomalous images of DATA."""
    from vaeguard import ImageRule, draw_reconstructions, load, open_images, pick_examples, score_set

    detector = load(find_model(model), device)
    channels, height, width = detector.info.image_shape
    rule = ImageRule((height, width), channels)
    images = open_images(data, split="test", rule=rule, data_dir=data_dir, download=download)
    for name, reason in images.errors:
        say(f"not read: {name!r}: {reason}")
    rows = pick_examples(score_set(detector, images).score, 3 * count)
    chosen = images.images[rows]
    paths = [images.paths[row] for row in rows]
    draw_reconstructions(output, chosen, detector.inspect(chosen, pictures=True), range(len(rows)), paths)
    if as_json:
        print_json({"output": output, "images": paths})
    else:
        click.echo(f"{len(rows)} of {len(images.images)} images, least to most anomalous -> {output}")
