"""Stabilisers: what is believed about the norms, and how the multipliers may move.

Each takes one number a task and gives one back. NaN stands for a missing task: it keeps its part of
the state, and what comes out for it is what is still believed of it, NaN if nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from gaba.pieces import Piece
from gaba.tensors import DTYPE, as_work

__all__ = [
    "EMA",
    "Belief",
    "Chain",
    "Clip",
    "Floor",
    "Freeze",
    "Identity",
    "LogEMA",
    "Stabiliser",
    "Warmup",
]


class Stabiliser(Piece[Tensor, Tensor]):
    """Smooths, bounds or delays a vector (K,) of norms or of multipliers."""


@final
@dataclass(frozen=True)
class Identity(Stabiliser):
    """Pass values unchanged.

    >>> Identity().update(torch.tensor([3.0, 1.0]), ())[0]
    tensor([3., 1.], dtype=torch.float64)
    """

    def update(self, told: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """``told`` (K,) in the working dtype, without its graph."""
        return as_work(told).clone(), state


@final
@dataclass(frozen=True)
class Chain(Stabiliser):
    """Apply stabilisers in turn, each to what the one before it gave.

    What a link still believes of a missing task fills the gap for the links after it.

    Args:
        stabilisers: in the order of their application; with none, values pass unchanged.

    Raises:
        ValueError: one of them is no stabiliser.

    >>> chain = Chain((Warmup(100), EMA(0.99), Floor(0.05)))  # the paper's
    >>> chain.update(torch.tensor([0.002, 0.998]), chain.init(2))[0]
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    stabilisers: tuple[Stabiliser, ...]

    def __init__(self, stabilisers: Iterable[Stabiliser]) -> None:
        object.__setattr__(self, "stabilisers", tuple(stabilisers))
        for position, found in enumerate(self.stabilisers):
            if not isinstance(found, Stabiliser):
                raise ValueError(
                    f"stabilisers must all be Stabiliser objects, found {found!r} at position "
                    f"{position}: write EMA(), not EMA or 'ema'"
                )

    def init(self, n_tasks: int) -> tuple[Any, ...]:
        """The first state of each."""
        return tuple(stabiliser.init(n_tasks) for stabiliser in self.stabilisers)

    def update(self, told: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """What the last one gives for ``told`` (K,)."""
        value, states = as_work(told).clone(), []
        for stabiliser, before in zip(self.stabilisers, state, strict=True):
            value, after = stabiliser.update(value, before)
            states.append(after)
        return value, tuple(states)


# ---- averages -----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Running:
    """A weighted sum of the samples of each task, and the sum of those weights.

    Attributes:
        mean: (K,), m_k ← d m_k + (1 − d) x_k for each sample x_k of task k.
        mass: (K,), b_k ← d b_k + (1 − d), from 0 to 1. The average is m_k / b_k, so each task
            counts its own samples.
    """

    mean: Tensor
    mass: Tensor

    def advance(self, sample: Tensor, decay: float, seen: Tensor) -> Running:
        """The next state: ``sample`` (K,) taken in where ``seen`` (K,), the rest as it was."""
        return Running(
            torch.where(seen, decay * self.mean + (1 - decay) * sample, self.mean),
            torch.where(seen, decay * self.mass + (1 - decay), self.mass),
        )


@final
@dataclass(frozen=True)
class EMA(Stabiliser):
    """Replace each value by its exponential moving average, m_k ← d m_k + (1 − d) x_k.

    Args:
        decay: d in [0, 1). 0.99 averages about 100 steps, 0 passes values unchanged.
        debias: start from nothing, m_k / (1 − dⁿ) after n values of task k, as norms need. By
            default the average starts from 1/K, as the paper does for weights.

    Raises:
        ValueError: ``decay`` is outside [0, 1).

    Source: Kingma and Ba, Adam, ICLR 2015, section 3, for the debiased form.

    >>> ema = EMA(decay=0.9)
    >>> ema.update(torch.tensor([0.0, 1.0]), ema.init(2))[0]
    tensor([0.4500, 0.5500], dtype=torch.float64)
    """

    decay: float = 0.99
    debias: bool = False

    def __post_init__(self) -> None:
        _check_decay(self.decay)

    def init(self, n_tasks: int) -> Running:
        """Uniform values, or none at all if debiased."""
        if self.debias:
            return Running(_zeros(n_tasks), _zeros(n_tasks))
        return Running(_zeros(n_tasks) + 1 / n_tasks, _zeros(n_tasks) + 1)

    def update(self, told: Tensor, state: Running) -> tuple[Tensor, Running]:
        """The average with ``told`` (K,) taken in."""
        value = _incoming(told, state.mean)
        new = state.advance(value, self.decay, ~value.isnan())
        return torch.where(new.mass > 0, new.mean / new.mass, value), new


@final
@dataclass(frozen=True)
class LogEMA(Stabiliser):
    """Replace each norm by its exponential moving geometric mean.

    ĝ_k = exp(m_k / b_k) with m_k ← d m_k + (1 − d) log g_k and b_k ← d b_k + (1 − d), both from 0.
    The logarithm commutes with the inverse: of two tasks with the same geometric mean norm the
    noisier one gets the same weight, which an average of norms or of inverses does not give.

    A norm of 0 or below has no logarithm and is not taken in. A task of which nothing is known yet
    passes unchanged.

    Args:
        decay: d in [0, 1). 0.99 averages about 100 steps, 0 believes each norm.

    Raises:
        ValueError: ``decay`` is outside [0, 1).

    >>> smoother = LogEMA(decay=0.5)
    >>> norms, state = smoother.update(torch.tensor([1.0, 100.0]), smoother.init(2))
    >>> smoother.update(torch.tensor([8.0, 0.0]), state)[0]
    tensor([  4.0000, 100.0000], dtype=torch.float64)
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        _check_decay(self.decay)

    def init(self, n_tasks: int) -> Running:
        """Nothing known of any task."""
        return Running(_zeros(n_tasks), _zeros(n_tasks))

    def update(self, told: Tensor, state: Running) -> tuple[Tensor, Running]:
        """The believed norms (K,) with the norms ``told`` (K,) taken in."""
        norms = _incoming(told, state.mean)
        seen = norms > 0
        new = state.advance(torch.where(seen, norms, 1.0).log(), self.decay, seen)
        return torch.where(new.mass > 0, (new.mean / new.mass).exp(), norms), new


@final
@dataclass(frozen=True, eq=False)
class Believed:
    """What is believed of each norm.

    Attributes:
        log: (K,), log ĝ_k; 0 as long as nothing is known.
        count: (K,), int64, n_k, how many norms of task k have been taken in.
        rate: (K,), η_k, how much of the next error is believed.
        side: (K,), the sign of the last error; 0 as long as there is none.
    """

    log: Tensor
    count: Tensor
    rate: Tensor
    side: Tensor


FIRST, FASTEST = 0.3, 0.5
"""The rate of the second norm of a task, and the largest rate."""
FASTER, SLOWER = 1.2, 0.6
"""What the rate is multiplied by while errors keep their sign, and when they alternate."""


@final
@dataclass(frozen=True)
class Belief(Stabiliser):
    """Track the logarithm of each norm at a rate that adapts to the errors.

    log ĝ_k ← log ĝ_k + η_k clip(log g_k − log ĝ_k, ±j). The first norm of a task is believed as it
    is. From then on η_k starts at 0.3; it grows by a factor of 1.2, up to 0.5, while the errors
    keep their sign, and shrinks by a factor of 0.6, down to 1/(1 + n_k) and to η, when they
    alternate. So a jump is followed quickly, noise is averaged over up to 1/η norms, and an
    overshooting feedback settles. One norm moves the belief by at most a factor of 2; but a belief
    is never more than e^j below the last norm, so a task that gets loud is pressed down at once.

    A norm of exactly 0 is not taken in. A negative one, of a task that opposes the update, counts
    as ĝ_k e^(−j), and as |g_k| e^(−j) if it is the first.

    Args:
        rate: η in (0, 0.3], the smallest rate.
        jump: j, positive; 2.3 is a factor of 10.

    Raises:
        ValueError: a setting is out of its range.

    Source: Riedmiller and Braun, RPROP, 1993, for rates that follow the signs of the errors.

    >>> belief = Belief()
    >>> norms, state = belief.update(torch.tensor([1.0, 100.0]), belief.init(2))
    >>> belief.update(torch.tensor([2.0, float("nan")]), state)[0].round(decimals=3)
    tensor([  1.2310, 100.0000], dtype=torch.float64)
    """

    rate: float = 0.01
    jump: float = 2.3

    def __post_init__(self) -> None:
        if not 0 < self.rate <= FIRST:
            raise ValueError(f"rate must be above 0 and at most {FIRST}, found {self.rate!r}")
        if not self.jump > 0:
            raise ValueError(f"jump must be positive, found {self.jump!r}: 2.3 is a factor of 10")

    def init(self, n_tasks: int) -> Believed:
        """Nothing known of any task."""
        nothing = _zeros(n_tasks)
        count = torch.zeros(n_tasks, dtype=torch.int64)
        return Believed(nothing, count, nothing + FIRST, nothing)

    def update(self, told: Tensor, state: Believed) -> tuple[Tensor, Believed]:
        """The believed norms (K,) with the norms ``told`` (K,) taken in."""
        norms = _incoming(told, state.log)
        first = state.count == 0
        seen = ~norms.isnan() & (norms != 0)
        far = torch.where(seen, norms.abs(), 1.0).log() - state.log
        opposed = norms < 0
        bounded = torch.where(opposed, -self.jump, far.clamp(-self.jump, self.jump))
        gap = torch.where(first, torch.where(opposed, far - self.jump, far), bounded)
        side = gap.sign()
        turned = torch.where(side == state.side, FASTER * state.rate, SLOWER * state.rate)
        rate = torch.where((state.side == 0) | (side == 0), state.rate, turned)
        least = (1 / (1 + state.count.to(norms.dtype))).clamp(self.rate, FIRST)
        rate = torch.maximum(rate, least).clamp(max=FASTEST)
        move = torch.where(first, gap, (rate * gap).clamp(-math.log(2), math.log(2)))
        move = torch.where(opposed, move, torch.maximum(move, far - self.jump))
        new = Believed(
            torch.where(seen, state.log + move, state.log),
            state.count + seen,
            torch.where(seen & ~first, rate, state.rate),
            torch.where(seen & ~first & (side != 0), side, state.side),
        )
        return torch.where(new.count > 0, new.log.exp(), norms), new


# ---- bounds -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Bounded:
    """Which values (K,) asked for less than they were allowed, in the last step."""

    saturated: Tensor


@final
@dataclass(frozen=True)
class Floor(Stabiliser):
    """Keep every weight from falling below a floor m.

    ``mode="renormalise"`` is the paper's: λ_k ← max(λ_k, m) / Σ_l max(λ_l, m). The division lowers
    every weight again, for K = 2 down to m / (1 + m), which is 0.0476 for 0.05. ``mode="project"``
    takes the nearest point of {λ : λ_k ≥ m, Σλ = 1} and keeps the floor exactly. Either way the
    floor caps the imbalance that weights can repair, for K = 2 at (1 − m) / m, which is 19.

    Args:
        floor: m in [0, 1), below 1/K for ``mode="project"``.
        mode: ``"renormalise"`` or ``"project"``.

    Raises:
        ValueError: a setting breaks its rule; ``init`` checks the one with K.

    Source: Duchi et al., Efficient Projections onto the l1-Ball, 2008, figure 1 (the projection).

    >>> floor, weights = Floor(0.05), torch.tensor([0.0, 1.0])
    >>> floor.update(weights, floor.init(2))[0]
    tensor([0.0476, 0.9524], dtype=torch.float64)
    >>> floor = Floor(0.05, mode="project")
    >>> floor.update(weights, floor.init(2))[0]
    tensor([0.0500, 0.9500], dtype=torch.float64)
    """

    floor: float = 0.05
    mode: Literal["renormalise", "project"] = "renormalise"

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"floor must lie in [0, 1), found {self.floor!r}: it is a weight; 0 sets no floor"
            )
        if self.mode not in ("renormalise", "project"):
            raise ValueError(
                f"mode must be 'renormalise' or 'project', found {self.mode!r}: 'project' keeps "
                "the floor exactly, 'renormalise' is the paper's"
            )

    def init(self, n_tasks: int) -> Bounded:
        """No weight is saturated."""
        if self.mode == "project" and n_tasks > 1 and self.floor >= 1 / n_tasks:
            raise ValueError(
                f"floor must be below 1/K = {1 / n_tasks:.4g} for {n_tasks} tasks, found "
                f"{self.floor!r}: lower it, or the weights cannot sum to 1"
            )
        return Bounded(_falses(n_tasks))

    def update(self, told: Tensor, state: Bounded) -> tuple[Tensor, Bounded]:
        """The weights ``told`` (K,) with the floor in force, brought to sum 1 among themselves."""
        value = _incoming(told, state.saturated)
        here, whole = ~value.isnan(), value.nansum()
        asked = torch.where(here.all() | (whole == 0), value, value / whole)
        if self.mode == "project":
            bounded = _project(asked, self.floor, here)
        else:
            raised = asked.clamp(min=self.floor)
            bounded = raised / raised.nansum()
        return torch.where(here, bounded, value), Bounded(here & (asked < self.floor))


def _project(value: Tensor, floor: float, here: Tensor) -> Tensor:
    """The nearest point of {λ ≥ floor, Σλ = 1} over the tasks ``here``: λ = floor + (x − τ)₊."""
    excess = torch.where(here, value - floor, -torch.inf)
    rest = 1 - floor * here.to(value.dtype).sum()
    ordered = excess.sort(descending=True).values
    count = torch.arange(1, len(value) + 1, device=value.device)
    threshold = (ordered.cumsum(0) - rest) / count
    last = ((ordered > threshold).sum(0, keepdim=True) - 1).clamp(min=0)
    return floor + (excess - threshold.gather(0, last)).clamp(min=0)


@final
@dataclass(frozen=True)
class Clip(Stabiliser):
    """Keep every value between two bounds, each by itself: y_k = min(max(x_k, low), high).

    Args:
        low: the least value, or ``None`` for no such bound. A value raised to it is saturated.
        high: the greatest value, or ``None``.

    Raises:
        ValueError: a bound is NaN, or ``low`` is above ``high``.

    >>> clip = Clip(low=0.1, high=10.0)
    >>> clip.update(torch.tensor([0.01, 1.0, 500.0]), clip.init(3))[0]
    tensor([ 0.1000,  1.0000, 10.0000], dtype=torch.float64)
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None and math.isnan(bound):
                raise ValueError(f"{name} must be a number, found nan: leave it out for no bound")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(
                f"low must not be above high = {self.high!r}, found {self.low!r}: swap them"
            )

    def init(self, n_tasks: int) -> Bounded:
        """No value is saturated."""
        return Bounded(_falses(n_tasks))

    def update(self, told: Tensor, state: Bounded) -> tuple[Tensor, Bounded]:
        """The values ``told`` (K,) within the bounds."""
        value = _incoming(told, state.saturated)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return value.clamp(low, high), Bounded(value < low)


# ---- delays -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Warmup(Stabiliser):
    """Give every task 1/K in the first updates, and pass values unchanged after.

    Args:
        steps: how many updates warm up; 100 in the paper, 0 for none.

    Raises:
        ValueError: ``steps`` is negative or no int.

    >>> warmup = Warmup(1)
    >>> weights, state = warmup.update(torch.tensor([0.1, 0.9]), warmup.init(2))
    >>> weights
    tensor([0.5000, 0.5000], dtype=torch.float64)
    >>> warmup.update(torch.tensor([0.25, 0.75]), state)[0]
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    steps: int = 100

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, 0, "give the number of updates with uniform weights")

    def init(self, n_tasks: int) -> Tensor:
        """(), int64: no update yet."""
        return torch.zeros((), dtype=torch.int64)

    def update(self, told: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform weights (K,), or ``told`` (K,)."""
        value = as_work(told)
        return torch.where(state < self.steps, 1 / len(value), value), state + 1


@final
@dataclass(frozen=True, eq=False)
class Held:
    """The last values let through.

    Attributes:
        value: (K,), the values; 0 where there has been none.
        seen: (K,), bool, for which tasks there has been one.
        count: (), int64, how many updates there have been.
    """

    value: Tensor
    seen: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class Freeze(Stabiliser):
    """Pass values unchanged in the first updates, then hold the last ones for good.

    It turns an adaptive weighting into the fixed one that it has found. A task that was missing in
    all of these updates is held at its first value.

    Args:
        after: how many updates pass, at least 1.

    Raises:
        ValueError: ``after`` is below 1 or no int.

    >>> freeze = Freeze(after=1)
    >>> weights, state = freeze.update(torch.tensor([0.25, 0.75]), freeze.init(2))
    >>> freeze.update(torch.tensor([0.5, 0.5]), state)[0]
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    after: int = 1000

    def __post_init__(self) -> None:
        _check_count("after", self.after, 1, "let one value pass before it is held")

    def init(self, n_tasks: int) -> Held:
        """No value yet."""
        return Held(_zeros(n_tasks), _falses(n_tasks), torch.zeros((), dtype=torch.int64))

    def update(self, told: Tensor, state: Held) -> tuple[Tensor, Held]:
        """The values ``told`` (K,), or those held."""
        value = _incoming(told, state.value)
        here = ~value.isnan()
        passing = here & ((state.count < self.after) | ~state.seen)
        held, seen = torch.where(passing, value, state.value), state.seen | here
        return torch.where(seen, held, value), Held(held, seen, state.count + 1)


# ---- checks -------------------------------------------------------------------------------------


def _incoming(told: Tensor, like: Tensor) -> Tensor:
    if told.shape != like.shape:
        raise ValueError(
            f"values must have the shape {tuple(like.shape)} of the state, found "
            f"{tuple(told.shape)}: give one number a task, NaN for a missing one"
        )
    return as_work(told)


def _zeros(n_tasks: int) -> Tensor:
    return torch.zeros(_check_count("n_tasks", n_tasks, 1, "give the number of tasks"), dtype=DTYPE)


def _falses(n_tasks: int) -> Tensor:
    return _zeros(n_tasks).bool()


def _check_decay(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(
            f"decay must lie in [0, 1), found {decay!r}: 0.99 averages about 100 steps, 0 does not "
            "average"
        )


def _check_count(name: str, value: int, least: int, remedy: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, found {value!r}: {remedy}")
    return value
