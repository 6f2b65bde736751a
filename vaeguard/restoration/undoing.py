"""Recovering the originals from clean scans and their residuals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.restoration.formats.isolated import rewrite, scan_pages
from vaeguard.restoration.formats.scan_page import digest_of_pixels
from vaeguard.restoration.records import TABLE, clean_store
from vaeguard.storage.files import sweep_all, writing
from vaeguard.storage.store import beside, is_job, job_folder, open_job
from vaeguard.wording import counted

if TYPE_CHECKING:
    from vaeguard.progress import Progress
    from vaeguard.restoration.formats.scan_page import Page, Pixels
    from vaeguard.storage.store import Part


def undone(clean: Pixels, residual: Pixels) -> Pixels:
    """The original pixels of a page, from the clean pixels and the residual that was written with them."""
    return clean + residual  # unsigned integers wrap around


def undo_scans(
    clean: str | Path, output: str | Path | None = None, *, progress: Progress | None = None
) -> tuple[int, list[tuple[str, str]]]:
    """Write the originals of clean scans, with the same pixels bit for bit, into a folder with the same structure.

    Everything but the pixels, including names and formats, is that of the clean files: if a scan was a JPEG, its
    original is written as a PNG with the same pixels. After an interruption, the same call starts from the beginning
    and overwrites its earlier files.

    Parameters
    ----------
    clean : path
        A folder that `denoise_scans` wrote with `residual`, or one clean file of it.
    output : path or None
        A folder outside `clean` with none of these files; None is `<clean>-originals`.
    progress : callable or None
        Called with the number of files done, the number of all files, and a line of text.

    Returns
    -------
    (int, list of (path, reason))
        The number of originals, and the clean files whose originals cannot be recovered.

    Raises
    ------
    UsageError
        The folders cannot be used, or there are no clean scans.
    VaeguardError
        Another process is writing to the same folder.
    """
    source, target = Path(clean), Path(output) if output else default_originals(clean)
    if source.is_file():
        one = clean_store(source.parent).part(source.name)
        source, files = source.parent, [one] if one.record else []
    else:
        files = list(clean_store(source).parts())
    if not files:
        raise UsageError(
            f"{str(clean)!r} contains no clean scans; give a clean file, the folder of clean scans, or one below it"
        )
    places = [target / file.path.relative_to(source) for file in files]
    _check_target(source, target, places)
    errors: list[tuple[str, str]] = []
    with open_job(target, keep=True):
        sweep_all(target)
        for done, (file, place) in enumerate(zip(files, places, strict=True), 1):
            try:
                _undo(file, place)
            except UnreadableError as error:
                errors.append((str(file.path), error.reason))
            except RefusedError as error:
                errors.append((str(file.path), str(error)))
            if progress:
                progress(done, len(files), counted(done, "file"))
    return len(files) - len(errors), errors


def default_originals(clean: str | Path) -> Path:
    """`scans-clean-originals` beside `scans-clean`; its folder `box` for `scans-clean/box` or a clean file there."""
    path = Path(clean).resolve() if str(clean) in (".", "..") else Path(clean)
    folder = path.parent if path.is_file() else path
    root = next((each for each in (folder, *folder.parents) if (each / TABLE).exists()), folder)
    place = root if root.name else root.resolve()
    return place.with_name(f"{place.name}-originals") / folder.relative_to(root)


def _check_target(source: Path, target: Path, originals: list[Path]) -> None:
    """Refuse to write originals among the clean scans, or over other files."""
    if target.is_symlink():
        raise UsageError(f"{str(target)!r} is a link; give the folder itself")
    place, folder = source.resolve(), target.resolve()
    if folder == place or folder in place.parents or place in folder.parents:
        raise UsageError(
            f"{str(target)!r} is the folder of the clean scans, or is inside or around it; choose a different folder"
        )
    if target.exists() and not target.is_dir():
        raise UsageError(f"{str(target)!r} is a file; choose a folder with `output`")
    taken = next((path for path in originals if path.exists()), None)
    if taken and not is_job(job_folder(target)):  # an interrupted undo writes its files again
        raise UsageError(f"{str(taken)!r} already exists; choose a different folder with `output`")


def _undo(file: Part, target: Path) -> None:
    if file.changed:
        raise RefusedError(f"{file.change()}, so the original cannot be recovered from it")

    def original(page: Page) -> Pixels:
        if page.pixels.dtype == np.bool_:
            return page.pixels
        path = beside(file.path, f"page-{page.number}.residual.png")
        if path.name not in file.record["written"]:
            raise RefusedError("it was written without `residual`, so the original cannot be recovered; keep the scan")
        residual = next(scan_pages(read_bytes(path, any_size=True), str(path))).pixels
        pixels = undone(page.pixels, residual.reshape(page.pixels.shape))
        if file.record.get("pixels_sha256", {}).get(str(page.number)) != digest_of_pixels(pixels):
            raise RefusedError(
                f"page {page.number} would differ from the original; please report this, and keep the clean file"
            )
        return pixels

    with writing(target) as temporary:
        # A lossless clean file may be larger than the limit for scans.
        rewrite(read_bytes(file.path, any_size=True), str(file.path), temporary, original, lossless=True)
