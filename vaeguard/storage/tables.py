"""Tables as files: `.csv`, `.parquet` or `.jsonl` by suffix, written in batches, completely or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, UsageError
from vaeguard.storage.files import valid_text, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

    Column = npt.NDArray[Any] | list[str]

TEXT_COLUMNS = ("path", "error", "class", "reason")
"""Columns that are read as text even if every value looks like a number."""
ERROR_COLUMNS = ("path", "error")
TRUTH_COLUMNS = ("anomaly", "normal")
"""Columns of truth values, which are 0 and 1 in CSV."""
PARTS = "part-*.parquet"
"""The files of a table that is a folder."""
ROW_GROUP = 65_536
"""Rows that a Parquet table collects before writing them: small row groups make files large and slow."""

# A spreadsheet would run a cell with such a beginning as a formula. Leading quotes belong to the pattern, so that
# a cell that had one before it was escaped can be restored.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NEEDS_QUOTES = re.compile(r'[",\r\n]')


class Table:
    """An open table, made by `open_table`; `write` appends rows."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.rows = 0

    def write(self, columns: Mapping[str, Sequence[str] | npt.NDArray[Any]]) -> None:
        """Append one row for each position in `columns`, which are equally long and hold numbers, truth values or text.

        Raises
        ------
        UsageError
            The names differ from those of the table, the lengths differ, or a column holds something else.
        """
        if set(columns) != set(self.columns):
            raise UsageError(f"table has columns {', '.join(self.columns)}, but was given {', '.join(columns)}")
        converted = {name: _column(name, columns[name]) for name in self.columns}
        lengths = {name: len(column) for name, column in converted.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"columns of one table must be equally long, but their lengths are {lengths}")
        if rows := lengths[self.columns[0]]:
            self._append(converted)
            self.rows += rows

    def append_table(self, path: Path, rows: int) -> None:
        """Append all `rows` of another table, which has the same file format and columns, without change."""
        self._copy(path)
        self.rows += rows

    def _append(self, columns: dict[str, Column]) -> None:
        raise NotImplementedError

    def _copy(self, path: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Write the buffered rows and close the file."""
        raise NotImplementedError


class _CsvTable(Table):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._file.write(",".join(map(_csv_text, columns)) + "\n")

    def _append(self, columns: dict[str, Column]) -> None:
        cells = [_cells(column, text=_csv_text, truth=("0", "1")) for column in columns.values()]
        self._file.writelines(f"{row}\n" for row in map(",".join, zip(*cells, strict=True)))

    def _copy(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            file.readline()  # the header
            shutil.copyfileobj(file, self._file)

    def close(self) -> None:
        self._file.close()


class _JsonLinesTable(Table):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._row = "{" + ", ".join(f"{_json_text(name)}: ".replace("%", "%%") + "%s" for name in columns) + "}\n"

    def _append(self, columns: dict[str, Column]) -> None:
        cells = [_cells(column, text=_json_text, truth=("false", "true")) for column in columns.values()]
        for name, cell in zip(columns, cells, strict=True):
            if not isinstance(columns[name], list) and not np.isfinite(columns[name]).all():
                cell[:] = map(_json_number, cell)
        self._file.writelines(map(self._row.__mod__, zip(*cells, strict=True)))

    def _copy(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            shutil.copyfileobj(file, self._file)

    def close(self) -> None:
        self._file.close()


class _ParquetTable(Table):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        self._buffered: list[Any] = []
        self._buffered_rows = 0
        self._writer: Any = None

    def _append(self, columns: dict[str, Column]) -> None:
        import pyarrow as pa

        self._buffer(pa.table(columns))

    def _copy(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._buffer(pq.read_table(path))

    def _buffer(self, rows: Any) -> None:
        """Write whole row groups, so that the bytes of the file do not depend on how the rows arrive."""
        import pyarrow as pa

        self._buffered.append(rows)
        self._buffered_rows += rows.num_rows
        if self._buffered_rows >= ROW_GROUP:
            buffered = pa.concat_tables(self._buffered)
            rest = self._buffered_rows % ROW_GROUP
            self._write(buffered.slice(0, self._buffered_rows - rest))
            self._buffered, self._buffered_rows = [buffered.slice(self._buffered_rows - rest)], rest

    def _write(self, rows: Any) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, rows.schema)
        self._writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)

    def close(self) -> None:
        import pyarrow as pa

        if self._buffered_rows:
            self._write(pa.concat_tables(self._buffered))
        elif self._writer is None:
            self._write(_empty_arrow_table(self.columns))
        self._writer.close()


_TABLES: dict[str, type[Table]] = {".csv": _CsvTable, ".parquet": _ParquetTable, ".jsonl": _JsonLinesTable}


@contextlib.contextmanager
def open_table(path: str | Path, columns: Sequence[str]) -> Iterator[Table]:
    r"""Open a table for writing; the table appears at `path` when the block ends without an exception.

    - Numbers are printed with the fewest digits that reproduce their bits. Memory use is constant.
    - CSV: text that a spreadsheet would run as a formula (it begins with ``= + - @``, tab or carriage return) gets a
      leading ``'``, which `read_table` removes. Truth values are 0 and 1.
    - JSON lines: not-a-number is ``null``. Infinities are ``1e999`` and ``-1e999``, which parsers read as infinite.
    - Bytes of file names that are not UTF-8 are written as ``\udc..``.

    Raises
    ------
    UsageError
        The suffix is none of the three.
    VaeguardError
        The file cannot be written.

    Examples
    --------
    >>> with open_table("scores.csv", ["path", "score"]) as table:  # doctest: +SKIP
    ...     table.write({"path": ["a.png"], "score": np.array([0.5], "float32")})
    """
    table_class = _TABLES[_suffix(path)]
    with writing(path) as temporary, contextlib.closing(table_class(temporary, columns)) as table:
        yield table


def write_errors(path: str | Path, errors: Sequence[tuple[str, str]]) -> None:
    """Write a table of the inputs that could not be read, path and reason; without errors, remove an earlier one."""
    if errors:
        check_errors(path)
        write_table(path, {"path": [path for path, _ in errors], "error": [reason for _, reason in errors]})
    else:
        check_errors(path)
        Path(path).unlink(missing_ok=True)


def check_errors(path: str | Path) -> None:
    """Refuse the place of a list of errors that holds something else.

    Raises
    ------
    UsageError
        The file is no list of errors, or `path` is a folder.
    """
    known = {*ERROR_COLUMNS}.__contains__
    check_replaced(path, "unreadable inputs", lambda columns: columns == [*ERROR_COLUMNS], known)


def write_table(path: str | Path, columns: Mapping[str, Sequence[str] | npt.NDArray[Any]]) -> None:
    """Write a table from memory in one call; see `open_table`."""
    with open_table(path, list(columns)) as table:
        table.write(columns)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that vaeguard wrote: text as str, truth values as bool, numbers as int64, float32 or float64.

    Text formats do not record the width of a number. Their numbers are read as float64, and ``astype("float32")``
    restores the bits that were written.

    Raises
    ------
    UsageError
        The suffix is none of the three.
    RefusedError
        The file is missing, damaged, or not a table of vaeguard.
    """
    import pandas as pd
    import pyarrow as pa

    read = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}[_suffix(path)]
    try:
        return pd.DataFrame(read(Path(path)))
    except OSError as error:
        raise RefusedError(f"cannot read table {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError, KeyError, csv.Error, pa.ArrowException) as error:
        raise RefusedError(
            f"{str(path)!r} is damaged or is not a table that vaeguard wrote ({error}); to replace it, run the command"
            " that wrote it"
        ) from error


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a table that vaeguard wrote, as values that JSON can hold."""
    rows: list[dict[str, Any]] = read_table(path).to_dict("records")
    return rows


def table_chunks(path: str | Path, columns: Sequence[str], rows: int = 65_536) -> Iterator[dict[str, Any]]:
    """Some columns of a table that vaeguard wrote, in chunks of up to `rows` rows: text as lists, numbers as arrays.

    The table may be a folder of parts (`PARTS`), which are read in the order of their names.
    """
    if Path(path).is_dir():
        for part in sorted(Path(path).glob(PARTS)):
            yield from table_chunks(part, columns, rows)
        return
    suffix = _suffix(path)
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=list(columns)):
                yield {name: batch.column(name).to_pylist() for name in columns} | {
                    name: batch.column(name).to_numpy(zero_copy_only=False)
                    for name in columns
                    if name not in TEXT_COLUMNS
                }
        return
    with Path(path).open(encoding="utf-8", newline="" if suffix == ".csv" else "\n") as file:
        lines = csv.DictReader(file, strict=True) if suffix == ".csv" else map(json.loads, file)
        while chunk := list(islice(lines, rows)):
            yield {name: _chunk_column(name, [row[name] for row in chunk], suffix) for name in columns}


def _chunk_column(name: str, cells: list[Any], suffix: str) -> Any:
    if name not in TEXT_COLUMNS:
        with contextlib.suppress(ValueError):
            values = np.array([np.nan if cell is None else cell for cell in cells]).astype(np.float64)
            return values.astype(bool) if name in TRUTH_COLUMNS else values
    return list(map(_from_csv_text, cells)) if suffix == ".csv" else cells


def columns_of(path: str | Path) -> list[str]:
    """The column names of any table, also of one that vaeguard did not write; none if the file is empty or no table."""
    path, suffix = Path(path), _suffix(path)
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), []) if suffix == ".csv" else list(json.loads(file.readline()))
    except (OSError, ValueError, TypeError, csv.Error):  # Arrow's exceptions are among these types
        return []


def check_replaced(
    path: str | Path, kind: str, is_kind: Callable[[list[str]], object], is_ours: Callable[[str], object]
) -> None:
    """Refuse to replace a file that is no table of `kind`, or a table to which somebody added a column.

    `is_kind` tells from the column names whether the table is of that kind; `is_ours` tells whether vaeguard wrote
    the column of a name. An empty file may be replaced.

    Raises
    ------
    UsageError
        The file must not be replaced, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder; name a table in this folder, such as {str(path / 'table.csv')!r}")
    if not path.exists() or not path.stat().st_size:
        return
    columns = columns_of(path)
    if not is_kind(columns):
        raise UsageError(f"{str(path)!r} is not a table of {kind} and would be overwritten; choose a different table")
    if added := [name for name in columns if not is_ours(name)]:
        raise UsageError(
            f"{str(path)!r} has a column {added[0]!r}, which vaeguard did not write and would overwrite; choose a"
            " different table"
        )


def check_table_path(path: str | Path) -> None:
    """Refuse a path without the suffix of a table, before any work is done.

    Raises
    ------
    UsageError
        The suffix is none of the three.
    """
    _suffix(path)


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _TABLES:
        raise UsageError(
            f"the name of the table {str(path)!r} ends in {suffix!r}; it must end in .csv, .parquet or .jsonl"
        )
    return suffix


def _column(name: str, values: Sequence[str] | npt.NDArray[Any]) -> Column:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fbiu":
        values = list(values)
        if all(isinstance(value, str) for value in values):
            return [valid_text(value) for value in values]
        values = np.asarray(values)
    if values.dtype.kind not in "fbiu" or values.ndim != 1:
        raise UsageError(f"column {name!r} must be one-dimensional text or numbers, not {values.dtype} {values.shape}")
    return values


def _cells(column: Column, *, text: Callable[[str], str], truth: tuple[str, str]) -> list[str]:
    if isinstance(column, list):
        return list(map(text, column))
    if column.dtype.kind == "b":
        return [truth[value] for value in column.tolist()]
    cells: list[str] = column.astype("U").tolist()  # numpy prints the fewest digits that round-trip
    return cells


def _csv_text(text: str) -> str:
    if _FORMULA.match(text):
        text = "'" + text
    if not text or _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _from_csv_text(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json_number(cell: str) -> str:
    return {"nan": "null", "inf": "1e999", "-inf": "-1e999"}.get(cell, cell)


def _empty_arrow_table(columns: Sequence[str]) -> Any:
    import pyarrow as pa

    types = dict.fromkeys(TEXT_COLUMNS, pa.string()) | dict.fromkeys(TRUTH_COLUMNS, pa.bool_())
    return pa.schema([(name, types.get(name, pa.float32())) for name in columns]).empty_table()


def _read_csv(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, strict=True)
        names = next(rows, None)
        if names is None:
            raise ValueError("not even a header")
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {
        _from_csv_text(name): _parsed(_from_csv_text(name), list(cells))
        for name, cells in zip(names, columns, strict=True)
    }


def _parsed(name: str, cells: list[str]) -> Any:
    import pandas as pd

    if name in TRUTH_COLUMNS:
        return np.array(cells, dtype=np.int64).astype(bool)
    if name not in TEXT_COLUMNS:
        dtypes = (np.int64, np.float64) if cells else (np.float64,)
        for dtype in dtypes:
            with contextlib.suppress(ValueError, OverflowError):
                return np.array(cells, dtype="U").astype(dtype)
    return pd.Series(list(map(_from_csv_text, cells)), dtype="str")


def _read_json_lines(path: Path) -> dict[str, Any]:
    import pandas as pd

    with path.open(encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    table = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return {
        name: pd.Series(cells, dtype="str" if name in TEXT_COLUMNS else None)
        if any(isinstance(cell, str) for cell in cells) or None not in cells
        else np.array(cells, dtype=np.float64)
        for name, cells in table.items()
    }


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pandas()
