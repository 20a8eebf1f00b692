"""Statistics of paired comparisons over seeds and problems: intervals, tests, ranks, Δm.

SciPy, statsmodels and scikit-posthocs compute; here is what they leave open: the conventions of a
benchmark, and what they lack (an interval from the spread inside several blocks, Δm, fronts). All
functions take plain arrays. Lower is better. Everything random is seeded. All raise ValueError for
values that are not finite numbers, for too few of them, and for a setting outside its range; the
message says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaba.extras import library

__all__ = [
    "Interval",
    "blocked_sign_flip",
    "bootstrap_interval",
    "equivalence",
    "friedman",
    "holm",
    "mean_ranks",
    "nemenyi",
    "nemenyi_critical_difference",
    "pareto_front",
    "relative_change",
    "sign_flip",
    "smallest_p",
    "stratified_interval",
    "t_interval",
    "wilcoxon",
]

Floats = NDArray[np.float64]
DRAWS = 50_000
"""So many sign patterns are drawn where there are more; up to 15 pairs all are counted."""
RESAMPLES = 10_000


def _part(name: str) -> Any:
    return library(name, "the statistics of the benchmark need", "bench")


# ---- intervals ----------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Interval:
    """An estimate of a mean and the interval around it; the ends are NaN for a single value.

    Example:
        >>> 0 in Interval(1.0, 0.5, 1.5), 1.2 in Interval(1.0, 0.5, 1.5)
        (False, True)
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of n values and its BCa bootstrap interval (Efron 1987), by SciPy.

    With n = 5 it is too narrow: on normal data it holds the mean in about 83 % of the cases, not
    95 %. :func:`t_interval` holds it in 95 %.

    Example:
        >>> at = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> at.estimate, 1 < at.low < 3 < at.high < 5
        (3.0, True)
    """
    x, level = _vector("values", values), _level(level)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean)
    if np.ptp(x) == 0:
        return Interval(mean, mean, mean)
    found = _part("scipy.stats").bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, confidence_level=level, method="BCa", rng=seed
    )
    return Interval(mean, *map(float, found.confidence_interval))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of n values and Student's t interval: exact for independent normal values.

    Example:
        >>> at = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(at.low, 3), round(at.high, 3)
        (1.037, 4.963)
    """
    x, level = _vector("values", values), _level(level)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean)
    if np.ptp(x) == 0:
        return Interval(mean, mean, mean)
    found = _part("scipy.stats").ttest_1samp(x, 0).confidence_interval(level)
    return Interval(mean, *map(float, found))


def stratified_interval(blocks: Sequence[ArrayLike], level: float = 0.95) -> Interval:
    """The mean over blocks of the blocks' means, from the spread inside the blocks alone.

    With B blocks of n_b values, means m_b and v_b = s_b²/n_b: Σ m_b/B ± t(ν) √(Σ v_b)/B, where
    ν = (Σ v_b)²/Σ(v_b²/(n_b − 1)) (Welch 1947; Satterthwaite 1946). It speaks of these blocks;
    :func:`t_interval` of the m_b speaks of further ones.

    Example:
        >>> at = stratified_interval([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
        >>> at.estimate, round(at.high - at.estimate, 3)
        (4.0, 1.133)
    """
    parts, level = [_vector("blocks", b, least=2) for b in _some(blocks)], _level(level)
    n = np.array([len(part) for part in parts])
    spread = np.array([part.var(ddof=1) for part in parts]) / n
    mean = float(np.mean([part.mean() for part in parts]))
    if not spread.any():
        return Interval(mean, mean, mean)
    relative = spread / spread.max()  # no square of a small variance underflows
    freedom = relative.sum() ** 2 / (relative**2 / (n - 1)).sum()
    error = math.sqrt(spread.sum()) / len(parts)
    return Interval(mean, *map(float, _part("scipy.stats").t(freedom, mean, error).interval(level)))


