"""Pairs of methods: paired differences by seed, their tests and intervals, corrected for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from gaba.bench import statistics as stats
from gaba.bench.report._runs import Block, marked


@final
@dataclass(frozen=True)
class Pair:
    """Two methods on one block. Differences are first − second: below 0 the first is better.

    ``relative`` is divided by the mean of all qualities of the pair, which no exchange of the two
    changes: between −2 and 2, and near the relative change where that is small.
    """

    block: Block
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    holm: float = math.nan

    @property
    def n(self) -> int:
        return len(self.first)

    @property
    def differences(self) -> NDArray[np.float64]:
        return self.first - self.second

    @cached_property
    def relative(self) -> NDArray[np.float64]:
        middle = float(np.abs(np.concatenate((self.first, self.second))).mean())
        return self.differences / middle if middle else self.differences

    @cached_property
    def p(self) -> float:
        return stats.sign_flip(self.differences)

    @cached_property
    def wilcoxon(self) -> float:
        return stats.wilcoxon(self.differences)

    @cached_property
    def interval(self) -> stats.Interval:
        """The t interval of the relative difference."""
        return stats.t_interval(self.relative)

    @property
    def margin(self) -> float:
        """Half the standard deviation over the seeds, pooled over the two methods."""
        if self.n < 2:
            return math.nan
        return 0.5 * math.sqrt((self.first.var(ddof=1) + self.second.var(ddof=1)) / 2)

    @cached_property
    def equivalence(self) -> float:
        """The p value of being the same within the margin; NaN if the seeds do not differ."""
        return stats.equivalence(self.differences, self.margin) if self.margin > 0 else math.nan


@final
@dataclass(frozen=True)
class Comparison:
    """Two methods over problems, with one optimizer. ``p`` is of all pairs, corrected in ``holm``.

    ``p_problems`` changes the sign of whole problems: it speaks of further problems like these.
    """

    first: str
    second: str
    optimizer: str
    pairs: tuple[Pair, ...]
    holm: float = math.nan

    @cached_property
    def p(self) -> float:
        return stats.blocked_sign_flip([pair.relative for pair in self.pairs])

    @cached_property
    def p_problems(self) -> float:
        return stats.blocked_sign_flip([pair.relative for pair in self.pairs], flip="block")

    @property
    def least(self) -> float:
        """The smallest p that so many pairs can reach."""
        return stats.smallest_p(sum(pair.n for pair in self.pairs))

    @cached_property
    def interval(self) -> stats.Interval:
        """Of the mean relative difference in these very problems, from the spread over seeds."""
        if any(pair.n < 2 for pair in self.pairs):
            return stats.t_interval([self.mean])
        return stats.stratified_interval([pair.relative for pair in self.pairs])

    @cached_property
    def across(self) -> stats.Interval:
        """Of the same mean, from the spread over problems."""
        return stats.t_interval([float(pair.relative.mean()) for pair in self.pairs])

    @property
    def mean(self) -> float:
        return float(np.mean([pair.relative.mean() for pair in self.pairs]))

    @property
    def wins(self) -> tuple[int, int]:
        """In how many problems the first, and the second, has the better mean."""
        means = [pair.differences.mean() for pair in self.pairs]
        return sum(m < 0 for m in means), sum(m > 0 for m in means)

    @property
    def title(self) -> str:
        return f"{self.first_label} against {self.label(self.second)}"

    @property
    def first_label(self) -> str:
        return self.label(self.first)

    def label(self, method: str) -> str:
        """Its name, marked where its runs are no longer than its warm-up."""
        return marked(method, [pair.block for pair in self.pairs])

    def only_warms_up(self, pair: Pair) -> bool:
        """Whether one of the two gave equal weights throughout by definition."""
        return any(pair.block.only_warms_up(method) for method in (self.first, self.second))


@final
@dataclass(frozen=True)
class Family:
    """Comparisons that are tested, and corrected, together."""

    title: str
    question: str
    comparisons: tuple[Comparison, ...]


def compare(blocks: Sequence[Block], first: str, second: str) -> list[Pair]:
    """The pairs of the blocks that have both methods at a common seed."""
    pairs: list[Pair] = []
    for block in blocks:
        a, b = block.qualities(first), block.qualities(second)
        if seeds := sorted(set(a) & set(b)):
            mine, theirs = (np.array([q[s] for s in seeds]) for q in (a, b))
            pairs.append(Pair(block, mine, theirs))
    return pairs


def family(
    title: str, question: str, blocks: Sequence[Block], wanted: Sequence[tuple[str, str]]
) -> Family | None:
    """The comparisons asked for, one for each optimizer; p values corrected over all of them."""
    found: list[Comparison] = []
    for optimizer in dict.fromkeys(block.optimizer for block in blocks):
        here = [block for block in blocks if block.optimizer == optimizer]
        for first, second in wanted:
            if pairs := compare(here, first, second):
                found.append(Comparison(first, second, optimizer, tuple(pairs)))
    return Family(title, question, _corrected(found)) if found else None


def _corrected(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    pooled = [float(p) for p in stats.holm([comparison.p for comparison in found])]
    single = iter(float(p) for p in stats.holm([pair.p for c in found for pair in c.pairs]))
    return tuple(
        replace(
            comparison,
            holm=p,
            pairs=tuple(replace(pair, holm=next(single)) for pair in comparison.pairs),
        )
        for comparison, p in zip(found, pooled, strict=True)
    )
