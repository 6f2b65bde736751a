"""The plan of a job that several processes share: its pieces, and what else a process must know that joins them.

It lies beside the finished parts. The process that comes first writes it; the others compare it with their own. A part
counts if it is one of the plan, and what else lies there is ignored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaeguard.errors import UsageError, as_objects
from vaeguard.wording import brief, counted, some

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from vaeguard.storage.store import Store

NAME = "plan"
FORMAT = 1
"""Raised when the same plan means other parts than before."""
FACTS = ("plan", "pieces", "settings", "facts")


@dataclass(frozen=True)
class PlannedPiece:
    """A piece of a job: the key of its part, what people call it, and the number of its inputs."""

    key: str
    name: str
    count: int


@dataclass(frozen=True)
class Share:
    """The share `number` of `of`, from 1: every `of`-th piece of a plan, so that shares are alike.

    Raises
    ------
    UsageError
        There is no such share.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(
                f"`piece` is {self.number}/{self.of}; the first of {self.of} shares is 1/{self.of}, and the last is"
                f" {self.of}/{self.of}"
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that `3/8` names.

        Raises
        ------
        UsageError
            The text names no share.
        """
        number, _, of = text.partition("/")
        if not (number.isascii() and number.isdigit() and of.isascii() and of.isdigit() and int(of)):
            raise UsageError(f"`piece` is {text!r}; write it as 3/8, for example, for the third of eight shares")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def among(self, count: int) -> range:
        """The numbers of its pieces among `count` pieces."""
        return range(self.number - 1, count, self.of)


@dataclass(frozen=True)
class ShareSummary:
    """What one process did for its share of a job.

    Attributes
    ----------
    share : str
        The share, such as `3/8`.
    inputs : int
        Images or scans of the share.
    errors : tuple of (path, reason)
        Those of them that were left out, mostly because they could not be read.
    resumed : int
        Inputs whose parts were finished before.
    parts, finished : int
        Parts of the whole job, and how many of them are finished now.
    output : str
        What the job makes.
    seconds : float
        Wall time.
    """

    share: str
    inputs: int
    errors: tuple[tuple[str, str], ...]
    resumed: int
    parts: int
    finished: int
    output: str
    seconds: float

    __repr__ = brief

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        return {**vars(self), "errors": as_objects(self.errors)}


@dataclass(frozen=True)
class Plan:
    """The pieces of a job.

    Attributes
    ----------
    kind : str
        What the job makes: `scores` or `scans`.
    pieces : tuple of PlannedPiece
        The pieces, in the order in which their parts are joined.
    settings : dict
        What all processes must have in common, by the word that a message has for it, as values that JSON can hold.
    facts : dict
        What else the process needs that joins the parts; processes may differ in it.
    """

    kind: str
    pieces: tuple[PlannedPiece, ...]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Text that differs whenever a piece does."""
        return hashlib.sha256("".join(piece.key for piece in self.pieces).encode()).hexdigest()

    @property
    def count(self) -> int:
        """The number of inputs."""
        return sum(piece.count for piece in self.pieces)

    def enter(self, store: Store) -> None:
        """Write the plan into the store of a job, unless another process wrote the same one before.

        Raises
        ------
        UsageError
            The store has another plan.
        """
        pieces = [[*vars(piece).values()] for piece in self.pieces]
        record = {"written": {}, "plan": FORMAT, **vars(self), "pieces": pieces}
        there = _plan_of(_store(store).claim(NAME, record))
        if there is None or (difference := there.difference(self)):
            what = f": {difference}" if there else " of a different version of vaeguard"
            raise UsageError(
                f"{str(store.folder)!r} contains the plan of a different job{what}; finish that job, delete this"
                " folder, or choose a different output"
            )

    def difference(self, own: Plan) -> str:
        """What differs between this plan, which is there, and the `own` one; empty if they are the same."""
        for name, value in _flat(own.settings).items():
            if (there := _flat(self.settings).get(name)) != value:
                return f"its {name} is {_short(there)}, but here it is {_short(value)}"
        if (self.count, len(self.pieces)) != (own.count, len(own.pieces)):
            return f"it has {counted(self.count, 'input')}, but here there are {own.count:,}"
        for there, here in zip(self.pieces, own.pieces, strict=True):
            if there.key != here.key:
                return f"inputs in {there.name} have changed"
        return ""

    def missing(self, finished: Collection[str]) -> str:
        """What to say of the pieces whose keys are not among `finished`; empty if all are."""
        names = [piece.name for piece in self.pieces if piece.key not in finished]
        if not names:
            return ""
        verb = "is" if len(names) == 1 else "are"
        return f"{len(names):,} of {counted(len(self.pieces), 'part')} {verb} missing: {some(names)}"


def read_plan(store: Store) -> Plan | None:
    """The plan of the job whose store this is; None if there is none of this version."""
    return _plan_of(_store(store).part(NAME).record)


def finished_parts(store: Store, plan: Plan) -> int:
    """The number of parts of a plan whose manifests are there."""
    manifests = {path.name for path in store.folder.glob("*.json")}  # one listing, since a plan may have 100,000 pieces
    return sum(f"{piece.key}.json" in manifests for piece in plan.pieces)


def drop_other_plan(store: Store, plan: Plan) -> None:
    """Remove the plan of a different job, whose place this one takes."""
    part = _store(store).part(NAME)
    if part.record and ((there := _plan_of(part.record)) is None or there.difference(plan)):
        part.remove()


def _store(store: Store) -> Store:
    return type(store)(store.folder, FACTS)


def _plan_of(record: Mapping[str, Any]) -> Plan | None:
    if record.get("plan") != FORMAT:
        return None
    pieces = tuple(PlannedPiece(*piece) for piece in record["pieces"])
    return Plan(record["kind"], pieces, record["settings"], record["facts"])


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of settings in one table, by the last word of their names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")
