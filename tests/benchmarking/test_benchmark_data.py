"""The data of the benchmarks: how tables, other image sets and defects are read and split."""

import contextlib
import csv
import hashlib
import io
import itertools
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from toy import bars

import vaeguard
from vaeguard.benchmarking import plan as plans
from vaeguard.benchmarking.baselines import knn
from vaeguard.benchmarking.defects import open_deeppcb, open_magnetic_tile, split_surfaces
from vaeguard.benchmarking.odds import read_table, split_table
from vaeguard.benchmarking.other_sets import open_omniglot
from vaeguard.benchmarking.protocols import BASELINES, BENCHMARKS, CELL_BASELINES
from vaeguard.benchmarking.published import published
from vaeguard.errors import RefusedError, VaeguardError

pytestmark = pytest.mark.slow

QUICK = {"model": vaeguard.ModelSpec(hidden=(8,), latent=2), "training": vaeguard.TrainSpec(epochs=1, threads=1)}


def quick_plan(spec):
    return plans.make_plan(spec, QUICK["model"], QUICK["training"])


def test_tables_are_split_as_pyod_does(data_dir):
    if not (data_dir / "pyod-odds").is_dir():
        pytest.skip("the tables are not there")
    areas = []
    for name in BENCHMARKS["tables"].data.split(","):
        features, truth = read_table(name, data_dir)
        task = split_table(name, (features, truth), 0)
        assert len(task.test) == int(np.ceil(0.4 * len(features)))
        assert len(task.train) + len(task.test) == len(features)
        varies = task.train.std(0) > 0
        np.testing.assert_allclose(task.train.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(task.train[:, varies].std(0), 1, atol=1e-9)
    # The same splits and the same method as PyOD's k nearest neighbours: the same figure.
    for seed in range(10):
        task = split_table("wbc", read_table("wbc", data_dir), seed)
        areas.append(roc_auc_score(task.anomalous, knn(task.vectors()[0], 0)(task.vectors()[1])))
    theirs = {row.method: row.cases for row in published("tables", "pyod-odds")}
    assert np.mean(areas) == pytest.approx(theirs["PyOD KNN"]["wbc"], abs=0.002)


def test_published_tables_are_those_of_pyods_file(data_dir):
    path = data_dir / "pyod-odds/published_roc_recent.csv"
    if not path.is_file():
        pytest.skip("PyOD's file is not there")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    for row in published("tables", "pyod-odds"):
        column = row.method.removeprefix("PyOD ")
        # There 0 means that it was not run.
        assert row.cases == {line["Data"]: float(line[column]) for line in rows if float(line[column]) > 0}
        assert row.source.endswith(digest)


def write_table(folder, name, rows=60):
    from scipy.io import savemat

    generator = np.random.default_rng(0)
    truth = np.arange(rows) % 10 == 0
    (folder / "pyod-odds").mkdir(exist_ok=True)
    savemat(folder / f"pyod-odds/{name}.mat", {"X": generator.normal(size=(rows, 4)) + 3 * truth[:, None], "y": truth})


def test_tables_that_are_missing_are_skipped_and_said(tmp_path):
    spec = vaeguard.BenchmarkSpec("tables", data="glass,wbc", seeds=2, data_dir=str(tmp_path))
    with pytest.raises(VaeguardError, match="glass.*`data_dir`"):
        plans.make_plan(spec, vaeguard.ModelSpec(), vaeguard.TrainSpec())
    write_table(tmp_path, "wbc")
    plan = plans.make_plan(spec, vaeguard.ModelSpec(), vaeguard.TrainSpec())
    assert {job.cell.case for job in plan.jobs} == {"wbc"}
    assert {job.cell.method for job in plan.jobs} == {"vaeguard", *BASELINES}
    assert len(plan.skipped) == 1
    assert plan.skipped[0].startswith("'glass' was skipped")
    # Another split for each seed, so that the deterministic methods are repeated too.
    assert len({job.settings["task"] for job in plan.jobs}) == 2
    (tmp_path / "pyod-odds/glass.mat").write_bytes(b"no table")
    with pytest.raises(RefusedError, match=r"glass\.mat"):
        read_table("glass", tmp_path)


def test_a_table_without_anomalies_to_test_is_listed_and_the_others_go_on(tmp_path):
    from scipy.io import savemat

    write_table(tmp_path, "wbc")
    table = {"X": np.random.default_rng(0).normal(size=(60, 4)), "y": np.arange(60) == 0}
    savemat(tmp_path / "pyod-odds/glass.mat", table)
    spec = vaeguard.BenchmarkSpec("tables", data="glass,wbc", seeds=5, data_dir=tmp_path)
    jobs = plans.make_plan(spec, vaeguard.ModelSpec(), vaeguard.TrainSpec()).jobs
    failing = [job for job in jobs if plans.FAULT in job.settings]
    assert {job.cell.case for job in failing} == {"glass"}
    assert {job.cell.method for job in failing} == {job.cell.method for job in jobs}
    without = {job.cell.seed for job in failing}
    assert 0 < len(without) < 5
    for seed in range(5):
        with pytest.raises(VaeguardError, match="are normal") if seed in without else contextlib.nullcontext():
            split_table("glass", (table["X"], table["y"]), seed)


class Norm:
    """In the place of our estimator: how far from the training mean."""

    def __init__(self, *, random_state=None, device="auto"):
        self.random_state, self.device = random_state, device

    def get_params(self):
        return vars(self)

    def fit(self, table):
        self.mean = table.mean(0)
        return self

    def score_samples(self, table):
        return -np.linalg.norm(table - self.mean, axis=1)

    def terms(self, table):
        return {"nearness": self.score_samples(table)}


def test_tables_are_measured_and_stand_beside_published_figures(tmp_path, monkeypatch):
    import vaeguard.sklearn

    monkeypatch.setattr(vaeguard.sklearn, "VAEDetector", Norm)
    write_table(tmp_path, "wbc")
    spec = vaeguard.BenchmarkSpec("tables", data="wbc", seeds=3, data_dir=str(tmp_path))
    report = vaeguard.benchmark(spec, tmp_path / "report")
    assert not report.failures
    ours = [cell["scores"]["score"]["roc_auc"] for cell in report.cells if cell["method"] == "vaeguard"]
    tasks = [split_table("wbc", read_table("wbc", tmp_path), seed) for seed in range(3)]
    expected = [roc_auc_score(task.anomalous, -Norm().fit(task.train).score_samples(task.test)) for task in tasks]
    assert ours == expected
    terms = [cell["scores"]["nearness"]["roc_auc"] for cell in report.cells if cell["method"] == "vaeguard"]
    np.testing.assert_allclose(terms, 1 - np.array(expected))
    methods = {row["name"]: row for row in report.to_dict()["comparison"][0]["methods"]}
    assert methods["vaeguard"]["cells"][0]["mean"] == pytest.approx(np.mean(ours))
    (other,) = (row for row in published("tables", "pyod-odds") if row.method == "PyOD KNN")
    assert methods["PyOD KNN"]["mean"]["mean"] == methods["PyOD KNN"]["cells"][0]["mean"] == other.cases["wbc"]


def drawing(value=0):
    """A black stroke on white, 105x105 of 1 bit, as a PNG file."""
    pixels = np.ones((105, 105), bool)
    pixels[10:20, value : value + 30] = False
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def write_omniglot(folder):
    (folder / "omniglot-small").mkdir()
    with zipfile.ZipFile(folder / "omniglot-small/images_background_small1.zip", "w") as packed:
        for number in range(12):
            packed.writestr(f"images_background_small1/A/character01/{number:02}.png", drawing(number))


def write_mnist(folder):
    (folder / "mnist").mkdir()
    for part, count in (("train", 120), ("t10k", 40)):
        images, labels = bars(count, classes=10, size=28)
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (folder / f"mnist/{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big")
        (folder / f"mnist/{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


def test_set_against_set_with_a_set_that_is_missing(tmp_path):
    write_mnist(tmp_path)
    write_omniglot(tmp_path)
    spec = vaeguard.BenchmarkSpec(
        "ood", data="mnist:omniglot,mnist:notmnist", seeds=1, fits=("unlabelled",), data_dir=str(tmp_path)
    )
    report = vaeguard.benchmark(spec, tmp_path / "report", **{**QUICK, "model": replace(QUICK["model"], kind="mlp")})
    assert not report.failures
    assert {cell["case"] for cell in report.cells} == {"mnist:omniglot"}
    assert report.cells[0]["images"] == {"train": 120, "normal": 40, "anomalous": 12}
    assert len(report.plan.skipped) == 1
    assert "notmnist" in report.plan.skipped[0]
    for data in ("mnist", "mnist:mnits", "mnist:svhn,mnist:notmnist"):
        with pytest.raises(VaeguardError):
            quick_plan(replace(spec, data=data))


def test_pairs_with_the_same_normal_set_share_its_fit(tmp_path, monkeypatch):
    from vaeguard.workflows import fit as fitting

    write_mnist(tmp_path)
    write_omniglot(tmp_path)
    fits = []
    fit = fitting.fit

    def counted(*arguments, **options):
        fits.append(options["training"].seed)
        return fit(*arguments, **options)

    monkeypatch.setattr(fitting, "fit", counted)
    write = {"model": replace(QUICK["model"], kind="mlp"), "training": QUICK["training"]}
    both = vaeguard.BenchmarkSpec(
        "ood", data="mnist:omniglot,mnist:mnist", seeds=2, fits=("unlabelled",), baselines=False, data_dir=str(tmp_path)
    )
    report = vaeguard.benchmark(both, tmp_path / "both", **write)
    assert not report.failures
    assert fits == [0, 1]
    assert all(cell["seconds"]["fit"] > 0 for cell in report.cells)
    alone = vaeguard.benchmark(replace(both, data="mnist:mnist"), tmp_path / "alone", **write)
    of_both, of_one = (
        {cell["seed"]: cell["scores"] for cell in found.cells if cell["case"] == "mnist:mnist"}
        for found in (report, alone)
    )
    assert of_both == of_one
    # A report of one pair goes on to others, and never to fewer.
    more = vaeguard.benchmark(both, tmp_path / "alone", **write)
    assert len(more.cells) == 4
    assert len(fits) == 2 + 2 + 2
    with pytest.raises(
        vaeguard.UsageError, match="this run would remove 2 of them, because .*mnist:omniglot.* is not among"
    ):
        vaeguard.benchmark(replace(both, data="mnist:mnist"), tmp_path / "alone", **write)


def test_omniglot_strokes_are_bright_as_mnists_are(tmp_path):
    write_omniglot(tmp_path)
    images = open_omniglot(tmp_path).images
    assert images.shape == (12, 1, 28, 28)
    assert images[0, 0, 4, 3] == 255
    assert images[0, 0, 20].max() == 0
    # The mean over the area keeps the brightness.
    assert images[0].mean() == pytest.approx(255 * 300 / 105**2, abs=1)
    (tmp_path / "omniglot-small/images_background_small2.zip").write_bytes(b"no zip")
    with pytest.raises(RefusedError, match="small2"):
        open_omniglot(tmp_path)


def write_tiles(folder):
    """Groups of three equal tiles: 8 free of defects, 3 with a crack, 3 with a blowhole; sizes differ."""
    generator = np.random.default_rng(0)
    lines = ["image,class,group"]
    for kind, groups in (("Free", 8), ("Crack", 3), ("Blowhole", 3)):
        (folder / f"magnetic-tile/MT_{kind}").mkdir(parents=True)
        for group, copy in itertools.product(range(groups), range(3)):
            size = (20 + group, 16)
            pixels, mask = generator.integers(100, 140, size, dtype=np.uint8), np.zeros(size, np.uint8)
            if kind != "Free":
                pixels[4:9, 4:9], mask[4:9, 4:9] = 255, 255
            path = folder / f"magnetic-tile/MT_{kind}/{group}_{copy}.jpg"
            Image.fromarray(pixels).save(path)
            Image.fromarray(mask).save(path.with_suffix(".png"))
            lines.append(f"MT_{kind}/{path.name},{kind},{kind}-{group}")
    (folder / "magnetic-tile/groups.csv").write_text("\n".join(lines) + "\n")


def write_boards(folder):
    for name in ("77000", "77000_not"):
        (folder / "deeppcb-77000/group77000" / name).mkdir(parents=True)
    for number in range(12):
        board = np.full((40, 40), 20 * number, np.uint8)
        home = folder / "deeppcb-77000/group77000"
        Image.fromarray(board).save(home / f"77000/{number}_temp.jpg")
        board[10:21, 5:11] = 255
        Image.fromarray(board).convert("RGB").save(home / f"77000/{number}_test.jpg")
        (home / f"77000_not/{number}.txt").write_text("5 10 10 20 1\n30 30 31 31 2\n")


def test_no_tile_of_a_group_is_on_both_sides(tmp_path):
    write_tiles(tmp_path)
    found = open_magnetic_tile(tmp_path, (20, 16))
    assert found.images.shape == (42, 1, 20, 16)
    task = split_surfaces(found, 0)
    seen = {image.tobytes() for image in task.train.images}
    groups = np.array(found.groups)
    fitted = {groups[i] for i, image in enumerate(found.images) if image.tobytes() in seen}
    tested = {groups[i] for i, image in enumerate(found.images) if image.tobytes() not in seen}
    assert not fitted & tested
    assert all(group.startswith("Free") for group in fitted)
    assert set(task.groups) == fitted
    assert len(task.train) == 12
    assert task.anomalous.sum() == 18
    np.testing.assert_array_equal(task.masks.any((1, 2)), task.anomalous)
    assert set(task.kinds) == {"", "Crack", "Blowhole"}
    assert split_surfaces(found, 1).sha256 != task.sha256
    limited = split_surfaces(found, 0, 6)
    assert len(limited.test) <= 8
    assert set(limited.kinds) == set(task.kinds)


def test_boards_are_split_by_pair_and_boxes_become_masks(tmp_path):
    write_boards(tmp_path)
    found = open_deeppcb(tmp_path, (20, 20))
    assert found.masks[1].sum() == found.masks[3].sum() == 16
    assert found.masks[1][5:10, 3:5].all()
    assert not found.masks[0].any()
    task = split_surfaces(found, 0)
    assert len(task.train) == 6
    assert task.anomalous.sum() == 6 == (~task.anomalous).sum()
    brightness = {round(float(image.mean()), -1) for image in task.train.images}
    assert not brightness & {round(float(image.mean()), -1) for image in task.test[~task.anomalous]}
    with pytest.raises(VaeguardError, match="`data_dir`"):
        open_deeppcb(tmp_path / "nowhere", (20, 20))


def test_defects_are_measured_by_image_pixel_and_region(tmp_path):
    write_tiles(tmp_path)
    spec = vaeguard.BenchmarkSpec("defects", fits=("patches",), seeds=1, size=(20, 16), data_dir=str(tmp_path))
    training = replace(QUICK["training"], validation=0.2, calibration=0.2)
    with pytest.raises(VaeguardError, match="deeppcb"):
        quick_plan(replace(spec, data="deeppcb-77000"))
    write_boards(tmp_path)
    # Half of the defect-free tiles are too few to fit on, so each is listed three times.
    lines = (tmp_path / "magnetic-tile/groups.csv").read_text().splitlines()
    lines += [line for line in lines if ",Free," in line] * 2
    (tmp_path / "magnetic-tile/groups.csv").write_text("\n".join(lines) + "\n")
    quick = {"model": replace(QUICK["model"], patch=4), "training": training}
    report = vaeguard.benchmark(replace(spec, data="magnetic-tile"), tmp_path / "r", **quick)
    assert not report.failures
    (pca,) = (cell for cell in report.cells if cell["method"] == "pca")
    assert pca["pixels"]["roc_auc"] > 0.9
    assert pca["pixels"]["pro"] > 0.7
    assert set(pca["kinds"]) == {"Crack", "Blowhole"}
    assert pca["scores"]["pca"]["roc_auc"] > 0.95
    text = (tmp_path / "r/report.html").read_text()
    assert "<td>Crack</td>" in text
    assert "<td>PRO to 0.3</td>" in text


def write_screws(folder):
    generator = np.random.default_rng(1)
    for part, count in (("train/good", 24), ("test/good", 3), ("test/bad", 3)):
        (folder / "screws" / part).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(100, 140, (36, 36), dtype=np.uint8)
            pixels[10:20, 10:20] = 255 if part == "test/bad" else pixels[10:20, 10:20]
            Image.fromarray(pixels).save(folder / "screws" / part / f"{number}.png")


def test_features_stand_beside_simple_methods_on_the_same_cells(tmp_path):
    write_screws(tmp_path)
    spec = vaeguard.BenchmarkSpec("defects", data="screws", seeds=2, size=(32, 32), data_dir=tmp_path)
    plan = plans.make_plan(spec, vaeguard.ModelSpec(), QUICK["training"])
    by_data = {}
    for job in plan.jobs:
        by_data.setdefault(job.cell.data, set()).add(job.cell.method)
    assert by_data == {
        "screws at 32x32": {"features", *CELL_BASELINES},
        "screws": {"patches", *BASELINES, "brightness"},
    }
    # The official parts are kept, whatever the seed.
    assert len({job.settings["task"] for job in plan.jobs if "at" in job.cell.data}) == 1
    training = replace(QUICK["training"], validation=0.2, calibration=0.2)
    report = vaeguard.benchmark(replace(spec, fits=("features",), seeds=1), tmp_path / "r", training=training)
    assert not report.failures
    areas = {cell["method"]: next(iter(cell["scores"].values()))["roc_auc"] for cell in report.cells}
    assert areas == dict.fromkeys(("features", *CELL_BASELINES), 1.0)
