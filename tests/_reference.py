"""The whole algorithm in plain float64 NumPy, slow and obvious: the oracle of the tests.

It follows the formulas one task at a time and shares no code with the package. A missing task is
``None`` or NaN in a vector that comes in.

>>> pipeline = Pipeline.paper(2)
>>> pipeline.step([5.0, 0.01]).weights
array([0.5, 0.5])
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]


# Rules: norms (K,) or Gramian (K, K) to weights (K,)


def _vector(values: ArrayLike) -> Vector:
    return np.array(values, dtype=np.float64)


def _normalised(values: ArrayLike) -> Vector:
    values = _vector(values)
    return values / math.fsum(values)


def _zeros_apart(norms: Vector, rule: Callable[[list[int]], Vector]) -> Vector:
    """A norm of 0 gets the weight 1/K; ``rule`` divides the rest among the tasks it is given."""
    K = len(norms)
    alive = [k for k in range(K) if norms[k] != 0]
    weights = np.full(K, 1 / K)
    if alive:
        among_themselves = rule(alive)
        for position, k in enumerate(alive):
            weights[k] = among_themselves[position] * len(alive) / K
    return weights


def uniform(norms: ArrayLike) -> Vector:
    """λ_k = 1/K."""
    K = len(_vector(norms))
    return np.full(K, 1 / K)


def gaba(norms: ArrayLike) -> Vector:
    """λ_k = (S − g_k)/((K − 1) S) with S = Σg: the paper's equation 4; uniform if S = 0."""
    g = _vector(norms)
    K = len(g)
    S = math.fsum(g)
    if K == 1 or S == 0:
        return np.full(K, 1 / K)
    weights = []
    for k in range(K):
        others = math.fsum(g[j] for j in range(K) if j != k)
        weights.append(others / ((K - 1) * S))
    return _vector(weights)


def inverse(norms: ArrayLike, power: float = 1.0) -> Vector:
    """λ_k ∝ g_k^(−power)."""
    return targets(norms, np.ones(len(_vector(norms))), power)


def targets(norms: ArrayLike, proportions: ArrayLike, power: float = 1.0) -> Vector:
    """λ_k ∝ r_k / g_k^power: contributions in the proportions r_k, at power 1."""
    g, r = _vector(norms), _vector(proportions)

    def rule(alive: list[int]) -> Vector:
        smallest = min(g[k] for k in alive)
        return _normalised([r[k] * (smallest / g[k]) ** power for k in alive])

    return _zeros_apart(g, rule)


def log_inverse(norms: ArrayLike) -> Vector:
    """λ_k ∝ 1 / log(1 + g_k / min g)."""
    g = _vector(norms)

    def rule(alive: list[int]) -> Vector:
        smallest = min(g[k] for k in alive)
        return _normalised([1 / math.log1p(g[k] / smallest) for k in alive])

    return _zeros_apart(g, rule)


def rank_inverse(norms: ArrayLike) -> Vector:
    """λ_k ∝ 1 / rank_k, 1 for the smallest norm; equal norms share the mean of their ranks."""
    g = _vector(norms)

    def rule(alive: list[int]) -> Vector:
        ranks = []
        for k in alive:
            below = sum(1 for j in alive if g[j] < g[k])
            equal = sum(1 for j in alive if g[j] == g[k])
            ranks.append(below + (equal + 1) / 2)
        return _normalised([1 / rank for rank in ranks])

    return _zeros_apart(g, rule)


def fixed(weights: ArrayLike) -> Vector:
    """λ_k ∝ the given weights."""
    return _normalised(weights)


def _correlations(gramian: ArrayLike) -> tuple[Vector, NDArray[np.float64]]:
    """The norms g_k = √G_kk, and the cosines G_kl / (g_k g_l)."""
    G = np.array(gramian, dtype=np.float64)
    K = len(G)
    g = _vector([math.sqrt(G[k, k]) for k in range(K)])
    cosines = np.zeros((K, K))
    for k in range(K):
        for j in range(K):
            if g[k] > 0 and g[j] > 0:
                cosines[k, j] = G[k, j] / g[k] / g[j]
    return g, cosines


