"""A tree of clean scans: which clean file belongs to which scan, and what earlier runs left there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from vaeguard.errors import UsageError
from vaeguard.packages import PACKAGES, installed
from vaeguard.restoration.formats.scans import written_name
from vaeguard.restoration.records import clean_store, copy_names
from vaeguard.storage.files import size_and_time, sweep_all, valid_text
from vaeguard.storage.plan import Plan, PlannedPiece

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaeguard.restoration.places import Places
    from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

DENOISE_FORMAT = 8
"""Version of the clean files, raised when the same settings give other pixels or records hold other facts."""


class CleanTree:
    """The clean files of a run.

    Attributes
    ----------
    clean : dict
        From the name of each scan to the name of its clean file below the target.
    owners : dict
        From the name of each scan to the first scan that a file of this name, or a copy of this name, belongs to.
    key : dict
        Everything that the clean files depend on, besides the scans, as JSON holds it.
    """

    def __init__(self, places: Places, settings: RestoreSettings, outputs: DenoiseOutputs, models: list[str]) -> None:
        self.places = places
        self.store = clean_store(places.target)
        self.clean = {name: written_name(name, jpeg=outputs.jpeg) for name in places.names}
        self.owners = self._owners(outputs.derive)
        key = {"format": DENOISE_FORMAT, **asdict(settings), **asdict(outputs), "models": models}
        self.key: dict[str, Any] = json.loads(json.dumps(key))

    def _owners(self, kinds: tuple[str, ...]) -> dict[str, str]:
        places: dict[str, str] = {}
        owners = {}
        for name, clean in self.clean.items():
            own = (clean, *copy_names(clean, kinds).values())
            owners[name] = next((places[place] for place in own if place in places), name)
            if owners[name] == name:
                places |= dict.fromkeys(own, name)
        return owners

    def plan(self, facts: Mapping[str, Any]) -> Plan:
        """The plan of the run, with one piece for each scan; `facts` are what else gathering must know."""
        versions = installed(PACKAGES)
        settings = json.dumps([self.key, versions])
        pieces = []
        for name in self.clean:
            stamp = json.dumps([settings, name, *size_and_time(str(self.places.root / name))])
            key = hashlib.sha256(stamp.encode()).hexdigest()[:40]
            pieces.append(PlannedPiece(key, repr(valid_text(name)), 1))
        common = {
            "version": versions.get("vaeguard", ""),
            "models": self.key["models"],
            "settings": {name: value for name, value in self.key.items() if name != "models"},
            "software": versions,
        }
        own = {name: getattr(self.places, name) for name in ("names", "skipped", "whole")}
        others = [list(pair) for pair in self.places.others]
        return Plan("scans", tuple(pieces), common, {"root": str(self.places.root), **own, "others": others, **facts})

    def check_kept(self) -> None:
        """Refuse settings with which the run would remove what an earlier one wrote beside the clean files.

        Raises
        ------
        UsageError
            An earlier clean file of one of the scans has a residual, a picture of its uncertainty or a copy that these
            settings do not ask for.
        """
        for part in self.store.parts():
            wrote, source = part.record["settings"], part.record.get("source")
            if source not in self.clean or not isinstance(wrote, dict):
                continue
            lost = {f"`{name}`" for name in ("residual", "uncertainty") if wrote.get(name) and not self.key[name]}
            lost |= {f"`derive={kind}`" for kind in wrote.get("derive", ()) if kind not in self.key["derive"]}
            if lost:
                settings = " and ".join(sorted(lost))
                raise UsageError(
                    f"an earlier run with {settings} wrote files next to {str(part.path)!r} that this run would remove;"
                    f" to keep them, use {settings} again, or choose a different `output`"
                )

    def sweep(self) -> None:
        """Remove the unfinished files of killed runs, including runs with other settings."""
        sweep_all(self.places.target)

    def settle(self) -> tuple[list[str], list[str]]:
        """Remove the clean files that other settings wrote for these scans under other names.

        Returns the clean files whose scans are gone, which are known only if the run covers a whole folder; and the
        clean files under other names that somebody changed. Both are kept.
        """
        gone, stale = [], []
        for other in self.store.parts(without=set(self.clean.values())):
            source = str(other.record.get("source"))
            if source in self.clean:
                # Until the clean file exists under its new name, the one under the old name is the only copy.
                current = self.store.part(self.clean[source])
                if current.record and current.path.exists() and not other.remove():
                    stale.append(repr(str(other.path)))
            # A folder that cannot be read is listed like a scan, and its scans may still exist.
            elif other.path.exists() and self.places.whole and self.clean.keys().isdisjoint(_parents(source)):
                gone.append(repr(str(other.path)))
        return gone, stale

    def finished_before(self) -> Iterator[dict[str, Any]]:
        """The records of the other scans that earlier runs finished, if this run does not cover a whole folder."""
        for other in () if self.places.whole else self.store.parts(without=set(self.clean.values())):
            same_format = other.record["settings"].get("format") == DENOISE_FORMAT
            if same_format and other.record.get("source") not in self.clean and other.path.exists():
                yield other.record


def _parents(source: str) -> Iterator[str]:
    """The folders that hold a scan."""
    return map(str, PurePath(source).parents)
