"""A denoiser of one's own, from folders to `denoise -m`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vaeguard
from vaeguard import DenoiserSpec, RefusedError, UsageError, denoiser_source, fit_denoiser
from vaeguard.engines.model_file import read_tensors
from vaeguard.restoration.denoiser import shipped_denoiser

SPEC = DenoiserSpec(width=6, depth=2, ladder_width=6, latent=(2, 3, 4), steps=25, patch_size=32, from_scratch=True)


@pytest.fixture
def folders(tmp_path):
    """Folders of four clean and four noisy photographs of the same names, and one that is noisy only."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :112]
    for name in ("clean", "noisy"):
        (tmp_path / name / "deep").mkdir(parents=True)
    for number in range(5):
        clean = 127 + 90 * np.sin(x / (4 + number)) * np.cos(y / 9)
        noisy = np.clip(clean + 20 * rng.standard_normal(clean.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "noisy" / "deep" / f"{number}.tif")
        if number < 4:
            Image.fromarray(clean.astype(np.uint8)).save(tmp_path / "clean" / "deep" / f"{number}.png")
    return tmp_path


def test_pairs_are_found_by_their_names(folders):
    source = denoiser_source(noisy=folders / "noisy", clean=folders / "clean", spec=SPEC)
    assert (source.mode, source.kind, source.images, source.held_out) == ("pairs", "photo", 3, 1)
    ((path, reason),) = source.errors
    assert path.endswith("4.tif")
    assert "no image of that name" in reason
    clean, noisy, noise = next(source.learn(0))
    assert 0.05 < (noisy - clean).std() < 0.1
    assert 0.05 < noise.mean() < 0.1


def test_pairs_that_do_not_agree_are_listed(folders):
    pages = [Image.fromarray(np.full((64, 64), 50 * k, np.uint8)) for k in range(3)]
    pages[0].save(folders / "noisy/more.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folders / "clean/more.tif", save_all=True, append_images=pages[1:2])
    pages[0].save(folders / "noisy/fewer.tif")
    pages[0].save(folders / "clean/fewer.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folders / "clean/deep/3.jpg")
    (folders / "noisy/deep/4.tif").unlink()
    source = denoiser_source(noisy=folders / "noisy", clean=folders / "clean", spec=SPEC)
    assert source.images + source.held_out == 3
    reasons = dict(source.errors)
    assert len(reasons) == 3
    assert "more grey or colour pages than" in reasons[str(folders / "noisy/more.tif")]
    assert "fewer grey or colour pages than" in reasons[str(folders / "noisy/fewer.tif")]
    assert "have its name ('3.jpg' and '3.png')" in reasons[str(folders / "noisy/deep/3.tif")]
    Image.open(folders / "noisy/deep/3.tif").save(folders / "noisy/deep/3.png")
    (folders / "noisy/deep/3.tif").unlink()
    source = denoiser_source(noisy=folders / "noisy", clean=folders / "clean", spec=SPEC)
    assert source.images + source.held_out == 4


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ({"clean": "clean", "degrade": "gaussian:25"}, "degrade"),
        ({"clean": "clean", "degrade": "photo"}, "degrade"),
        ({"adapt": "noisy"}, "adapt"),
    ],
)
def test_what_is_given_says_how_it_is_fitted(folders, how, mode):
    how = {key: folders / value if key != "degrade" else value for key, value in how.items()}
    source = denoiser_source(**how, spec=SPEC)
    assert source.mode == mode
    first, second, noise = next(source.learn(0))
    assert first.shape == second.shape == (8, 1, 32, 32)
    assert noise.shape == (8, 1, 1, 1)


def test_small_images_shrink_the_patch_or_are_listed(tmp_path):
    for number in range(20):
        Image.fromarray(np.full((64, 64), number, np.uint8)).save(tmp_path / f"{number}.png")
    Image.fromarray(np.zeros((400, 300), np.uint8)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((20, 300), np.uint8)).save(tmp_path / "small.png")
    source = denoiser_source(clean=tmp_path, degrade="photo", spec=DenoiserSpec())
    assert source.images + source.held_out == 21
    ((path, reason),) = source.errors
    assert path.endswith("small.png")
    assert "smaller than the 64 pixels" in reason


def test_every_page_of_a_scan_counts_and_a_bilevel_one_does_not(tmp_path):
    grey = [Image.fromarray(np.full((64, 64), 50 * k, np.uint8)) for k in range(3)]
    grey[0].save(tmp_path / "a.tif", save_all=True, append_images=grey[1:])
    Image.fromarray(np.zeros((64, 64), np.bool_)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    source = denoiser_source(clean=tmp_path, degrade="photo", spec=SPEC)
    assert source.images + source.held_out == 3
    reasons = dict(source.errors)
    assert "no page in grey" in reasons[str(tmp_path / "b.png")]
    assert str(tmp_path) not in reasons[str(tmp_path / "c.png")]


def test_a_page_of_print_among_photographs_is_left_out_and_said(tmp_path, printed):
    rng = np.random.default_rng(0)
    photo, other = (Image.fromarray(rng.integers(60, 160, (120, 120)).astype(np.uint8)) for _ in range(2))
    page = Image.fromarray(np.round(255 * printed(300, 300, 0)).astype(np.uint8))
    photo.save(tmp_path / "mixed.tif", save_all=True, append_images=[page, other])
    source = denoiser_source(adapt=tmp_path, spec=SPEC)
    assert source.images + source.held_out == 2
    (error,) = source.errors
    assert "a printed page, which was skipped" in error[1]


@pytest.mark.slow
def test_pages_are_worn_as_documents(tmp_path, printed):
    for number in range(2):
        page = np.round(255 * printed(300, 300, number)).astype(np.uint8)
        Image.fromarray(page).save(tmp_path / f"{number}.png")
    source = denoiser_source(clean=tmp_path, degrade="document", spec=SPEC)
    assert source.kind == "document"
    clean, worn, _ = next(source.learn(0))
    assert clean.shape == worn.shape
    assert not np.array_equal(clean, worn)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "a denoiser needs training images; give `noisy` and `clean`"),
        ({"noisy": "noisy"}, "`noisy` needs `clean`"),
        ({"noisy": "noisy", "clean": "clean", "degrade": "photo"}, "`noisy` needs `clean`"),
        ({"adapt": "noisy", "noisy": "noisy"}, "`adapt` needs no clean images"),
        ({"clean": "clean", "degrade": "rain"}, "`degrade` is 'rain'; choose from document, photo, gaussian"),
        ({"clean": "clean", "degrade": "gaussian"}, "such as gaussian:25"),
        ({"clean": "clean", "degrade": "gaussian:much"}, "'much' is not a standard deviation in levels"),
        ({"clean": "clean", "degrade": "gaussian:-10"}, "use 0 to 255"),
        ({"clean": "clean", "degrade": "gaussian:nan"}, "use 0 to 255"),
        ({"adapt": "noisy", "clean": "clean"}, "`adapt` needs no clean images"),
        ({"noisy": "noisy/deep/0.tif", "clean": "clean"}, "`noisy` is .*, which is not a folder"),
        ({"adapt": "empty"}, "no images in"),
    ],
)
def test_sources_that_do_not_go_together(folders, how, message):
    (folders / "empty").mkdir()
    how = {key: folders / value if key != "degrade" else value for key, value in how.items()}
    with pytest.raises(UsageError, match=message):
        denoiser_source(**how, spec=SPEC)