def equal_share(gramian: ArrayLike, tolerance: float = 1e-13, sweeps: int = 100_000) -> Vector:
    """λ_k (Gλ)_k equal for all k: min ½ λᵀGλ − Σ log λ_k, one coordinate at a time.

    Raises:
        ArithmeticError: If the sweeps end before the shares agree, as for opposite gradients.
    """
    g, cosines = _correlations(gramian)

    def rule(alive: list[int]) -> Vector:
        x = np.ones(len(g))
        for _ in range(sweeps):
            for k in alive:
                # x_k² + b x_k − 1 = 0, for unit gradients
                b = math.fsum(cosines[k, j] * x[j] for j in alive if j != k)
                x[k] = (-b + math.sqrt(b * b + 4)) / 2
            shares = [x[k] * math.fsum(cosines[k, j] * x[j] for j in alive) for k in alive]
            if max(abs(share - 1) for share in shares) < tolerance:
                smallest = min(g[k] for k in alive)
                return _normalised([x[k] * smallest / g[k] for k in alive])
        raise ArithmeticError(f"no equal shares after {sweeps} sweeps")

    return _zeros_apart(g, rule)


def equal_projection(gramian: ArrayLike) -> Vector:
    """Σ_l λ_l G_lk / g_k equal for all k, Σλ = 1: one linear system; weights may be negative."""
    g, cosines = _correlations(gramian)

    def rule(alive: list[int]) -> Vector:
        contributions = np.linalg.solve(cosines[np.ix_(alive, alive)], np.ones(len(alive)))
        smallest = min(g[k] for k in alive)
        return _normalised([contributions[i] * smallest / g[k] for i, k in enumerate(alive)])

    return _zeros_apart(g, rule)


# Stabilisers: vector (K,) to vector (K,), with the state kept in the object


class Stabiliser(ABC):
    """One vector in, one out; ``saturated`` tells of the last step."""

    def __init__(self, n_tasks: int) -> None:
        self.K = n_tasks
        self.saturated = [False] * n_tasks

    @abstractmethod
    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The stabilised value; what ``value`` holds for a missing task is not used."""


@final
class EMA(Stabiliser):
    """m_k ← d m_k + (1 − d) x_k, from 1/K, or from nothing if debiased."""

    def __init__(self, n_tasks: int, decay: float = 0.99, debias: bool = False) -> None:
        super().__init__(n_tasks)
        self.decay, self.debias = decay, debias
        self.mean = [0.0 if debias else 1 / n_tasks] * n_tasks
        self.times = [0] * n_tasks

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The averages."""
        result = np.array(value)
        for k in range(self.K):
            if present[k]:
                self.mean[k] = self.decay * self.mean[k] + (1 - self.decay) * value[k]
                self.times[k] += 1
            if not self.debias:
                result[k] = self.mean[k]
            elif self.times[k] > 0:
                result[k] = self.mean[k] / (1 - self.decay ** self.times[k])
        return result


@final
class LogEMA(Stabiliser):
    """ĝ_k = exp of the debiased average of log g_k; a norm of 0 or below is not taken in."""

    def __init__(self, n_tasks: int, decay: float = 0.99) -> None:
        super().__init__(n_tasks)
        self.average = EMA(n_tasks, decay, debias=True)

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The believed norms."""
        seen = [bool(present[k] and value[k] > 0) for k in range(self.K)]
        logs = _vector([math.log(value[k]) if seen[k] else 0.0 for k in range(self.K)])
        averages = self.average.step(logs, seen)
        result = np.array(value)
        for k in range(self.K):
            if self.average.times[k] > 0:
                result[k] = math.exp(averages[k])
        return result


@final
class Belief(Stabiliser):
    """log ĝ moves towards log g by a rate that grows with errors of one sign and shrinks otherwise.

    A norm of 0 is missing. A negative one stands for ĝ e^(−j), and for |g| e^(−j) if it is the
    first. After a positive one, ĝ is at least g e^(−j).
    """

    def __init__(self, n_tasks: int, rate: float = 0.01, jump: float = 2.3) -> None:
        super().__init__(n_tasks)
        self.slowest, self.jump = rate, jump
        self.log: list[float | None] = [None] * n_tasks
        self.rates = [0.3] * n_tasks
        self.errors: list[float | None] = [None] * n_tasks
        self.taken = [0] * n_tasks

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The believed norms."""
        result = np.array(value)
        for k in range(self.K):
            if present[k] and value[k] != 0:
                self._take(k, float(value[k]))
            believed = self.log[k]
            if believed is not None:
                result[k] = math.exp(believed)
        return result

    def _take(self, k: int, norm: float) -> None:
        believed = self.log[k]
        before = self.taken[k]
        self.taken[k] += 1
        if believed is None:
            self.log[k] = math.log(norm) if norm > 0 else math.log(-norm) - self.jump
            return
        error = -self.jump
        if norm > 0:
            error = min(max(math.log(norm) - believed, -self.jump), self.jump)
        if error == 0:  # of no sign
            return
        last = self.errors[k]
        if last is not None:  # the second norm is taken in at the rate that there is
            if (error > 0) == (last > 0):
                self.rates[k] *= 1.2
            else:
                self.rates[k] *= 0.6
        mean_of_all = min(1 / (before + 1), 0.3)
        self.rates[k] = min(max(self.rates[k], self.slowest, mean_of_all), 0.5)
        self.errors[k] = error
        factor = min(max(math.exp(self.rates[k] * error), 0.5), 2.0)
        self.log[k] = believed + math.log(factor)
        if norm > 0:
            self.log[k] = max(believed + math.log(factor), math.log(norm) - self.jump)


