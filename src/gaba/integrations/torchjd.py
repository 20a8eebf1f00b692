"""TorchJD's weightings as rules of this library, and our rules as weightings of TorchJD.

The first direction is :mod:`gaba.rules.torchjd`; it is named here too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import final

from torch import Tensor

from gaba import methods
from gaba.extras import needs
from gaba.rules import Rule
from gaba.rules.torchjd import FromTorchJD, TheirState

with needs("the bridge to TorchJD needs", "bench", "torchjd"):
    from torchjd import aggregation
    from torchjd.linalg import PSDMatrix

__all__ = ["FromTorchJD", "TheirState", "ToTorchJD"]


@final
class ToTorchJD(aggregation.Weighting[PSDMatrix]):
    """A rule of ours as a weighting of TorchJD, for its aggregators and its ``autogram`` engine.

    It gets the Gramian G (K, K) of the Jacobian, or the norms √G_kk if it asks for norms. The
    weights (K,) sum to 1 and have the dtype and the device of G.

    Args:
        rule: a rule, or the name of a method that has one.

    Raises:
        ValueError: the rule needs the losses, which TorchJD does not give.
        TypeError: the rule has a memory, for which TorchJD has no place.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import GramianWeightedAggregator
        >>> aggregator = GramianWeightedAggregator(ToTorchJD("inverse"))
        >>> aggregator(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))  # a row for each task
        tensor([0.7500, 0.7500])
    """

    def __init__(self, rule: Rule | str) -> None:
        super().__init__()
        self.rule: Rule = methods.get(rule).rule if isinstance(rule, str) else rule
        with suppress(ValueError):  # made for another number of tasks: the first Gramian tells
            self._refuse_memory(2)
        if self.rule.needs == "losses":
            raise ValueError(
                f"rule must need norms or the Gramian, found {self.rule!r}, which needs the "
                "losses: TorchJD does not give them to a weighting"
            )

    def forward(self, stat: PSDMatrix, /) -> Tensor:
        """Weights (K,) for the Gramian ``stat`` (K, K)."""
        gramian = stat.detach()
        self._refuse_memory(len(gramian))
        norms = gramian.diagonal().clamp(min=0).sqrt()
        return self.rule(gramian if self.rule.needs == "gramian" else norms).to(stat.dtype)

    def _refuse_memory(self, n_tasks: int) -> None:
        state = self.rule.init(n_tasks)
        if not isinstance(state, tuple) or state:
            raise TypeError(
                f"rule must have no memory, found {self.rule!r}: TorchJD saves none for a "
                "weighting; use it in a Balancer"
            )

    def extra_repr(self) -> str:
        """The rule, for ``repr``."""
        return repr(self.rule)