# ---- tests of paired differences ----------------------------------------------------------------


def sign_flip(differences: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """The two-sided p value of the paired permutation test of mean difference 0, by SciPy.

    It flips the signs of the differences (n,): all 2ⁿ patterns if these are at most ``draws``,
    else ``draws`` random ones. No p below :func:`smallest_p` of n can come out.

    Example:
        >>> sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]), sign_flip([1.0, -1.0])
        (0.0625, 1.0)
    """
    d = _vector("differences", differences)
    d = d[d != 0]  # a 0 changes no sum
    if len(d) < 2:
        return 1.0
    found = _part("scipy.stats").permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=draws, batch=4096, rng=seed
    )
    return float(found.pvalue)


def blocked_sign_flip(
    blocks: Sequence[ArrayLike],
    flip: Literal["pair", "block"] = "pair",
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """The pooled test over problems: every problem counts the same, whatever its seeds.

    The statistic is the mean over the problems of the mean of their differences. ``"pair"`` flips
    each difference by itself: no difference at any seed of *these* problems. ``"block"`` flips all
    differences of a problem together: no difference on *further* problems.

    Example:
        >>> blocked_sign_flip([[1.0, 2.0, 1.0], [0.5, 0.1, 0.3]]) == smallest_p(6)
        True
        >>> blocked_sign_flip([[1.0, 2.0, 1.0], [0.5, 0.1, 0.3]], flip="block") == smallest_p(2)
        True
    """
    parts = [_vector("blocks", block) for block in _some(blocks)]
    if flip == "block":
        return sign_flip([part.mean() for part in parts], draws, seed)
    return sign_flip(np.concatenate([part / len(part) for part in parts]), draws, seed)


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n pairs can reach by signs: 2/2ⁿ.

    With n = 5 it is 0.0625: five seeds alone never show a difference at the 5 % level.

    Example:
        >>> [smallest_p(n) for n in (1, 5, 6)]
        [1.0, 0.0625, 0.03125]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}: pair the runs of two methods by seed")
    return 2.0 ** (1 - n)


def wilcoxon(differences: ArrayLike) -> float:
    """The two-sided p value of Wilcoxon's signed-rank test, by SciPy; zeros are left out.

    It is exact, with ties up to 13 differences; beyond, ties make it a normal approximation.

    Example:
        >>> wilcoxon([0.3, 0.1, 0.2, 9.0, -0.4])
        0.4375
    """
    d = _vector("differences", differences)
    d = d[d != 0]
    return float(_part("scipy.stats").wilcoxon(d).pvalue) if len(d) > 1 else 1.0


def equivalence(differences: ArrayLike, margin: float) -> float:
    """The p value of two one-sided t tests of |mean difference| < ``margin``, by statsmodels.

    It is below α exactly where the (1 − 2α) t interval lies inside (−margin, margin). That shows
    equivalence; a difference that is *not significant* does not.

    Example:
        >>> equivalence([0.1, -0.1, 0.05, -0.05, 0.0], margin=0.5) < 0.05
        True
        >>> equivalence([1.0, -1.0, 0.5, -0.5, 0.0], margin=0.5) < 0.05
        False
    """
    d = _vector("differences", differences, least=2)
    if not margin > 0:
        raise ValueError(f"margin must be above 0, found {margin}: say what does not matter")
    if np.ptp(d) == 0:
        return 0.0 if abs(d[0]) < margin else 1.0
    described = _part("statsmodels.stats.weightstats").DescrStatsW(d)
    return float(described.ttost_mean(-margin, margin)[0])


