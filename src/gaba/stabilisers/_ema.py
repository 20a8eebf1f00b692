"""The exponential moving average of weights or norms."""

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
class EMA(Stabiliser[Running]):
    """Replace each value by its exponential moving average.

    m_k ← d m_k + (1 − d) x_k, where x_k is the value of task k, d the decay and m_k what comes
    out. Values and result have shape (K,) and the same unit. Without ``debias`` the average starts
    from 1/K, as if the weights had been uniform before: meant for weights, and what the paper
    does. With ``debias`` it starts from nothing, m_k / (1 − dⁿ) after n values of task k: meant for
    norms, whose size nobody knows beforehand; a task without any value yet passes unchanged.

    A missing task keeps its average, which is also what comes out for it.

    Attributes:
        decay: d in [0, 1); .99 averages over about 100 steps, 0 passes values unchanged.
        debias: Whether to start from nothing rather than from 1/K.

    Raises:
        ValueError: If ``decay`` is outside [0, 1).

    Source: Kingma & Ba 2015 (Adam), section 3, for the debiased form.

    >>> import torch
    >>> from gaba.stabilisers import EMA
    >>> ema = EMA(decay=0.9)
    >>> weights, state = ema.update(torch.tensor([0.0, 1.0]), ema.init(2))
    >>> weights
    tensor([0.4500, 0.5500], dtype=torch.float64)
    """

    decay: float = 0.99
    debias: bool = False

    def __post_init__(self) -> None:
        check_decay(self.decay)

    def init(self, n_tasks: int) -> Running:
        """Uniform values, or none at all if debiased."""
        check_n_tasks(n_tasks)
        return Running.empty(n_tasks) if self.debias else Running.uniform(n_tasks)

    def update(
        self, value: Tensor, state: Running, present: Tensor | None = None
    ) -> tuple[Tensor, Running]:
        """The average with ``value`` (K,) taken in."""
        value, present = incoming(value, present, state.mean.shape[0])
        new = state.advance(value, self.decay, present)
        return torch.where(new.mass > 0, new.mean / new.mass, value), new
