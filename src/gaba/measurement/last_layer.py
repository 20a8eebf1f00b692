"""Exact norms on one layer: the last that the tasks share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import nn

from gaba.autograd.passes import task_passes
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared, SharedModule
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import observed


@final
@dataclass(frozen=True, eq=False)
class LastLayerNorms(Measurement):
    """The norms ‖∇_W L_k‖₂ with W the parameters of the last shared layer alone.

    They are exact for W and say nothing of the layers before it. The cost is K passes through the
    heads and that layer, and one whole backward pass of everything.

    Args:
        parameters: W; by default the trainable parameters of the last module in the shared one, in
            the order of registration, that has any of its own. Every task must reach it: name the
            layer yourself where the last one is a LayerNorm or a pooler.

    Raises:
        ValueError: ``parameters`` is empty or frozen; or it is not given and what is shared is no
            module.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1 (W "is generally chosen as the last
    shared layer of weights to save on compute costs").

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, bias=False))
        >>> shared, hidden = as_shared(trunk), trunk[0](torch.ones(1, 2))
        >>> z = trunk[1](hidden)
        >>> request = Request(LossGraph([z.sum(), 5 * z.sum()], shared))
        >>> seen, _ = LastLayerNorms().update(request, ())
        >>> torch.allclose(seen.norms, hidden.norm() * torch.tensor([1.0, 5.0]).double())
        True
    """

    unreached_says: ClassVar[str] = (
        "does not reach the layer whose gradients are measured, by default the last one that the "
        "shared module registers: name a layer that every task reaches, "
        "measure=gaba.measurement.LastLayerNorms(layer.parameters()), and check that the loss is "
        "computed from what is shared"
    )

    parameters: Iterable[nn.Parameter] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.parameters is None:
            return
        object.__setattr__(self, "parameters", tuple(self.parameters))
        if not self.parameters:
            raise ValueError(
                "parameters must hold at least one parameter, found none (a generator that was "
                "already used up?): pass those of a layer, or None for the last one"
            )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses at the layer; the gradients are left to a backward pass."""
        graph = told.graph
        layer = _last_layer(graph.shared) if self.parameters is None else tuple(self.parameters)
        layer = tuple(p for p in layer if p.requires_grad)
        if not layer:
            raise ValueError(
                "parameters must hold a trainable parameter, found frozen ones only: name another "
                "layer by LastLayerNorms(layer.parameters())"
            )
        if sharded(layer):
            raise ValueError(
                "LastLayerNorms cannot see one layer of parameters that FSDP has sharded: use "
                "measure='exact' or 'features'"
            )
        return observed(told, task_passes(graph, layer, free=False), theta=layer), state


def _last_layer(shared: Shared) -> tuple[nn.Parameter, ...]:
    if not isinstance(shared, SharedModule):
        raise ValueError(
            "parameters must be given where what is shared is no module: use "
            "LastLayerNorms(layer.parameters())"
        )
    layers = [
        own
        for module in shared.module.modules()
        if (own := tuple(p for p in module.parameters(recurse=False) if p.requires_grad))
    ]
    return layers[-1] if layers else ()
