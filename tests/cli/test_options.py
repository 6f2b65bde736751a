"""How parameters of the library become options of the command that runs, and texts become settings."""

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from vaeguard_cli.commands import with_options
from vaeguard_cli.main import vaeguard

from vaeguard.benchmarking.protocols import BenchmarkSpec
from vaeguard.errors import UsageError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.overrides import layered, parse_setting, read_overrides, read_spec_file, settings_of
from vaeguard.settings.restoration import DenoiserSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.workflows.outcome import DenoiseRun, FitRun

PAGES = [*Path(__file__).parents[2].glob("docs/*/*.md"), Path(__file__).parents[2] / "README.md"]
DOCUMENTATION = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
SPECS = {"model": ModelSpec, "training": TrainSpec}


def command(name):
    with click.Context(vaeguard) as context:
        return vaeguard.get_command(context, name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fit", "`size` is 0", "--size is 0"),
        ("fit", "`kind` is 'x'", "--model is 'x'"),
        ("fit", "`model.latent` and `latent`", "--latent and --latent"),
        ("fit", "`dropout` is 2", "--set model.dropout is 2"),
        ("fit", "`model.dropout` is 2", "--set model.dropout is 2"),
        ("fit", "set `training.beta` to 2 and `latent` to 3", "set training.beta to 2 and --latent to 3"),
        ("fit", "fit it with `fit_denoiser`", "fit it with `vaeguard fit-denoiser`"),
        ("sample", "give `like`", "give --aggregate"),
        ("fit", "give `training.beta=0.5`", "give --set training.beta=0.5"),
        ("fit", "give `guided=False`", "give --set model.guided=false"),
        ("fit", "give `prior='per-class'`", "give --set model.prior=per-class"),
        ("fit", "give `kind='mlp'`", "give --model mlp"),
        ("fit", "choose a different `run`", "choose a different --output"),
        ("fit", "`tensorboard` needs a package", "--set run.tensorboard needs a package"),
        ("fit", "`data` is missing", "DATA is missing"),
        ("fit", "name `data_dir`", "name --data-dir"),
        ("evaluate", "name `data_dir`", "name $VAEGUARD_DATA"),
        ("tune", "`seconds` is 0", "--time is 0"),
        ("sample", "`class_` is 9", "--class is 9"),
        ("denoise", "`jpeg` is 101, `kind` is 3", "--set outputs.jpeg is 101, --kind is 3"),
        ("fit-denoiser", "`latent` and `clean`", "--set denoiser.latent and --clean"),
        ("undo", "`clean` is no folder", "CLEAN is no folder"),
        ("score", "write it with `vaeguard export`", "write it with `vaeguard export`"),
        ("score", "`nothing` of its own", "`nothing` of its own"),
        ("score", "choose `training.epochs`", "choose `training.epochs`"),
    ],
)
def test_parameters_become_options_of_the_command(name, text, said):
    assert with_options(text, command(name)) == said


def test_without_a_command_a_text_stays_as_it_is():
    assert with_options("`fpr` is 2", None) == "`fpr` is 2"


@pytest.mark.parametrize("spec", [ModelSpec, TrainSpec, DenoiserSpec])
def test_the_text_of_every_default_is_the_default(spec):
    for name, item in settings_of(spec).items():
        text = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else str(item.default)
        if name != "features":  # where none means something else
            assert parse_setting(spec, name, text) == item.default, name


def test_texts_are_read_by_the_type_of_their_field():
    texts = ["model.hidden=400, 200", "training.beta = 2", "model.guided=no", "model.kind=mlp", "training.bf16=none"]
    assert read_overrides(texts, SPECS) == {
        "model": {"hidden": (400, 200), "guided": False, "kind": "mlp"},
        "training": {"beta": 2.0, "bf16": None},
    }
    assert parse_setting(BenchmarkSpec, "size", "48,64") == (48, 64)


