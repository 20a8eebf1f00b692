"""Unequal on purpose: what a rule makes equal, in given proportions instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_each, keep_ratios
from gaba.rules._vectors import known, positive, zeros
from gaba.rules.norms import InverseNorm
from gaba.rules.rule import Needs, Proportional, Rule


@final
@dataclass(frozen=True)
class Targets(Rule):
    """Make what another rule makes equal proportional to r_k instead.

    Around :class:`InverseNorm` that is contributions, m_k g_k ∝ r_k; around :class:`EqualShare`
    shares, m_k (Gm)_k ∝ r_k (a risk budget, in finance); around :class:`EqualProjection`
    projections.

    Args:
        ratios: r, one positive finite number a task, in the order of the tasks; only their
            proportions matter.
        rule: the rule whose quantity is to be proportional.

    Raises:
        ValueError: A ratio is not positive or not finite, or their number is not K.
        TypeError: The rule makes nothing equal.

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> contributions = Targets((3, 1))(norms) * norms
        >>> (contributions / contributions.sum()).round(6).tolist()
        [0.75, 0.25]
    """

    ratios: Sequence[float]
    rule: Proportional = InverseNorm()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        keep_ratios(self, "ratios")
        if not isinstance(self.rule, Proportional):
            raise TypeError(
                f"Targets: rule must be one that makes something equal, found {self.rule!r}; use "
                "InverseNorm, EqualShare or EqualProjection"
            )

    @property
    def needs(self) -> Needs:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the wrapped rule needs: "norms" or "gramian"."""
        return self.rule.needs

    def init(self, n_tasks: int) -> Any:
        """The state of the wrapped rule."""
        check_each(self, "ratios", n_tasks)
        return self.rule.init(n_tasks)

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """Multipliers (..., K) that make the quantity proportional to the ratios."""
        return self.rule.towards(seen, self.ratios), state


@final
@dataclass(frozen=True, eq=False)
class FirstShares:
    """The first loss of each task.

    Attributes:
        first: (K,), 0 for a task that has had none.
    """

    first: Tensor


@final
@dataclass(frozen=True)
class InitialTargets(Rule):
    """Give each task the part of the update that it had of the losses at the start.

    The targets are t_k = L_k(0) / Σ_j L_j(0), so m_k ∝ √t_k / g_k, as ``share_targets`` of a
    :class:`gaba.Balancer` makes it. The units of a loss cancel in equal shares; they do not here: a
    loss that you write twice as large has twice the target. A task without a loss so far has the
    mean of the others'.

    Raises:
        ValueError: A Balancer refuses a first loss that is not above 0; here the answer is NaN.

    Example:
        >>> rule = InitialTargets()
        >>> seen = Seen(torch.tensor([9.0, 1.0]), torch.tensor([2.0, 1.0]))
        >>> m, state = rule.update(seen, rule.init(2))
        >>> pulls = (m * seen.norms) ** 2  # of gradients at right angles: shares
        >>> (pulls / pulls.sum()).numpy().round(6).tolist()
        [0.9, 0.1]
    """

    takes: ClassVar[str] = "above 0 in its first step"

    def init(self, n_tasks: int) -> FirstShares:
        """No loss seen."""
        return FirstShares(zeros(n_tasks))

    def unfit(self, losses: Tensor, state: FirstShares) -> Tensor | None:
        """First losses that are not above 0 (K,)."""
        return (state.first == 0) & (losses <= 0)

    def update(self, seen: Seen, state: FirstShares) -> tuple[Tensor, FirstShares]:
        """Multipliers (K,) for shares as the losses were at first, and the state with them."""
        losses, here = known(seen.losses, 0.0)
        first = torch.where((state.first == 0) & here, positive(losses), state.first)
        started = first != 0
        mean = first.sum(-1, keepdim=True) / started.sum(-1, keepdim=True).clamp(min=1)
        targets = torch.where(started, first / torch.where(mean != 0, mean, 1.0), 1.0)
        return targets.sqrt() / seen.norms, FirstShares(first)
