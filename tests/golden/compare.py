"""Run every command of `vaeguard` in two checkouts on one small corpus, and print each difference in what comes of it.

    python tests/golden/compare.py --old REVISION_OR_FOLDER [--new FOLDER] [--only CASE ...] [--keep FOLDER] [--jobs 1]

The exit code is 1 where anything differs. Bits depend on the processor, so no results are stored in the repository: the
old commit runs beside the new one, both with the libraries of the Python that runs this program. `--old` takes a
revision of this repository, which is unpacked into a temporary folder, or the folder of a checkout; `--new` is
this checkout if not given. With `--keep` all that both sides wrote stays in that folder, and what an old revision wrote
is used again.

- `corpus.py` makes the images, tables and scans, `cases.py` lists the command lines, `running.py` runs them, and
  `masks.py` turns files into lines that can be compared, without times, versions, hardware and paths.
- A command whose name or options differ between the checkouts stands in `cases.py` with both spellings.
- Files are compared as lines: text as it is, tables by cells, pictures by their bytes, pixels and metadata, models by
  their header and tensors, graphs by their nodes and constants. Arrays are shown with mean and range, which tell how
  large a difference is.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import difflib
import hashlib
import io
import json
import multiprocessing
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cases import CASES, Case
from corpus import make_corpus
from masks import Masks, file_lines, own_digest, printed_lines
from running import Side, digests, load_libraries, prepare, record_of, run_case

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WIDEST = 400
"""Letters of a line that are shown."""


@dataclass
class Result:
    """What one side made of a case: lines of each thing that it printed or wrote, and how long it took."""

    lines: dict[str, list[str]]
    seconds: float


def main() -> int:
    """Run both sides, compare, print; 1 where anything differs."""
    options = _options()
    place = Path(options.keep or tempfile.mkdtemp(prefix="golden-")).resolve()
    try:
        place.mkdir(parents=True, exist_ok=True)
        return _compare(options, place)
    finally:
        if not options.keep:
            shutil.rmtree(place)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True, help="revision of this repository, or folder of a checkout")
    parser.add_argument("--new", default=str(REPOSITORY), help="folder of a checkout [this one]")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases, and those of which they need files")
    parser.add_argument("--keep", help="folder in which all that was written stays, to be used again")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="2: both sides at the same time [2]")
    parser.add_argument("--lines", type=int, default=12, help="lines shown of each difference [12]")
    return parser.parse_args()


def _compare(options: argparse.Namespace, place: Path) -> int:
    cases = _chosen(options.only)
    corpus = place / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    make_corpus(corpus)
    old = _side(options.old, place / "old", corpus)
    new = _side(options.new, place / "new", corpus)
    load_libraries()
    _run_both([(old, [case for case in cases if not _is_kept(old, case)]), (new, cases)], options.jobs)
    return _report(cases, old, new, options.lines)


def _chosen(names: list[str] | None) -> list[Case]:
    """The cases of these names and those that they need, each after what it needs."""
    known = {case.name: case for case in CASES}
    if unknown := set(names or ()) - set(known):
        raise SystemExit(f"no case {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    ordered: dict[str, Case] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for needed in sorted(known[name].needs):
                add(needed)
            ordered[name] = known[name]

    for name in names or known:
        add(name)
    return list(ordered.values())


def _side(given: str, home: Path, corpus: Path) -> Side:
    """The side of a folder, run anew, or of a revision, of which results are kept while all stays the same."""
    if Path(given).is_dir():
        shutil.rmtree(home, ignore_errors=True)
        side = Side(Path(given).resolve(), home)
    else:
        command = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", f"{given}^{{commit}}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise SystemExit(f"{given!r} is neither a folder nor a revision of {REPOSITORY}")
        side = _unpacked(found.stdout.strip(), home, corpus)
    prepare(side, corpus)
    return side


def _unpacked(revision: str, home: Path, corpus: Path) -> Side:
    programs = sorted(Path(__file__).parent.glob("*.py"))
    key = json.dumps([revision, digests(corpus), *(_digest(path) for path in programs if path.stem == "running")])
    kept = home / "key.json"
    if not kept.exists() or kept.read_text() != key:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        packed = subprocess.run(["git", "-C", str(REPOSITORY), "archive", revision], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(home / "checkout", filter="data")
        kept.write_text(key)
    return Side(home / "checkout", home)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_kept(side: Side, case: Case) -> bool:
    path = record_of(side, case)
    return path.exists() and json.loads(path.read_text())["case"] == repr(case)


def _run_both(work: list[tuple[Side, list[Case]]], jobs: int) -> None:
    """Run the sides, each in a process of its own."""
    forks = multiprocessing.get_context("fork")
    processes = [forks.Process(target=_run_side, args=(side, cases)) for side, cases in work]
    for process in processes:
        process.start()
        if jobs == 1:
            process.join()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a side could not be run; see above")


def _run_side(side: Side, cases: list[Case]) -> None:
    for number, case in enumerate(cases, 1):
        run_case(side, case)
        print(f"{side.home.name} {number}/{len(cases)} {case.name}", file=sys.stderr, flush=True)


def _report(cases: list[Case], old: Side, new: Side, most: int) -> int:
    """Print what differs, and a summary; 1 where anything does."""
    written = [_written(side, cases) for side in (old, new)]
    differences = compared = 0
    times = []
    for case in cases:
        before, after = _result(old, case, written[0]), _result(new, case, written[1])
        times.append((case.name, before.seconds, after.seconds))
        for name in dict.fromkeys([*before.lines, *after.lines]):
            compared += 1
            shown = list(_difference(before.lines.get(name), after.lines.get(name)))
            if shown:
                differences += 1
                print(f"\n{case.name}: {name}")
                print("\n".join(f"    {line[:WIDEST]}" for line in shown[:most]))
                if len(shown) > most:
                    print(f"    ... and {len(shown) - most} more lines")
    print("\nseconds: case, old, new")
    for name, one, other in times:
        print(f"    {name:20} {one:6.1f} {other:6.1f}")
    print(f"    {'all':20} {sum(one for _, one, _ in times):6.1f} {sum(other for *_, other in times):6.1f}")
    print(f"{len(cases)} cases, {compared} files and outputs compared, {differences} differ")
    return int(differences > 0)


def _difference(before: list[str] | None, after: list[str] | None) -> Iterator[str]:
    if before is None or after is None:
        yield "only in new" if before is None else "only in old"
    elif before != after:
        for line in difflib.unified_diff(before, after, lineterm="", n=0):
            if not line.startswith(("---", "+++")):
                yield line


def _written(side: Side, cases: list[Case]) -> dict[str, Path]:
    """All files of a side by their digests, and models also by the digests that they hold of themselves."""
    found = {}
    for case in cases:
        for name, digest in digests(side.home / case.name).items():
            path = side.home / case.name / name
            found |= {digest: path, own_digest(path) or digest: path}
    return found


def _result(side: Side, case: Case, written: dict[str, Path]) -> Result:
    record = json.loads(record_of(side, case).read_text())
    outcomes = record["outcomes"]
    folders = {"packages": str(side.packages), "home": str(side.home), "checkout": str(side.checkout)}
    masks = Masks(folders, [one["command"] for one in outcomes if one["respelled"]], written)
    lines = {}
    for number, one in enumerate(outcomes, 1):
        name = f"step {number}: {case.steps[number - 1].spellings[0]}"
        lines[f"{name}: exit code"] = [str(one["code"])]
        lines |= {f"{name}: {stream}": printed_lines(one[stream], masks) for stream in ("stdout", "stderr")}
    folder = side.home / case.name
    given, now = record["given"], digests(folder)
    for path in given.keys() - now.keys():
        lines[path] = ["was removed"]
    for path in now:
        if given.get(path) != now[path]:
            lines[path] = file_lines(folder / path, masks)
    return Result(lines, sum(one["seconds"] for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