@final
class Floor(Stabiliser):
    """max(λ_k, m) / Σ, or the nearest point of {λ ≥ m, Σλ = 1}, for λ of the tasks present.

    If tasks are missing, the others are divided by their sum first.
    """

    def __init__(
        self,
        n_tasks: int,
        floor: float = 0.05,
        mode: Literal["renormalise", "project"] = "renormalise",
    ) -> None:
        super().__init__(n_tasks)
        self.floor, self.mode = floor, mode

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The weights with the floor in force."""
        tasks = [k for k in range(self.K) if present[k]]
        result = np.array(value)
        if len(tasks) < self.K:
            whole = math.fsum(value[k] for k in tasks)
            value = value / (whole if whole != 0 else 1.0)
        self.saturated = [bool(present[k] and value[k] < self.floor) for k in range(self.K)]
        if self.mode == "renormalise":
            total = math.fsum(max(value[k], self.floor) for k in tasks)
            for k in tasks:
                result[k] = max(value[k], self.floor) / total
            return result
        # Tasks leave for the floor one at a time, the smallest first, until the others, moved
        # by the same amount, fit above it.
        above = sorted(tasks, key=lambda k: value[k])
        while True:
            rest = 1 - self.floor * (len(tasks) - len(above))
            shift = (math.fsum(value[k] for k in above) - rest) / len(above)
            if value[above[0]] - shift >= self.floor:
                break
            above = above[1:]
        for k in tasks:
            result[k] = value[k] - shift if k in above else self.floor
        return result


@final
class Warmup(Stabiliser):
    """1/K in the first steps."""

    def __init__(self, n_tasks: int, steps: int = 100) -> None:
        super().__init__(n_tasks)
        self.left = steps

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """Uniform weights, or the value."""
        if self.left > 0:
            self.left -= 1
            return np.full(self.K, 1 / self.K)
        return np.array(value)


@final
class Clip(Stabiliser):
    """min(max(x_k, low), high)."""

    def __init__(self, n_tasks: int, low: float | None = None, high: float | None = None) -> None:
        super().__init__(n_tasks)
        self.low = -math.inf if low is None else low
        self.high = math.inf if high is None else high

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The value within the bounds."""
        self.saturated = [bool(present[k] and value[k] < self.low) for k in range(self.K)]
        result = np.array(value)
        for k in range(self.K):
            if present[k]:
                result[k] = min(max(value[k], self.low), self.high)
        return result


@final
class Freeze(Stabiliser):
    """The values themselves, then the last of them for ever."""

    def __init__(self, n_tasks: int, after: int = 1000) -> None:
        super().__init__(n_tasks)
        self.left = after
        self.last: list[float | None] = [None] * n_tasks

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """The value, or what is held."""
        result = np.array(value)
        for k in range(self.K):
            if present[k] and (self.left > 0 or self.last[k] is None):
                self.last[k] = value[k]
            held = self.last[k]
            if held is not None:
                result[k] = held
        self.left -= 1
        return result


@final
class Chain(Stabiliser):
    """One after the other."""

    def __init__(self, n_tasks: int, stabilisers: Sequence[Stabiliser]) -> None:
        super().__init__(n_tasks)
        self.stabilisers = list(stabilisers)

    def step(self, value: Vector, present: Sequence[bool]) -> Vector:
        """What the last one gives."""
        for stabiliser in self.stabilisers:
            value = stabiliser.step(value, present)
            present = [not math.isnan(number) for number in value]  # a memory fills gaps
        self.saturated = [any(s.saturated[k] for s in self.stabilisers) for k in range(self.K)]
        return value


# The pipeline: norms (K,) to multipliers


