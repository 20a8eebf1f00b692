"""Intervals of a mean over seeds: bootstrap, Student's t, and equivalence within a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike

from gaba.bench.statistics._checks import Floats, scipy_part, vector

__all__ = [
    "Equivalence",
    "Interval",
    "bootstrap_interval",
    "equivalence",
    "stratified_interval",
    "t_interval",
]


@final
@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it; NaN ends where one value tells nothing of spread.

    Attributes:
        estimate: the mean.
        low: the lower end.
        high: the upper end.
        n: how many values it stands on.

    Example:
        >>> 0 in Interval(1.0, 0.5, 1.5, 5), 1.2 in Interval(1.0, 0.5, 1.5, 5)
        (False, True)
    """

    estimate: float
    low: float
    high: float
    n: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_interval(
    values: ArrayLike,
    level: float = 0.95,
    kind: Literal["bca", "percentile"] = "bca",
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of n values and its bootstrap interval.

    Percentile: the α/2 and 1 − α/2 quantiles of the means of ``resamples`` samples drawn with
    replacement, α = 1 − level. BCa moves these quantiles to
    Φ(z₀ + (z₀ + z)/(1 − a (z₀ + z))), z = Φ⁻¹(α/2) and Φ⁻¹(1 − α/2), where z₀ = Φ⁻¹(share of
    resampled means below the mean, ties counted half) and
    a = Σ dᵢ³ / (6 (Σ dᵢ²)^(3/2)), dᵢ = mean of the means without one value − the mean without
    value i. (Efron 1987, "Better bootstrap confidence intervals", eqs. 2.3 and 6.6.)
    With n = 5 both are too narrow: on normal data they hold the mean in about 83 % of the cases,
    not 95 %; :func:`t_interval` keeps its word there.

    Args:
        values: (n,), in any unit; the interval is in the same.
        level: the coverage meant, in (0, 1).
        kind: "bca" or "percentile".
        resamples: how many samples are drawn.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: ``values`` is no vector of finite numbers, or ``level`` is not in (0, 1).

    Example:
        >>> at = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> at.estimate, 1 < at.low < 3 < at.high < 5
        (3.0, True)
    """
    x, alpha = vector("values", values), _alpha(level)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    if np.ptp(x) == 0:
        return Interval(mean, mean, mean, len(x))
    drawn = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    means = x[drawn].mean(axis=1)
    ends = np.array([alpha / 2, 1 - alpha / 2])
    if kind == "bca":
        ends = _corrected(ends, x, means, mean)
    low, high = np.quantile(means, ends)
    return Interval(mean, float(low), float(high), len(x))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of n values ± t(1 − α/2; n − 1) s/√n, with s the sample's standard deviation.

    Exact for independent normal values (Student 1908).

    Args:
        values: (n,), in any unit; with n = 1 the ends are NaN.
        level: the coverage, 1 − α, in (0, 1).

    Raises:
        ValueError: ``values`` is no vector of finite numbers, or ``level`` is not in (0, 1).

    Example:
        >>> at = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(at.low, 3), round(at.high, 3)
        (1.037, 4.963)
    """
    x, alpha = vector("values", values), _alpha(level)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    quantile = scipy_part("special").stdtrit(len(x) - 1, 1 - alpha / 2)
    reach = float(quantile * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - reach, mean + reach, len(x))


def stratified_interval(blocks: Sequence[ArrayLike], level: float = 0.95) -> Interval:
    """The mean over blocks of the blocks' means, from the spread inside the blocks alone.

    With B blocks of n_b values, means m_b and sample variances s_b²: m = Σ m_b/B,
    se² = Σ s_b²/n_b / B², and m ± t(1 − α/2; ν) se with ν = (Σ v_b)²/Σ(v_b²/(n_b − 1)),
    v_b = s_b²/n_b (Welch 1947; Satterthwaite 1946). It speaks of these very blocks; of further
    ones :func:`t_interval` of the m_b does.

    Args:
        blocks: a vector (n_b,) a block, n_b at least 2, all in one unit.
        level: the coverage, 1 − α, in (0, 1).

    Raises:
        ValueError: no block, or one with fewer than 2 finite numbers, or a bad ``level``.

    Example:
        >>> at = stratified_interval([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
        >>> at.estimate, round(at.high - at.estimate, 3)
        (4.0, 1.133)
    """
    if not len(blocks):
        raise ValueError("blocks must be at least one, found none: give a vector a problem")
    parts, alpha = [vector("blocks", block, least=2) for block in blocks], _alpha(level)
    n = np.array([len(part) for part in parts])
    spread = np.array([part.var(ddof=1) for part in parts]) / n
    mean = float(np.mean([part.mean() for part in parts]))
    if not spread.any():
        return Interval(mean, mean, mean, int(n.sum()))
    spread_max = spread.max()  # so that no square of a small variance underflows
    freedom = (spread / spread_max).sum() ** 2 / ((spread / spread_max) ** 2 / (n - 1)).sum()
    error = math.sqrt(spread.sum()) / len(parts)
    reach = float(scipy_part("special").stdtrit(freedom, 1 - alpha / 2)) * error
    return Interval(mean, mean - reach, mean + reach, int(n.sum()))


@final
@dataclass(frozen=True)
class Equivalence:
    """What two one-sided tests say of a mean difference and a margin.

    Attributes:
        interval: the (1 − 2α) t interval of the mean difference.
        margin: what counts as no difference that matters.
        p: the greater of the two one-sided p values.
        alpha: the level of each test.

    Example:
        >>> Equivalence(Interval(0.0, -0.1, 0.1, 5), margin=0.5, p=0.01, alpha=0.05).equivalent
        True
    """

    interval: Interval
    margin: float
    p: float
    alpha: float

    @property
    def equivalent(self) -> bool:
        """Both tests reject: the whole interval lies inside (−margin, margin)."""
        return self.p < self.alpha


def equivalence(differences: ArrayLike, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of |mean difference| < margin (Schuirmann 1987).

    With mean d̄, standard error s/√n and n − 1 degrees of freedom,
    p = max(P(T > (margin − d̄)/se), P(T > (margin + d̄)/se)); p < α exactly where the (1 − 2α)
    interval lies inside (−margin, margin). A difference that is *not significant* is no proof of
    equivalence; this is.

    Args:
        differences: (n,) paired differences, n at least 2.
        margin: above 0, in the unit of the differences.
        alpha: the level of each of the two tests.

    Raises:
        ValueError: fewer than 2 differences, one that is not finite, or a margin not above 0.

    Example:
        >>> equivalence([0.1, -0.1, 0.05, -0.05, 0.0], margin=0.5).equivalent
        True
        >>> equivalence([1.0, -1.0, 0.5, -0.5, 0.0], margin=0.5).equivalent
        False
    """
    d = vector("differences", differences, least=2)
    if not margin > 0:
        raise ValueError(f"margin must be above 0, found {margin}: say what does not matter")
    interval = t_interval(d, 1 - 2 * alpha)
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    near = margin - abs(interval.estimate)
    if error == 0:
        p = 0.0 if near > 0 else 1.0
    else:
        p = float(scipy_part("special").stdtr(len(d) - 1, -near / error))
    return Equivalence(interval, margin, p, alpha)


def _alpha(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), found {level}: 0.95 is the custom")
    return 1 - level


def _corrected(ends: Floats, x: Floats, means: Floats, mean: float) -> Floats:
    special = scipy_part("special")
    slack = 1e-12 * float(np.abs(x).max())
    below = (means < mean - slack).mean() + 0.5 * (np.abs(means - mean) <= slack).mean()
    bias = special.ndtri(np.clip(below, 1 / len(means), 1 - 1 / len(means)))
    away = x - x.mean()  # dᵢ up to the factor 1/(n − 1), which cancels
    skew = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = bias + special.ndtri(ends)
    return special.ndtr(bias + z / (1 - skew * z))
