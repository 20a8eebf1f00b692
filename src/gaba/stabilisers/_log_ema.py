"""The exponential moving average of log-norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.stabilisers._base import Stabiliser
from gaba.stabilisers._checks import check_decay, check_n_tasks, incoming
from gaba.stabilisers._running import Running


@final
@dataclass(frozen=True)
class LogEMA(Stabiliser[Running]):
    """Replace each norm by its exponential moving geometric mean.

    ĝ_k = exp(m_k / b_k) with m_k ← d m_k + (1 − d) log g_k and b_k ← d b_k + (1 − d), both from 0,
    where g_k is the norm of task k, d the decay and ĝ_k what is believed of g_k from now on.
    Norms and result have shape (K,) and the same unit.

    Averaging norms and then inverting them is not averaging their inverses: for log-normal norms,
    E[1/g] = e^{σ²} / E[g], where σ² is the variance of log g, so that of two tasks with the same
    mean norm the noisier one would get another weight. The logarithm and the inverse do commute:
    the mean of log 1/g is minus the mean of log g.

    A norm of exactly 0 has no logarithm: it is not taken in, and what was believed stays. So it is
    for a missing task. A task of which nothing is known yet passes unchanged.

    Attributes:
        decay: d in [0, 1); .99 averages over about 100 steps, 0 believes each norm.

    Raises:
        ValueError: If ``decay`` is outside [0, 1). Norms are not checked, because a check would
            synchronise the device: a negative or NaN norm gives NaN.

    >>> import torch
    >>> from gaba.stabilisers import LogEMA
    >>> smoother = LogEMA(decay=0.5)
    >>> norms, state = smoother.update(torch.tensor([1.0, 100.0]), smoother.init(2))
    >>> norms, state = smoother.update(torch.tensor([8.0, 0.0]), state)
    >>> norms
    tensor([  4.0000, 100.0000], dtype=torch.float64)
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        check_decay(self.decay)

    def init(self, n_tasks: int) -> Running:
        """Nothing known of any task."""
        return Running.empty(check_n_tasks(n_tasks))

    def update(
        self, value: Tensor, state: Running, present: Tensor | None = None
    ) -> tuple[Tensor, Running]:
        """The believed norms (K,) with the norms ``value`` (K,) taken in."""
        value, present = incoming(value, present, state.mean.shape[0])
        seen = present & (value != 0)
        new = state.advance(torch.where(seen, value, 1.0).log(), self.decay, seen)
        return torch.where(new.mass > 0, (new.mean / new.mass).exp(), value), new
