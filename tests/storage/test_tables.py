from __future__ import annotations

import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeguard.errors import RefusedError, UsageError
from vaeguard.storage.tables import open_table, read_table, write_table

SUFFIXES = (".csv", ".parquet", ".jsonl")

names = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["=cmd()", "+1", "-1", "@a", "\tx", "\r", "'=x", "''@", "'", 'a"b', "a,b", "a\nb", "NA", "1e5", " x ", ""]
    ),
)
floats = st.floats(width=32)
rows = st.lists(st.tuples(names, floats, st.booleans(), st.integers(-(2**63), 2**63 - 1)), max_size=8)


def as_columns(rows: list[tuple]) -> dict:
    return {
        "path": [row[0] for row in rows],
        "score": np.array([row[1] for row in rows], np.float32),
        "anomaly": np.array([row[2] for row in rows], bool),
        "count": np.array([row[3] for row in rows], np.int64),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(rows=rows)
def test_round_trip_is_bit_exact(suffix: str, rows: list[tuple]) -> None:
    columns = as_columns(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{suffix}"
        write_table(path, columns)
        found = read_table(path)
    if suffix == ".jsonl" and not rows:
        assert len(found) == 0
        return
    assert list(found.columns) == list(columns)
    assert found["path"].tolist() == columns["path"]
    scores = found["score"].to_numpy().astype(np.float32)
    numbers = ~np.isnan(columns["score"])
    assert np.array_equal(np.isnan(scores), ~numbers)
    assert scores[numbers].tobytes() == columns["score"][numbers].tobytes()
    if rows:
        assert found["anomaly"].dtype == bool
        assert found["score"].dtype.kind == "f"
        assert found["anomaly"].tolist() == columns["anomaly"].tolist()
        assert found["count"].tolist() == columns["count"].tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=8))
def test_float64_round_trip_is_bit_exact(suffix: str, values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_table(f"{folder}/table{suffix}", {"seconds": np.array(values)})
        found = read_table(f"{folder}/table{suffix}")["seconds"].to_numpy()
    assert found.tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_writes_in_parts_equal_one_write(suffix: str, tmp_path: Path) -> None:
    columns = {"path": [f"{i}.png" for i in range(500)], "score": np.arange(500, dtype=np.float32) / 7}
    write_table(tmp_path / f"whole{suffix}", columns)
    with open_table(tmp_path / f"parts{suffix}", ["path", "score"]) as table:
        for start in range(0, 500, 64):
            table.write({name: column[start : start + 64] for name, column in columns.items()})
        assert table.rows == 500
    assert read_table(tmp_path / f"whole{suffix}").equals(read_table(tmp_path / f"parts{suffix}"))


def test_parquet_collects_batches_into_large_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("vaeguard.storage.tables.ROW_GROUP", 100)
    with open_table(tmp_path / "t.parquet", ["x"]) as table:
        for start in range(0, 250, 25):
            table.write({"x": np.arange(start, start + 25)})
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [100, 100, 50]
    assert read_table(tmp_path / "t.parquet")["x"].tolist() == list(range(250))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exception_leaves_the_old_file_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    write_table(path, {"x": np.arange(3)})
    before = path.read_bytes()

    def stop_halfway() -> None:
        with open_table(path, ["x"]) as table:
            table.write({"x": np.arange(9)})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_table_keeps_its_header(suffix: str, tmp_path: Path) -> None:
    with open_table(tmp_path / f"t{suffix}", ["path", "score", "anomaly"]):
        pass
    found = read_table(tmp_path / f"t{suffix}")
    assert list(found.columns) == ["path", "score", "anomaly"]
    assert [found[name].dtype.kind for name in ("score", "anomaly")] == ["f", "b"]
    assert len(found) == 0


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_text_is_never_a_formula(start: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", {"path": [start + "cmd|' /C calc'!A0.png"], "x": np.array([-1.0])})
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        _, row = csv.reader(file)
    assert row[0].startswith("'" + start)
    assert row[1] == "-1.0"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_not_utf8_are_written_readably(suffix: str, tmp_path: Path) -> None:
    name = b"bad\xff.png".decode("utf-8", "surrogateescape")
    write_table(tmp_path / f"t{suffix}", {"path": [name, "Größe.png"]})
    assert read_table(tmp_path / f"t{suffix}")["path"].tolist() == ["bad\\udcff.png", "Größe.png"]


def test_csv_prints_the_fewest_digits_and_json_has_no_bare_nan(tmp_path: Path) -> None:
    columns = {"score": np.array([0.1, np.nan, np.inf], np.float32), "anomaly": np.array([True, False, True])}
    write_table(tmp_path / "t.csv", columns)
    assert (tmp_path / "t.csv").read_text() == "score,anomaly\n0.1,1\nnan,0\ninf,1\n"
    write_table(tmp_path / "t.jsonl", columns)
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    refuse = {"parse_constant": lambda text: pytest.fail(f"{text} is no JSON")}
    assert [json.loads(line, **refuse)["score"] for line in lines] == [0.1, None, np.inf]


def test_ten_thousand_rows_take_little_time(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    columns = {"path": [f"images/{i:05d}.png" for i in range(10_000)]}
    columns |= {f"term_{k}": generator.random(10_000, np.float32) for k in range(11)}
    started = time.process_time()
    write_table(tmp_path / "t.csv", columns)
    assert time.process_time() - started < 1  # about 0.1 s; a loop over cells in Python would take longer


def test_unknown_suffix_names_the_three(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"'\.txt'.*\.csv, \.parquet or \.jsonl"),
        open_table(tmp_path / "t.txt", ["x"]),
    ):
        pass
    with pytest.raises(UsageError, match=r"\.csv, \.parquet or \.jsonl"):
        read_table(tmp_path / "t")


@pytest.mark.parametrize(
    "columns",
    [{"x": np.arange(2)}, {"x": np.arange(2), "y": np.arange(3)}, {"x": np.zeros((2, 2)), "y": np.zeros(2)}],
)
def test_columns_that_do_not_fit_are_refused(columns: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="column"), open_table(tmp_path / "t.csv", ["x", "y"]) as table:
        table.write(columns)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_and_damaged_tables_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    with pytest.raises(RefusedError, match="cannot read table"):
        read_table(path)
    path.write_bytes(b'path,x\n"a\xff,1,2\n{}')
    with pytest.raises(RefusedError, match="damaged or is not a table"):
        read_table(path)


def test_an_empty_csv_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(RefusedError, match="not even a header"):
        read_table(tmp_path / "t.csv")
