"""Trees of scans that several processes clean."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_denoising import tree

from vaeguard import DenoiseOutputs, RestoreSettings, UsageError, VaeguardError, denoise_scans
from vaeguard.restoration.gathering import denoise_share, gather_scans, tree_of
from vaeguard.storage.plan import Share


@pytest.fixture
def scans(tmp_path, printed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scans/box").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, suffix in enumerate((".png", ".tif", ".pdf", ".jpg", ".png")):
        page = 215 * printed(60, 80, number) + 8 * rng.standard_normal((60, 80))
        Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)).save(f"scans/box/{number}{suffix}")
    Path("scans/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return "scans"


def share(number, of, **options):
    return denoise_share("scans", "clean", Share(number, of), device="cpu", jobs=1, **options)


def test_the_tree_of_shares_is_that_of_one_process(scans):
    options = {"outputs": DenoiseOutputs(jpeg=90)}
    whole = denoise_scans(scans, "whole", device="cpu", **options)
    assert [share(number, 3, **options).finished for number in (2, 1)] == [2, 4]
    with pytest.raises(VaeguardError, match=r"2 of 6 parts are missing: 'box/2\.pdf', 'broken\.png'"):
        gather_scans(Path("clean"))
    done = share(3, 3, **options)
    assert [path for path, _ in done.errors] == ["scans/broken.png"]
    again = share(3, 3, **options)
    assert (again.resumed, len(again.errors)) == (1, 1)  # what was left out is tried again
    assert tree_of("clean/pages.csv.job") == tree_of("clean") == Path("clean")
    summary, _ = gather_scans(Path("clean"))
    assert (summary.files, summary.pages, summary.errors) == (whole.files, whole.pages, whole.errors)
    assert summary.megapixels == whole.megapixels
    assert tree("clean") == tree("whole")


@pytest.mark.nightly
def test_the_plain_command_finishes_what_shares_began_and_other_settings_are_refused(scans):
    denoise_scans(scans, "whole", device="cpu")
    share(1, 2)
    with pytest.raises(UsageError, match=r"its strength is '1\.0', but here it is '0\.5'; finish that job"):
        share(2, 2, settings=RestoreSettings(strength=0.5))
    Path("clean/box/0.png").unlink()
    assert share(1, 2).resumed == 2
    assert denoise_scans(scans, "clean", device="cpu").resumed == 3
    assert tree("clean") == tree("whole")
    with pytest.raises(UsageError, match="'clean' has no shares to combine"):
        gather_scans(Path("clean"))
