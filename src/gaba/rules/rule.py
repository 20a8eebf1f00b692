"""What a rule is: from what was seen of the tasks to one multiplier for each."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from gaba.pieces import Piece, Seen
from gaba.state import flatten, unflatten
from gaba.tensors import Array, from_any, same_kind

Needs = Literal["losses", "norms", "gramian"]


class Rule(Piece[Seen, Tensor]):
    """From losses, norms or a Gramian to one multiplier (..., K) a task, of any sum and scale.

    A subclass is a frozen dataclass of settings with an ``update`` of torch functions. What it
    gives for a task without a gradient (norm 0) or of which nothing is known (NaN) does not matter.
    A sum, mean or softmax over the tasks must leave NaN out. A rule with a memory reads a NaN loss
    as "missing in this step", and leaves that task's part of the state as it was.

    Attributes:
        needs: what must be measured; the losses are always there.
        defined_at_zero: whether the multiplier of a task with norm 0 is the rule's own. If not, the
            task gets the mean of the others, which is 1/K on the simplex.
        takes: which losses the rule takes, in words, if :meth:`unfit` refuses some.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> @dataclass(frozen=True)
        ... class InverseVariance(Rule):
        ...     def update(self, seen, state):
        ...         return 1 / seen.norms**2, state
        >>> InverseVariance()(np.array([2.0, 1.0, 0.0])).round(4).tolist()
        [0.1333, 0.5333, 0.3333]
    """

    needs: ClassVar[Needs] = "norms"
    defined_at_zero: ClassVar[bool] = False
    takes: ClassVar[str] = "above 0"

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """(K,), bool: whose loss the rule can do nothing with; ``None`` if it takes every loss.

        A Balancer refuses such a loss by name, and says what the rule :attr:`takes`.

        Example:
            >>> from gaba import rules
            >>> rule, losses = rules.ScaleInvariant(), torch.tensor([2.0, -1.0])
            >>> rule.unfit(losses, rule.init(2))
            tensor([False,  True])
        """
        return None

    @final
    def __call__(self, measured: Array, /) -> Array:
        """Weights (..., K) on the simplex for what the rule :attr:`needs`, in its first step.

        Args:
            measured: losses or norms (..., K) or a Gramian (..., K, K), as a NumPy array or a
                tensor; the answer is of the same kind, in float64. A NaN makes its whole vector
                NaN.

        Raises:
            ValueError: The shape is another one, or a norm of a NumPy array is negative. A tensor
                is not looked at: that would stall its device.
        """
        return same_kind(on_simplex(self._first(measured)), measured)

    @final
    def raw(self, measured: Array, /) -> Array:
        """What the rule gives for ``measured`` before it is brought to the simplex."""
        return same_kind(self._first(measured), measured)

    def _first(self, measured: Any) -> Tensor:
        values = from_any(measured)
        seen = _seen(self, values, on_host=not isinstance(measured, Tensor))
        state = self.init(values.shape[-1])
        there = {name: part.to(values.device) for name, part in flatten(state).items()}
        found, _ = asked(self, seen, unflatten(state, there))
        return torch.where(found.isnan().any(-1, keepdim=True), math.nan, found)


class Proportional(Rule):
    """A rule that makes some quantity (contribution, share, projection) the same for every task.

    :class:`Targets` asks it for that quantity in given proportions.

    Example:
        >>> from gaba.rules import InverseNorm, Proportional
        >>> isinstance(InverseNorm(), Proportional)
        True
    """

    @abstractmethod
    def towards(self, seen: Seen, ratios: Sequence[float] | None) -> Tensor:
        """Multipliers (..., K) that make the quantity ∝ ``ratios`` (K,), or equal for None."""

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The multipliers that make the rule's quantity equal."""
        return self.towards(seen, None), state


