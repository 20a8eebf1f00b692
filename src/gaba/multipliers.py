"""The one place where multipliers are bounded: scale, limit, recovery, missing and dead tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from gaba.pieces import Piece
from gaba.tensors import DTYPE, on_device

Scale: TypeAlias = Literal["sum", "geometric", "max", "simplex", "rule"]

DEAD = 1e-6
"""A task that contributes less than this part of the median has no gradient worth an answer."""
ENDLESS = 1e30
"""Stands for no limit where an infinite number cannot be calculated with."""
GAP = 0.05
"""The smallest rate of the mean gap between two batches with a task: over the last 20 or so."""
LONGEST = 40.0
"""A gap counts as no longer than this: a task that was away for long need not be rare."""
RARE = 0.25
"""A task is rare if it pulls in less than this part of the batches of the most frequent one."""


@final
@dataclass(frozen=True, eq=False)
class Asked:
    """What the rule asks for.

    Attributes:
        wanted: (K,), multipliers up to a common factor; NaN for a task of which nothing is known.
        norms: (K,), ĝ as believed; NaN where there is none.
        there: (K,), bool, which tasks pull in this batch; ``None`` for all.
    """

    wanted: Tensor
    norms: Tensor
    there: Tensor | None = None


@final
@dataclass(frozen=True, eq=False)
class Multiplied:
    """The multipliers so far.

    Attributes:
        multipliers: (K,), m; a task of which nothing is known keeps its own.
        peak: (K,), the largest ĝ_k so far; 0 as long as nothing is known.
        saturated: (K,), bool, which multipliers are at the limit.
        gap: (K,), from how many batches one had the task, in the mean; 1 until more is known.
        away: (K,), for how many batches a task has been away.
        seen: (K,), how many batches had it.
    """

    multipliers: Tensor
    peak: Tensor
    saturated: Tensor
    gap: Tensor
    away: Tensor
    seen: Tensor


@final
@dataclass(frozen=True)
class Bounds(Piece[Asked, Tensor]):
    """From what a rule asks for to multipliers: m_k = clip(a w_k, 1/L, L).

    ===============  ============================================================================
    ``"sum"``        Σ m_k ĝ_k = Σ ĝ_k: the update pulls as hard as the plain sum of the losses
    ``"geometric"``  the geometric mean of m is 1
    ``"max"``        max m_k ĝ_k = max ĝ_k: the largest contribution is as long as the largest norm
    ``"simplex"``    Σ m_k = 1, as papers have it; no limit
    ``"rule"``       w_k as the rule gives them; no limit
    ``anchor=k``     m_k = 1 for this task, in place of the scale
    ===============  ============================================================================

    Without norms every task counts as equally loud.

    Args:
        scale: which of the above chooses the factor a.
        limit: L ≥ 1; ``None`` for none.
        recovery: R ≥ 1; a norm below its peak over R counts as that, so a task that converges is
            not amplified by more than R. ``None`` for none.
        anchor: the position of the task that keeps the multiplier 1.
        spared: the positions of tasks that are never amplified: their limit is 1 to above.
        excuse_rare: a task that pulls in a part p < 1/4 of the batches of the most frequent one is
            pressed down less, its multiplier divided by 4p up to 1, but never amplified for it: a
            loud task with few labels may stay loud in its few batches.

    Raises:
        ValueError: a setting breaks its rule.

    Example:
        >>> bounds = Bounds(limit=None)
        >>> norms = torch.tensor([4.0, 1.0]).double()
        >>> bounds.update(Asked(1 / norms, norms), bounds.init(2))[0]  # contributions 2.5 and 2.5
        tensor([0.6250, 2.5000], dtype=torch.float64)
    """

    scale: Scale = "sum"
    limit: float | None = 1000.0
    recovery: float | None = None
    anchor: int | None = None
    spared: tuple[int, ...] = ()
    excuse_rare: bool = False

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise ValueError(
                f"scale must be one of {', '.join(get_args(Scale))}, found {self.scale!r}: 'sum' "
                "keeps the length of the plain sum's update"
            )
        for name in ("limit", "recovery"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and float(value) >= 1):
                raise ValueError(
                    f"{name} must be at least 1, or None for none, found {value!r}: 1,000 lets a "
                    "loss be multiplied or divided by a thousand"
                )

    @property
    def limited(self) -> bool:
        """Whether multipliers are held within the limit and dead tasks are left alone."""
        return self.scale not in ("simplex", "rule") or self.anchor is not None

    def init(self, n_tasks: int) -> Multiplied:
        """The multipliers of the plain sum, 1; 1/K on the simplex."""
        start = 1 / n_tasks if self.scale == "simplex" and self.anchor is None else 1.0
        return Multiplied(
            torch.full((n_tasks,), start, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=torch.bool),
            torch.ones(n_tasks, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=DTYPE),
        )

    def living(self, norms: Tensor, state: Multiplied) -> Tensor:
        """``norms`` (K,), NaN for a known task whose gradient has all but vanished."""
        if not self.limited:
            return norms
        pulls = state.multipliers * norms.abs()
        dead = (pulls < DEAD * _median(pulls)) & (state.peak > 0)
        return torch.where(dead, math.nan, norms)

    def recovered(self, norms: Tensor, state: Multiplied) -> Tensor:
        """The believed ``norms`` (K,), none further below its peak than by the factor R."""
        if self.recovery is None:
            return norms
        return torch.maximum(norms, state.peak / self.recovery)

    def shared_out(self, raw: Tensor, state: Multiplied) -> Tensor:
        """``raw`` (K,) as weights: unknown tasks keep what they have, the others share the rest."""
        if self.scale == "rule" and self.anchor is None:
            return raw
        last = state.multipliers / state.multipliers.sum()
        known = ~raw.isnan()
        rest = 1 - torch.where(known, 0.0, last).sum()
        rest = torch.where(rest > 0, rest, 0.5)
        total = raw.nansum()
        return raw * torch.where(total > 0, rest / total, math.nan)

    def update(self, told: Asked, state: Multiplied) -> tuple[Tensor, Multiplied]:
        """The multipliers (K,) of this step; a task that nothing is asked for keeps its own."""
        known = ~told.wanted.isnan()
        wanted = torch.where(known, told.wanted, 0.0)
        norms = torch.where(known & (told.norms > 0), told.norms, 0.0)
        peak = torch.maximum(state.peak, told.norms.nan_to_num(nan=0.0))
        gap, away, seen = _gaps(told.there, state)
        multipliers = self._factor(wanted, norms, known, state) * wanted
        if self.excuse_rare:
            multipliers = _excused(multipliers, torch.where(peak > 0, 1 / gap, 0.0))
        saturated = torch.zeros_like(known)
        if self.limited and self._within:
            low, high = self._lowest, self._highest(multipliers)
            edge = 1e-9  # rounding at a limit that is just reached saturates nothing
            saturated = known & (
                (multipliers < low * (1 - edge)) | (multipliers > high * (1 + edge))
            )
            multipliers = torch.minimum(multipliers.clamp(min=low), high)
        multipliers = torch.where(known, multipliers, state.multipliers)
        return multipliers, Multiplied(multipliers, peak, saturated, gap, away, seen)

    def _factor(self, wanted: Tensor, norms: Tensor, known: Tensor, state: Multiplied) -> Tensor:
        """The common factor a, ()."""
        one = torch.ones_like(wanted[0])
        if self.anchor is not None:
            before = torch.where(known, state.multipliers, 0.0).sum()
            here = known[self.anchor]
            return torch.where(here, _ratio(one, wanted[self.anchor]), _ratio(before, wanted.sum()))
        if self.scale == "rule":
            return one
        if self.scale == "simplex":
            return _ratio(1 - torch.where(known, 0.0, state.multipliers).sum(), wanted.sum())
        if self.scale == "geometric":
            usable = wanted > 0
            logs = torch.where(usable, wanted, 1.0).log().sum() / usable.sum().clamp(min=1)
            return (-logs).exp()
        loud = torch.where((norms > 0).any(), norms, known.to(norms.dtype))
        if self.scale == "max":
            return _ratio(loud.max(), (wanted * loud).max())
        if not self._within:
            return _ratio(loud.sum(), (wanted * loud).sum())
        return _filled(wanted, loud, self._lowest, self._highest(wanted))

    @property
    def _within(self) -> bool:
        return self.limit is not None or bool(self.spared)

    @property
    def _lowest(self) -> float:
        return 0.0 if self.limit is None else 1 / self.limit

    def _highest(self, like: Tensor) -> Tensor:
        """(K,), the most by which each loss may be multiplied."""
        high = torch.full_like(like, self.limit or ENDLESS)
        return high.index_fill(0, on_device(self.spared, like.device), 1.0) if self.spared else high


def _gaps(there: Tensor | None, state: Multiplied) -> tuple[Tensor, Tensor, Tensor]:
    """The mean gap, how long each task has been away, and how often it was seen, each (K,).

    The gap of a task moves when it comes, so one that is away keeps its own.
    """
    if there is None:
        return state.gap, state.away, state.seen
    gap = (state.away + 1).clamp(max=LONGEST)
    rate = (1 / (1 + state.seen)).clamp(min=GAP)
    mean = torch.where(state.seen > 0, state.gap + rate * (gap - state.gap), state.gap)
    away = torch.where(state.seen > 0, state.away + 1, state.away)
    return (
        torch.where(there, mean, state.gap),
        torch.where(there, 0.0, away),
        state.seen + there.to(state.seen),
    )


def _excused(multipliers: Tensor, presence: Tensor) -> Tensor:
    """``multipliers`` (K,), those below 1 raised for a task that is rare, to 1 at most."""
    part = _ratio(presence, RARE * presence.max().expand_as(presence)).clamp(max=1.0)
    raised = torch.where(part > 0, multipliers / torch.where(part > 0, part, 1.0), 1.0)
    return torch.minimum(raised, multipliers.clamp(min=1.0))


def _filled(wanted: Tensor, norms: Tensor, low: float, high: Tensor) -> Tensor:
    """The factor a with Σ clip(a w_k, low, high_k) g_k = Σ g_k, by water-filling.

    The sum is linear in a between the 2 K points where a limit begins to act.
    """
    target, usable = norms.sum(), wanted > 0
    safe = torch.where(usable, wanted, 1.0)
    ends = torch.cat([low / safe, high / safe])
    points = torch.where(usable.repeat(2), ends, 0.0).sort().values
    clipped = torch.minimum((points[:, None] * wanted).clamp(min=low), high)
    above = ((clipped * norms).sum(-1) < target).sum().clamp(max=len(points) - 1)
    around = torch.stack([above, (above - 1).clamp(min=0)])
    inside = points.gather(0, around).mean()  # points[above] would wait for the device
    at_low, at_high = inside * wanted <= low, inside * wanted >= high
    fixed = torch.where(at_low, low * norms, torch.where(at_high, high * norms, 0.0))
    slope = torch.where(at_low | at_high, 0.0, wanted * norms).sum()
    return torch.where(
        slope > 0, (target - fixed.sum()) / torch.where(slope > 0, slope, 1.0), inside
    )


def _median(values: Tensor) -> Tensor:
    """The median (1,) of those that are known, between the two in the middle if need be."""
    ordered = values.sort().values  # NaN at the end
    n = (~values.isnan()).sum(0, keepdim=True)
    middle = torch.cat([(n - 1).clamp(min=0) // 2, n // 2])
    return ordered[middle.clamp(max=len(values) - 1)].mean(0, keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    usable = denominator > 0
    return torch.where(usable, numerator / torch.where(usable, denominator, 1.0), 1.0)
