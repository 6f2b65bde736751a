"""The commands as a user types them."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import vaeguard_cli.main
from command import COMMAND, run, run_apart, start
from PIL import Image

from vaeguard.settings.overrides import settings_of
from vaeguard.storage.store import MARK_NAME

pytestmark = pytest.mark.slow

COMMANDS = (
    *("fit", "tune", "score", "watch", "refit", "evaluate", "denoise", "undo", "check", "fit-denoiser"),
    *("reconstruct", "sample", "interpolate", "traverse", "embed", "likelihood"),
    *("export", "verify", "report", "compare", "benchmark", "unpack", "doctor"),
)
SECTIONS = (
    "Find anomalies",
    "Clean scans",
    "Split a job",
    "Look inside a model",
    "Deploy",
    "Measure and report",
    "Other",
)


def group_command(name):
    """The command of that name, as click knows it."""
    with click.Context(vaeguard_cli.main.vaeguard) as context:
        return vaeguard_cli.main.vaeguard.get_command(context, name)


def assert_complains(result, code, *words):
    """One sentence on stderr that names what is asked, the right exit code, no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    complaint = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in complaint, complaint


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a quick model of the embedded digits and a few of its test images."""
    home = tmp_path_factory.mktemp("home")
    fitted = run_apart(home, "fit", "--normal-classes", "0-8", "--epochs", "8", "-o", "runs/quick")
    assert fitted.returncode == 0, fitted.stderr
    assert "MLP VAE, fitted on" in fitted.stdout
    unpacked = run(home, "unpack", "digits", "-o", "digits")
    assert unpacked.returncode == 0, unpacked.stderr
    return home


def test_a_table_goes_through_all_commands_that_need_no_picture(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    labels = np.repeat([0, 1], [250, 50])
    rows[250:] = 5 * rng.normal(size=(50, 5))
    np.savez(tmp_path / "t.npz", x_train=rows[:200], y_train=labels[:200], x_test=rows[200:], y_test=labels[200:])
    fitted = run(tmp_path, "fit", "t.npz", "--normal-classes", "0", "--epochs", "2", "--latent", "2", "-o", "run")
    assert fitted.returncode == 0, fitted.stderr
    assert "200 vectors of 5" in fitted.stdout + fitted.stderr
    for command in (
        ("evaluate", "t.npz", "--normal-classes", "0", "-o", "report"),
        ("embed", "t.npz", "-o", "latents.csv"),
        ("score", "t.npz", "-o", "scores.csv"),
    ):
        result = run(tmp_path, *command, "-m", "run")
        assert result.returncode == 0, result.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 100
    assert json.loads((tmp_path / "report" / "report.json").read_text())["metrics"]
    assert_complains(run(tmp_path, "reconstruct", "t.npz", "-m", "run"), 2, "no pictures")
    np.savez(tmp_path / "wide.npz", x=rows[:, :4], y=labels)
    for data, held in (("wide.npz", "vectors of 4"), ("digits", "images")):
        assert_complains(run(tmp_path, "evaluate", data, "-m", "run"), 4, "takes vectors of 5", data, held)
    np.save(tmp_path / "whole.npy", np.zeros((40, 5), int))
    assert_complains(run(tmp_path, "fit", "whole.npy"), 4, "whole.npy", "floats")
    np.save(tmp_path / "empty.npy", np.zeros((0, 5)))
    assert_complains(run(tmp_path, "fit", "empty.npy"), 4, "empty.npy", "is empty")
    assert_complains(run(tmp_path, "fit", "t.npz", "--size", "8"), 4, "t.npz", "--size")


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['vaeguard', '--help']\n"
        f"try: runpy.run_path({COMMAND!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('HEAVY', [m for m in ('torch', 'numpy', 'pandas', 'sklearn', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in result.stdout
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    places = [result.stdout.index(f"\n{section}:\n") for section in SECTIONS]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command):
    found = group_command(command)
    assert found.help
    assert [option.name for option in found.params if isinstance(option, click.Option) and not option.help] == []
    settings = [item for spec in found.specs.values() for item in settings_of(spec).values()]
    assert [item.name for item in settings if not item.metadata["help"]] == []


def test_no_help_loads_torch(tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['vaeguard', {0!r}, '--help']\n"
        f"try: runpy.run_path({COMMAND!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    for command in ("fit", "score", "denoise", "traverse", "benchmark"):
        done = subprocess.run([sys.executable, "-c", code.format(command)], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False", command


def test_the_options_of_fit_are_few_and_all_settings_are_listed_on_request(tmp_path):
    brief, whole = (run(tmp_path, "fit", name).stdout for name in ("--help", "--help-all"))
    assert len(re.findall(r"^  (?:-\w, )?--", brief, re.MULTILINE)) <= 23 + 1  # --help itself
    command = group_command("fit")
    options = {param.name for param in command.params}
    for section, spec in command.specs.items():
        for name in settings_of(spec):
            assert (f"{section}.{name}=" in whole) == (name not in options), name
            assert f"{section}.{name}" not in brief


def test_option_defaults_are_the_specs_own(tmp_path):
    text = " ".join(run(tmp_path, "fit", "--help-all").stdout.split())
    from vaeguard import ModelSpec, TrainSpec

    assert f"to this many numbers. [default: {ModelSpec().sized().latent}; for features 32; for" in text
    assert f"order of the images and the noise. [default: {TrainSpec().seed}]" in text
    training = TrainSpec().sized(ModelSpec().view)
    assert f"[default: {training.learning_rate:g}; for features" in text
    assert f"[default: {training.batch_size}; for features" in text


def test_the_bare_forms_work_and_say_what_they_chose(home):
    result = run(home, "score", "digits")
    assert result.returncode == 0, result.stderr
    assert "runs/latest" in result.stderr
    with (home / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(1 for _ in (home / "digits").rglob("*.png"))
    assert list(rows[0])[:5] == ["path", "score", "p_value", "anomaly", "recon_error"]
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert not (home / "scores.csv.errors.csv").exists()


def test_scores_of_files_equal_those_of_the_arrays(home):
    import vaeguard

    run(home, "score", "digits", "-m", "runs/quick", "-o", "a.csv")
    with (home / "a.csv").open() as file:
        scores = {row["path"]: row["score"] for row in csv.DictReader(file)}
    images = vaeguard.open_images("digits", split="test")
    found = vaeguard.load(home / "runs/quick").inspect(images.images).score
    assert sorted(np.float32(list(scores.values()))) == sorted(found)


def test_evaluate_prints_and_writes_what_it_measured(home):
    result = run(home, "evaluate", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    folder = home / found["output"]
    assert {"report.json", "report.html", "scores.csv"} == set(os.listdir(folder))
    table = run(home, "evaluate", "digits", "-m", "runs/quick/model.safetensors")
    assert "ROC-AUC" in table.stdout
    assert "recon_error" in table.stdout
    (home / "line").mkdir()
    (home / "line" / "digits").symlink_to(home / "digits", target_is_directory=True)
    other = run(home, "evaluate", "line/digits", "-m", "runs/quick", "--json")
    assert json.loads(other.stdout)["output"] == "runs/quick/evaluation-line-digits"


@pytest.mark.parametrize(
    "arguments",
    [("score", "digits"), ("evaluate",), ("reconstruct",), ("unpack", "digits", "-o", "u"), ("doctor",),
     pytest.param(("fit", "--epochs", "1", "--normal-classes", "0-8", "-o", "runs/again"), marks=pytest.mark.nightly),
     ("benchmark", "one-class", "--data", "digits", "--classes", "9", "--seeds", "1", "--set", "benchmark.limit=300")],
)  # fmt: skip
def test_json_is_one_object_alone_on_stdout(home, arguments):
    result = run(home, *arguments, "--json")
    assert isinstance(json.loads(result.stdout), dict), result.stderr


def test_class_folders_of_pictures_fit_score_and_evaluate(home):
    fitted = run(home, "fit", "./digits", "--normal-classes", "0-8", "--epochs", "30", "-o", "runs/folder")
    assert fitted.returncode == 0, fitted.stderr
    assert "596 images" in fitted.stderr
    # The same folder again: what was trained on is left out, and said so.
    result = run(home, "evaluate", "./digits", "-m", "runs/folder", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert "that trained the model were skipped" in found["note"]
    record = json.loads((home / "runs/folder/report.json").read_text())
    assert found["images"]["normal"] == record["data"]["split"]["calibration"]
    assert found["metrics"][0]["roc_auc"] > 0.7
    # The same images among others, in a folder of another name.
    shutil.copytree(home / "digits", home / "more" / "digits")
    (home / "more" / "digits").rename(home / "again")
    for number in range(4):
        shutil.copy(
            home / "digits/9" / sorted(os.listdir(home / "digits/9"))[number], home / "again/9" / f"x{number}.png"
        )
    other = json.loads(run(home, "evaluate", "again", "-m", "runs/folder", "--json").stdout)
    assert "contains images of the fit" in other["note"]
    assert other["images"]["normal"] == found["images"]["normal"]
    assert other["images"]["anomalous"] == found["images"]["anomalous"] + 4
    # And so the exported model, which lies in the run, but does not hold what it was fitted on.
    assert run(home, "export", "-m", "runs/folder", "-o", "runs/folder/model.onnx").returncode == 0
    exported = json.loads(run(home, "evaluate", "again", "-m", "runs/folder/model.onnx", "--json").stdout)
    assert exported["images"] == other["images"]


@pytest.mark.nightly
def test_a_terminal_without_bars_ends_no_work(home):
    result = run_apart(home, "evaluate", "digits", "-m", "runs/quick", "-o", "plain", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "flagged from" in result.stdout
    assert "#" in result.stdout
    assert "\\u" not in result.stdout


def bad_files(folder):
    """One file of each kind that cannot be read, beside one good one."""
    folder.mkdir()
    good = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    good.save(folder / "good.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "empty.png").write_bytes(b"")
    big = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    big.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    big.convert("CMYK").save(folder / "cmyk.jpg")
    big.save(folder / "moving.webp", save_all=True, append_images=[big.rotate(90)])
    Image.new("1", (40_000, 40_000)).save(folder / "bomb.png")
    big.save(folder / "moving.gif", save_all=True, append_images=[big.rotate(90)])
    good.save(folder / "new\nline.png")


def test_unreadable_files_are_listed_and_the_rest_is_scored(home):
    bad_files(home / "bad")
    result = run(home, "score", "bad", home / "bad" / "moving.gif", "-o", "bad.csv")
    assert_complains(result, 3, "skipped", "bad.csv.errors.csv")
    with (home / "bad.csv").open() as file:
        read = [row["path"] for row in csv.DictReader(file)]
    assert read == ["bad/good.png", "bad/new\nline.png"]
    with (home / "bad.csv.errors.csv").open() as file:
        reasons = {Path(row["path"]).name: row["error"] for row in csv.DictReader(file)}
    assert set(reasons) == {
        "text.png", "empty.png", "cut.jpg", "cmyk.jpg", "moving.webp", "bomb.png", "moving.gif"
    }  # fmt: skip
    assert "CMYK" in reasons["cmyk.jpg"]
    assert "GIF" in reasons["moving.gif"]


def test_what_is_not_read_is_told_by_every_command(home):
    for label in "89":
        (home / "beside" / label).mkdir(parents=True)
        for path in sorted((home / "digits" / label).iterdir())[:4]:
            shutil.copy(path, home / "beside" / label)
    (home / "beside" / "9" / "a.gif").write_bytes(b"GIF89a")
    note = "1 file skipped (unsupported type): 1 .gif"
    for command in ("score", "evaluate", "embed", "reconstruct"):
        result = run(home, command, "beside", "--json")
        assert result.returncode == 0, result.stderr
        assert f"note: {note}" in result.stderr, command
        assert json.loads(result.stdout)["left_out"] == note, command


def test_broken_metadata_is_not_told_without_the_name_of_its_file(home):
    (home / "metadata").mkdir()
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    Image.new("L", (8, 8)).save(home / "metadata" / "a.jpg", exif=broken)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    noise.save(home / "metadata" / "b.tif", compression="tiff_lzw")
    os.truncate(home / "metadata" / "b.tif", 2000)
    scored = run_apart(home, "score", "metadata", "-m", "runs/quick", "-o", "metadata.csv")
    assert [line.partition(":")[0] for line in scored.stderr.splitlines()] == [
        "skipped",
        "Finished; 1 file was skipped (see metadata.csv.errors.csv)",
    ]


def test_a_range_of_pixels_goes_with_the_model(tmp_path):
    (tmp_path / "dark").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 4096, (8, 8)).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / "dark" / f"{number:02}.png")
    fitted = run(tmp_path, "fit", "dark", "--epochs", "1", "-o", "run", "--set", "model.pixel_range=0,4095", "--json")
    assert json.loads(fitted.stdout)["model"]["pixel_range"] == [0, 4095]
    assert "grey levels" not in fitted.stderr
    assert run(tmp_path, "export", "-m", "run", "-o", "model.onnx").returncode == 0
    tables = []
    for model in ("run", "model.onnx"):
        assert run(tmp_path, "score", "dark", "-m", model, "-o", f"{model}.csv").returncode == 0
        with (tmp_path / f"{model}.csv").open() as file:
            tables.append([float(row["recon_error"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*tables, rtol=1e-4)
    plain = run(tmp_path, "fit", "dark", "--epochs", "1", "-o", "plain")
    assert "fit with --set model.pixel_range=0,4095" in plain.stderr
    assert np.mean(tables[0]) > 0.01  # random pixels over the whole range


def test_fit_goes_on_without_the_unreadable_files(home):
    folder = home / "parts"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_text("text")
    result = run(home, "fit", "parts", "--epochs", "1", "-o", "runs/parts")
    assert_complains(result, 3, "1 file")
    assert "broken.png" in result.stderr
    assert (home / "runs/parts/model.safetensors").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_listed(home):
    folder = home / "locked"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (folder / "a.png").chmod(0)
    assert_complains(run(home, "score", "locked"), 3, "skipped")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("score", "empty"), 2, ["empty"]),
        (("score", "missing"), 2, ["missing"]),
        (("score", "digits", "-m", "nowhere"), 2, ["nowhere", "fit one"]),
        (("score", "digits", "-m", "nowhere.onnx"), 2, ["nowhere.onnx", "export one"]),
        (("export", "-m", "empty"), 2, ["empty", "fit one"]),
        (("score", "digits", "-m", "text.safetensors"), 4, ["text.safetensors"]),
        (("score", "digits", "-m", "damaged.safetensors"), 4, ["damaged", "SHA-256"]),
        (("score", "digits", "-o", "scores.xlsx"), 2, ["scores.xlsx", ".csv"]),
        (("score", "digits", "--fpr", "1.5"), 2, ["fpr", "1.5"]),
        (("score", "digits", "--no-such"), 2, ["--no-such"]),
        (("score",), 2, ["IMAGES"]),
        (("fit", "digits", "--groups", "nogroups.csv"), 2, ["nogroups.csv"]),
        (("interpolate", "broken.png", "broken.png", "-m", "runs/quick"), 4, ["broken.png"]),
        (("interpolate", "nothere.png", "broken.png", "-m", "runs/quick"), 2, ["nothere.png"]),
        (("fit", "empty"), 2, ["empty"]),
        (("fit", "nodata"), 2, ["nodata"]),
        (("fit", "sizes"), 2, ["3 normal images"]),
        (("fit", "--normal-classes", "0-12"), 2, ["12", "0"]),
        (("fit", "--normal-classes", ""), 2, ["--normal-classes"]),
        (("fit", "--set", "training.learning_rate=-1"), 2, ["--set training.learning_rate"]),
        (("fit", "--set", "training.dropout=2"), 2, ["--set model.dropout is 2.0"]),
        (("fit", "--set", "model.image_shape=1,8,8"), 2, ["unknown setting 'model.image_shape'"]),
        (("fit", "--set", "model.guided"), 2, ["--set", "'model.guided'", "name=value"]),
        (("fit", "--set", "model.guided=perhaps"), 2, ["--set model.guided is 'perhaps'", "true or false"]),
        (("fit", "--epochs", "many"), 2, ["--epochs"]),
        (("fit", "--set", "model.hidden=4,x"), 2, ["--set model.hidden"]),
        (("fit", "--spec", "bad.toml"), 2, ["latnet", "latent"]),
        (("fit", "--spec", "flat.toml"), 2, ["flat.toml", "[model]"]),
        (("fit", "--spec", "nowhere.toml"), 2, ["--spec 'nowhere.toml' cannot be read"]),
        (("fit", "--size", "²"), 2, ["--size"]),
        (("fit", "--resume"), 2, ["--resume needs --output"]),
        (("evaluate", "digits", "--normal-classes", "0-9"), 2, ["every class", "0-9"]),
        (("evaluate", "flat"), 2, ["flat"]),
        (("benchmark", "one-class", "--set", "benchmark.fits=guided"), 2, ["--set benchmark.fits", "unlabelled"]),
        (("benchmark", "ood", "--data", "mnist:notmnist"), 1, ["notmnist", "$VAEGUARD_DATA"]),
        (("benchmark", "tables", "--set", "model.latent=3", "-o", "t"), 2, ["do not apply to benchmark tables"]),
        (("unpack", "./digits"), 2, ["./digits", "folder", "named data set"]),
        (("nonsense",), 2, ["nonsense"]),
        (("scor", "digits"), 2, ["scor", "Did you mean 'score'?"]),
        (("score", "digits", "--model", "nowhere"), 2, ["nowhere"]),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_exit_code(home, arguments, code, words):
    (home / "empty").mkdir(exist_ok=True)
    (home / "broken.png").write_text("no picture")
    (home / "text.safetensors").write_text("no model")
    content = bytearray((home / "runs/quick/model.safetensors").read_bytes())
    content[len(content) // 2] ^= 4
    (home / "damaged.safetensors").write_bytes(content)
    (home / "bad.toml").write_text("[model]\nlatnet = 3\n")
    (home / "flat.toml").write_text("model = 3\n")
    for folder, sizes in (("sizes", (8, 9, 10)), ("flat", (8, 8))):
        (home / folder).mkdir(exist_ok=True)
        for i, size in enumerate(sizes):
            Image.new("L", (size, size)).save(home / folder / f"{i}.png")
    assert_complains(run(home, *arguments, VAEGUARD_DATA=str(home / "empty")), code, *words)


def test_a_fit_that_cannot_read_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for data in ("nosuch", "empty"):
        assert_complains(run(tmp_path, "fit", data, "-o", "run"), 2, data)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ("crack", "good"),
            "all 2 classes count as normal, including crack; if only good should, add --normal-classes good",
        ),
        (
            ("Defect_Free", "dent", "ok"),
            "including dent; if only Defect_Free, ok should, add --normal-classes Defect_Free,ok",
        ),
        (("cat", "dog"), "Normal classes: all 2 (cat, dog); to choose some of them, add --normal-classes"),
    ],
)
def test_a_fit_on_all_classes_warns_where_one_of_them_is_called_normal(names, said, tmp_path):
    for name in names:
        (tmp_path / "parts" / name).mkdir(parents=True)
        for number in range(10):
            image = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "parts" / name / f"{number}.png")
    settings = ("--model", "mlp", "--set", "model.hidden=8", "--epochs", "1")
    fitted = run(tmp_path, "fit", "parts", *settings)
    assert fitted.returncode == 0, fitted.stderr
    assert said in fitted.stderr
    chosen = run(tmp_path, "fit", "parts", "--normal-classes", names[0], *settings)
    assert "taken as normal" not in chosen.stderr


def test_a_fit_says_that_images_were_shrunk(tmp_path):
    for number in range(20):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 255, (160, 8), dtype=np.uint8))
        (tmp_path / "parts").mkdir(exist_ok=True)
        image.save(tmp_path / "parts" / f"{number}.png")
    Image.fromarray(np.eye(9, dtype=bool)).save(tmp_path / "parts" / "3_mask.png")
    settings = ("--model", "mlp", "--set", "model.hidden=8", "--epochs", "1", "--json")
    fitted = run(tmp_path, "fit", "parts", *settings, "-o", "run")
    assert "160x8" in fitted.stderr
    assert "--size" in fitted.stderr
    assert json.loads(fitted.stdout)["left_out"].endswith("skipped (mask of a different image): 'parts/3_mask.png'")
    assert "note: 1 file skipped (mask of a different image)" in fitted.stderr
    assert "160x8" not in run(tmp_path, "fit", "parts", "--size", "128x6", *settings, "-o", "other").stderr


def test_the_bare_fit_takes_photographs_of_parts_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "parts" / "good").mkdir(parents=True)
    for number in range(24):
        texture = rng.integers(0, 255, (104 + number % 3, 100 - number % 2), dtype=np.uint8)
        colour = Image.fromarray(texture).convert("RGB" if number % 2 else "L")
        colour.save(tmp_path / "parts" / "good" / f"{number}.jpg")
    fitted = run(tmp_path, "fit", "parts", "--normal-classes", "good", "--epochs", "1", "--json")
    assert fitted.returncode == 0, fitted.stderr
    record = json.loads(fitted.stdout)
    assert record["model"]["image_shape"] == [3, 105, 100]
    assert record["model"]["features"] == "efficientnet-lite0"
    assert "parts-features-" in record["run"]
    assert "Model: features of the network efficientnet-lite0, chosen because" in fitted.stderr
    assert "scaled to 105x100" in fitted.stderr
    assert "writable" not in fitted.stderr


def test_interrupted_fit_resumes(home):
    import signal
    import time

    arguments = ["fit", "--normal-classes", "0-8", "--model", "conv"]
    arguments += ["--set", "model.width=8", "--set", "training.threads=1"]
    arguments += ["--epochs", "40", "-o", "runs/long"]
    process = start(home, *arguments)
    checkpoint, deadline = home / "runs/long/checkpoint.safetensors", time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert re.match(r"Interrupted( at epoch \d+)?\. To continue, add --resume and ", complaint.splitlines()[-1])
    again = run(home, *arguments, "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert not checkpoint.exists()
    assert_complains(run(home, *arguments), 2, "finished model")


def test_export_score_evaluate_and_verify_with_one_file(home):
    exported = run(home, "export", "-m", "runs/quick", "-o", "model.onnx", "--triton", "served", "--json")
    assert exported.returncode == 0, exported.stderr
    parity = json.loads(exported.stdout)["parity"]
    assert parity["passed"]
    assert parity["images"] > parity["random"]
    assert (home / "served" / "vaeguard" / "1" / "model.onnx").read_bytes() == (home / "model.onnx").read_bytes()
    tables = {}
    for model in ("runs/quick", "model.onnx"):
        scored = run(home, "score", "digits", "-m", model, "-o", "one.csv", "--json")
        assert scored.returncode == 0, scored.stderr
        with (home / "one.csv").open() as file:
            tables[model] = list(csv.DictReader(file))
    ours, theirs = tables.values()
    assert [row["path"] for row in ours] == [row["path"] for row in theirs]
    assert [row["anomaly"] for row in ours] == [row["anomaly"] for row in theirs]
    scores = [np.array([float(row["score"]) for row in rows]) for rows in (ours, theirs)]
    np.testing.assert_allclose(*scores, rtol=1e-4)
    evaluations = [json.loads(run(home, "evaluate", "-m", model, "-o", "e", "--json").stdout) for model in tables]
    assert len({round(found["terms"]["score"]["roc_auc"], 4) if "terms" in found else 0 for found in evaluations}) == 1
    verified = run(home, "verify", "model.onnx", "-m", "runs/quick")
    assert verified.returncode == 0, verified.stderr
    assert "agrees with the PyTorch model" in verified.stdout
    assert_complains(
        run(home, "verify", "model.onnx", "-m", "runs/quick", "--tolerance", "1e-12"), 4, "has a relative error of"
    )
    refused = run(home, "export", "-m", "runs/quick", "-o", "no.onnx", "--set", "export.tolerance=1e-12")
    assert_complains(refused, 4, "no.onnx", "has a relative error of")
    assert not (home / "no.onnx").exists()
    assert_complains(run(home, "export", "-m", "model.onnx", "-o", "again.onnx"), 2, "run folder")
    damaged = bytearray((home / "model.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (home / "damaged.onnx").write_bytes(damaged)
    assert_complains(run(home, "score", "digits", "-m", "damaged.onnx"), 4, "damaged.onnx", "SHA-256")


def test_score_reads_lists_globs_arrays_and_says_what_is_left_out(home):
    import vaeguard

    np.save(home / "packed.npy", vaeguard.open_images("digits", split="test").images[:, 0])
    first = min((home / "digits").rglob("*.png")).relative_to(home)
    listed = "digits/9/missing.png\n"
    result = run(home, "score", "packed.npy", "digits/*/*0.png", "-", "-o", "all.csv", stdin=listed)
    assert_complains(result, 3, "1 file was skipped")
    with (home / "all.csv").open() as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert sum(path.startswith("packed.npy/") for path in paths) == 596
    assert str(first).startswith("digits/")
    piped = run(home, "score", "-", "-o", "piped.csv", stdin=f"{first}\n")
    assert piped.returncode == 0, piped.stderr
    with (home / "piped.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [str(first)]
    assert_complains(run(home, "score"), 2, "IMAGES is missing")
    assert_complains(run(home, "score", "*.tif"), 2, "no file matches")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_watch_scores_what_is_there_until_it_is_interrupted(home):
    process = start(home, "watch", "digits/9", "nowhere", "-m", "runs/quick", "-o", "watched.csv")
    shown = [process.stdout.readline()]
    while shown[-1] and "new image" not in shown[-1]:
        shown.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "note: 'nowhere' does not exist yet" in error
    *lines, total = map(str.rstrip, shown)
    flagged = [line for line in lines if not line.startswith("drift: ")]  # nothing but nines is a drift, too
    assert len(flagged) > 1
    assert all(re.fullmatch(r"anomalous: digits/9/\d+\.png \(p_value 0\.0\d+\)", line) for line in flagged)
    assert error.splitlines()[-1] == f"{total.replace(', ', ' scored, ')}. To continue, run the same command again"
    with (home / "watched.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(os.listdir(home / "digits/9"))


def noisy_scans(folder):
    rng = np.random.default_rng(0)
    for name in ("a.png", "box/b.tif"):
        path = folder / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.clip(100 + 20 * rng.standard_normal((60, 80)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(path, dpi=(150, 150))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_denoise_ends_soon_after_an_interruption(tmp_path):
    (tmp_path / "scans").mkdir()
    page = np.random.default_rng(0).normal(200, 9, (6400, 1200)).clip(0, 255).astype(np.uint8)
    Image.fromarray(page).save(tmp_path / "scans" / "page.png")
    process = start(tmp_path, "denoise", "scans", "--noise", "9", "--kind", "photo")
    # The folder of the job is there for a moment before its mark, and an interruption then leaves nothing behind.
    begun = tmp_path / "scans-clean" / "pages.csv.job" / MARK_NAME
    while process.poll() is None and not begun.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("Interrupted; finished files are in scans-clean. To continue, ")
    # The mark tells later commands that the tables of the folder are not whole yet.
    assert sorted(path.name for path in (tmp_path / "scans-clean").rglob("*")) == [MARK_NAME, "pages.csv.job"]


def test_denoise_bare_dry_resumed_and_with_everything(tmp_path):
    noisy_scans(tmp_path)
    plan = run(tmp_path, "denoise", "scans", "--dry-run", "--json")
    told = {"files": 2, "pages": 2, "megapixels": 0.01, "errors": [], "notes": [], "finished": 0}
    found = json.loads(plan.stdout)
    assert {key: value for key, value in found.items() if key not in ("seconds", "scans")} == told
    assert [(scan["path"], len(scan["pages"])) for scan in found["scans"]] == [("a.png", 1), ("box/b.tif", 1)]
    lines = run(tmp_path, "denoise", "scans", "--dry-run").stdout.splitlines()
    assert lines[0].startswith("a.png: 1 page of ")
    assert lines[-1].startswith("Would clean 2 pages in 2 files, 0.01 MP, in about ")
    assert not (tmp_path / "scans-clean").exists()
    done = run(tmp_path, "denoise", "scans")
    assert done.returncode == 0, done.stderr
    assert "Output: scans-clean" in done.stderr
    assert done.stdout.startswith("2 pages in 2 files processed; 0.01 MP")
    assert "2 of the files in earlier runs" in run(tmp_path, "denoise", "scans").stdout
    options = (
        "--strength",
        "0.5",
        "--noise",
        "20",
        "--kind",
        "photo",
        "--residual",
        "--uncertainty",
        "--set",
        "restore.gate=no",
    )
    full = run(tmp_path, "denoise", "scans", "-o", "full", *options, "--json")
    assert full.returncode == 0, full.stderr
    assert json.loads(full.stdout)["pages"] == 2
    assert (tmp_path / "full/box/b.tif.page-1.residual.png").exists()
    assert (tmp_path / "full/a.png.page-1.uncertainty.png").exists()
    back = run(tmp_path, "undo", "full", "--json")
    assert json.loads(back.stdout) == {"output": "full-originals", "files": 2, "errors": []}
    images = [np.asarray(Image.open(tmp_path / folder / "a.png")) for folder in ("scans", "full-originals")]
    np.testing.assert_array_equal(*images)
    assert_complains(run(tmp_path, "undo", "scans-clean"), 3, "2 files were skipped")
    assert json.loads(run(tmp_path, "check", "full", "--json").stdout)["files"] == 6
    (tmp_path / "full/a.png").write_bytes(b"retouched")
    assert_complains(run(tmp_path, "check", "full"), 4, "1 file failed the check", "full/a.png")
    some = run(tmp_path, "denoise", "scans/a.png", "scans/box/b.tif", "-o", "scans-clean")
    assert "2 of the files in earlier runs" in some.stdout, some.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("scans", "-o", "scans/in"), 2, ["scans/in", "choose a separate folder"]),
        (("nowhere",), 2, ["nowhere"]),
        (("scans", "--strength", "2"), 2, ["--strength"]),
        (("scans", "--set", "outputs.jpeg=200"), 2, ["--set outputs.jpeg"]),
        (("scans", "--set", "outputs.jpeg=90", "--residual"), 2, ["--set outputs.jpeg", "--residual"]),
        (("scans", "-m", "scans/a.png"), 4, ["scans/a.png"]),
        (("scans", "--device", "tensorrt"), 2, ["--device is 'tensorrt'"]),
        (("broken",), 3, ["1 file was skipped", "pages.csv.errors.csv"]),
    ],
)
def test_denoise_complains_in_one_sentence(tmp_path, arguments, code, words):
    noisy_scans(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"no picture")
    assert_complains(run(tmp_path, "denoise", *arguments), code, *words)


@pytest.mark.parametrize("command", ["undo", "check"])
def test_what_is_no_clean_tree_is_refused(tmp_path, command):
    noisy_scans(tmp_path)
    assert_complains(run(tmp_path, command, "scans"), 2, "scans", "contains no clean scans")


@pytest.mark.nightly
def test_a_denoiser_of_ones_own(tmp_path):
    noisy_scans(tmp_path)
    fitted = run(tmp_path, "fit-denoiser", "--adapt", "scans", "--set", "denoiser.steps=2", "-o", "own", "--json")
    assert fitted.returncode == 0, fitted.stderr
    found = json.loads(fitted.stdout)
    assert (found["mode"], found["kind"], found["images"], found["held_out"]) == ("adapt", "photo", 1, 1)
    assert found["after"] > found["before"]
    done = run(tmp_path, "denoise", "scans", "-m", "own", "--kind", "photo", "--set", "restore.samples=2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pages"] == 2
    assert_complains(run(tmp_path, "score", "scans", "-m", "own"), 4, "own", "use it with `vaeguard denoise`")
    refused = run(tmp_path, "fit-denoiser", "--adapt", "scans", "-o", "own")
    assert_complains(refused, 2, "own", "choose a different folder")


def test_a_named_set_wins_over_a_folder_also_for_a_denoiser(tmp_path):
    (tmp_path / "digits").mkdir()
    fitted = run(tmp_path, "fit-denoiser", "digits", "--degrade", "photo", "-o", "own")
    assert_complains(fitted, 2, "too few images of at least 16x16 pixels")  # the set's images have 8x8
    folder = run(tmp_path, "fit-denoiser", "./digits", "--degrade", "photo", "-o", "own")
    assert_complains(folder, 2, "no images in './digits'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--noisy", "--clean", "--degrade", "--adapt"]),
        (("--noisy", "scans"), ["--clean"]),
        (("scans", "--degrade", "rain"), ["--degrade is 'rain'", "gaussian:25"]),
        (("--adapt", "nowhere"), ["nowhere"]),
        (("--adapt", "scans", "--set", "denoiser.steps=0"), ["--set denoiser.steps is 0; it must be above 0"]),
        (("--adapt", "scans", "--set", "denoiser.seed=-1"), ["--set denoiser.seed is -1; it must be at least 0"]),
        (("--adapt", "scans", "--set", "training.epochs=3"), ["unknown setting 'training.epochs'"]),
        (("scans", "--adapt", "scans"), ["DATA 'scans' needs --degrade"]),
        (("scans", "--clean", "scans", "--degrade", "photo"), ["remove --clean"]),
    ],
)
def test_fitting_a_denoiser_complains_in_one_sentence(tmp_path, arguments, words):
    noisy_scans(tmp_path)
    assert_complains(run(tmp_path, "fit-denoiser", *arguments, "-o", "own"), 2, *words)
    assert not (tmp_path / "own").exists()


def test_groups_keep_images_of_one_thing_on_one_side(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    for number, image in enumerate(np.concatenate([pixels, pixels])):
        path = tmp_path / "parts" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    table = tmp_path / "groups.csv"
    table.write_text("path,group\n" + "".join(f"{number}.png,{number % 24}\n" for number in range(48)))
    command = ("fit", "parts", "--groups", "groups.csv", "--epochs", "1", "--set", "model.pseudo_classes=0", "-o")
    assert run(tmp_path, *command, "run").returncode == 0
    kept = np.load(tmp_path / "run" / "calibration.npz")
    (images,) = (kept[name] for name in kept.files if kept[name].ndim == 4)
    held_out = {image.tobytes() for image in images}
    assert len(images) == 2 * len(held_out)  # both of each pair
    table.write_text("path,group\nnowhere.png,1\n")
    assert_complains(run(tmp_path, *command, "other"), 2, "'nowhere.png' in the table of groups")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shell that closes a stream")
@pytest.mark.parametrize(
    "closed",
    [pytest.param(">&-", marks=pytest.mark.nightly), pytest.param("2>&-", marks=pytest.mark.nightly), ">&- 2>&-"],
)
def test_streams_may_be_closed(closed, home):
    for words in ("score digits/9 -m runs/quick -o closed.csv", "report runs/quick"):
        line = f"{shlex.quote(COMMAND)} {words} {closed}"
        subprocess.run(["sh", "-c", line], cwd=home, stdin=subprocess.DEVNULL, check=True)
