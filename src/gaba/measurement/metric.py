"""The metric in which pulls are measured: that of plain SGD, or what the optimizer feels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from gaba.tensors import dense

_ADAM = (torch.optim.Adam, torch.optim.AdamW)  # before torch 2.7 the second is none of the first
_KNOWN = (*_ADAM, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.SGD)


@final
@dataclass(frozen=True, eq=False)
class OptimizerMetric:
    """How far an optimizer moves each parameter for one unit of gradient: the diagonal P.

    What an adaptive optimizer feels of task k is m_k‖P ∇L_k‖, with P from its state before the
    step. Momentum is left out; groups with smaller learning rates than the largest have P
    multiplied by their share of it. Before the first step P is 1.

    ==========================  ================================================================
    Adam, AdamW                 1/(√v̂ + ε), v̂ = v/(1 − β₂ᵗ), or the largest v̂ with ``amsgrad``
    RMSprop                     1/(√v + ε), with ``centered`` 1/(√(v − ḡ²) + ε)
    Adagrad                     1/(√Σg² + ε)
    SGD                         1, also with momentum
    ==========================  ================================================================

    Args:
        optimizers: those that move the shared parameters.

    Raises:
        TypeError: the metric of an optimizer is not known.

    Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1; Duchi et al., JMLR 2011, section 1.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.Adagrad([w], eps=0.0)
        >>> (3 * w[0] + 4 * w[1]).backward()
        >>> optimizer.step()
        >>> [p.tolist() for p in OptimizerMetric((optimizer,)).scales([w])]
        [[0.3333333432674408, 0.25]]
    """

    optimizers: tuple[Optimizer, ...]

    def __post_init__(self) -> None:
        for optimizer in self.optimizers:
            if not isinstance(optimizer, _KNOWN):
                raise TypeError(
                    "metric='optimizer' reads the state of Adam, AdamW, RMSprop, Adagrad or SGD, "
                    f"found {type(optimizer).__name__}: give one of these, or metric='euclidean'"
                )

    def scales(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """P for each of ``parameters``: its shape (complex numbers as pairs), float32 at least.

        Raises:
            ValueError: none of the parameters is moved by the optimizers.
        """
        groups = {
            id(p): (optimizer, group)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        places = [groups.get(id(p)) for p in parameters]
        moved = [place for place in places if place is not None]
        if not moved:
            raise ValueError(
                "optimizer must be that of the shared parameters, found none of them in its "
                "groups: pass the optimizer that is used in training"
            )
        own = [
            None if place is None else _scale(place[0], place[1], p)
            for p, place in zip(parameters, places, strict=True)
        ]
        typical = _mean([scale for scale in own if scale is not None])
        shares = _shares([group for _, group in moved])
        scales: list[Tensor] = []
        for p, place, scale in zip(parameters, places, own, strict=True):
            if place is None:  # nobody moves it
                scales.append(torch.zeros_like(_wide(p)))
            else:
                known = typical.to(p.device).expand_as(dense(p)) if scale is None else scale
                share = shares.get(id(place[1]), 1.0)
                scales.append(known if share == 1.0 else known * share)
        return scales


def _shares(groups: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The learning rate of each group by its ``id``, in parts of the largest, where they differ."""
    different = {id(group): group for group in groups}
    if len(different) < 2:
        return {}
    rates = {key: float(group["lr"]) for key, group in different.items()}
    largest = max(rates.values())
    return {key: rate / largest for key, rate in rates.items()} if largest > 0 else {}


def _scale(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    """P for one parameter, or ``None`` as long as the optimizer has no state for it."""
    state = optimizer.state.get(parameter)
    if isinstance(optimizer, torch.optim.SGD):
        return torch.ones_like(_wide(parameter))
    if not state:
        return None
    if isinstance(optimizer, torch.optim.Adagrad):
        return _wide(state["sum"]).sqrt().add_(group["eps"]).reciprocal_()
    if isinstance(optimizer, torch.optim.RMSprop):
        square = _wide(state["square_avg"])
        if group["centered"]:
            square = (square - _wide(state["grad_avg"]).square()).clamp_(min=0)
        return square.sqrt().add_(group["eps"]).reciprocal_()
    square = _wide(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
    beta = group["betas"][1]
    corrected = (1 - beta ** state["step"]) ** 0.5
    if isinstance(corrected, Tensor):
        corrected = corrected.to(square.device, non_blocking=True)
    return (square.sqrt() / corrected).add_(group["eps"]).reciprocal_()


def _mean(scales: Sequence[Tensor]) -> Tensor:
    """(), the mean of all numbers in ``scales``; 1 if there are none."""
    if not scales:
        return torch.ones(())
    total = sum(s.numel() for s in scales)
    return torch.stack([s.sum().to(scales[0].device) for s in scales]).sum() / total


def _wide(tensor: Tensor) -> Tensor:
    real = dense(tensor)
    return real if real.dtype == torch.float64 else real.float()


def as_metric(
    name: str, optimizers: Sequence[Optimizer], *, needed: bool = True, tracked: bool = False
) -> OptimizerMetric | None:
    """What the Balancer's ``metric`` stands for; ``None`` is the Euclidean metric.

    Args:
        name: ``"euclidean"`` or ``"optimizer"``.
        optimizers: those that the Balancer was given.
        needed: whether only a metric would need them.
        tracked: whether it is measured along the real update, for which no metric has to be known.

    Raises:
        ValueError: the metric lacks an optimizer, or an optimizer is given for nothing.
    """
    if (name == "optimizer") != bool(optimizers) and (needed or name == "optimizer"):
        raise ValueError(
            f"metric='optimizer' and optimizer=... go together, found metric={name!r} with "
            f"optimizer={'given' if optimizers else None}: give both, or neither"
        )
    if name != "optimizer" or tracked:
        return None
    return OptimizerMetric(tuple(optimizers))
