"""The documentation names only what is there, and every public name."""

import ast
import inspect
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest

import vaeguard
from vaeguard import errors
from vaeguard.models.terms import term_names
from vaeguard.restoration.records import COLUMNS as PAGE_COLUMNS
from vaeguard.settings.field import help_of
from vaeguard.settings.overrides import settings_of
from vaeguard.settings.presets import PRESETS

CHECKOUT = Path(__file__).resolve().parent.parent
FOR_DEVELOPERS = ("docs/explanation/architecture.md", "CONTRIBUTING.md")
SITE = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md"))
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", *SITE)
TEXT = "\n".join((CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES)
ROOMS = (
    (CHECKOUT / "docs/explanation/architecture.md")
    .read_text(encoding="utf-8")
    .split("## The rooms")[1]
    .split("\n## ")[0]
)
PUBLIC, SETTINGS = (CHECKOUT / "docs/reference/api.md").read_text(encoding="utf-8").split("## Settings of a fit")
API = dict(re.findall(r"^\| `(\w+)(.*?)` \|", PUBLIC + SETTINGS.partition("\n## ")[2], re.MULTILINE))


def text_of(page):
    return (CHECKOUT / page).read_text(encoding="utf-8")


@cache
def names_in(path):
    """The top-level names of a module, and those in its classes with a dot."""
    return set(_names(ast.parse(text_of(path)).body)) if (CHECKOUT / path).exists() else set()


def _names(body):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in _names(node.body))
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def layers():
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    return [[room.strip() for room in layer.split("|")] for layer in contracts[0]["layers"]]


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_every_file_that_is_named_exists(page):
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:toml|md|txt))(?::[\w.]+)?`", text_of(page))
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_every_function_that_is_named_exists(page):
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", text_of(page))
    assert [f"{path}:{name}" for path, name in named if name not in names_in(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text_of(page)):
        assert (CHECKOUT / page).parent.joinpath(target).exists(), target


def test_every_page_is_in_the_contents():
    listed = re.findall(
        r"^((?:lessons|how-to|reference|explanation|project)/[\w-]+)$", text_of("docs/index.md"), re.MULTILINE
    )
    there = [path.relative_to(CHECKOUT / "docs").with_suffix("") for path in (CHECKOUT / "docs").glob("*/*.*")]
    assert sorted(listed) == sorted(str(path) for path in there if path.parts[0] != "pictures")


def test_the_readme_is_short():
    assert len(text_of("README.md").split()) <= 1000


def test_every_command_and_benchmark_that_is_named_exists():
    commands = set(re.findall(r"(?:^|`|\$ )vaeguard ([a-z]+(?:-[a-z]+)?)\b", TEXT, re.MULTILINE))
    assert {"fit", "score", "evaluate", "reconstruct", "doctor"} <= commands
    for command in commands:
        assert (CHECKOUT / "cli" / f"{command.replace('-', '_')}.py").exists(), command
    for name in re.findall(r"python -m benchmarks\.(\w+)", TEXT):
        assert (CHECKOUT / "benchmarks" / f"{name}.py").exists(), name


def test_the_page_of_commands_is_what_they_say():
    assert text_of("docs/reference/commands.md") == run_path(CHECKOUT / "docs/commands.py")["page"]()


def test_columns_presets_and_exit_codes_are_on_their_pages():
    columns = (*term_names(vaeguard.ModelSpec(guided=True)), "score", "p_value", "anomaly", *PAGE_COLUMNS)
    assert [name for name in columns if f"`{name}`" not in text_of("docs/reference/columns.md")] == []
    assert [name for name in PRESETS if f"`{name}`" not in text_of("docs/reference/presets.md")] == []
    codes = {
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")
    }
    listed = re.findall(r"^\| (\d+) \|", text_of("docs/reference/files.md"), re.MULTILINE)
    assert codes | {0, 130} == {*map(int, listed)}


def test_every_public_name_has_its_docstring_on_the_site():
    named = re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text_of("docs/reference/docstrings.md"), re.MULTILINE)
    assert sorted(named) == sorted(vaeguard.__all__)


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", text_of("README.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    quick = "training=vaeguard.TrainSpec(epochs=2), run="
    exec(compile(code.replace("run=", quick, 1), "README.md", "exec"), {})
    assert (tmp_path / "runs/digits/model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clean_scans", "the original of page 1 is the same"),
        pytest.param("find_bad_parts", "5 of 25 new parts are flagged", marks=pytest.mark.nightly),
        pytest.param("score_without_vaeguard", "stated rate 0.1:", marks=pytest.mark.nightly),
    ],
)
def test_the_examples_run(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, str(tmp_path / "made")])
    run_path(str(CHECKOUT / "examples" / f"{name}.py"))
    assert said in capsys.readouterr().out


def test_every_example_is_tested_short_and_linked():
    for path in (CHECKOUT / "examples").glob("*.py"):
        assert f'"{path.stem}"' in text_of("tests/test_documentation.py")
        assert len(path.read_text("utf-8").splitlines()) < 40
        assert f"examples/{path.name}" in TEXT


@pytest.mark.slow
@pytest.mark.nightly
def test_the_notebook_runs(capsys):
    cells = json.loads(text_of("docs/lessons/elbo.ipynb"))["cells"]
    scope = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "elbo.ipynb", "exec"), scope)
    assert "neg_elbo         ROC-AUC 0." in capsys.readouterr().out
    assert scope["rate"].sum() == pytest.approx(scope["found"].terms["kl"].mean(), rel=1e-3)


def test_the_changes_tell_of_every_command_and_of_no_other():
    commands = {path.stem for path in (CHECKOUT / "cli").glob("*.py") if "@command(" in path.read_text("utf-8")}
    named = re.findall(r"`vaeguard ([a-z-]+)", text_of("CHANGELOG.md"))
    assert {name.replace("-", "_") for name in named} == commands


def test_a_walk_names_functions():
    for walk in text_of("docs/explanation/architecture.md").split("\n## Walk: ")[1:]:
        assert len(re.findall(r"`[\w/]+\.py:[\w.]+`", walk.split("\n## ")[0])) > 10


def test_the_picture_of_the_house_is_the_rule_that_imports_are_checked_by():
    (picture,) = re.findall(r"```text\n(.*?)```", text_of("docs/explanation/architecture.md"), re.DOTALL)
    floors = [re.findall(r"[a-z]+", line) for line in picture.splitlines()]
    assert [floor for floor in floors if floor] == [["cli", "benchmarks"], *layers()]


def test_every_room_has_its_line():
    described = re.findall(
        r"`(?:vaeguard/)?(\w+)(?:/|\.py)`", "".join(re.findall(r"^\| (.*?) \|", ROOMS, re.MULTILINE))
    )
    assert described == ["cli", "benchmarks", *(room for layer in layers() for room in layer)]


def test_every_public_name_is_described_and_no_other():
    assert sorted(API) == sorted(vaeguard.__all__)


@pytest.mark.parametrize("spec", [vaeguard.ModelSpec, vaeguard.TrainSpec])
def test_every_setting_of_a_fit_is_described(spec):
    page, shown = SETTINGS, " ".join(spec.__doc__.split())
    for name, item in settings_of(spec).items():
        text = " ".join(help_of(item).split())
        assert f"| `{name}` | {text.replace('|', chr(92) + '|')} |" in page
        assert f"{name} : {item.type} {text}" in shown


@pytest.mark.parametrize("name", [name for name in vaeguard.__all__ if name[0].islower()])
def test_signatures_of_functions_are_those_of_the_library(name):
    signature = inspect.signature(getattr(vaeguard, name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    plain = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert API[name] == str(plain)
