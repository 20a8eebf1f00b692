"""The same rule under other names: what people write by hand in fields that mix losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

import gaba
from gaba import measurement, stabilisers
from gaba import rules as weighting
from gaba.methods._table import Method


def _position(tasks: Sequence[str], reference: str | None, method: str) -> int:
    """The position of the task ``reference``, by default the first."""
    if reference is None:
        return 0
    if reference not in tasks:
        raise ValueError(
            f"reference of the method {method!r} must be one of {list(tasks)}, found "
            f"{reference!r}; it is the task that keeps weight 1"
        )
    return list(tasks).index(reference)


def _made(tasks: Sequence[str], shared: Any, own: dict[str, Any], settings: Any) -> gaba.Balancer:
    """With the lengths of the weights' own, and norms as they are, unless ``settings`` say else."""
    base = {"norm_stabiliser": None, "scale": "rule"}
    return gaba.Balancer(tasks, shared, **{**base, **own, **settings})


def _vqgan(
    tasks: Sequence[str],
    shared: Any,
    *,
    last_layer: nn.Module | nn.Parameter | Iterable[nn.Parameter] | None = None,
    weight: float = 1.0,
    start: int = 0,
    epsilon: float = 1e-4,
    most: float = 1e4,
    reference: str | None = None,
    **settings: Any,
) -> gaba.Balancer:
    if isinstance(last_layer, nn.Parameter):
        last_layer = [last_layer]
    elif isinstance(last_layer, nn.Module):
        last_layer = last_layer.parameters()
    rule = weighting.VQGAN(weight, start, epsilon, most, _position(tasks, reference, "vqgan"))
    own = {"weighting": rule, "measurement": measurement.LastLayerNorms(last_layer)}
    return _made(tasks, shared, own, settings)


def _encodec(
    tasks: Sequence[str],
    shared: Any,
    *,
    ratios: Mapping[str, float] | Sequence[float] | None = None,
    total_norm: float = 1.0,
    decay: float = 0.999,
    per_item: bool = True,
    above: bool = True,
    epsilon: float = 1e-12,
    **settings: Any,
) -> gaba.Balancer:
    if isinstance(ratios, Mapping):
        if set(ratios) != set(tasks):
            raise ValueError(
                f"ratios of the method 'encodec' must name the tasks {list(tasks)}, found "
                f"{list(ratios)}; give one number a task"
            )
        ratios = [ratios[task] for task in tasks]
    own = {
        "weighting": weighting.EnCodec(ratios, total_norm, epsilon),
        "measurement": measurement.OutputNorms(per_item, above),
        "norm_stabiliser": stabilisers.EMA(decay, debias=True),
    }
    return _made(tasks, shared, own, settings)


def _pinn(
    tasks: Sequence[str],
    shared: Any,
    *,
    decay: float = 0.9,
    total: Literal["sum", "mean"] = "sum",
    **settings: Any,
) -> gaba.Balancer:
    own = {"weighting": weighting.PINN(decay, total), "every": 1000}
    return _made(tasks, shared, own, settings)


def _pinn_annealing(
    tasks: Sequence[str],
    shared: Any,
    *,
    decay: float = 0.9,
    weighted: bool = False,
    reference: str | None = None,
    **settings: Any,
) -> gaba.Balancer:
    position = _position(tasks, reference, "pinn-annealing")
    rule = weighting.PINNAnnealing(decay, position, weighted)
    own = {"weighting": rule, "measurement": measurement.ElementNorms(), "every": 10}
    return _made(tasks, shared, own, settings)


RELATIVES: tuple[Method, ...] = (
    Method(
        "vqgan",
        "relative",
        "λ_k = w clamp(g_r/(g_k + 1e-4), 0, 1e4), λ_r = 1 (r: reference=, or the first task); "
        "λ_k = 0 before start=",
        "Esser et al. 2021 (adaptive discriminator weight)",
        "norms on the last layer (last_layer=)",
        "K passes from the losses to that layer",
        _vqgan,
    ),
    Method(
        "encodec",
        "relative",
        "λ_k = R (r_k/Σr)/EMA(g_k), g_k the mean over the batch of ‖∂L_k/∂y_b‖, y the output",
        "Défossez et al. 2022 (loss balancer)",
        "norms at the output of what is shared (or features=)",
        "nothing (K passes from the losses to the output, one below)",
        _encodec,
    ),
    Method(
        "pinn",
        "relative",
        "λ_k ← .9 λ_k + .1 Σ_j g_j/g_k, in every 1000th step (every=)",
        "Wang et al. 2023 (physics-informed networks)",
        "norms",
        "K − 1 backward passes in every 1000th step",
        _pinn,
    ),
    Method(
        "pinn-annealing",
        "relative",
        "λ_k ← .9 λ_k + .1 max|∇L_r|/mean|∇L_k|, λ_r = 1 (r: reference=, or the first task), in "
        "every 10th step (every=)",
        "Wang et al. 2021 (learning rate annealing)",
        "largest and mean entries of the gradients",
        "K − 1 backward passes in every 10th step",
        _pinn_annealing,
    ),
)
