"""Two runs of the same code look the same, and a change of a result does not."""

import json

import numpy as np
import pytest
from masks import Masks, file_lines, printed_lines


@pytest.fixture
def masks():
    return Masks({"home": "/tmp/here"}, ["vaeguard undo clean"], {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("596 images scored in 0.8 s; saved to a.csv", "596 images scored in 12.4 s; saved to a.csv"),
        ("7 pages; 0.31 MP, 0.42 MP/s", "7 pages; 0.31 MP, 1.07 MP/s"),
        ("fitting, 20 %: epoch 3 (12 s left)\ndone\n", "done\n"),
        ('{"seconds": 1.5, "images": 3}', '{"seconds": 2.5, "images": 3}'),
    ],
)
def test_what_differs_from_run_to_run_is_masked(masks, one, other):
    assert printed_lines(one, masks) == printed_lines(other, masks)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("596 images scored in 0.8 s", "595 images scored in 0.8 s"),
        ("Largest relative error allowed: 0.001", "Largest relative error allowed: 0.002"),
        ('{"seconds": 1.5, "images": 3}', '{"seconds": 1.5, "images": 4}'),
        ('{"seconds": 1.5}', '{"seconds": null}'),
        ("cd" * 32, "ef" * 32),
    ],
)
def test_a_change_of_a_result_is_seen(masks, one, other):
    assert printed_lines(one, masks) != printed_lines(other, masks)


def test_folders_and_commands_get_names(masks):
    assert printed_lines("vaeguard undo clean: /tmp/here/run", masks) == ["<command>: <home>/run"]


def test_digests_of_files_count_by_what_is_compared_of_these(tmp_path, masks):
    records = [{"seconds": 1, "images": 3}, {"seconds": 2, "images": 3}, {"seconds": 2, "images": 4}]
    for number, record in enumerate(records):
        masks.written[f"{number:064x}"] = tmp_path / f"{number}.json"
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    lines = [printed_lines(f"{number:064x}", masks) for number in range(4)]
    assert lines[0] == lines[1] != lines[2]
    assert lines[3] == [f"{3:064x}"]


def test_columns_of_times_are_masked_and_no_others(tmp_path, masks):
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("data", "fit, s", "images"))
    lines = []
    for time, images in ((1, 3), (2, 3), (2, 4)):
        rows = f"<tr><th>a</th><td>{time}</td><td>{images}</td></tr>"
        (tmp_path / "page.html").write_text(f"<table><thead><tr>{heads}</tr></thead>{rows}</table>")
        (tmp_path / "page.md").write_text(
            f"| data | fit, s | images |\n| --- | --- | --- |\n| a | {time} | {images} |\n"
        )
        lines.append([file_lines(tmp_path / f"page.{kind}", masks) for kind in ("html", "md")])
    assert lines[0] == lines[1]
    assert all(one != other for one, other in zip(*lines[1:], strict=True))


def test_one_value_of_an_array_or_a_table_is_seen(tmp_path, masks):
    lines = []
    for number, value in enumerate((1.0, 1.0 + 1e-12)):
        np.savez(tmp_path / f"{number}.npz", a=np.full(9, value))
        (tmp_path / f"{number}.csv").write_text(f"path,seconds,score\na.png,{number},{value!r}\n")
        page = json.dumps({"seconds": number, "score": value})
        (tmp_path / f"{number}.html").write_text(f'<script type="application/json" id="data">{page}</script>')
        lines.append([file_lines(tmp_path / f"{number}.{kind}", masks) for kind in ("npz", "csv", "html")])
    assert all(one != other for one, other in zip(*lines, strict=True))
    hidden = [file_lines(tmp_path / "0.csv", masks)[1], file_lines(tmp_path / "1.csv", masks)[1]]
    assert all("<masked>" in line for line in hidden)
