"""What can be learned from noisy images alone: three ways, on Berkeley pictures with Gaussian noise of 25 levels.

python -m benchmarks.noisy_only -o FOLDER [--steps 6000] [--direct]

Trained from scratch on one noisy version of each of the 400 usual training crops, whose clean versions are not looked
at; tested on BSD68. The ways: the direct network from one noisier image to another, the mean of samples of the ladder
VAE, and the direct network distilled from these samples. This is the evidence for what `vaeguard fit-denoiser --adapt`
does. With `--direct` the first way alone is trained, and the rows of the others stay as an earlier run wrote them.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import vaeguard
from benchmarks.common import data_dir, rows_before, write_result
from benchmarks.restoration import grey, psnr
from vaeguard.devices import has_bf16
from vaeguard.restoration.denoiser import read_denoiser, shipped_denoiser
from vaeguard.restoration.networks.batches import PatchSpec, seen_batches
from vaeguard.restoration.networks.direct import DirectDenoiser
from vaeguard.restoration.networks.exporting import DenoiserNetworks, read_networks, write_denoiser
from vaeguard.restoration.networks.training import supervised_loss, train_network, unsupervised_loss
from vaeguard.restoration.networks.training_data import DenoiserSource
from vaeguard.restoration.noise import grain_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float32]

NOISE = 25 / 255
SAMPLES, FEW_SAMPLES = 32, 8
EVERY = 8
"""Only every eighth picture is restored with many samples."""
DIRECT = "direct network, recorrupted to recorrupted"
PUBLISHED = "N2V 27.70 to 27.72, N2V2 28.34 (noisy images only); BM3D 28.57; FFDNet 29.19 (clean images)"


def noisy_images(name: str, seed: int) -> list[tuple[Floats, Floats]]:
    """Clean and noisy version of each picture of a set."""
    rng = np.random.default_rng(seed)
    clean = [grey(path).astype(np.float32) for path in sorted((data_dir() / name).glob("*.png"))]
    return [(image, image + np.float32(NOISE) * rng.standard_normal(image.shape, np.float32)) for image in clean]


def fit_direct(run: Path, images: list[Floats], patch: PatchSpec, spec: vaeguard.DenoiserSpec) -> None:
    """Train the direct network as `fit_denoiser` does, without a ladder VAE after it, and write `model.onnx`."""
    torch.manual_seed(spec.seed)
    direct = DirectDenoiser(spec.width, spec.depth)
    loss = unsupervised_loss(direct, bf16=has_bf16("cpu"))
    batches = seen_batches(images, spec.seed, patch)
    direct, _ = train_network(direct, loss, batches, spec.steps, progress=_say)
    run.mkdir(parents=True, exist_ok=True)
    grain = grain_of(images)
    networks = DenoiserNetworks(direct=direct, kind="photo", interval=0, card={"steps": spec.steps}, grain=grain)
    write_denoiser(networks, run / "model.onnx")


def distilled(run: Path, images: list[Floats], patch: PatchSpec, spec: vaeguard.DenoiserSpec) -> Callable[..., Any]:
    """A direct network trained on samples of the ladder VAE of `run`, as a function of (image, noise)."""
    _, ladder = read_networks(run / "model.onnx")
    assert ladder is not None

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for seen, _, noise in seen_batches(images, spec.seed, patch):
            with torch.no_grad():
                shapes = ladder.latent_shapes(len(seen), *seen.shape[2:])
                sample = ladder(seen, noise, [torch.randn(shape) for shape in shapes]).restored
            yield sample, seen, noise

    direct = DirectDenoiser(spec.width, spec.depth)
    loss = supervised_loss(direct, by_noise=False, bf16=has_bf16("cpu"))
    direct, _ = train_network(direct, loss, batches(), spec.steps, progress=_say)

    def restore(noisy: Floats, noise: float) -> tuple[Floats, None]:
        height, width = noisy.shape
        padded = np.pad(noisy, ((0, -height % 8), (0, -width % 8)), mode="symmetric")
        with torch.no_grad():
            restored, _ = direct(torch.from_numpy(padded)[None, None], torch.full((1, 1, 1, 1), noise))
        return restored[0, 0, :height, :width].numpy(), None

    return restore


def main() -> None:
    """Train, unless the run folder holds a model already, restore, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="run folder")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--direct", action="store_true", help="train and measure the direct network alone")
    given = parser.parse_args()
    spec = vaeguard.DenoiserSpec(steps=given.steps, patch_size=64, batch_size=12, from_scratch=True, device="cpu")
    patch = PatchSpec(spec.patch_size, spec.batch_size)
    images = [noisy for _, noisy in noisy_images("bsd400-train", 0)]
    batches = partial(seen_batches, images, spec=patch)
    started = time.perf_counter()
    source = DenoiserSource("photo", "adapt", len(images), 0, [], batches, batches, grain_of(images))
    if (given.output / "model.onnx").exists():
        pass
    elif given.direct:
        fit_direct(given.output, images, patch, spec)
    else:
        vaeguard.fit_denoiser(source, given.output, spec, progress=_say)
        print(f"fitted in {time.perf_counter() - started:.0f} s", flush=True)
    own = read_denoiser(given.output / "model.onnx", "cpu", 1)
    assert own is not None
    ways: dict[str, tuple[Callable[..., Any], int]] = {DIRECT: (own.restore, 1)}
    if not given.direct:
        torch.manual_seed(spec.seed)
        ways |= {
            "ladder VAE, one sample": (partial(own.restore, samples=1), 1),
            f"ladder VAE, mean of {FEW_SAMPLES} samples": (partial(own.restore, samples=FEW_SAMPLES), 1),
            f"ladder VAE, mean of {SAMPLES} samples": (partial(own.restore, samples=SAMPLES), EVERY),
            "direct network distilled from samples": (distilled(given.output, images, patch, spec), 1),
        }
    shipped = shipped_denoiser("photo", "cpu", 1)
    ways["for comparison: trained on other, clean photographs"] = (shipped.restore, 1)
    test = noisy_images("bsd68", 1)
    rows = rows_before("noisy_only", "way")
    for name, (restore, every) in ways.items():
        some = test[::every]
        started = time.perf_counter()
        found = [restore(noisy, own.noise_of(noisy))[0] for _, noisy in some]
        seconds = time.perf_counter() - started
        scores = [psnr(clean, restored) for (clean, _), restored in zip(some, found, strict=True)]
        rows[name] = {
            "way": name,
            "steps": "" if restore == shipped.restore else given.steps,
            "PSNR, dB": f"{np.mean(scores):.2f}",
            "pictures": len(some),
            "MP/s": sum(noisy.size for _, noisy in some) / 1e6 / seconds,
        }
        print(rows[name], flush=True)
    notes = [
        "Steps are those of each network; the strength of the noise is estimated, not told. One core.",
        f"Published on BSD68: {PUBLISHED}.",
    ]
    title = "Learned from noisy images alone: BSD68, Gaussian noise of 25 levels"
    write_result("noisy_only", title, list(rows.values()), notes)


def _say(step: int, steps: int, text: str) -> None:
    if step % 500 == 0:
        print(f"{step}/{steps} {text}", flush=True)


if __name__ == "__main__":
    main()