def test_images_that_are_too_small(tmp_path):
    Image.fromarray(np.zeros((12, 40), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="at least 16x16 pixels"):
        denoiser_source(clean=tmp_path, degrade="photo", spec=SPEC)


def ramps(seed=0):
    rng = np.random.default_rng(seed)
    images = [np.cumsum(rng.integers(0, 5, (64, 64)), axis=1).astype(np.uint8) for _ in range(3)]
    return denoiser_source(clean=images, degrade="gaussian:25", spec=SPEC)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run fitted on arrays in memory, with what it reported."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    calls = []
    found = fit_denoiser(ramps(), folder, SPEC, progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (75, 75)
    return folder, found


@pytest.mark.slow
def test_a_run_holds_all_that_it_should(run):
    folder, found = run
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "model.onnx",
        "model.safetensors",
        "report.html",
        "report.json",
    ]
    report = json.loads((folder / "report.json").read_text())
    assert report["after"] == found.after
    assert report["spec"]["steps"] == 25
    assert found.before == pytest.approx(20.2, abs=0.5)
    with pytest.raises(UsageError, match="finished model"):
        fit_denoiser(denoiser_source(clean=[np.zeros((64, 64), np.uint8)], degrade="photo", spec=SPEC), folder, SPEC)


@pytest.mark.slow
def test_a_run_cleans_scans_and_scores_none(run, folders):
    folder, _ = run
    done = vaeguard.denoise_scans(folders / "noisy", folders / "out", model=folder, device="cpu")
    assert (done.pages, done.errors) == (5, ())
    sampled = vaeguard.RestoreSettings(kind="photo", samples=2)
    again = vaeguard.denoise_scans(folders / "noisy", folders / "sampled", sampled, model=folder, device="cpu")
    assert again.errors == ()
    one, two = (np.asarray(Image.open(folders / name / "deep" / "0.tif")) for name in ("out", "sampled"))
    assert not np.array_equal(one, two)
    with pytest.raises(RefusedError, match="is a denoiser, which cleans scans and computes no scores"):
        vaeguard.load(folder)
    other = vaeguard.denoise_scans(folders / "noisy", folders / "other", model=folder / "model.safetensors")
    assert other.errors == ()


def test_samples_without_a_ladder_are_refused_before_anything_is_lost(folders, monkeypatch):
    from vaeguard.restoration import restorer

    bare = shipped_denoiser("photo", "cpu", 1)
    bare.ladder = None
    monkeypatch.setattr(restorer, "shipped_denoiser", lambda *_: bare)
    vaeguard.denoise_scans(folders / "noisy", folders / "out")
    before = sorted(folders.rglob("*"))
    with pytest.raises(UsageError, match="has no ladder VAE"):
        vaeguard.denoise_scans(folders / "noisy", folders / "out", vaeguard.RestoreSettings(samples=2))
    assert sorted(folders.rglob("*")) == before


@pytest.fixture
def no_export(monkeypatch):
    """The ONNX file takes nine tenths of a small fit's time; that it repeats is seen once."""
    stand_in = "vaeguard.workflows.fit_denoiser.write_denoiser"
    monkeypatch.setattr(stand_in, lambda _, path: path.write_bytes(b"no network"))


def assert_same_bits(one, two):
    first, second = (read_tensors(path / "model.safetensors")[0] for path in (one, two))
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.nightly
def test_fits_repeat_with_their_seed(run, tmp_path):
    fit_denoiser(ramps(), tmp_path / "again", SPEC)
    assert_same_bits(run[0], tmp_path / "again")
    assert (run[0] / "model.onnx").read_bytes() == (tmp_path / "again" / "model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_a_fit_that_was_killed_while_it_was_written_resumes(run, tmp_path, monkeypatch):
    folder = tmp_path / "killed"

    def killed(*_, **__):
        raise SystemError("killed")

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr("vaeguard.workflows.fit_denoiser.write_denoiser", killed)
        fit_denoiser(ramps(), folder, SPEC)
    fit_denoiser(ramps(), folder, SPEC, resume=True)
    assert_same_bits(run[0], folder)


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_what_diverged_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(vaeguard.VaeguardError, match="lower `learning_rate`"):
        fit_denoiser(ramps(), tmp_path, replace(SPEC, learning_rate=1e30))
    fit_denoiser(ramps(), tmp_path, SPEC)


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("after", [12, 37])
def test_a_killed_fit_resumes_to_the_same_bits(run, tmp_path, monkeypatch, after):
    """In the direct network, and in the ladder VAE."""
    folder = tmp_path / "killed"
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        assert total == 75
        if done > after:
            raise SystemError("killed")

    with pytest.raises(SystemError):
        fit_denoiser(ramps(), folder, SPEC, progress=kill)
    with pytest.raises(UsageError, match="interrupted fit; to continue it, add `resume`"):
        fit_denoiser(ramps(), folder, SPEC)
    with pytest.raises(UsageError, match=r"steps \(was 25, now 30\);"):
        fit_denoiser(ramps(), folder, replace(SPEC, steps=30), resume=True)
    with pytest.raises(UsageError, match=r"has changed: .*fingerprint"):
        fit_denoiser(ramps(seed=1), folder, SPEC, resume=True)
    with pytest.raises(UsageError, match="it is a checkpoint of a denoiser"):
        vaeguard.fit(np.zeros((40, 8, 8), np.uint8), run=folder, resume=True)
    steps = []
    fit_denoiser(ramps(), folder, SPEC, resume=True, progress=lambda done, _, text: steps.append((done, text)))
    assert next(done for done, text in steps if "loss" in text) == after + 1, "what was done is not done again"
    assert_same_bits(run[0], folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in run[0].iterdir())
