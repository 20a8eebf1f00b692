"""TorchJD's weightings as rules of this library, and our rules as weightings of TorchJD.

TorchJD's weights have any sum, ours have sum 1: :class:`FromTorchJD` divides by the sum. So both
updates point the same way, and ``scale`` of the Balancer says how long ours is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor

from gaba.weighting import Needs, Weighting, by_name

try:
    from torchjd import Stateful, aggregation
    from torchjd.linalg import PSDMatrix
except ImportError as error:
    raise ImportError(
        'the bridge to TorchJD needs torchjd, which is not installed: pip install "gaba[bench]"'
    ) from error

__all__ = ["FromTorchJD", "ToTorchJD"]

Theirs: TypeAlias = "aggregation.Weighting[Any] | aggregation.WeightedAggregator"

_NEEDS_MORE = ("ExcessMTLWeighting", "MoDoWeighting", "SDMGradWeighting", "_NashMTLWeighting")
"""Those that take a Jacobian, or the gradients of two batches: a Gramian does not serve them."""


@final
@dataclass(frozen=True)
class FromTorchJD(Weighting):
    """A weighting of TorchJD as a rule: λ = w / Σ_k w_k, with w its weights for the Gramian.

    G (..., K, K) is the Gramian of the gradients, λ (..., K). Every weighting that TorchJD lists
    for its ``autogram`` engine will do. Some of them (``IMTLGWeighting``, ``AlignedMTLWeighting``)
    can give a task a negative weight; it is passed on as it is. K = 1 gives weight 1. Where w has
    no positive sum, or G is not finite, weights are NaN, so that the Balancer leaves the step out.
    Unlike our own rules these may wait for the device.

    A weighting that has a vector with an entry for each task (``pref_vector``) raises in a step
    without one of them. One with a state of its own (``GradVacWeighting``, ``CRMOGMWeighting``)
    keeps it itself: it is neither in ``balancer.state_dict()`` nor forgotten by
    ``balancer.reset()``; our stabilisers are.

    Args:
        weighting: A weighting, or an aggregator that is made of one, such as ``UPGrad()``.

    Raises:
        TypeError: ``weighting`` is neither, or takes more than a Gramian.

    Source: TorchJD, https://torchjd.org; the paper is Quinton and Rey 2024, arXiv:2406.16232.

    Example:
        >>> import numpy as np
        >>> from torchjd.aggregation import MGDAWeighting
        >>> rule = FromTorchJD(MGDAWeighting())
        >>> rule(np.diag([1.0, 4.0])).round(6).tolist()
        [0.8, 0.2]
    """

    weighting: Theirs
    needs: ClassVar[Needs] = "gramian"

    def __post_init__(self) -> None:
        inner: Any = self.weighting
        if isinstance(inner, aggregation.WeightedAggregator):
            inner = getattr(inner, "gramian_weighting", inner.weighting)
        if not isinstance(inner, aggregation.Weighting):
            raise TypeError(
                f"weighting must be a weighting of TorchJD or an aggregator made of one, found "
                f"{type(inner).__name__}: pass torchjd.aggregation.UPGradWeighting() or the like"
            )
        for part in inner.modules():
            if type(part).__name__ in _NEEDS_MORE:
                raise TypeError(
                    f"weighting must take a Gramian, found {type(part).__name__}, which takes "
                    "a Jacobian or two batches: use one that torchjd.autogram lists"
                )
        object.__setattr__(self, "weighting", inner)

    def __call__(self, measured: Any, /) -> Any:
        """Weights (..., K) for the Gramian ``measured`` (..., K, K)."""
        if not isinstance(measured, Tensor):
            return self(torch.as_tensor(measured, dtype=torch.float64)).numpy()
        k = measured.shape[-1]
        with torch.no_grad():
            rows = [self._of_one(gramian) for gramian in measured.reshape(-1, k, k)]
        return torch.stack(rows).reshape(measured.shape[:-1])

    def _of_one(self, gramian: Tensor) -> Tensor:
        k = gramian.shape[-1]
        if not bool(gramian.isfinite().all()):
            return gramian.new_full((k,), torch.nan)
        if k == 1:
            return gramian.new_ones(1)
        weights = self._asked(gramian).to(gramian)
        total = weights.sum()
        return torch.where(total > 0, weights / total, torch.full_like(weights, torch.nan))

    def _asked(self, gramian: Tensor) -> Tensor:
        inner: Any = self.weighting
        probe = torch.equal(gramian, torch.eye(len(gramian)).to(gramian))
        if probe and any(isinstance(part, Stateful) for part in inner.modules()):
            # a Balancer asks with the identity whether a rule is made for so many tasks
            with torch.random.fork_rng(devices=[]):
                return copy.deepcopy(inner)(gramian)
        return inner(gramian)


@final
class ToTorchJD(aggregation.Weighting[PSDMatrix]):
    """A rule of ours as a weighting of TorchJD, for its aggregators and its ``autogram`` engine.

    The rule gets the Gramian G (K, K) of the Jacobian, or the norms g_k = √G_kk if it asks for
    norms; the weights (K,) have sum 1, the dtype and the device of G.

    Args:
        rule: A rule, or the name of one.

    Raises:
        ValueError: The rule needs the losses, which TorchJD does not give.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import GramianWeightedAggregator
        >>> aggregator = GramianWeightedAggregator(ToTorchJD("inverse"))
        >>> aggregator(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))  # a row for each task
        tensor([0.7500, 0.7500])
    """

    def __init__(self, rule: Weighting | str) -> None:
        super().__init__()
        self.rule = by_name(rule) if isinstance(rule, str) else rule
        if self.rule.needs == "losses":
            raise ValueError(
                f"rule must need norms or the Gramian, found {self.rule!r}, which needs the "
                "losses: TorchJD does not give them to a weighting"
            )

    def forward(self, stat: PSDMatrix, /) -> Tensor:
        """Weights (K,) for the Gramian ``stat`` (K, K)."""
        with torch.no_grad():
            gramian = stat.detach()
            norms = gramian.diagonal().clamp(min=0).sqrt()
            return self.rule(gramian if self.rule.needs == "gramian" else norms).to(stat.dtype)

    def extra_repr(self) -> str:
        """The rule, for ``repr``."""
        return repr(self.rule)
