"""Each kind of report in a real browser without a network: Debian's chromium, driven by playwright."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from unittest import mock

import command
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

import vaeguard

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed, so no page is opened")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium), so no page is opened"),
]
EVIL = "<img src=x onerror=alert(1)>'\"&;.png"
LONG = "long-" + "x" * 230 + ".png"
KINDS = (
    *("fit", "evaluation", "generative", "embedding", "scores", "scans", "benchmark", "comparison", "denoiser"),
    "tuning",
)
LARGEST = 3_000_000
FAULTS_OF_LAYOUT = Path(__file__).with_name("layout.js").read_text(encoding="utf-8")


def run(home: Path, *arguments: str) -> None:
    done = command.run(home, *arguments)
    assert done.returncode in (0, 3), done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """One report of each kind, with hostile names wherever a name can be."""
    home = tmp_path_factory.mktemp("reports")
    run(home, "fit", "--normal-classes", "0-8", "--epochs", "12", "-o", "run")
    run(home, "unpack", "digits", "--split", "test", "-o", "digits")
    nines = sorted((home / "digits" / "9").iterdir())
    nines[0].rename(nines[0].with_name(EVIL))
    nines[1].rename(nines[1].with_name(LONG))
    (home / "digits" / "8").rename(home / "digits" / "<b>8 & 'eight'")
    (home / "digits" / "0" / ("broken\n" + EVIL)).write_text("no image")
    run(home, "evaluate", "./digits", "-m", "run", "-o", "evaluation", "--normal-classes", "0,1,2,3,4,5,6,7")
    run(home, "likelihood", "./digits", "-m", "run", "-o", "generative", "--samples", "2")
    run(home, "score", "digits", "-m", "run", "-o", "scores.csv")
    run(home, "embed", "./digits", "-m", "run", "-o", "latents.csv", "--plot", "pca")
    run(home, "fit", "--normal-classes", "0-8", "--epochs", "6", "--latent", "8", "-o", "other")
    run(home, "evaluate", "-m", "other", "-o", "other-evaluation")
    run(home, "compare", "evaluation", "other-evaluation", "-o", "comparison")
    (home / "small.toml").write_text("[model]\nhidden = [16]\nlatent = 4\npseudo_classes = 0\n[training]\nepochs = 2\n")
    run(home, "benchmark", "one-class-out", "--data", "digits", "--classes", "8-9", "--seeds", "2", "-o", "benchmark",
        "--set", "benchmark.limit=300", "--set", "model.hidden=16", "--set", "model.latent=4",
        "--set", "model.pseudo_classes=0", "--set", "training.epochs=2")  # fmt: skip
    (home / "scans").mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", EVIL):
        ramp = np.tile(np.linspace(60, 200, 160), (120, 1)) + generator.normal(0, 15, (120, 160))
        Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(home / "scans" / name)
    run(home, "denoise", "scans", "-o", "clean", "--uncertainty")
    with mock.patch("vaeguard.workflows.fit_denoiser.write_denoiser"):
        run(home, "fit-denoiser", "--adapt", "scans", "--set", "denoiser.steps=2", "-o", "denoiser")
    run(home, "tune", "./digits", "--normal-classes", "<b>8 & 'eight',7", "--spec", "small.toml", "--trials", "11",
        "-o", "tuning")  # fmt: skip
    names = {"fit": "run/report", "evaluation": "evaluation/report", "generative": "generative/report",
             "embedding": "latents.csv.report", "scores": "scores.csv.report", "scans": "clean/report",
             "benchmark": "benchmark/report", "comparison": "comparison/report", "denoiser": "denoiser/report",
             "tuning": "tuning/report"}  # fmt: skip
    return {kind: home / f"{name}.html" for kind, name in names.items()}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a report with the network cut; when the test is over, nothing may have gone wrong or asked for more."""
    contexts, wrong, asked = [], [], []

    def open_page(kind: str, *, width: int = 1280, theme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[kind].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
    others = {url for url in asked if not url.startswith(("data:", "blob:"))}
    assert all(url.startswith("file:") and url.endswith(".html") for url in others), others
    assert len(others) <= len(contexts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_opens_small_and_complete(kind, opened, pages):
    assert pages[kind].stat().st_size < LARGEST
    for width, theme in ((1280, "light"), (390, "dark")):
        page = opened(kind, width=width, theme=theme)
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        charts = page.locator("[data-chart]")
        for number in range(charts.count()):
            assert charts.nth(number).locator("svg, .legend").count() >= 1
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        # Nothing of a name became markup, and no text shows a value that a template could not write.
        assert page.locator("main b:text('8 &')").count() == 0
        text = page.inner_text("body")
        for word in ("undefined", "NaN", "None", "[object"):
            assert word not in text.replace("None of", ""), word


@pytest.mark.parametrize("width", [1440, 1280, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_broken_or_covered(kind, width, opened):
    assert opened(kind, width=width).evaluate(FAULTS_OF_LAYOUT) == []


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_the_json(kind, opened, pages):
    report = json.loads(pages[kind].with_suffix(".json").read_text())
    shown = opened(kind).locator("[data-figure]").evaluate_all("all => all.map(e => [e.dataset.figure, e.textContent])")
    assert shown
    for path, text in shown:
        value = report
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        if value is None:
            assert text == "–"
            continue
        percent = text.endswith("%")
        digits = len(text.removesuffix(" %").partition(".")[2])
        assert float(text.removesuffix(" %").replace(",", "")) == round(100 * value if percent else value, digits), path


def test_figures_of_an_evaluation_are_those_of_scikit_learn(opened, pages):
    with pages["evaluation"].with_name("scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    anomalous = np.array([row["normal"] == "0" for row in rows])
    page = opened("evaluation")
    lines = page.locator("#terms tbody tr").all()
    assert len(lines) > 5
    for line in lines:
        name, area, _, precision, _ = line.locator("th, td").all_inner_texts()
        values = np.array([float(row[name]) for row in rows])
        assert area == f"{roc_auc_score(anomalous, values):.3f}", name
        assert precision == f"{average_precision_score(anomalous, values):.3f}", name
    flagged = np.array([float(row["p_value"]) <= np.float32(0.05) for row in rows])
    assert (
        page.locator('[data-figure="detection_rate.value"]').first.inner_text()
        == f"{100 * flagged[anomalous].mean():.1f} %"
    )
    assert page.locator('[data-figure="false_alarm_rate.count"]').count() == 0
    scores = np.array([float(row["score"]) for row in rows]).astype(np.float32)
    slider = page.locator("#threshold")
    for press in ("", "ArrowRight", "PageDown", "Home", "End"):
        slider.focus()
        if press:
            page.keyboard.press(press)
        text = page.locator("#outcome").inner_text()
        index = int(slider.input_value())
        threshold = json.loads(pages["evaluation"].with_suffix(".json").read_text())["thresholds"]["threshold"][index]
        reached = scores >= np.float32(threshold)
        assert f"{reached[anomalous].sum()} of {anomalous.sum()} anomalous caught" in text
        assert f"{(~reached[anomalous]).sum()} missed" in text
        assert f"{reached[~anomalous].sum()} of {(~anomalous).sum()} normal flagged" in text
    page.locator("#chosen").click()
    assert f"{flagged[anomalous].sum()} of {anomalous.sum()} anomalous caught" in page.locator("#outcome").inner_text()


def test_hostile_names_are_shown_as_text(opened, pages):
    assert "<b>8 & 'eight'" in opened("evaluation").inner_text("#classes")
    assert any("alert(1)" in text for text in opened("scores").locator("main th").all_inner_texts())
    assert EVIL in opened("scans").inner_text("#pages")


def test_the_theme_follows_the_system_and_the_button(opened):
    page = opened("evaluation", theme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    light = page.evaluate(paper)
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    page.keyboard.press("Enter")
    assert page.evaluate(paper) == dark


def test_a_table_sorts_by_keyboard(opened):
    page = opened("evaluation")
    head = page.locator("#terms thead button").nth(1)
    head.focus()
    areas = lambda: [float(text) for text in page.locator("#terms tbody td:nth-child(2)").all_inner_texts()]  # noqa: E731
    page.keyboard.press("Enter")
    assert areas() == sorted(areas(), reverse=True)
    page.keyboard.press("Enter")
    assert areas() == sorted(areas())
    assert page.locator("#terms thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_the_divider_moves_by_keyboard_and_by_mouse_and_the_picture_zooms(opened):
    page = opened("scans")
    box = page.locator(".compare").first
    place = "e => getComputedStyle(e).getPropertyValue('--at')"
    stack = box.locator(".stack")
    box.locator("input.at").focus()
    page.keyboard.press("ArrowRight")
    assert stack.evaluate(place) == "51%"
    edges = stack.bounding_box()
    height = max(edges["y"], 0) + 40  # where it is in view
    page.mouse.move(edges["x"] + 0.51 * edges["width"], height)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] / 4, height)
    page.mouse.up()
    assert float(stack.evaluate(place).rstrip("%")) == pytest.approx(25, abs=1)
    before = stack.bounding_box()["width"]
    box.locator("input.zoom").focus()
    page.keyboard.press("End")
    assert stack.bounding_box()["width"] == pytest.approx(4 * before, rel=0.02)


def test_a_review_is_marked_by_key_and_click_taken_back_kept_and_saved(opened, pages):
    page = opened("scores")
    review = json.loads(pages["scores"].with_suffix(".json").read_text())["review"]
    items, cards = review["items"], page.locator("#review [data-review]")
    assert cards.count() == len(items) > 3
    assert sum(item["audit"] for item in items) == review["audited"] == 20
    page.keyboard.press("n")  # shows the first image, and marks nothing yet
    for key in ("n", "d", "?"):
        page.keyboard.press(key)
    cards.nth(3).locator("button[value=normal]").click()
    assert page.inner_text("#marked") == f"4 of {len(items)} marked: 2 normal, 1 defect, 1 unsure"
    page.keyboard.press("u")
    cards.nth(1).locator("button[value=normal]").click()
    page.click("#undo")
    page.reload()
    marks = ["normal", "defect", "unsure"]
    assert cards.evaluate_all("all => all.map(card => card.dataset.mark || '')") == marks + [""] * (len(items) - 3)
    assert cards.nth(1).locator("button[value=defect]").get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "labels.csv"
    with Path(download.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["label"]) for row in rows] == [(items[at]["path"], marks[at]) for at in range(3)]
    assert [[row["flagged"], row["audit"]] for row in rows] == [
        [str(int(items[at]["flagged"])), str(int(items[at]["audit"]))] for at in range(3)
    ]


def test_a_benchmark_leads_to_its_cells(opened, pages):
    links = opened("benchmark").locator("main a").evaluate_all("all => all.map(e => e.getAttribute('href'))")
    cells = (pages["benchmark"].parent / "cells.jsonl").read_text().splitlines()
    assert links == ["cells.jsonl"]
    assert len(cells) == json.loads(pages["benchmark"].with_suffix(".json").read_text())["cells"]["finished"]


def test_a_search_shows_every_trial(opened, pages):
    page, report = opened("tuning"), json.loads(pages["tuning"].with_suffix(".json").read_text())
    assert len(report["trials"]) == 11
    assert page.locator("#trials tbody tr").count() == 11
    assert page.locator('[data-chart="objective"] svg circle, [data-chart="objective"] svg path').count() >= 11
    assert page.locator('[data-chart^="setting:"] svg').count() == len(report["searched"])
    head = page.locator("#trials thead button").nth(1)
    head.click()
    objectives = [float(text) for text in page.locator("#trials tbody td:nth-child(2)").all_inner_texts()]
    assert objectives == sorted(objectives, reverse=True)
    assert sum(report["importance"].values()) == pytest.approx(1)


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_shut_out(kind, theme, opened):
    axe = pytest.importorskip("axe_playwright_python", reason="axe is not installed, so accessibility is not checked")
    page = opened(kind, theme=theme)
    source = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    # The page forbids scripts from elsewhere; the checker comes in through the debugger.
    page.evaluate(source)
    found = page.evaluate("axe.run()")["violations"]
    grave = [item for item in found if item["impact"] in ("serious", "critical")]
    assert [(item["id"], [node["html"][:150] for node in item["nodes"]][:3]) for item in grave] == []


def test_it_prints(opened):
    page = opened("evaluation", theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf()) > 50_000


def test_what_the_library_says_is_what_the_page_says(pages):
    report = vaeguard.read_report(pages["evaluation"].parent)
    html = pages["evaluation"].read_text()
    from markupsafe import escape

    from vaeguard.reports.kinds import verdict

    assert str(escape(verdict(report).sentence)) in html


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_documented(kind, pages):
    report = json.loads(pages[kind].with_suffix(".json").read_text())
    text = (Path(__file__).parents[2] / "docs" / "reference" / "report-format.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    section = next(each for each in sections if each.startswith(f"`{kind}`"))
    everywhere = next(each for each in sections if each.startswith("In every report"))
    assert [key for key in report if f"`{key}`" not in section + everywhere] == []
