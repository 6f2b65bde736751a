"""Turns files and what is printed into lines that are the same for two runs of the same code."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = {".toml", ".txt", ".log", ".pbtxt", ".job", ""}
TIMES = re.compile(
    r"^(seconds|.*_seconds|seconds_.*|.*per_second|.*memory.*|hardware|python|versions|datetime.*|worker_id|key)$"
)
"""Names of values that differ from run to run or from machine to machine; a `key` depends on times of files."""
COLUMNS = re.compile(r"seconds|fit, s|scoring, s|.* a second|memory, MB")
"""The same of columns of tables in reports."""
NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
PATTERNS = (
    # Progress is told every ten seconds.
    (
        re.compile(
            r"(?m)^(?:fitting|scoring|denoising|restoring|checking|benchmarking|searching|planning|combining)"
            r"\b.*, \d+ %.*\n"
        ),
        "",
    ),
    (re.compile(rf"\b(?:about |in )?{NUMBER} (?:s|ms|µs|min|h)(?![\w/])"), "<time>"),
    (re.compile(rf"\b{NUMBER} (?:MP|images|pages|files|rows|vectors)(?:/s| a second| per second)"), "<speed>"),
    (re.compile(rf'{NUMBER}(?=</span><span class="label">images per second)'), "<speed>"),
    (re.compile(r"(?m)^seconds  .*$"), "seconds <time>"),
    (re.compile(rf'(?<=data-figure="seconds">){NUMBER}'), "<time>"),
    (re.compile(rf"\b{NUMBER} (?:kB|MB|GB|MiB|GiB)(?= (?:free|of memory|at most))"), "<memory>"),
)

DATA = re.compile(r'(?s)(?<=<script type="application/json" id="data">)(.*?)(?=</script>)')
"""The data of a page."""
SEAL = re.compile(rb"vaeguard-sha256:([0-9a-f]{64})")
HTML_TABLE = re.compile(r"(?s)<table.*?</table>")
HTML_HEAD = re.compile(r'(?s)<th scope="col"[^>]*>(.*?)</th>')
HTML_ROW = re.compile(r"(?s)<tr>.*?</tr>")
HTML_CELL = re.compile(r"(<t[dh]\b[^>]*>)")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


class Masks:
    """What is replaced in all text of one side: its folders, its spelling of commands, and digests of files."""

    def __init__(self, folders: dict[str, str], commands: list[str], written: dict[str, Path]) -> None:
        """`written`: files by their digests, which depend on what is masked inside; it is filled in elsewhere."""
        self.written = written
        self.names: dict[str, str] = {}
        self.nested = False
        pairs = [(text, f"<{name}>") for name, text in folders.items()]
        for command in sorted(commands, key=len, reverse=True):
            pairs += [(form, "<command>") for form in (command, html.escape(command), json.dumps(command)[1:-1])]
        self.pairs = sorted(pairs, key=lambda pair: -len(pair[0]))

    def text(self, text: str) -> str:
        """The text without what differs from run to run."""
        for found, name in self.pairs:
            text = text.replace(found, name)
        for pattern, name in PATTERNS:
            text = pattern.sub(name, text)
        return DIGEST.sub(lambda found: self._digest(found[0]), text)

    def _entry(self, key: str, value: Any) -> Any:
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        return "<masked>" if TIMES.match(key) and value is not None and not rows else self.json(value)

    def _digest(self, digest: str) -> str:
        """For a digest of a file one of what can be compared of it; digests inside it do not count."""
        if self.nested and digest in self.written:
            return "<sha256>"
        if digest in self.written and digest not in self.names:
            self.nested = True
            lines = "\n".join(file_lines(self.written[digest], self))
            self.nested = False
            self.names[digest] = f"<sha256 of a file: {hashlib.sha256(lines.encode()).hexdigest()[:12]}>"
        return self.names.get(digest, digest)

    def json(self, value: Any) -> Any:
        """The same of a value read from JSON."""
        if isinstance(value, dict):
            value = _compared(value)
            return {self.text(key): self._entry(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def _compared(report: dict[str, Any]) -> dict[str, Any]:
    """A report of reports side by side without the values of those of its columns that are times."""
    names, runs = report.get("columns"), report.get("runs")
    if not isinstance(names, list) or not isinstance(runs, list):
        return report

    def shown(values: list[Any]) -> list[Any]:
        return ["<masked>" if TIMES.match(name) else value for name, value in zip(names, values, strict=True)]

    return report | {"runs": [run | {"values": shown(run["values"])} if "values" in run else run for run in runs]}


def printed_lines(text: str, masks: Masks) -> list[str]:
    """What a command printed; one JSON object by its entries."""
    if text.lstrip().startswith("{"):
        try:
            return _json_lines(json.loads(text), masks)
        except ValueError:
            pass
    return masks.text(text).splitlines()


def file_lines(path: Path, masks: Masks) -> list[str]:
    """What a file holds, as lines that can be compared."""
    if path.is_symlink():
        return [f"link to {masks.text(str(path.readlink()))}"]
    suffix = path.suffix.lower()
    read = READERS.get(suffix)
    try:
        if read:
            return read(path, masks)
        if suffix in TEXT:
            return masks.text(path.read_text(encoding="utf-8")).splitlines()
    except Exception as error:  # noqa: BLE001  (a damaged file is a result, too)
        return [f"cannot be read ({type(error).__name__}: {masks.text(str(error))})", _digest(path.read_bytes())]
    return [_digest(path.read_bytes())]


def _digest(content: bytes) -> str:
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _json_lines(value: Any, masks: Masks) -> list[str]:
    return json.dumps(masks.json(value), indent=1, ensure_ascii=False).splitlines()


def _json(path: Path, masks: Masks) -> list[str]:
    return _json_lines(json.loads(path.read_text(encoding="utf-8")), masks)


def _html(path: Path, masks: Masks) -> list[str]:
    """A page with a line for each element, and its data by their entries."""
    lines = []
    for number, part in enumerate(DATA.split(path.read_text(encoding="utf-8"))):
        if number % 2:
            lines += _value_lines(part, masks)
        else:
            lines += masks.text(HTML_TABLE.sub(_without_times, part)).replace("<", "\n<").splitlines()
    return lines


def _without_times(table: re.Match[str]) -> str:
    """A table of a page without what is in columns of times."""
    hidden = _columns([html.unescape(name) for name in HTML_HEAD.findall(table[0])])

    def row(found: re.Match[str]) -> str:
        cells = HTML_CELL.split(found[0])
        for number in hidden:
            if 2 * number + 1 < len(cells):
                cells[2 * number + 1] = "<td>"
                cells[2 * number + 2] = re.sub("^[^<]*(<span[^>]*>[^<]*</span>)?", "masked", cells[2 * number + 2])
        return "".join(cells)

    return HTML_ROW.sub(row, table[0]) if hidden else table[0]


def _columns(names: list[str]) -> set[int]:
    return {number for number, name in enumerate(names) if COLUMNS.fullmatch(name.strip())}


def _markdown(path: Path, masks: Masks) -> list[str]:
    """Text, and tables without columns of times."""
    lines, hidden = [], set[int]()
    before = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split("|")
        if line.startswith("|") and not before.startswith("|"):
            hidden = _columns(cells)
        elif line.startswith("|"):
            cells = ["<masked>" if number in hidden else cell for number, cell in enumerate(cells)]
        lines.append(masks.text("|".join(cells)))
        before = line
    return lines


def _jsonl(path: Path, masks: Masks) -> list[str]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [json.dumps(masks.json(row), ensure_ascii=False) for row in rows]


def _csv(path: Path, masks: Masks) -> list[str]:
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    hidden = {number for number, name in enumerate(rows[0] if rows else []) if TIMES.match(name)}
    masked = [
        ["<masked>" if number in hidden and row is not rows[0] else cell for number, cell in enumerate(row)]
        for row in rows
    ]
    return [masks.text(json.dumps(row, ensure_ascii=False)) for row in masked]


def _parquet(path: Path, masks: Masks) -> list[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return [*masks.text(str(table.schema)).splitlines(), *(masks.text(repr(row)) for row in table.to_pylist())]


def _picture(path: Path, masks: Masks) -> list[str]:
    """Every frame with what is said of it; and the bytes, as the same pixels can be written otherwise."""
    from PIL import Image, ImageSequence

    lines = [_digest(path.read_bytes())]
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            lines += [f"{frame.format} {frame.mode} {frame.size}", _array("pixels", np.asarray(frame))]
            lines += [f"{name}: {_shown(value, masks)}" for name, value in sorted(frame.info.items(), key=str)]
            lines += [f"exif {tag}: {_shown(value, masks)}" for tag, value in sorted(frame.getexif().items())]
    return lines


def _shown(value: object, masks: Masks) -> str:
    return _digest(value) if isinstance(value, bytes) and len(value) > 40 else masks.text(repr(value))


def _pdf(path: Path, masks: Masks) -> list[str]:
    """Every object of a document with the digest of its stream."""
    import pikepdf

    with pikepdf.open(path) as document:
        lines = [_digest(path.read_bytes()), f"{len(document.pages)} pages"]
        for thing in document.objects:
            if isinstance(thing, pikepdf.Stream):
                raw = _digest(bytes(thing.read_raw_bytes()))
                lines.append(f"{masks.text(repr(dict(thing.stream_dict)))} {raw}")
            else:
                lines.append(masks.text(repr(thing)))
    return lines


def _array(name: str, values: np.ndarray) -> str:
    """Shape, digest and a few measures, which tell how large a difference is."""
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]
    text = f"{name}: {values.dtype}{list(values.shape)} {digest}"
    if values.size and values.dtype.kind in "fiub":
        finite = values[np.isfinite(values)].astype(np.float64)
        if finite.size:
            text += f" mean {finite.mean():.9g} from {finite.min():.9g} to {finite.max():.9g}, {finite.size} finite"
    return text


def _npz(path: Path, masks: Masks) -> list[str]:
    loaded: Any = np.load(path)
    if path.suffix == ".npy":
        return [_array("array", loaded)]
    return [_array(masks.text(name), loaded[name]) for name in loaded.files]


def own_digest(path: Path) -> str:
    """The digest that a model file holds of itself, empty for other files."""
    found = SEAL.search(path.read_bytes()) if path.suffix in (".safetensors", ".onnx") else None
    return found[1].decode() if found else ""


def _safetensors(path: Path, masks: Masks) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        lines = []
        for name, text in sorted((file.metadata() or {}).items()):
            lines += [f"header {name}:", *_value_lines(text, masks)]
        return lines + [_array(name, file.get_tensor(name)) for name in sorted(file.keys())]


def _value_lines(text: str, masks: Masks) -> list[str]:
    try:
        return _json_lines(json.loads(text), masks)
    except ValueError:
        return masks.text(text).splitlines()


def _onnx(path: Path, masks: Masks) -> list[str]:
    """Inputs, outputs, constants and operators of a graph, and what its header says."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    lines = [f"ir {model.ir_version}, {model.producer_name}", *(f"opset {one.domain!r}" for one in model.opset_import)]
    for entry in sorted(model.metadata_props, key=lambda entry: entry.key):
        lines += [f"metadata {entry.key}:", *_value_lines(entry.value, masks)]
    graph = model.graph
    lines += [f"input {one.name} {one.type}" for one in graph.input]
    lines += [f"output {one.name} {one.type}" for one in graph.output]
    lines += [_array(f"constant {one.name}", numpy_helper.to_array(one)) for one in graph.initializer]
    for node in graph.node:
        attributes = ", ".join(
            f"{one.name}={_digest(one.SerializeToString(deterministic=True))}" for one in node.attribute
        )
        lines.append(f"{node.op_type}({', '.join(node.input)}) -> {', '.join(node.output)} [{attributes}]")
    return [masks.text(line) for line in lines]


READERS: dict[str, Callable[[Path, Masks], list[str]]] = {
    ".json": _json,
    **dict.fromkeys((".jsonl", ".journal"), _jsonl),
    ".md": _markdown,
    ".html": _html,
    ".csv": _csv,
    ".parquet": _parquet,
    **dict.fromkeys((".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp"), _picture),
    ".pdf": _pdf,
    ".npz": _npz,
    ".npy": _npz,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
}
