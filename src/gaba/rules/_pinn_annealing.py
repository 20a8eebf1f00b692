"""The weights of physics-informed networks: learning rate annealing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._pinn import AveragedWeights, check_decay


@final
@dataclass(frozen=True)
class PINNAnnealing(StatefulWeighting[AveragedWeights]):
    """Raise each task to the residual: λ_k ← d λ_k + (1 − d) max|∇L_r| / mean|∇L_k|.

    r is the reference (the residual of the equation), which keeps weight 1; max and mean are over
    the entries of the gradient with respect to the shared parameters; d is the decay, and every λ_k
    starts at 1. The weights (K,) are those of ``scale="rule"``. Max and mean come from
    :class:`gaba.measurement.ElementNorms`. A mean is far below a maximum, so that at rest the
    other tasks pull harder than the residual, by max/mean of a typical gradient. Nothing bounds
    λ_k: the gradient of a task that is solved vanishes, and its weight grows, until nothing else
    counts. ``weighted=True`` grows as the square root only.

    A task whose gradient is 0, or that is missing, keeps its weight; so do all where the reference
    is missing.

    Args:
        decay: d, in [0, 1).
        reference: the position of the residual among the tasks.
        weighted: divide by λ_k mean|∇L_k| instead, with λ_k as it is before, which is what the
            authors' code does; at rest λ_k is then the square root of what it is otherwise.

    Raises:
        ValueError: A setting is out of its range, or the measurement gives no max and mean.

    Source: Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
    Physics-Informed Neural Networks, SIAM J. Sci. Comput. 2021, algorithm 1; the decay of .9 is
    that of the authors' code, which takes the mean of the means of the layers' weights.

    Example:
        >>> import torch
        >>> from gaba.rules import Measured, PINNAnnealing
        >>> rule, norms = PINNAnnealing(decay=0.9), torch.tensor([4.0, 1.0])
        >>> seen = Measured(norms, norms, statistics=torch.tensor([[3.0, 0.5], [0.6, 0.1]]))
        >>> weights, state = rule.update(seen, rule.init(2))
        >>> [round(w, 6) for w in weights.tolist()]  # 1 and .9 + .1 · 3/.1
        [1.0, 3.9]
    """

    decay: float = 0.9
    reference: int = 0
    weighted: bool = False
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        check_decay("PINNAnnealing", self.decay)
        if self.reference < 0:
            raise ValueError(
                f"PINNAnnealing: reference must be zero or more, found {self.reference}; it is the "
                "position of the residual among the tasks"
            )

    def init(self, n_tasks: int) -> AveragedWeights:
        """Every weight 1."""
        if self.reference >= n_tasks:
            raise ValueError(
                f"PINNAnnealing: reference must be the position of one of the {n_tasks} tasks, "
                f"found {self.reference}; positions count from 0"
            )
        return AveragedWeights.ones(n_tasks)

    def update(
        self, measured: Measured, state: AveragedWeights, present: Tensor | None = None
    ) -> tuple[Tensor, AveragedWeights]:
        """The weights (K,) with the max and mean that were measured taken in."""
        if measured.statistics is None:
            raise ValueError(
                "PINNAnnealing: the measurement must give max and mean of each gradient, found "
                "that it does not; use measurement=gaba.measurement.ElementNorms()"
            )
        most, mean = measured.statistics.unbind(-1)
        here = torch.ones_like(mean, dtype=torch.bool) if present is None else present
        other = torch.arange(len(mean), device=mean.device) != self.reference
        below = mean * state.weights if self.weighted else mean
        usable = here & here[self.reference] & other & (below != 0)
        new = state.towards(most[self.reference] / below, self.decay, usable)
        return new.weights, new