@final
@dataclass(frozen=True)
class Outcome:
    """One step of the pipeline; a missing task has NaN.

    Attributes:
        multipliers: m: (K,).
        believed: ĝ, what is believed of the norms of all tasks, NaN if nothing is: (K,).
        contributions: m_k g_k, with the norms of this step: (K,).
        saturated: Which multipliers are at a bound: (K,).
        finite: Whether the norms were; if not, the step changed nothing, and the multipliers are
            those of before.
    """

    multipliers: Vector
    believed: Vector
    contributions: Vector
    saturated: NDArray[np.bool_]
    finite: bool

    @property
    def weights(self) -> Vector:
        """λ = m/Σm over the tasks present, 0 for a missing one: (K,)."""
        m = np.nan_to_num(self.multipliers)
        return m / math.fsum(m)

    @property
    def imbalance(self) -> float:
        """Max c / min c over the tasks present."""
        c = [value for value in self.contributions if not math.isnan(value)]
        return max(c) / min(c) if c and min(c) > 0 else math.nan


@final
@dataclass
class Pipeline:
    """Belief, rule, smoothing, scale and limit, as the Balancer applies them.

    Attributes:
        n_tasks: K.
        rule: Weights from the believed norms of the tasks of which something is known; with
            ``per_task`` it gets those numbers of these tasks as second argument.
        believe: Applied to the norms.
        smooth: Applied to the weights.
        scale: What length the combined update gets.
        limit: No multiplier is above it, or below one over it; not on the simplex.
        recovery: No norm counts as less than its peak over this.
        rise: No multiplier that is used grows by more than this in one step, from the first on.
        excuse_rare: A task that few batches have is pressed down by less.
        anchor: The task that keeps the multiplier 1, in place of ``scale``.
        per_task: Settings of the rule, one a task.
    """

    n_tasks: int
    rule: Callable[..., Vector]
    believe: Stabiliser | None = None
    smooth: Stabiliser | None = None
    scale: Literal["simplex", "sum", "geometric", "max"] = "sum"
    limit: float = 1000.0
    recovery: float = math.inf
    rise: float = math.inf
    excuse_rare: bool = False
    anchor: int | None = None
    per_task: Vector | None = None
    last: Vector = field(init=False)
    used: Vector = field(init=False)
    peak: Vector = field(init=False)
    gap: Vector = field(init=False)
    away: Vector = field(init=False)
    seen: Vector = field(init=False)

    def __post_init__(self) -> None:
        simplex = self.scale == "simplex" and self.anchor is None
        self.last = np.full(self.n_tasks, 1 / self.n_tasks if simplex else 1.0)
        self.used = np.array(self.last)
        self.peak = np.zeros(self.n_tasks)
        self.gap, self.away = np.ones(self.n_tasks), np.zeros(self.n_tasks)
        self.seen = np.zeros(self.n_tasks)
        self.at_limit = [False] * self.n_tasks

    @property
    def bounded(self) -> bool:
        """Whether the limit acts, and dead tasks are left alone."""
        return self.scale != "simplex" or self.anchor is not None

    @staticmethod
    def paper(n_tasks: int) -> Pipeline:
        """The published algorithm."""
        steady = Chain(n_tasks, [Warmup(n_tasks), EMA(n_tasks), Floor(n_tasks)])
        return Pipeline(n_tasks, gaba, smooth=steady, scale="simplex")

    @staticmethod
    def default(n_tasks: int) -> Pipeline:
        """The Balancer's own settings, for the norms of its default method as they come in."""
        believe = Belief(n_tasks)
        return Pipeline(
            n_tasks,
            inverse,
            believe=believe,
            limit=64.0,
            recovery=8.0,
            rise=1.2,
            excuse_rare=True,
        )

    def step(self, norms: Sequence[float | None], present: Sequence[bool] | None = None) -> Outcome:
        """Take in the norms of one step.

        Args:
            norms: g_k of each task, ``None`` or NaN for a missing one.
            present: Which tasks there are; then NaN is not a missing task but a norm that is not
                finite.
        """
        K = self.n_tasks
        g = _vector([math.nan if value is None else value for value in norms])
        if present is None:
            present = [not math.isnan(value) for value in g]
        tasks = [k for k in range(K) if present[k]]
        if not all(math.isfinite(g[k]) for k in tasks):
            return self._outcome(g, np.full(K, math.nan), present, finite=False)

        believed, known = self._believed(g, present)
        floored = _vector([max(believed[k], self.peak[k] / self.recovery) for k in range(K)])
        own = [] if self.per_task is None else [self.per_task[known]]
        wanted = self._shared_out(known, self.rule(floored[known], *own))
        if self.smooth is not None:
            wanted = self.smooth.step(wanted, [k in known for k in range(K)])
        asked = [k for k in range(K) if not math.isnan(wanted[k])]
        for k in range(K):
            if present[k] and g[k] != 0:
                if self.seen[k]:
                    rate = max(0.05, 1 / (1 + self.seen[k]))
                    self.gap[k] += rate * (min(self.away[k] + 1, 40) - self.gap[k])
                self.seen[k] += 1
                self.away[k] = 0
            elif self.seen[k]:
                self.away[k] += 1
        self.last = self._multiplied(asked, wanted, floored)
        for k in known:
            self.peak[k] = max(self.peak[k], floored[k])
        return self._outcome(g, believed, present, finite=True)

    def _believed(self, g: Vector, present: Sequence[bool]) -> tuple[Vector, list[int]]:
        """What is believed of each norm, and of which tasks anything is."""
        K = self.n_tasks
        pulls = [self.last[k] * abs(g[k]) for k in range(K) if present[k]]
        live = [bool(present[k]) for k in range(K)]
        for k in range(K):
            faint = live[k] and self.last[k] * abs(g[k]) < 1e-6 * float(np.median(pulls))
            if self.bounded and faint and self.peak[k] > 0:
                live[k] = False
        here = _vector([g[k] if live[k] else math.nan for k in range(K)])
        believed = here if self.believe is None else self.believe.step(here, live)
        return believed, [k for k in range(K) if not math.isnan(believed[k])]

    def _shared_out(self, known: list[int], weights: Vector) -> Vector:
        """Unknown tasks keep their part of all weights, the known share the rest."""
        whole = math.fsum(self.last)
        rest = 1 - math.fsum(self.last[k] / whole for k in range(self.n_tasks) if k not in known)
        wanted = np.full(self.n_tasks, math.nan)
        for position, k in enumerate(known):
            wanted[k] = weights[position] * (rest if rest > 0 else 0.5)
        return wanted

    def _multiplied(self, asked: list[int], wanted: Vector, norms: Vector) -> Vector:
        """The multipliers: a common factor of what is wanted, each within the limit."""
        result = np.array(self.last)
        self.at_limit = [False] * self.n_tasks
        if not self.bounded:
            others = math.fsum(self.last[k] for k in range(self.n_tasks) if k not in asked)
            whole = math.fsum(wanted[k] for k in asked)
            for k in asked:
                result[k] = wanted[k] * (1 - others) / whole
            return result
        loud = {k: norms[k] if norms[k] > 0 else 0.0 for k in asked}
        if not any(loud.values()):
            loud = dict.fromkeys(asked, 1.0)
        factor = self._factor(asked, wanted, loud)
        seen = [k for k in range(self.n_tasks) if self.peak[k] > 0 or k in asked]
        most = max((1 / self.gap[k] for k in seen), default=1.0)
        for k in asked:
            exact = factor * wanted[k]
            if self.excuse_rare and exact < 1:
                exact = min(exact / min(1.0, 4 / self.gap[k] / most), 1.0)
            result[k] = min(max(exact, 1 / self.limit), self.limit)
            self.at_limit[k] = abs(exact - result[k]) > 1e-9 * result[k]
        return result

    def _factor(self, asked: list[int], wanted: Vector, loud: dict[int, float]) -> float:
        if self.anchor is not None:
            if self.anchor in asked:
                return 1 / wanted[self.anchor]
            return math.fsum(self.last[k] for k in asked) / math.fsum(wanted[k] for k in asked)
        if self.scale == "geometric":
            return math.exp(-math.fsum(math.log(wanted[k]) for k in asked) / len(asked))
        if self.scale == "max":
            return max(loud.values()) / max(wanted[k] * loud[k] for k in asked)
        target = math.fsum(loud.values())

        def pull(factor: float) -> float:
            return math.fsum(
                min(max(factor * wanted[k], 1 / self.limit), self.limit) * loud[k] for k in asked
            )

        low, high = 1e-320, 1e300
        for _ in range(3000):  # bisection of the logarithm
            middle = math.sqrt(low) * math.sqrt(high)
            if middle in (low, high):
                break
            low, high = (middle, high) if pull(middle) < target else (low, middle)
        return high

    def _outcome(
        self, g: Vector, believed: Vector, present: Sequence[bool], *, finite: bool
    ) -> Outcome:
        here = np.array(present)
        used = [min(self.last[k], self.rise * self.used[k]) for k in range(self.n_tasks)]
        if finite:
            self.used = _vector(used)
        multipliers = np.where(here, used, math.nan)
        saturated = np.array(self.at_limit)
        if self.smooth is not None:
            saturated = saturated | np.array(self.smooth.saturated)
        return Outcome(
            multipliers,
            believed,
            multipliers * g if finite else np.full(self.n_tasks, math.nan),
            saturated & here,
            finite,
        )
