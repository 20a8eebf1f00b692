"""Ranks of methods over problems: Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from gaba.bench.statistics._checks import Floats, scipy_part, table

__all__ = ["Friedman", "cliques", "friedman", "mean_ranks", "nemenyi_critical_difference"]


def mean_ranks(scores: ArrayLike) -> Floats:
    """The mean rank of each of k methods over N problems; 1 is best, equal scores share.

    R_j = 1/N Σ_i r_ij, r_ij the rank of score i, j among the row's k, the lowest score first
    (Demšar 2006, section 3.2.2). An infinite score ranks last.

    Args:
        scores: (N, k), lower is better.

    Returns:
        (k,) mean ranks; they sum to k (k + 1)/2.

    Raises:
        ValueError: not (N, k) with k ≥ 2, or NaN among the scores.

    Example:
        >>> mean_ranks([[0.1, 0.2, 0.3], [0.1, 0.1, 0.3]]).tolist()
        [1.25, 1.75, 3.0]
    """
    return scipy_part("stats").rankdata(table("scores", scores), axis=1).mean(axis=0)


@final
@dataclass(frozen=True)
class Friedman:
    """The outcome of Friedman's test.

    Attributes:
        statistic: χ²_F, corrected for ties.
        p: from the χ² distribution with k − 1 degrees of freedom.
        f: Iman and Davenport's F_F, less conservative.
        f_p: from the F distribution with (k − 1) and (k − 1)(N − 1) degrees of freedom. With few
            problems it is far too small: 0 wherever all problems agree, even two of them.
        permuted_p: the share of random orders within the rows whose statistic is as large; sound
            for any N and k.

    Example:
        >>> friedman([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]).statistic
        4.0
    """

    statistic: float
    p: float
    f: float
    f_p: float
    permuted_p: float


def friedman(scores: ArrayLike, draws: int = 10_000, seed: int = 0) -> Friedman:
    """Friedman's test that k methods have the same mean rank over N problems.

    χ²_F = 12N/(k(k+1)) [Σ_j R_j² − k(k+1)²/4], divided by 1 − Σ(t³ − t)/(N k (k² − 1)) for ties of
    t scores in a row; F_F = (N − 1) χ²_F/(N(k − 1) − χ²_F) (Friedman 1937; Iman & Davenport 1980;
    Demšar 2006, section 3.2.2). Under the null every order within a row is equally probable:
    permuted p = (1 + hits)/(1 + ``draws``), hits the drawn orders with Σ R_j² as large.

    Args:
        scores: (N, k), lower is better; N, k ≥ 2.
        draws: how many times the ranks of all rows are shuffled.
        seed: of the shuffles.

    Returns:
        Statistics and p values; where every row is one tie, statistic 0 and p 1.

    Raises:
        ValueError: not (N, k) with N, k ≥ 2, or NaN among the scores.

    Example:
        >>> rows = [[9.0, 9.5, 5.0], [6.0, 9.0, 1.0], [2.0, 8.0, 4.0], [8.5, 9.2, 6.0]]
        >>> at = friedman(rows)
        >>> at.statistic, round(at.p, 4), round(at.f, 4)
        (6.5, 0.0388, 13.0)
    """
    x = table("scores", scores)
    n, k = x.shape
    if n < 2:
        raise ValueError(
            f"scores must have at least 2 problems, found {n}: test over seeds instead"
        )
    rows = scipy_part("stats").rankdata(x, axis=1)
    ranks = rows.mean(axis=0)
    chi = 12 * n / (k * (k + 1)) * float((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    ties = sum(int((c**3 - c).sum()) for c in (np.unique(r, return_counts=True)[1] for r in x))
    rest = 1 - ties / (n * k * (k**2 - 1))
    if rest == 0:
        return Friedman(0.0, 1.0, 0.0, 1.0, 1.0)
    chi = max(chi / rest, 0.0)
    special, below = scipy_part("special"), n * (k - 1) - chi
    f = (n - 1) * chi / below if below > 1e-9 else math.inf
    f_p = float(special.fdtrc(k - 1, (k - 1) * (n - 1), f)) if math.isfinite(f) else 0.0
    permuted_p = _permuted(rows, draws, seed)
    return Friedman(chi, float(special.chdtrc(k - 1, chi)), f, f_p, permuted_p)


def nemenyi_critical_difference(methods: int, problems: int, alpha: float = 0.05) -> float:
    """How far apart two mean ranks must be to differ: CD = q_α √(k(k + 1)/(6N)).

    q_α is the upper α point of the Studentised range of k values with infinite degrees of freedom,
    divided by √2 (Nemenyi 1963; Demšar 2006, section 3.2.2 and table 5a).

    Args:
        methods: k, at least 2.
        problems: N, at least 1.
        alpha: the chance of any false difference among all pairs, in (0, 1).

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> round(nemenyi_critical_difference(4, 14), 2)
        1.25
    """
    if methods < 2 or problems < 1 or not 0 < alpha < 1:
        raise ValueError(
            "methods must be at least 2, problems at least 1 and alpha in (0, 1), found "
            f"{methods}, {problems} and {alpha}: compare two or more methods"
        )
    q = scipy_part("stats").studentized_range.ppf(1 - alpha, methods, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * problems)))


def cliques(ranks: ArrayLike, critical: float) -> list[tuple[int, ...]]:
    """The largest groups of two or more methods whose mean ranks lie within ``critical``.

    The bars of a critical-difference diagram (Demšar 2006, figure 1a).

    Args:
        ranks: (k,) mean ranks.
        critical: the critical difference, in ranks.

    Returns:
        Groups of positions in ``ranks``, each by ascending rank; none lies inside another.

    Example:
        >>> cliques([1.0, 1.8, 2.5, 4.0], 1.0)
        [(0, 1), (1, 2)]
    """
    values = np.asarray(ranks, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    groups: list[tuple[int, ...]] = []
    reached = 0
    for i, first in enumerate(order):
        end = int(np.searchsorted(values[order], values[first] + critical, side="right"))
        if end - i > 1 and end > reached:
            groups.append(tuple(int(j) for j in order[i:end]))
        reached = max(reached, end)
    return groups


def _permuted(rows: Floats, draws: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    least = (rows.sum(axis=0) ** 2).sum() - 1e-9
    hits = 0
    for start in range(0, draws, 1000):
        shape = (min(1000, draws - start), *rows.shape)
        sums = rng.permuted(np.broadcast_to(rows, shape), axis=-1).sum(axis=1)
        hits += int(((sums**2).sum(axis=-1) >= least).sum())
    return (1 + hits) / (1 + draws)
