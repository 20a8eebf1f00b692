"""Tests of paired differences that assume nothing but symmetry, and the correction for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from gaba.bench.statistics._checks import Floats, scipy_part, vector

__all__ = ["blocked_sign_flip", "holm", "sign_flip", "smallest_p", "wilcoxon"]

EXACT = 16
"""Up to so many signs all 2ⁿ patterns are gone through; beyond, they are drawn."""


def sign_flip(differences: ArrayLike, draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided paired permutation test of mean difference 0: the p value.

    If the two methods are exchangeable at each seed, every pattern of signs sᵢ = ±1 is equally
    probable: p = share of the patterns with |Σ sᵢ dᵢ| ≥ |Σ dᵢ| (Fisher 1935). All 2ⁿ patterns are
    counted for n ≤ 16; beyond, ``draws`` of them, and p = (1 + hits)/(1 + draws) (Phipson &
    Smyth 2010). No p below :func:`smallest_p` of n can come out.

    Args:
        differences: (n,) paired differences, one a seed.
        draws: patterns drawn for n > 16.
        seed: of the draws.

    Raises:
        ValueError: ``differences`` is no vector of finite numbers.

    Example:
        >>> sign_flip([1.0, 2.0, 3.0, 4.0, 5.0])
        0.0625
        >>> sign_flip([1.0, -1.0])
        1.0
    """
    return _flipped(vector("differences", differences), draws, seed)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n pairs can reach by signs: 2/2ⁿ.

    With n = 5 it is 0.0625: five seeds alone can never show a difference at the 5 % level.

    Args:
        n: pairs, at least 1.

    Raises:
        ValueError: n is below 1.

    Example:
        >>> [smallest_p(n) for n in (1, 5, 6, 10)]
        [1.0, 0.0625, 0.03125, 0.001953125]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}: pair the runs of two methods by seed")
    return 2.0 ** (1 - n)


def wilcoxon(differences: ArrayLike, draws: int = 20_000, seed: int = 0) -> float:
    """Wilcoxon's signed-rank test, two-sided: the sign-flip test of the signed ranks.

    dᵢ is replaced by sign(dᵢ) · rank(|dᵢ|), ranks among the differences that are not 0, equal ones
    sharing their mean rank; then as :func:`sign_flip`, so that it is exact with ties as well
    (Wilcoxon 1945; zeros are left out, as he did). All zero: 1.

    Args:
        differences: (n,) paired differences, one a seed.
        draws: patterns drawn for more than 16 that are not 0.
        seed: of the draws.

    Raises:
        ValueError: ``differences`` is no vector of finite numbers.

    Example:
        >>> wilcoxon([0.3, 0.1, 0.2, 9.0, -0.4])
        0.4375
    """
    d = vector("differences", differences)
    d = d[d != 0]
    if not d.size:
        return 1.0
    return _flipped(np.sign(d) * scipy_part("stats").rankdata(np.abs(d)), draws, seed)


def blocked_sign_flip(
    blocks: Sequence[ArrayLike],
    flip: Literal["pair", "block"] = "pair",
    draws: int = 20_000,
    seed: int = 0,
) -> float:
    """Pooled two-sided test over problems: every problem counts the same, whatever its seeds.

    The statistic is T = mean over the problems b of d̄_b, the mean of its n_b differences. Under
    ``flip="pair"`` each difference keeps or changes its sign by itself: the null hypothesis is
    that the methods are exchangeable at every seed of *these* problems. Under ``flip="block"`` all
    differences of a problem change together: the null is that a *further* problem would favour
    either method equally; its smallest p is 2/2^(number of problems). p as in :func:`sign_flip`.

    Args:
        blocks: a vector (n_b,) of paired differences a problem, dimensionless (relative), since
            they are averaged over problems.
        flip: "pair" or "block".
        draws: patterns drawn where there are more than 16 signs.
        seed: of the draws.

    Raises:
        ValueError: no block, or one that is no vector of finite numbers.

    Example:
        >>> blocked_sign_flip([[1.0, 2.0, 1.0], [0.5, 0.1, 0.3]]) == 2 / 2**6
        True
        >>> blocked_sign_flip([[1.0, 2.0, 1.0], [0.5, 0.1, 0.3]], flip="block")
        0.5
    """
    if not len(blocks):
        raise ValueError("blocks must be at least one, found none: give a vector a problem")
    parts = [vector("blocks", block) for block in blocks]
    if flip == "block":
        return _flipped(np.array([part.mean() for part in parts]), draws, seed)
    return _flipped(np.concatenate([part / len(part) for part in parts]), draws, seed)


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down correction of m p values for testing them together.

    In ascending order p₍₁₎ ≤ … ≤ p₍ₘ₎: adjusted p₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎)
    (Holm 1979). Rejecting what is adjusted below α keeps the chance of any false finding below α.

    Args:
        p: (m,) p values; NaN (a test that could not be made) is not counted and stays NaN.

    Returns:
        (m,) adjusted p values, in the order given.

    Raises:
        ValueError: a value lies outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"p must lie in [0, 1], found {values.tolist()}: give p values")
    adjusted = np.full(values.shape, math.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return adjusted


def _flipped(d: Floats, draws: int, seed: int) -> float:
    """The p of |Σ d| among |Σ ±d|; a hair of tolerance, so that rounding breaks no tie."""
    d = d[d != 0]  # a 0 changes no sum: leaving it out leaves p as it is
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) <= EXACT:
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate((sums + value, sums - value))
        return float((np.abs(sums) >= least).mean())
    signs = np.random.default_rng(seed).integers(0, 2, size=(draws, len(d))) * 2.0 - 1
    return float((1 + (np.abs(signs @ d) >= least).sum()) / (1 + draws))