def holm(p: ArrayLike) -> Floats:
    """Holm's correction of m p values that are tested together.

    NaN is a test that could not be made: it does not count, and stays NaN.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"p must lie in [0, 1], found {values.tolist()}: give p values")
    adjusted, known = np.full(values.shape, math.nan), ~np.isnan(values)
    # Not by statsmodels: its multipletests collects the garbage of the whole program in each call.
    order = np.argsort(values[known])
    times = np.arange(len(order), 0, -1) * values[known][order]
    adjusted[np.flatnonzero(known)[order]] = np.minimum(np.maximum.accumulate(times), 1)
    return adjusted


# ---- ranks over problems ------------------------------------------------------------------------


def mean_ranks(scores: ArrayLike) -> Floats:
    """The mean rank (k,) of each of k methods over N problems; 1 is best, equal scores share.

    Args:
        scores: (N, k), lower is better; an infinite score ranks last.

    Example:
        >>> mean_ranks([[0.1, 0.2, 0.3], [0.1, 0.1, 0.3]]).tolist()
        [1.25, 1.75, 3.0]
    """
    return _ranked(scores).mean(axis=0)


@final
@dataclass(frozen=True)
class Friedman:
    """The outcome of Friedman's test.

    Attributes:
        statistic: χ²_F, corrected for ties; NaN for two methods.
        p: from the χ² distribution with k − 1 degrees of freedom; NaN for two methods.
        permuted_p: the share of random orders within the rows whose ranks differ as much; sound
            for any N and k.
    """

    statistic: float
    p: float
    permuted_p: float


def friedman(scores: ArrayLike, draws: int = 10_000, seed: int = 0) -> Friedman:
    """Friedman's test that k methods have the same mean rank over N problems, by SciPy.

    The permutation test shuffles the ranks within each row (Demšar 2006, section 3.2.2).

    Args:
        scores: (N, k), lower is better; N and k at least 2.
        draws: shuffles; all orders are counted if they are fewer.
        seed: of the shuffles.

    Example:
        >>> at = friedman([[9.0, 9.5, 5.0], [6.0, 9.0, 1.0], [2.0, 8.0, 4.0], [8.5, 9.2, 6.0]])
        >>> at.statistic, round(at.p, 4), round(at.permuted_p, 4)
        (6.5, 0.0388, 0.0417)
    """
    ranks = _ranked(scores)
    n, k = ranks.shape
    if n < 2:
        raise ValueError(
            f"scores must have at least 2 problems, found {n}: test over seeds instead"
        )
    if np.ptp(ranks) == 0:
        return Friedman(0.0, 1.0, 1.0)
    stats = _part("scipy.stats")
    plain = stats.friedmanchisquare(*ranks.T) if k > 2 else (math.nan, math.nan)

    def apart(*columns: Any, axis: int = -1) -> Any:
        return sum(column.sum(axis=axis) ** 2 for column in columns)

    shuffled = stats.permutation_test(
        tuple(ranks.T), apart, permutation_type="samples", vectorized=True,
        n_resamples=draws, batch=1000, alternative="greater", rng=seed,
    )  # fmt: skip
    return Friedman(float(plain[0]), float(plain[1]), float(shuffled.pvalue))


def nemenyi(scores: ArrayLike) -> Floats:
    """The p values (k, k) of Nemenyi's test of each pair of mean ranks, by scikit-posthocs.

    Example:
        >>> p = nemenyi([[1.0, 2.0, 3.0]] * 9)
        >>> p[0, 2] < 0.05 < p[0, 1]
        np.True_
    """
    return _part("scikit_posthocs").posthoc_nemenyi_friedman(_ranked(scores)).to_numpy()


def nemenyi_critical_difference(methods: int, problems: int, alpha: float = 0.05) -> float:
    """How far apart two mean ranks must be to differ: CD = q_α √(k(k + 1)/(6N)).

    q_α is the upper α point of the Studentised range of k values with infinite degrees of freedom,
    divided by √2 (Demšar 2006, section 3.2.2 and table 5a).

    Example:
        >>> round(nemenyi_critical_difference(4, 14), 2)
        1.25
    """
    if methods < 2 or problems < 1 or not 0 < alpha < 1:
        raise ValueError(
            "methods must be at least 2, problems at least 1 and alpha in (0, 1), found "
            f"{methods}, {problems} and {alpha}: compare two or more methods"
        )
    q = _part("scipy.stats").studentized_range.ppf(1 - alpha, methods, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * problems)))


# ---- several tasks ------------------------------------------------------------------------------


def relative_change(
    values: ArrayLike,
    baseline: ArrayLike,
    higher_is_better: Sequence[bool] | NDArray[np.bool_],
    tasks: Sequence[str] | None = None,
) -> float:
    """Δm: the mean relative change of the metrics against single-task models; positive is better.

    Every task counts the same, however many metrics judge it (Maninis et al. 2019, eq. 4, with this
    sign; Vandenhende et al. 2021, eq. 5).

    Args:
        values: (m,) metrics.
        baseline: (m,) metrics of the single-task models.
        higher_is_better: (m,) whether more is better.
        tasks: (m,) the task that each metric judges; ``None``: each its own.

    Returns:
        Δm: 0.1 is 10 % better than single-task models. NaN if a value is NaN or a baseline is 0.

    Example:
        >>> relative_change([9.0, 0.8], [10.0, 0.8], [False, True])
        0.05
    """
    m = np.asarray(values, dtype=np.float64)
    b = np.asarray(baseline, dtype=np.float64)
    up = np.asarray(higher_is_better, dtype=bool)
    names = list(range(len(m))) if tasks is None else list(tasks)
    if not len(m) == len(b) == len(up) == len(names):
        raise ValueError(
            f"values, baseline, higher_is_better and tasks must be of one length, found {len(m)}, "
            f"{len(b)}, {len(up)} and {len(names)}: give one a metric"
        )
    if not len(m) or (b == 0).any():
        return math.nan
    change = np.where(up, 1, -1) * (m - b) / b
    parts = [change[[name == task for name in names]].mean() for task in dict.fromkeys(names)]
    return float(np.mean(parts))


def pareto_front(points: ArrayLike) -> NDArray[np.int64]:
    """The points (n, d) that no other is as good as in everything and better in something.

    Returns:
        Positions in the order of the first column, then the next. Rows with NaN are left out.

    Example:
        >>> pareto_front([[3.0, 1.0], [1.0, 3.0], [3.0, 3.0], [2.0, 2.0]]).tolist()
        [1, 3, 0]
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"points must be (n, d), found shape {x.shape}: give a row a run")
    known = x[~np.isnan(x).any(axis=1)]

    def beaten(point: Floats) -> bool:
        return bool(((known <= point).all(axis=1) & (known < point).any(axis=1)).any())

    kept = [i for i, point in enumerate(x) if not (np.isnan(point).any() or beaten(point))]
    return np.array(sorted(kept, key=lambda i: tuple(x[i])), dtype=np.int64)


# ---- what is asked of arguments -----------------------------------------------------------------


def _vector(name: str, values: ArrayLike, least: int = 1) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < least:
        raise ValueError(
            f"{name} must be a vector of at least {least}, found shape {array.shape}: "
            "give one number a seed"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be finite, found {array[~np.isfinite(array)][0]}: leave out or replace "
            "runs that diverged"
        )
    return array


def _some(blocks: Sequence[ArrayLike]) -> Sequence[ArrayLike]:
    if not len(blocks):
        raise ValueError("blocks must be at least one, found none: give a vector a problem")
    return blocks


def _ranked(scores: ArrayLike) -> Floats:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(
            f"scores must be (problems, methods) with at least 2 methods, found shape "
            f"{array.shape}: give a row a problem"
        )
    if np.isnan(array).any():
        raise ValueError(
            f"scores must have no NaN, found {int(np.isnan(array).sum())}: leave out the problems "
            "that a method lacks"
        )
    return _part("scipy.stats").rankdata(array, axis=1)


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), found {level}: 0.95 is the custom")
    return level