@pytest.mark.parametrize("name", ["model.dropout", "training.dropout", "dropout"])
def test_a_field_that_one_section_has_needs_no_section(name):
    assert read_overrides([f"{name}=0.1"], SPECS) == {"model": {"dropout": 0.1}, "training": {}}


@pytest.mark.parametrize("name", ["jobs", "other.jobs"])
def test_a_field_that_several_sections_have_needs_its_section(name):
    specs = {"first": FitRun, "second": DenoiseRun}
    with pytest.raises(UsageError, match=re.escape(f"unknown setting {name!r}; did you mean 'first.jobs'")):
        read_overrides([f"{name}=2"], specs)
    assert read_overrides(["second.jobs=2"], specs) == {"first": {}, "second": {"jobs": 2}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.latnet=3", "'model.latnet'; did you mean 'model.latent'"),
        ("latnet=3", "'latnet'; did you mean 'model.latent'"),
        ("model.vectors=true", "unknown setting 'model.vectors'"),
        ("model.latent", "name=value"),
        ("model.latent=many", "`latent` is 'many'; it must be a whole number"),
        ("training.beta=", "`beta` is ''; it must be a number"),
        ("model.guided=perhaps", "`guided` is 'perhaps'; it must be true or false"),
    ],
)
def test_texts_that_are_no_settings_are_refused(text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        read_overrides([text], SPECS)


def test_options_win_over_texts_and_these_over_the_file(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text("[model]\nlatent = 3\nhidden = [8]\nwidth = 4\n")
    bases = {"model": ModelSpec(sigma=0.5), "training": TrainSpec()}
    model, training = layered(bases, path, ["model.latent=4", "model.width=5"], {"model": {"latent": 6}})
    assert model == ModelSpec(sigma=0.5, hidden=(8,), width=5, latent=6)
    assert training == TrainSpec()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[model]\nlatnet = 3\n", "'model.latnet'; did you mean 'model.latent'"),
        ("[modle]\nlatent = 3\n", "'modle', which is not a table"),
        ("model = 3\n", "the tables are [model] and [training]"),
        ("[model]\nlatent = 'x'\n", "latent"),
        ("latent", "is not a TOML file"),
    ],
)
def test_files_that_hold_no_settings_are_refused(content, words, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_spec_file(path, SPECS)


def test_what_the_readme_types_exists():
    lines = re.findall(r"^\$ vaeguard ([a-z-]+)(.*)$", DOCUMENTATION, re.MULTILINE)
    for name, rest in lines:
        known = {option for param in command(name).params for option in (*param.opts, *param.secondary_opts)}
        typed = rest.partition("#")[0]
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", typed)) <= known, (name, typed)
        read_overrides(re.findall(r"--set (\S+)", typed), command(name).specs)
    sections = {
        name: spec for each in ("fit", "denoise", "export", "benchmark") for name, spec in command(each).specs.items()
    }
    for text in re.findall(r"--set (\w+\.\w+)", DOCUMENTATION):
        section, _, setting = text.partition(".")
        assert section == "run" or setting in settings_of(sections[section]), text


def test_the_next_steps_of_an_evaluation_name_options_of_fit():
    text = "fit with `features=wide_resnet50_2` and `download=True`, or `size=256x256`"
    assert with_options(text, command("fit")) == "fit with --features wide_resnet50_2 and --download, or --size 256x256"


@pytest.mark.parametrize(
    ("words", "typed", "offered"),
    [
        ([], "sc", [("score", "plain")]),
        (["denoise"], "--kin", [("--kind", "plain")]),
        (["denoise", "--kind"], "d", [("document", "plain")]),
        (["score"], "ima", [("ima", "file")]),
        (["score", "-m"], "ru", [("ru", "file")]),
    ],
)
def test_a_shell_completes_commands_options_values_and_paths(words, typed, offered):
    completed = BashComplete(vaeguard, {}, "vaeguard", "_VAEGUARD_COMPLETE").get_completions(words, typed)
    assert [(item.value, item.type) for item in completed] == offered
