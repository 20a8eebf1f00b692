"""Unequal on purpose: what a rule makes equal, in given proportions instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_each, keep_ratios
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
