"""The commands that use the model as a generative one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import run
from PIL import Image
from sklearn.decomposition import PCA

import vaeguard

pytestmark = pytest.mark.slow

SMALL = ("--set", "model.hidden=32", "--set", "model.pseudo_classes=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("generation")
    settings = ("--epochs", "8", "--latent", "6", *SMALL)
    for name, more in (("plain", ()), ("classes", ("--set", "model.prior=per-class"))):
        done = run(home, "fit", "--normal-classes", "0-8", *settings, *more, "-o", name)
        assert done.returncode == 0, done.stderr
    run(home, "unpack", "digits", "--split", "test", "-o", "digits")
    run(home, "export", "-m", "plain", "-o", "model.onnx")
    return home


def picture(home, name):
    with Image.open(home / name) as image:
        return image.convert("RGB").tobytes(), image.size


def test_samples_are_drawn_and_repeat(home):
    for name, more in (("a.png", ()), ("b.png", ()), ("c.png", ("--seed", "1")), ("d.png", ("--aggregate",)),
                       ("e.png", ("-m", "classes", "--class", "3"))):  # fmt: skip
        done = run(home, "sample", "-m", "plain", "-n", "9", *more, "-o", name)
        assert done.returncode == 0, done.stderr
    assert picture(home, "a.png") == picture(home, "b.png")
    assert len({picture(home, name)[0] for name in ("a.png", "c.png", "d.png", "e.png")}) == 4
    wrong = run(home, "sample", "-m", "plain", "--seed", "-1")
    assert wrong.returncode == 2
    assert "'--seed': -1" in wrong.stderr


def test_walks_and_squares(home):
    ends = [str(min((home / "digits" / name).iterdir())) for name in "0123"]
    two = run(home, "interpolate", *ends[:2], "-m", "plain", "--steps", "5", "--json")
    assert json.loads(two.stdout)["steps"] == 5
    four = run(home, "interpolate", *ends, "-m", "plain", "--steps", "5", "--spherical", "-o", "square.png")
    assert four.returncode == 0, four.stderr
    (_, line), (_, square) = picture(home, "interpolation.png"), picture(home, "square.png")
    assert line[0] == square[0]
    assert square[1] > 4 * (line[1] - 40)


def test_units_are_traversed_by_falling_rate(home):
    found = json.loads(run(home, "traverse", "-m", "plain", "--json").stdout)
    rates = [unit["rate"] for unit in found["units"]]
    assert len(rates) == 6
    assert rates == sorted(rates, reverse=True)
    assert picture(home, "traversal.png")[1][0] > 7 * 112


def test_latents_are_a_table(home):
    from vaeguard.storage.tables import read_table

    done = run(home, "embed", "./digits", "-m", "plain", "-o", "latents.parquet")
    assert done.returncode == 0, done.stderr
    table = read_table(home / "latents.parquet")
    assert len(table) == 596
    assert list(table.columns) == [
        "path",
        "class",
        *(f"mean_{n}" for n in range(6)),
        *(f"logvar_{n}" for n in range(6)),
    ]
    images = vaeguard.open_images(str(home / "digits"), rule=vaeguard.ImageRule((8, 8), 1))
    encoding = vaeguard.load(home / "plain").encode(images.images)
    np.testing.assert_allclose(table["mean_3"], encoding.mean[:, 3], atol=1e-5)
    assert table["class"].tolist() == [images.class_names[label] for label in images.labels]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "-m", "plain", "--class", "3"), "fit again with `model.prior` set to 'per-class'"),
        (("sample", "-m", "classes", "--class", "9"), "no class '9'; its classes are 0, 1"),
        (("sample", "-m", "plain", "-o", "x.jpg"), "ends in .png"),
        (("sample", "-m", "model.onnx"), "exported file"),
        (("interpolate", "digits", "-m", "plain"), "give two, or four for a square"),
        (("interpolate", "digits", "none.png", "-m", "plain"), "digits"),
        (("traverse", "-m", "model.onnx"), "exported file"),
        (("embed", "-m", "plain", "-o", "x.txt"), ".csv, .parquet or .jsonl"),
        (("embed", "-m", "plain", "-o", "mine.csv"), "'mine.csv' is not a table of latents and would be overwritten"),
        (
            ("embed", "-m", "plain", "-o", "labels.csv"),
            "'labels.csv' is not a table of latents and would be overwritten",
        ),
        (
            ("embed", "-m", "plain", "-o", "more.csv"),
            "'more.csv' has a column 'operator', which vaeguard did not write",
        ),
    ],
)
def test_bad_arguments_get_one_sentence(home, arguments, message):
    (home / "mine.csv").write_text("part,operator\n7,me\n")
    (home / "labels.csv").write_text("path,class\na.png,3\n")
    (home / "more.csv").write_text("path,mean_0,mean_1,operator\na.png,0,0,me\n")
    done = run(home, *arguments)
    assert done.returncode in (1, 2, 4)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr


def test_a_generative_evaluation_writes_its_report_and_prints_it(home):
    arguments = ("likelihood", "-m", "plain", "--samples", "3", "--images", "5")
    done = run(home, *arguments)
    assert done.returncode == 0, done.stderr
    assert "of 5 normal images" in done.stdout
    report = json.loads(run(home, *arguments, "--json").stdout)
    assert report["samples"] == 3
    assert report["images"] == {"normal": 536, "bounds": 5}
    assert "pictures" not in report
    assert (home / "plain" / "likelihood-digits" / "report.html").is_file()


def test_likelihoods_of_an_exported_file_are_refused(home):
    done = run(home, "likelihood", "-m", "model.onnx")
    assert done.returncode == 2
    assert "--model 'model.onnx' is an exported file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_embedding_is_drawn_beside_its_table(home):
    done = run(home, "embed", "digits", "-m", "plain", "-o", "drawn.csv", "--plot", "pca", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == "drawn.csv.report.html"
    report = json.loads((home / "drawn.csv.report.json").read_text())
    table = pd.read_csv(home / "drawn.csv")
    means = table[[name for name in table if name.startswith("mean_")]].to_numpy()
    assert report["points"]["path"] == list(table["path"])
    assert report["explained"] == pytest.approx(PCA(2).fit(means).explained_variance_ratio_.sum(), abs=1e-6)
    again = run(home, "embed", "digits", "-m", "plain", "-o", "drawn.csv")
    assert again.returncode == 0, again.stderr
    assert not (home / "drawn.csv.report.html").exists(), "a report of another table would be left beside it"
    spread = np.ptp(np.stack([report["points"]["x"], report["points"]["y"]]), 1)
    np.testing.assert_allclose(spread, np.ptp(PCA(2).fit_transform(means), 0), atol=0.01)


def test_without_data_it_is_the_named_set_of_the_fit(home):
    for number in range(24):
        (home / "parts").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "parts" / f"{number}.png")
    fitted = run(home, "fit", "parts", "--epochs", "1", "--set", "model.hidden=8", "-o", "of-parts")
    assert fitted.returncode == 0, fitted.stderr
    for command in (("evaluate",), ("likelihood",), ("reconstruct",), ("embed",)):
        asked = run(home, *command, "-m", "of-parts")
        assert asked.returncode == 2, command
        assert "is missing, and the model was fitted on 'parts'" in asked.stderr
    done = run(home, "embed", "-m", "plain", "-o", "bare.csv")
    assert done.returncode == 0, done.stderr
    assert "Data: digits, 596 images" in done.stderr


def test_reconstructions_come_in_the_order_of_a_term(home):
    scores = run(home, "score", "digits", "-m", "plain", "-o", "by.csv", "--no-report")
    assert scores.returncode == 0, scores.stderr
    done = run(home, "reconstruct", "digits", "-m", "plain", "--by", "recon_error", "--json", "-o", "by.png")
    table = pd.read_csv(home / "by.csv").sort_values("recon_error")
    drawn = [Path(path).stem for path in json.loads(done.stdout)["images"]]
    assert drawn[:4] + drawn[-4:] == [Path(path).stem for path in [*table["path"][:4], *table["path"][-4:]]]
    wrong = run(home, "reconstruct", "digits", "-m", "plain", "--by", "nothing", "-o", "by.png")
    assert wrong.returncode == 2
    assert "--by is 'nothing', which is neither the score nor a term" in wrong.stderr