def asked(rule: Rule, seen: Seen, state: Any) -> tuple[Tensor, Any]:
    """What ``rule`` gives (..., K), with the conventions that hold for every rule, and its state.

    A task of which nothing is known gets NaN. A known task without a gradient gets the mean of the
    others (1 if there are none), because no multiplier can make it pull, unless the rule is defined
    there. Where a multiplier is not finite, or all of those by norms are 0 and the rule is not
    defined at zero, every one is NaN: the step is to be dropped.

    Raises:
        ValueError: The rule needs a Gramian and there is none.

    Example:
        >>> from gaba.rules import InverseNorm
        >>> norms = torch.tensor([2.0, 0.0, 1.0, torch.nan])
        >>> asked(InverseNorm(), Seen(torch.ones(4), norms), ())[0]
        tensor([0.5000, 0.7500, 1.0000,    nan])
    """
    lengths = _lengths(rule, seen)
    raw, state = rule.update(seen, state)
    by_norms = rule.needs != "losses" and not rule.defined_at_zero
    live = ~lengths.isnan()
    if by_norms:
        live = live & (lengths != 0)
    n_live = live.sum(-1, keepdim=True)
    mean = (torch.where(live, raw, 0.0) / n_live.clamp(min=1)).sum(-1, keepdim=True)
    broken = ~mean.isfinite()
    if by_norms:
        broken = broken | ((mean == 0) & (n_live > 0))
    given = torch.where(live, raw, torch.where(n_live == 0, 1.0, mean))
    return torch.where(broken | lengths.isnan(), math.nan, given), state


def on_simplex(raw: Tensor) -> Tensor:
    """``raw`` (..., K) over the sum of the known; NaN if that is not above 0 and finite.

    >>> on_simplex(torch.tensor([1.0, torch.nan, 3.0]))
    tensor([0.2500,    nan, 0.7500])
    """
    largest = raw.nan_to_num(nan=-math.inf, posinf=math.inf).amax(-1, keepdim=True)
    part = raw / torch.where(largest > 0, largest, math.nan)
    total = part.nansum(-1, keepdim=True)
    return part / torch.where(total > 0, total, math.nan)


def gramian_of(rule: Rule, seen: Seen) -> Tensor:
    """The Gramian that ``rule`` needs; refused where there is none."""
    if seen.gramian is None:
        raise ValueError(
            f"{type(rule).__name__} needs the Gramian, found none; use measure='exact'"
        )
    return seen.gramian


def _lengths(rule: Rule, seen: Seen) -> Tensor:
    """(..., K): NaN for an unknown task, and 0 for one without a gradient if ``rule`` asks."""
    if rule.needs == "gramian":
        return gramian_of(rule, seen).diagonal(dim1=-2, dim2=-1).sqrt()
    return seen.losses if rule.needs == "losses" else seen.norms


def _seen(rule: Rule, values: Tensor, *, on_host: bool) -> Seen:
    """``values`` as what the rule needs; of the rest, losses of 1 and no norms."""
    square = rule.needs == "gramian"
    what, shape = ("the Gramian", "(..., K, K)") if square else (rule.needs, "(..., K)")
    name, found = type(rule).__name__, tuple(values.shape)
    if len(found) < 1 + square or found[-1] == 0 or (square and found[-1] != found[-2]):
        given = "all inner products of the gradients, not their norms" if square else "one a task"
        raise ValueError(
            f"{name}: {what} must have shape {shape} with K >= 1, found {found}; pass {given}"
        )
    if rule.needs == "losses":
        return Seen(values, torch.full_like(values, math.nan))
    norms = values.diagonal(dim1=-2, dim2=-1) if square else values
    if on_host and bool((norms < 0).any()):
        what = "the Gramian's diagonal" if square else "norms"
        raise ValueError(
            f"{name}: {what} must be zero or more, found {norms.min():g}; pass the lengths of the "
            f"gradients{', squared' if square else ''}"
        )
    losses = torch.ones_like(norms)
    return Seen(losses, norms.sqrt(), values) if square else Seen(losses, norms)
