"""A conformal test martingale: whether a stream of values still comes as its reference did, watched without end.

Each value is ranked among the reference and all values before it, and ties are broken at random (Vovk, Gammerman and
Shafer, "Algorithmic learning in a random world", 2nd edition, 2022, chapter 8). If all values are exchangeable, these
ranks are independent and uniform, however small the reference is. Ranks among the reference alone would not be: what
is rare in a reference of a hundred images is found to be common in a stream of a hundred thousand.

The ranks are bet against. A bet multiplies its capital by a density on [0, 1], so that the total capital is a
martingale of mean 1, and it ever reaches 1 / c with a chance of at most c (Ville, 1939). Capital enters the bets a
little at each step, so that a change after a hundred thousand values is found nearly as soon as an early one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

POWERS = (0.1, 0.3, 0.6)
"""Exponents k of the bets k p^(k-1) on low ranks, and on high ones; a small one wins on gross changes."""
BINS = 16
"""Bins of the bet on the latest ranks, which finds changes that leave the mean as it was."""
MEMORY = 0.98
"""What a rank weighs in that bet one step later."""
BETS = 2 * len(POWERS) + 1
BELOW_1 = math.nextafter(1, 0)


@dataclass(frozen=True)
class Change:
    """A stream that changed.

    Attributes
    ----------
    since : int
        The number of values before the change, an estimate (the start of the best bet, as by CUSUM).
    before, after : float
        Means of the values before the change, the reference included, and after it.
    """

    since: int
    before: float
    after: float


@dataclass
class _Bet:
    """The capital of one bet, and the start of its best run: the product since then, and the sum of the values."""

    capital: float = 0.0
    product: float = 1.0
    start: int = 0
    total: float = 0.0


@dataclass
class Martingale:
    """The bets against one stream.

    After a change is found, all begins anew with half of the remaining chance: the values from there on are the
    reference of the next change, and the chance of any false alarm stays below `chance`.

    Attributes
    ----------
    chance : float
        The chance of ever telling of a change if there is none, in (0, 1).
    cells : int
        Values are told apart by their cells, which are numbered from 0.
    """

    chance: float
    cells: int
    steps: int = 0
    """Number of values so far."""
    begun: int = 0
    """Number of values before these bets began."""
    stage: int = 0
    ranked: int = 0
    """Number of values since then, with the reference."""
    total: float = 0.0
    """The sum of these values."""
    counts: Any = None
    latest: list[float] = field(default_factory=lambda: [0.0] * BINS)
    bets: list[_Bet] = field(default_factory=lambda: [_Bet() for _ in range(BETS)])

    def __post_init__(self) -> None:
        if self.counts is None:
            self.counts = np.zeros(self.cells, np.int64)

    def refer_to(self, cells: Iterable[int], values: Iterable[float]) -> None:
        """Begin with a reference: the cells of its values, and the values."""
        np.add.at(self.counts, np.fromiter(cells, np.int64), 1)
        self.ranked = int(self.counts.sum())
        self.total += math.fsum(values)

    @property
    def capital(self) -> float:
        """The capital, 1 at the start."""
        return self._reserve + math.fsum(bet.capital for bet in self.bets)

    @property
    def _reserve(self) -> float:
        """The capital that has not entered a bet yet; it never ends, so that no later change is missed."""
        return 1 / math.log2(self.steps - self.begun + 2)

    def add(self, cell: int, value: float, tie: float) -> Change | None:
        """Take the next value, and return the change that it proves, if any.

        Parameters
        ----------
        cell : int
            The cell of the value, by which it is ranked.
        value : float
            The value, for the means.
        tie : float
            A random number in (0, 1), which breaks ties.
        """
        self.ranked += 1
        rank = (int(self.counts[cell + 1 :].sum()) + tie * (int(self.counts[cell]) + 1)) / self.ranked
        self.counts[cell] += 1
        self.total += value
        reserve = self._reserve
        self.steps += 1
        self._bet(min(rank, BELOW_1), value, (reserve - self._reserve) / BETS)
        # The first stage has half of the chance, the second a quarter, and so on.
        if self.capital * self.chance < 2.0 ** (self.stage + 1):
            return None
        change = self._change()
        self._begin_anew()
        return change

    def _bet(self, rank: float, value: float, fresh: float) -> None:
        """Multiply every bet by its density at `rank`; each one gets `fresh` capital first."""
        place = int(rank * BINS)
        densities = [power * rank ** (power - 1) for power in POWERS]
        densities += [power * (1 - rank) ** (power - 1) for power in POWERS]
        densities.append(BINS * (1 + self.latest[place]) / (BINS + sum(self.latest)))
        for bet, density in zip(self.bets, densities, strict=True):
            bet.capital = (bet.capital + fresh) * density
            if bet.product <= 1:
                bet.product, bet.start, bet.total = 1.0, self.steps - 1, 0.0
            bet.product *= density
            bet.total += value
        self.latest = [MEMORY * count for count in self.latest]
        self.latest[place] += 1

    def _change(self) -> Change:
        best = max(self.bets, key=lambda bet: bet.product)
        after = self.steps - best.start
        before = self.ranked - after
        mean = best.total / after
        return Change(best.start, (self.total - best.total) / before if before else mean, mean)

    def _begin_anew(self) -> None:
        self.__init__(self.chance, self.cells, self.steps, self.steps, self.stage + 1)  # type: ignore[misc]

    def state(self) -> dict[str, Any]:
        """All of it but the chance, as values that JSON can hold."""
        held = np.flatnonzero(self.counts).tolist()
        numbers = {name: getattr(self, name) for name in ("steps", "begun", "stage", "ranked", "total")}
        counts = [[cell, int(self.counts[cell])] for cell in held]
        return {
            **numbers,
            "counts": counts,
            "latest": self.latest,
            "bets": [[*vars(bet).values()] for bet in self.bets],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name in ("steps", "begun", "stage", "ranked", "total", "latest"):
            setattr(self, name, state[name])
        self.counts = np.zeros(self.cells, np.int64)
        for cell, count in state["counts"]:
            self.counts[cell] = count
        self.bets = [_Bet(*values) for values in state["bets"]]
