from __future__ import annotations

import json

import pytest

from vaeguard.errors import RefusedError, UsageError
from vaeguard.reports.page import _script_json, _short
from vaeguard.reports.report_file import (
    FORMAT,
    check_place,
    finite,
    heading,
    read_report,
    remake_page,
    remove_report,
    report_path,
    write_report,
)
from vaeguard.workflows.runs import prepare_run

EVIL = "<script>alert(1)</script>\n\"'&<!--\u2028 ]]>"


def comparison(title: str = "two") -> dict:
    run = {"name": EVIL, "path": "a/report.json", "values": [0.5, 0.4, 0.6, None]}
    return {**heading("comparison", title, command="vaeguard report"), "columns": ["a", "b", "c", EVIL],
            "runs": [run, {**run, "name": "b", "values": [0.25, 0.2, 0.3, 1.0]}], "best_two": None,
            "differences": {"seed": [0, EVIL]}}  # fmt: skip


def test_what_is_written_is_read_again(tmp_path):
    page = write_report(tmp_path / "x" / "report.json", comparison())
    assert page == tmp_path / "x" / "report.html"
    assert read_report(tmp_path / "x") == read_report(tmp_path / "x" / "report.json") == comparison()
    first = page.read_bytes()
    write_report(tmp_path / "x" / "report.json", read_report(tmp_path / "x"))
    assert page.read_bytes() == first


def test_the_report_of_a_table_is_found_by_the_table(tmp_path):
    (tmp_path / "scores.csv").write_text("path\n")
    write_report(tmp_path / "scores.csv.report.json", comparison())
    assert report_path(tmp_path / "scores.csv") == tmp_path / "scores.csv.report.json"
    assert (tmp_path / "scores.csv.report.html").exists()


def test_names_are_text_and_nothing_else(tmp_path):
    html = write_report(tmp_path / "report.json", comparison(EVIL)).read_text()
    assert "<script>alert" not in html
    assert "<!--\u2028" not in html
    assert "&lt;script&gt;alert(1)" in html
    scripts = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(scripts)["title"] == EVIL
    assert not set("<>&\u2028") & set(scripts)


def test_long_and_odd_names_are_cut_to_one_line():
    assert len(_short("x" * 5000)) < 260
    assert _short("a\nb\tc\udcff") == "a?b?c?"


def test_script_json_is_json():
    assert json.loads(_script_json({"a": EVIL})) == {"a": EVIL}


@pytest.mark.parametrize("kind", [[], {"a": 1}, None, 7, "page", "../x"])
def test_an_odd_kind_is_refused_and_protects_nothing(tmp_path, kind):
    (tmp_path / "report.json").write_text(json.dumps({"format": FORMAT, "kind": kind}))
    with pytest.raises(RefusedError, match="not a report that this version"):
        read_report(tmp_path)
    check_place(tmp_path / "report.json", "fit")


def test_numbers_that_json_has_not_are_null(tmp_path):
    assert finite({"a": [1.0, float("nan")], "b": (float("inf"),)}) == {"a": [1.0, None], "b": [None]}
    write_report(tmp_path / "report.json", comparison() | {"odd": float("inf")})
    assert read_report(tmp_path)["odd"] is None


def test_what_is_no_report_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="not a report and contains none"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RefusedError, match="damaged"):
        read_report(tmp_path)
    for content, words in (
        ({**comparison(), "format": FORMAT + 1}, rf"format {FORMAT + 1}, expected {FORMAT}\)"),
        ({"kind": "detector"}, "not a report that this version"),
        ({**comparison(), "kind": "x"}, "not a report that this version"),
        ([1], "not a report that this version"),
    ):
        (tmp_path / "report.json").write_text(json.dumps(content))
        with pytest.raises(RefusedError, match=words):
            read_report(tmp_path)


def test_a_page_asks_nothing_of_a_network(tmp_path):
    import re

    html = write_report(tmp_path / "report.json", comparison()).read_text()
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "default-src 'none'" in markup
    assert not re.findall(r"(?:src|href)=\"(?!data:|#|cells\.jsonl\")[^\"]*\"", markup)
    assert "@import" not in html
    assert "url(" not in markup


def test_a_report_of_another_kind_is_not_overwritten(tmp_path):
    write_report(tmp_path / "report.json", comparison())
    with pytest.raises(UsageError, match="is the report of a comparison; choose a different folder"):
        check_place(tmp_path / "report.json", "fit")
    check_place(tmp_path / "report.json", "comparison")
    check_place(tmp_path / "none.json", "fit")
    with pytest.raises(UsageError, match="is the report of a comparison"):
        remove_report(tmp_path / "report.json", "scores")
    remove_report(tmp_path / "report.json", "comparison")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_is_refused_there_before_any_work(tmp_path):
    write_report(tmp_path / "report.json", comparison())
    with pytest.raises(UsageError, match="is the report of a comparison"):
        prepare_run(tmp_path, resume=False)


def test_a_report_that_is_not_whole_is_refused_and_keeps_its_page(tmp_path):
    page = write_report(tmp_path / "report.json", comparison())
    before = page.read_bytes()
    assert remake_page(tmp_path) == (comparison(), page)
    assert page.read_bytes() == before
    for content in (
        {"format": FORMAT, "kind": "fit"},
        {**comparison(), "runs": None},
        {**comparison(), "format": True},
    ):
        (tmp_path / "report.json").write_text(json.dumps(content))
        with pytest.raises(RefusedError, match="to replace it, run the command that wrote it"):
            remake_page(tmp_path)
    assert page.read_bytes() == before


def test_names_that_are_no_text_do_not_stop_the_page(tmp_path):
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_report(tmp_path / "report.json", comparison(odd) | {"differences": {"classes": [[odd], odd]}})
    assert "caf?" in (tmp_path / "report.html").read_text()


def test_no_public_name_is_that_of_a_module():
    """Importing the module would put it in the place of the name."""
    import pkgutil

    import vaeguard

    assert not {module.name for module in pkgutil.iter_modules(vaeguard.__path__)} & set(vaeguard.__all__)


def test_a_page_without_its_report_is_somebody_elses(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match=r"report\.html.*would be overwritten"):
        write_report(tmp_path / "report.json", comparison())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "mine"
