"""The denoisers that ship against BM3D, non-local means and total variation, and what they do to pages of print.

python -m benchmarks.restoration [--bm3d-images 6] [--only noise,documents,...]

The peers come with `pip install vaeguard[peers]`; reading needs the program tesseract. Set12, BSD68 and the dirty
documents are found as data/README.md says.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import importlib.util
import io
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import bm3d
import cv2
import numpy as np
import scipy.datasets
import skimage
import sklearn
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from sklearn.neural_network import MLPClassifier

import vaeguard
from benchmarks.common import data_dir, write_result
from benchmarks.scan_picture import LINE, MARGIN, SIZE, TEXT
from benchmarks.train_denoisers import SETTINGS, Printer
from vaeguard.devices import has_bf16
from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
from vaeguard.restoration.networks.batches import page_batches, photo_batches
from vaeguard.restoration.networks.degrade import degrade_document
from vaeguard.restoration.networks.direct import DirectDenoiser
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.restoration.networks.training import paired_elbo_loss, supervised_loss, train_network
from vaeguard.restoration.ocr import read_text
from vaeguard.restoration.page import page_kind
from vaeguard.restoration.photos import restore_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Floats = npt.NDArray[Any]

SIGMAS = (15, 25, 50)
PUBLISHED = {  # PSNR in dB: Zhang et al., DnCNN (2017) and FFDNet (2018)
    ("BSD68", 15): (31.07, 31.63), ("BSD68", 25): (28.57, 29.19), ("BSD68", 50): (25.62, 26.29),
    ("Set12", 15): (32.37, 32.75), ("Set12", 25): (29.97, 30.43), ("Set12", 50): (26.72, 27.32),
}  # fmt: skip
READ_PAGES = 36
BM3D_STEP = 8
"""BM3D takes half a minute for a megapixel."""
SAME = 119
"""In dB: the same bits."""
KILL_PAGES, KILLS = 200, 30
BATCH_PAGES, BATCH_NOISE = 48, 8
WEAR_BATCHES = 60
SCIKIT_IMAGE, SCIKIT_LEARN = (
    Path(skimage.__file__).parent / "data",
    Path(sklearn.__file__).parent / "datasets" / "images",
)
COLOURED = {
    "on which the cleaning of colours was chosen": [
        *(SCIKIT_LEARN / name for name in ("china.jpg", "flower.jpg")),
        *(SCIKIT_IMAGE / name for name in ("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png")),
    ],
    "not looked at before": [
        SCIKIT_IMAGE / name for name in ("rocket.jpg", "retina.jpg", "hubble_deep_field.jpg", "ihc.png")
    ],
}
COLOURED_SIDE = 256
WORN_PAGES = 60
DIGITS, DIGIT_NOISE, SPECKS = 60_000, 0.3, 0.02
MEMORY_PAGE = (7016, 4961, 3)
"""A4 at 600 dpi."""
MEMORY_CODE = """
import resource, sys
import numpy as np
from vaeguard import RestoreSettings, restore_page
rows = np.random.default_rng(0).integers(20000, 30000, (64, {width}, 3)).astype(np.uint16)
page = np.tile(rows, ({height} // 64 + 1, 1, 1))[:{height}]
peak = lambda: int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
denoiser = shipped_denoiser("photo", "cpu", 1)
before = peak()
found = restore_page(page, lambda _: denoiser, RestoreSettings(kind="photo"))
print((peak() - before) / 1024, page.nbytes / 2**20, found.report.change)
"""


@cache
def shipped(kind: str) -> Denoiser:
    """The denoiser that ships, on one core."""
    return shipped_denoiser(kind, "cpu", 1)


def ours(noisy: Floats, sigma: float) -> Floats:
    """The photograph denoiser, told the noise."""
    return shipped("photo").restore(noisy, sigma / 255)[0]


def opencv_means(noisy: Floats, sigma: float) -> Floats:
    """OpenCV's non-local means; strength in proportion to the noise as its documentation suggests."""
    levels = np.clip(np.round(255 * noisy), 0, 255).astype(np.uint8)
    return np.asarray(cv2.fastNlMeansDenoising(levels, None, 0.8 * sigma + 2, 7, 21), np.float32) / 255


def skimage_means(noisy: Floats, sigma: float) -> Floats:
    """scikit-image's fast non-local means, told the noise."""
    share = sigma / 255
    return np.asarray(
        denoise_nl_means(noisy, h=0.8 * share, sigma=share, patch_size=5, patch_distance=6, fast_mode=True)
    )


def total_variation(noisy: Floats, sigma: float) -> Floats:
    """scikit-image's total variation."""
    return np.asarray(denoise_tv_chambolle(noisy, weight=1.15 * sigma / 255))


def block_matching(noisy: Floats, sigma: float) -> Floats:
    """BM3D as its authors publish it."""
    return np.asarray(bm3d.bm3d(noisy, sigma_psd=sigma / 255))


METHODS: dict[str, Callable[[Floats, float], Floats]] = {
    "vaeguard": ours,
    "OpenCV NLM": opencv_means,
    "scikit-image NLM": skimage_means,
    "TV": total_variation,
    "BM3D": block_matching,
}


def measure_noise(bm3d_images: int) -> None:
    """Gaussian noise of known strength, PSNR and speed."""
    cv2.setNumThreads(1)
    rows = []
    for name in ("BSD68", "Set12"):
        images = [grey(path) for path in sorted((data_dir() / name.lower()).glob("*.png"))]
        for sigma in SIGMAS:
            row: dict[str, Any] = {"set": name, "sigma": sigma}
            few = []
            for method, run in METHODS.items():
                step = max(1, len(images) // bm3d_images) if method == "BM3D" else 1
                chosen = images[::step]
                scores, seconds = [], 0.0
                for number, clean in enumerate(chosen):
                    rng = np.random.default_rng([sigma, number * step])
                    noisy = clean + np.float32(sigma / 255) * rng.standard_normal(clean.shape, np.float32)
                    started = time.perf_counter()
                    restored = run(noisy, sigma)
                    seconds += time.perf_counter() - started
                    scores.append(psnr(clean, restored))
                    if method == "BM3D":
                        few.append(scores[-1] - psnr(clean, ours(noisy, sigma)))
                if method == "BM3D":
                    row["BM3D against vaeguard"] = f"{np.mean(few):+.2f} ({len(chosen)} images)"
                else:
                    row[method] = f"{np.mean(scores):.2f}"
                row[f"{method} MP/s"] = sum(image.size for image in chosen) / 1e6 / seconds
            published = PUBLISHED[name, sigma]
            rows.append({**row, "BM3D published": published[0], "FFDNet published": published[1]})
            print(rows[-1], flush=True)
    notes = ["PSNR in dB, mean over the images; noise is not clipped; speed on one core (BM3D: on all)."]
    write_result("restoration/noise", "Gaussian noise of known strength, grey", rows, notes)


def measure_colour() -> None:
    """Photographs in colour with noise, as it is and as JPEG keeps it; the strength is told to the peers alone."""
    cv2.setNumThreads(1)
    rows = []
    for seen, places in COLOURED.items():
        pictures = [coloured(place) for place in places]
        for sigma, quality in ((0, None), (15, None), (15, 90), (15, 75), (25, 90)):
            scores: dict[str, list[float]] = {}
            for number, clean in enumerate(pictures):
                rng = np.random.default_rng([sigma, number])
                noisy = np.clip(np.round(clean + sigma * rng.standard_normal(clean.shape)), 0, 255).astype(np.uint8)
                noisy = as_jpeg(noisy, quality) if quality else noisy
                page = vaeguard.restore_page(noisy, shipped, vaeguard.RestoreSettings(kind="photo"))
                found = {"noisy": noisy, "vaeguard": page.pixels}
                if sigma:
                    strength = 0.8 * sigma + 2
                    found["OpenCV NLM"] = cv2.fastNlMeansDenoisingColored(noisy, None, strength, strength, 7, 21)
                    found["BM3D"] = 255 * bm3d.bm3d_rgb(noisy / 255, sigma_psd=sigma / 255)
                for name, image in found.items():
                    scores.setdefault(name, []).append(psnr(clean / np.float32(255), image / np.float32(255)))
            kept = f"JPEG {quality}, colours at half the resolution" if quality else "as it is"
            means = {name: f"{np.mean(values):.2f}" for name, values in scores.items()}
            rows.append({"pictures": f"{len(pictures)}, {seen}", "noise": sigma, "kept": kept, **means})
            print(rows[-1], flush=True)
    note = (
        "PSNR in dB over red, green and blue, mean over the pictures (the middle 256x256 pixels of those that come with"
        " scikit-image and scikit-learn); of a picture that comes back as it was, 120. BM3D and non-local means are"
        " told the noise before JPEG, vaeguard measures it."
    )
    write_result("restoration/colour", "Photographs in colour", rows, [note])


def measure_blind() -> None:
    """Noise as files have it, rounded and clipped to 8 bits: nothing told, against the same command told the noise."""
    cv2.setNumThreads(1)
    grey_set = levels_of("bsd68")
    places = [place for some in COLOURED.values() for place in some]
    sets = {"BSD68": (grey_set, SIGMAS), "photographs in colour": ([coloured(place) for place in places], (15,))}
    rows = []
    for name, (pictures, sigmas) in sets.items():
        for sigma in sigmas:
            scores: dict[str, list[float]] = {}
            for number, clean in enumerate(pictures):
                noisy = noisy_levels(clean, sigma, number)
                for method, found in blind_and_told(noisy, sigma, number).items():
                    scores.setdefault(method, []).append(psnr(clean / np.float32(255), found / np.float32(255)))
            told, blind = np.array(scores["vaeguard, told"]), np.array(scores["vaeguard, blind"])
            means = {method: f"{np.mean(values):.2f}" for method, values in scores.items()}
            less = {"blind less told": f"{np.mean(blind - told):+.2f}", "worst": f"{min(blind - told):+.2f}"}
            rows.append({"pictures": f"{len(pictures)}, {name}", "sigma": sigma, **means, **less})
            print(rows[-1], flush=True)
    note = f"PSNR in dB, mean over the pictures (BM3D: every {BM3D_STEP}th of BSD68). Peers are told the noise."
    write_result("restoration/blind", "Gaussian noise, rounded and clipped to 8 bits, nothing told", rows, [note])


def blind_and_told(noisy: npt.NDArray[np.uint8], sigma: int, number: int) -> dict[str, Floats]:
    """What each method makes of a picture of shape (H, W, C), in levels; BM3D only of some grey ones."""
    colour = noisy.shape[2] == 3
    strength = 0.8 * sigma + 2
    if colour:
        smooth = cv2.fastNlMeansDenoisingColored(noisy, None, strength, strength, 7, 21)
    else:
        smooth = cv2.fastNlMeansDenoising(noisy[..., 0], None, strength, 7, 21)
    found: dict[str, Floats] = {
        "noisy": noisy,
        "vaeguard, blind": restored_photo(noisy),
        "vaeguard, told": restored_photo(noisy, noise=sigma),
        "OpenCV NLM": np.asarray(smooth).reshape(noisy.shape),
    }
    if colour or number % BM3D_STEP == 0:
        share = noisy / 255
        clean = bm3d.bm3d_rgb(share, sigma / 255) if colour else bm3d.bm3d(share[..., 0], sigma / 255)
        found["BM3D"] = 255 * np.clip(clean, 0, 1).reshape(noisy.shape)
    return found


def measure_camera() -> None:
    """Real noise of cameras, nothing told."""
    cv2.setNumThreads(1)
    folder = data_dir() / "real-noise"
    scores: dict[str, list[float]] = {}
    for path in sorted((folder / "noisy").iterdir()):
        noisy, clean = (np.asarray(Image.open(folder / kind / path.name)) for kind in ("noisy", "mean"))
        found = {
            "untouched": noisy,
            "vaeguard, blind": restored_photo(noisy),
            "vaeguard, told 5": restored_photo(noisy, noise=5),
            "OpenCV NLM, h = 6": cv2.fastNlMeansDenoisingColored(noisy, None, 6, 6, 7, 21),
        }
        for method, image in found.items():
            scores.setdefault(method, []).append(psnr(clean / np.float32(255), image / np.float32(255)))
    before = np.array(scores["untouched"])
    rows = [{"method": method, "PSNR": f"{np.mean(values):.2f}", "lowest": f"{min(values):.2f}",
             "crops worse than untouched": int((np.array(values) < before).sum())}
            for method, values in scores.items()]  # fmt: skip
    rows.append({"method": "its authors (published)", "PSNR": "36.88"})
    write_result("restoration/camera", "Real noise of cameras", rows, [f"{len(before)} crops; PSNR in dB, mean."])


def measure_clean_colour() -> None:
    """Clean photographs in colour, and the same as JPEG keeps them."""
    sets = {
        "scikit-learn": sorted(SCIKIT_LEARN.glob("*.jpg")),
        "scikit-image": [path for path in sorted(SCIKIT_IMAGE.iterdir()) if path.suffix in (".png", ".jpg", ".jpeg")],
        "means of real-noise": sorted((data_dir() / "real-noise" / "mean").iterdir()),
    }
    pictures = {name: [pixels for path in paths if (pixels := in_colour(path)) is not None]
                for name, paths in sets.items()}  # fmt: skip
    pictures |= {"Set12, grey": levels_of("set12"), "BSD68, grey": levels_of("bsd68")}
    if importlib.util.find_spec("pooch"):  # which brings SciPy's photograph
        pictures["SciPy"] = [scipy.datasets.face()]
    rows = []
    for name, images in pictures.items():
        for quality in (None, 90, 75):
            inputs = [as_jpeg(image, quality) if quality else image for image in images]
            scores = [psnr(image / np.float32(255), restored_photo(image) / np.float32(255)) for image in inputs]
            rows.append({"pictures": name, "kept as": f"JPEG {quality}" if quality else "they are",
                         "count": len(scores), "unchanged bit for bit": sum(score >= SAME for score in scores),
                         "PSNR lowest": f"{min(scores):.1f}"})  # fmt: skip
            print(rows[-1], flush=True)
    notes = ["PSNR in dB between what goes in and what comes out; 120 stands for the same bits."]
    write_result("restoration/clean_colour", "What happens to clean photographs", rows, notes)


def levels_of(name: str) -> list[npt.NDArray[np.uint8]]:
    """The grey pictures of a set, shape (H, W, 1)."""
    return [as_levels(grey(path))[..., None] for path in sorted((data_dir() / name).glob("*.png"))]


def in_colour(path: Path) -> npt.NDArray[np.uint8] | None:
    """A picture in colour; None of one that is grey."""
    image = Image.open(path)
    if image.mode not in ("RGB", "RGBA", "P"):
        return None
    pixels = np.asarray(image.convert("RGB"))
    return None if (pixels == pixels[..., :1]).all() else pixels


def noisy_levels(clean: npt.NDArray[np.uint8], sigma: int, number: int) -> npt.NDArray[np.uint8]:
    """A picture with noise, rounded and clipped."""
    rng = np.random.default_rng([sigma, number])
    return np.clip(np.round(clean + sigma * rng.standard_normal(clean.shape)), 0, 255).astype(np.uint8)


def restored_photo(pixels: npt.NDArray[np.uint8], **settings: Any) -> npt.NDArray[np.uint8]:
    """As `vaeguard denoise --kind photo` would."""
    found = restore_photo(pixels, shipped, vaeguard.RestoreSettings(kind="photo", **settings)).pixels
    return cast("npt.NDArray[np.uint8]", found)


def as_levels(image: Floats) -> npt.NDArray[np.uint8]:
    """0 to 1 in 256 steps."""
    return np.round(255 * image).astype(np.uint8)


def coloured(place: Path) -> npt.NDArray[np.uint8]:
    """The middle of a picture, shape (256, 256, 3)."""
    image = Image.open(place).convert("RGB")
    left, top = (image.width - COLOURED_SIDE) // 2, (image.height - COLOURED_SIDE) // 2
    return np.asarray(image.crop((left, top, left + COLOURED_SIDE, top + COLOURED_SIDE)))


def as_jpeg(pixels: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """What a JPEG with colours at half the resolution keeps of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).reshape(pixels.shape)


def divided(page: Floats) -> Floats:
    """The one-liner: divide by a median over 21 pixels, and stretch."""
    return np.asarray(np.clip((page / np.maximum(ndimage.median_filter(page, 21), 0.05) - 0.2) / 0.7, 0, 1))


def restored_page(page: Floats, **settings: Any) -> Floats:
    """As `vaeguard denoise --paper white` would."""
    how = vaeguard.RestoreSettings(paper="white", **settings)
    pixels = np.round(255 * page).astype(np.uint8)
    return vaeguard.restore_page(pixels, shipped, how).pixels.astype(np.float32) / 255


def measure_documents() -> None:
    """Dirty documents, odd pages only, without any training on them."""
    rows = []
    pairs = document_pairs()
    for noise in ("stain", "fold", "dark", "wrinkle", "all"):
        some = [(dirty, clean) for kind, _, dirty, clean in pairs if noise in (kind, "all")]
        ways: dict[str, Callable[[Floats], Floats]] = {
            "untouched": lambda page: page,
            "divide by median": divided,
            "vaeguard": restored_page,
        }
        row: dict[str, Any] = {"dirt": noise, "pages": len(some)}
        for name, way in ways.items():
            row[name] = f"{np.mean([rmse(way(dirty), clean) for dirty, clean in some]):.4f}"
        rows.append(row)
    note = (
        "Root mean square error on pixels 0 to 1, mean over the odd pages; nothing was trained on this set. The "
        "stretch of the one-liner was chosen on this set, ours was not."
    )
    write_result("restoration/documents", "Dirty documents, zero-shot", rows, [note])


def measure_finetuned() -> None:
    """Dirty documents: fine-tuned on the even pages, tried on the odd ones."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for folder, place in (("train", "noisy"), ("train_cleaned", "clean")):
            (home / place).mkdir()
            for image in document_rows(odd=False):
                (home / place / image["image"]).symlink_to(data_dir() / "dirty-documents" / folder / image["image"])
        source = vaeguard.denoiser_source(noisy=home / "noisy", clean=home / "clean")
        fitted = vaeguard.fit_denoiser(source, home / "run", progress=_say)
        own = read_denoiser(home / "run" / "model.onnx", "cpu", 1)
    assert own is not None
    engines = {"document": own, "photo": shipped("photo")}
    how = vaeguard.RestoreSettings(paper="white")
    found: list[dict[str, Any]] = []
    for kind, _, dirty, clean in document_pairs():
        pixels = np.round(255 * dirty).astype(np.uint8)
        pages = [vaeguard.restore_page(pixels, engine, how).pixels for engine in (shipped, engines.__getitem__)]
        found.append({"dirt": kind, "errors": [rmse(page.astype(np.float32) / 255, clean) for page in pages]})
    rows = []
    for name, kinds in (
        ("stain, fold, dark: backgrounds never trained on", ("stain", "fold", "dark")),
        ("wrinkle: the same background in both halves", ("wrinkle",)),
        ("all", ("stain", "fold", "dark", "wrinkle")),
    ):
        some = [row["errors"] for row in found if row["dirt"] in kinds]
        before, after = np.mean(some, axis=0)
        rows.append({"dirt": name, "pages": len(some), "as it ships": f"{before:.4f}", "fine-tuned": f"{after:.4f}"})
    note = (
        "Root mean square error on pixels 0 to 1, mean over the odd pages, whose text was never trained on; "
        f"`vaeguard fit-denoiser --noisy --clean` on the {fitted.images} even pages with its defaults took "
        f"{fitted.seconds / 60:.0f} minutes on one core."
    )
    write_result("restoration/finetuned", "Dirty documents, fine-tuned on half of them", rows, [note])


def measure_reading() -> None:
    """Errors of tesseract on pages before and after."""
    pairs = document_pairs()
    pairs = pairs[:: max(1, len(pairs) // READ_PAGES)][:READ_PAGES]
    ways: dict[str, Callable[[Floats], Floats]] = {
        "raw": lambda page: page,
        "OpenCV NLM": lambda page: opencv_means(page, 20),
        "divide by median": divided,
        "vaeguard": restored_page,
    }
    errors: dict[str, list[float]] = {name: [] for name in ways}
    changed = []
    for _, _, dirty, clean in pairs:
        truth = text_of(clean)
        for name, way in ways.items():
            errors[name].append(error_rate(truth, text_of(way(dirty))))
        changed.append(error_rate(truth, text_of(restored_page(clean))))
    rows = [
        {"method": name, "character error rate, %": f"{100 * np.mean(found):.2f}",
         "worst page against raw, points": f"{100 * max(np.subtract(found, errors['raw'])):.2f}"}
        for name, found in errors.items()
    ]  # fmt: skip
    rows.append({"method": "vaeguard on the clean page", "character error rate, %": f"{100 * np.mean(changed):.2f}"})
    notes = [f"{len(pairs)} odd pages; the reference is what tesseract reads on the clean page."]
    write_result("restoration/reading", "Reading dirty documents with tesseract", rows, notes)


def measure_clean() -> None:
    """Clean pages and photographs put in."""
    rows = []
    photos = [grey(path) for path in sorted((data_dir() / "bsd68").glob("*.png"))]
    pages = [clean for _, _, _, clean in document_pairs()][::4]
    put_in = {"BSD68 photographs": (photos, None), "the same as JPEG 75": (photos, 75), "as JPEG 50": (photos, 50),
              "clean pages": (pages, None)}  # fmt: skip
    for name, (images, quality) in put_in.items():
        kinds, scores = [], []
        for image in images:
            pixels = np.round(255 * image).astype(np.uint8)
            pixels = as_jpeg(pixels, quality) if quality else pixels
            found = vaeguard.restore_page(pixels, shipped, vaeguard.RestoreSettings())
            kinds.append(found.report.kind)
            before, after = (each.astype(np.float32) / 255 for each in (pixels, found.pixels))
            scores.append(min(99.0, psnr(before, after)))
        counted = ", ".join(f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds)))
        rows.append({"put in": name, "images": len(images), "PSNR mean": f"{np.mean(scores):.1f}",
                     "PSNR lowest": f"{min(scores):.1f}", "below 40 dB": sum(score < 40 for score in scores),
                     "told as": counted})  # fmt: skip
    notes = ["PSNR in dB between what goes in and what comes out; 99 stands for the same bits."]
    write_result("restoration/clean", "What happens to clean images", rows, notes)


def measure_memory() -> None:
    """The largest memory over the decoded page, for A4 at 600 dpi in 16-bit colour."""
    height, width, _ = MEMORY_PAGE
    code = MEMORY_CODE.format(height=height, width=width)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    above, page, change = map(float, done.stdout.split())
    seconds = time.perf_counter() - started
    row = {"page, MB": page, "peak above it, MB": above, "seconds": seconds, "change, levels": change}
    write_result(
        "restoration/memory", "One page of 35 megapixels, 16-bit RGB", [row], ["The result is part of the peak."]
    )


def measure_kinds() -> None:
    """What photographs and pages of print are told to be, before any is restored."""
    text = Image.new("L", (620, 300), 255)
    draw, font = ImageDraw.Draw(text), ImageFont.load_default(SIZE)
    for number, line in enumerate(TEXT.splitlines()):
        draw.text((MARGIN, MARGIN + LINE * number), line, fill=30, font=font)
    clean = np.asarray(text, np.float32) / np.float32(255)
    worn = (np.round(255 * degrade_document(clean, np.random.default_rng(k))[0]) for k in range(WORN_PAGES))
    sets: dict[str, Iterable[Floats]] = {
        name: (np.round(255 * grey(path)) for path in sorted((data_dir() / name).glob("*.png")))
        for name in ("bsd400-train", "bsd68", "set12", "dirty-documents/train", "dirty-documents/train_cleaned")
    }
    rows = []
    for name, images in {**sets, f"made-up worn pages, seeds 0 to {WORN_PAGES - 1}": worn}.items():
        kinds = [page_kind(image.astype(np.uint8)) for image in images]
        rows.append({"images": name, "count": len(kinds), "told to be documents": kinds.count("document")})
    write_result("restoration/kinds", "Which pictures are taken for documents", rows, [])


def measure_uncertainty() -> None:
    """How often the clean value lies in the stated interval."""
    rows = []
    images = [grey(path) for path in sorted((data_dir() / "bsd68").glob("*.png"))]
    for sigma in SIGMAS:
        inside, widths, errors = [], [], []
        for number, clean in enumerate(images):
            rng = np.random.default_rng([sigma, number])
            noisy = clean + np.float32(sigma / 255) * rng.standard_normal(clean.shape, np.float32)
            restored, spread = shipped("photo").restore(noisy, sigma / 255, spread=True)
            assert spread is not None
            error = np.abs(restored - clean)
            inside.append((error <= spread).mean())
            widths.append(spread.ravel()[::5])
            errors.append(error.ravel()[::5])
        stated, found = np.concatenate(widths), np.concatenate(errors)
        tenths = np.array_split(np.argsort(stated, kind="stable"), 10)
        held = [(found[tenth] <= stated[tenth]).mean() for tenth in tenths]
        rows.append({"set": "BSD68", "sigma": sigma, "coverage of the 90 % interval": f"{np.mean(inside):.3f}",
                     "in tenths of the pixels, by what is stated": " ".join(f"{share:.2f}" for share in held),
                     "correlation with the error": f"{np.corrcoef(stated, found)[0, 1]:.2f}"})  # fmt: skip
    notes = [
        "The multiple behind the interval was measured on BSD400, on which nothing is trained.",
        "Tenths: coverage where the narrowest interval is stated first, where the widest is last.",
    ]
    write_result("restoration/uncertainty", "Is the stated uncertainty true?", rows, notes)


def measure_digits() -> None:
    """Digits with noise of 0.3 and specks, restored by a denoising VAE fitted on clean ones."""
    train = vaeguard.open_images("mnist", data_dir=data_dir())
    test = vaeguard.open_images("mnist", split="test", data_dir=data_dir())
    some = vaeguard.from_array(train.images[:DIGITS], np.asarray(train.labels)[:DIGITS])
    model = vaeguard.ModelSpec(kind="conv", pseudo_classes=0, guided=False)
    training = vaeguard.TrainSpec(input_noise=DIGIT_NOISE, epochs=15, seed=0)
    detector = vaeguard.fit(some, normal_classes=None, model=model, training=training)
    classifier = MLPClassifier((256,), early_stopping=True, random_state=0)
    classifier.fit(some.images.reshape(len(some.images), -1) / np.float32(255), some.labels)
    rng = np.random.default_rng(0)
    clean = test.images.astype(np.float32) / np.float32(255)
    noisy = clean + np.float32(DIGIT_NOISE) * rng.standard_normal(clean.shape, np.float32)
    noisy = np.where(rng.random(clean.shape) < SPECKS, rng.integers(0, 2, clean.shape), noisy)
    noisy = np.clip(noisy, 0, 1).astype(np.float32)
    restored = detector.inspect(noisy, pictures=True).restored
    assert restored is not None
    rows = []
    for name, images in (("clean", clean), ("noisy", noisy), ("restored", restored)):
        right = classifier.score(images.reshape(len(images), -1), test.labels)
        rows.append({"images": name, "PSNR": f"{psnr(clean, images):.2f}", "classified rightly": f"{right:.4f}"})
    note = (
        f"PSNR in dB against the clean digits; the classifier is trained on clean ones. {DIGITS:,} training digits; "
        f"noise of deviation {DIGIT_NOISE}, and {SPECKS:.0%} of the pixels black or white."
    )
    write_result("restoration/digits", "Digits restored by a denoising VAE", rows, [note])


def measure_wear() -> None:
    """How fast images are made noisy or dirty, against how fast training takes them."""
    photos = [
        np.round(255 * grey(path)).astype(np.uint8) for path in sorted((data_dir() / "bsd400-train").glob("*.png"))
    ]
    rows = []
    torch.set_num_threads(1)
    for kind, batches in (
        ("photo", photo_batches(photos, 0)),
        ("photo, worn", photo_batches(photos, 0, worn=True)),
        ("document", page_batches(Printer(), 0)),
    ):
        settings = SETTINGS[kind.partition(",")[0]]
        shape = settings["width"], settings["depth"]
        net, ladder = DirectDenoiser(*shape), LadderVAE()
        some = [next(batches) for _ in range(WEAR_BATCHES)]
        started = time.perf_counter()
        for _ in range(WEAR_BATCHES):
            next(batches)
        making = WEAR_BATCHES / (time.perf_counter() - started)
        bf16 = has_bf16("cpu")
        rates = []
        for trained, loss in (
            (net, supervised_loss(net, by_noise=True, bf16=bf16)),
            (ladder, paired_elbo_loss(ladder, bf16=bf16)),
        ):
            started = time.perf_counter()
            train_network(trained, loss, iter(some), WEAR_BATCHES)
            rates.append(WEAR_BATCHES / (time.perf_counter() - started))
        rows.append({"images": kind, "batches made a second": making, "direct network, steps a second": rates[0],
                     "ladder VAE, steps a second": rates[1]})  # fmt: skip
    notes = ["Batches of 8 patches of 96x96; one core. The first pages of a document's pool are not counted."]
    write_result("restoration/wear", "Is made-up wear faster than training?", rows, notes)


def measure_batch() -> None:
    """The whole command on folders of pages and photographs: megapixels a second, on all cores."""
    rng = np.random.default_rng(0)
    print_pages = [
        grey(path) for path in sorted((data_dir() / "dirty-documents" / "train").glob("*.png"))[:BATCH_PAGES]
    ]
    photographs = [grey(path) for path in sorted((data_dir() / "bsd68").glob("*.png"))[:BATCH_PAGES]]
    rows = []
    for kind, pages in (("document", print_pages), ("photo", photographs)):
        for colours in (1, 3):
            with tempfile.TemporaryDirectory() as home:
                scans = Path(home) / "scans"
                scans.mkdir()
                for number, page in enumerate(pages[::colours]):
                    tiled = np.tile(page, (3, 3))[..., None] * np.array([1, 0.97, 0.9][:colours])
                    noisy = tiled + BATCH_NOISE / 255 * rng.standard_normal(tiled.shape)
                    levels = np.clip(np.round(255 * noisy), 0, 255).astype(np.uint8)
                    Image.fromarray(levels if colours == 3 else levels[..., 0]).save(scans / f"{number}.png")
                settings = vaeguard.RestoreSettings(kind=kind)
                done = vaeguard.denoise_scans(scans, Path(home) / "clean", settings, device="cpu")
            what = f"{kind}, {'colour' if colours == 3 else 'grey'}"
            rate = round(done.megapixels / done.seconds, 2)
            rows.append({"pages": done.pages, "of": what, "megapixels": done.megapixels, "MP/s": rate})
            print(rows[-1], flush=True)
    write_result("restoration/batch", "vaeguard denoise on a folder", rows, ["Reading and writing PNG included."])


def measure_kills() -> None:
    """`vaeguard denoise` on 200 pages, killed at random moments until it ends; the tree against an unbroken run's."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "scans").mkdir()
        pages = sorted((data_dir() / "dirty-documents" / "train").glob("*.png"))
        for number in range(KILL_PAGES):
            page = np.asarray(Image.open(pages[number % len(pages)]).convert("L"))[:200, number : number + 300]
            Image.fromarray(page).save(home / "scans" / f"{number:03d}.png")
        command = [str(Path(sys.executable).with_name("vaeguard")), "denoise", "scans", "--residual"]
        command += ["--device", "cpu", "--no-report"]  # a report tells the time, and so differs
        started = time.perf_counter()
        subprocess.run([*command, "-o", "whole"], cwd=home, check=True, capture_output=True)  # noqa: S603
        whole = time.perf_counter() - started
        kills, running = 0, True
        while running:
            process = subprocess.Popen(  # noqa: S603 -- our own command
                [*command, "-o", "killed"], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(generator.uniform(0, whole / 8) if kills < KILLS else None)
                running = False
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        trees = [
            {path.relative_to(home / tree): path.read_bytes() for path in (home / tree).rglob("*") if path.is_file()}
            for tree in ("whole", "killed")
        ]
    names = set(trees[0]) | set(trees[1])
    wrong = sum(trees[0].get(name) != trees[1].get(name) for name in names)
    row = {
        "pages": KILL_PAGES,
        "kills": kills,
        "files in the tree": len(names),
        "missing, left over or different": wrong,
    }
    write_result("restoration/kills", "vaeguard denoise killed at random moments", [row], [f"Unbroken: {whole:.0f} s."])


def document_rows(*, odd: bool) -> list[dict[str, str]]:
    """What is known of the dirty documents with odd, or even, page numbers."""
    with (data_dir() / "dirty-documents" / "pages.csv").open() as file:
        return [row for row in csv.DictReader(file) if int(row["page"]) % 2 == odd]


def document_pairs() -> list[tuple[str, int, Floats, Floats]]:
    """Kind of dirt, page, dirty and clean page, odd pages only."""
    folder = data_dir() / "dirty-documents"
    return [
        (
            row["noise"],
            int(row["page"]),
            grey(folder / "train" / row["image"]),
            grey(folder / "train_cleaned" / row["image"]),
        )
        for row in document_rows(odd=True)
    ]


def grey(path: Path) -> Floats:
    """An image as float32, 0 to 1."""
    return np.asarray(Image.open(path).convert("L"), np.float32) / 255


def psnr(clean: Floats, found: npt.NDArray[Any]) -> float:
    """In dB, of pixels clipped to 0 to 1."""
    error = float(np.square(np.clip(found, 0, 1) - clean, dtype=np.float64).mean())
    return float(-10 * np.log10(max(error, 1e-12)))


def rmse(found: Floats, clean: Floats) -> float:
    """Root mean square error."""
    return float(np.sqrt(np.square(found - clean, dtype=np.float64).mean()))


def text_of(page: Floats) -> str:
    """What tesseract reads, with single spaces."""
    return " ".join(read_text(np.round(255 * page).astype(np.uint8)).split())


def error_rate(truth: str, found: str) -> float:
    """Share of characters to insert, delete or exchange."""
    matcher = difflib.SequenceMatcher(None, truth, found, autojunk=False)
    wrong = sum(max(b - a, d - c) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal")
    return wrong / max(1, len(truth))


def _say(step: int, steps: int, text: str) -> None:
    if step % 200 == 0:
        print(f"{step}/{steps} {text}", flush=True)


def main() -> None:
    """Measure everything, or what `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bm3d-images", type=int, default=6)
    parser.add_argument(
        "--only",
        default="noise,blind,camera,colour,documents,finetuned,reading,clean,clean_colour,memory,kinds,uncertainty,wear,batch,digits,kills",
    )
    given = parser.parse_args()
    for name in given.only.split(","):
        if name == "noise":
            measure_noise(given.bm3d_images)
        else:
            globals()[f"measure_{name}"]()


if __name__ == "__main__":
    main()
