"""How the methods are built that fields which mix losses write by hand: the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from gaba import rules
from gaba.measurement import ElementNorms, ExactNorms, OutputNorms
from gaba.methods.building import Build, with_slots
from gaba.methods.method import Method
from gaba.methods.own import PLAIN
from gaba.stabilisers import EMA


def _position(tasks: Sequence[str], reference: str | None, method: str) -> int:
    """The position of the task ``reference``, by default the first."""
    if reference is None:
        return 0
    if reference not in tasks:
        raise ValueError(
            f"reference of the method {method!r} must be one of {list(tasks)}, found "
            f"{reference!r}: it is the task that keeps the multiplier 1"
        )
    return list(tasks).index(reference)


def _vqgan(
    tasks: Sequence[str],
    shared: object,
    *,
    last_layer: nn.Module | nn.Parameter | Iterable[nn.Parameter] | None = None,
    weight: float = 1.0,
    start: int = 0,
    epsilon: float = 1e-4,
    most: float = 1e4,
    reference: str | None = None,
    **settings: Any,
) -> Method:
    if isinstance(last_layer, nn.Parameter):
        last_layer = [last_layer]
    elif isinstance(last_layer, nn.Module):
        last_layer = last_layer.parameters()
    rule = rules.VQGAN(weight, start, epsilon, most, _position(tasks, reference, "vqgan"))
    measure = ExactNorms(layer="last" if last_layer is None else last_layer)
    return with_slots(rule, {**PLAIN, "measure": measure}, settings)


def _encodec(
    tasks: Sequence[str],
    shared: object,
    *,
    ratios: Mapping[str, float] | Sequence[float] | None = None,
    total_norm: float = 1.0,
    decay: float = 0.999,
    per_item: bool = True,
    above: bool = True,
    epsilon: float = 1e-12,
    **settings: Any,
) -> Method:
    if isinstance(ratios, Mapping):
        if set(ratios) != set(tasks):
            raise ValueError(
                f"ratios of the method 'encodec' must name the tasks {list(tasks)}, found "
                f"{list(ratios)}: give one number a task"
            )
        ratios = [ratios[task] for task in tasks]
    slots = {
        **PLAIN,
        "measure": OutputNorms(per_item, above),
        "believe": EMA(decay, debias=True),
    }
    return with_slots(rules.EnCodec(ratios, total_norm, epsilon), slots, settings)


def _pinn(
    tasks: Sequence[str],
    shared: object,
    *,
    decay: float = 0.9,
    total: Literal["sum", "mean"] = "sum",
    **settings: Any,
) -> Method:
    return with_slots(rules.PINN(decay, total), {**PLAIN, "every": 1000}, settings)


def _pinn_annealing(
    tasks: Sequence[str],
    shared: object,
    *,
    decay: float = 0.9,
    weighted: bool = False,
    reference: str | None = None,
    **settings: Any,
) -> Method:
    position = _position(tasks, reference, "pinn-annealing")
    rule = rules.PINNAnnealing(decay, position, weighted)
    return with_slots(rule, {**PLAIN, "measure": ElementNorms(), "every": 10}, settings)


BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "vqgan": _vqgan,
        "encodec": _encodec,
        "pinn": _pinn,
        "pinn-annealing": _pinn_annealing,
    }
)
"""How each is built, by its name in the catalogue."""
