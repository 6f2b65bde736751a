"""A tree of scans in several processes: what each scan came to lies in the store of the job, for the one that joins."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from vaeguard.restoration.work import Restored
from vaeguard.storage.files import drop_open

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vaeguard.restoration.tree import CleanTree
    from vaeguard.restoration.work import Work
    from vaeguard.storage.plan import Plan
    from vaeguard.storage.store import Store

SCAN_FACTS = ("scan", "reason")
"""Keys of the manifest of a part: the scan, and why it was left out, or None."""
WAITING = 64
"""Files per worker that may be finished while an earlier, longer file is still in progress."""


class SpreadScans(Protocol):
    """What has other processes restore the scans of a job."""

    def __call__(self, work: Work, store: Store, missing: Sequence[tuple[str, str]]) -> Iterable[str]:
        """Have the missing scans, each given with the key of its part, restored into the store; yield keys as they end.

        Each process does as `restore_into` does.
        """


def restore_into(work: Work, store: Store, keys: Mapping[str, str]) -> Iterator[tuple[str, Restored | str]]:
    """Restore the scans of `work`, write a part for each under its key, and yield its name and result, in order.

    The result is the reason for which the scan is left out, if it is.
    """
    with contextlib.closing(work.map(work.restore, WAITING)) as results:
        try:
            for name, result in zip(work.names, results, strict=True):
                _write_part(store, keys[name], name, result)
                yield name, result
        except BaseException:
            results.close()
            # A thread inside a library call ends only with the process, and cannot clean up.
            drop_open(work.places.target)
            raise


def spread_scans(work: Work, store: Store, plan: Plan, spread: SpreadScans) -> Iterator[Restored | str]:
    """The results of all scans, in the order of their names, as `work.map` gives them; others do the work."""
    keys = {name: piece.key for name, piece in zip(work.clean, plan.pieces, strict=True)}
    done = {name for name, key in keys.items() if finished_scan(work, store, key, name)}
    for name in done:
        work.meter.tick(name, 1.0)
    names = {key: name for name, key in keys.items()}
    for key in spread(work, store, [(name, key) for name, key in keys.items() if name not in done]):
        work.meter.tick(names[key], 1.0)
    for name, key in keys.items():
        yield result_of(work, name, store.part(key).record, resumed=name in done)


def finished_scan(tree: CleanTree, store: Store, key: str, name: str) -> bool:
    """Whether the part `key` is there and its clean file too; a scan that was left out is tried again."""
    record = store.part(key).record
    clean = tree.store.part(tree.clean[name])
    same = clean.record.get("settings") == tree.key and clean.path.exists()
    return bool(record) and record["reason"] is None and same


def result_of(tree: CleanTree, name: str, record: Mapping[str, Any], *, resumed: bool = True) -> Restored | str:
    """The result for a scan, from the record of its part."""
    if record["reason"] is not None:
        return str(record["reason"])
    return Restored(
        name=name,
        place=tree.places.target / tree.clean[name],
        pages=record["pages"],
        left=[(page, kind) for page, kind in record["left"]],
        bytes=(record["bytes"][0], record["bytes"][1]),
        pixels=0 if resumed else record["pixels"],
        resumed=resumed or record["resumed"],
        edited=record["edited"],
    )


def _write_part(store: Store, key: str, name: str, result: Restored | str) -> None:
    facts: dict[str, Any] = {"scan": name, "reason": result if isinstance(result, str) else None}
    if not isinstance(result, str):
        facts |= {
            "pages": result.pages,
            "left": [list(picture) for picture in result.left],
            "bytes": list(result.bytes),
            "pixels": result.pixels,
            "resumed": result.resumed,
            "edited": result.edited,
        }
    with store.put(key) as part:
        part.finish({"written": {}, **facts})
