"""Exact norms on one layer: the last that the tasks share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from gaba.ranks.wrappers import sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Measurement, Observation
from gaba.measurement._gradients import observed, task_passes
from gaba.autograd.shared import Shared, SharedModule


@final
@dataclass(frozen=True, eq=False)
class LastLayerNorms(Measurement):
    """The norms ‖∇_W L_k‖₂ with W the parameters of the last shared layer alone.

    They are exact for W, and say about the layers before it no more than that these lie further
    down the same path. Norms and Gramian are over W; the combined gradient is of everything, by
    one weighted backward pass.

    Cost: K passes through the heads and the last layer, and one whole backward pass. Held: K
    gradients of W.

    Args:
        parameters: W; by default the trainable parameters of the last module in the shared one, in
            the order of registration, that has any of its own. A LayerNorm at the end is such a
            module: name the layer before it if that is what you mean.

    Raises:
        ValueError: ``parameters`` is empty; or it is not given and what is shared is no module.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1 (W "is generally chosen as the last
    shared layer of weights to save on compute costs").

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, bias=False))
        >>> shared, hidden = as_shared(trunk), trunk[0](torch.ones(1, 2))
        >>> z = trunk[1](hidden)
        >>> seen = LastLayerNorms()(LossGraph([z.sum(), 5 * z.sum()], shared))
        >>> torch.allclose(seen.norms, hidden.norm() * torch.tensor([1.0, 5.0]).double())
        True
    """

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

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; the gradients are left to a backward pass."""
        layer = _last_layer(graph.shared) if self.parameters is None else tuple(self.parameters)
        layer = tuple(p for p in layer if p.requires_grad)
        if not layer:
            raise ValueError(
                "parameters must hold a trainable parameter, found frozen ones only: name another "
                "layer by LastLayerNorms(parameters=...)"
            )
        if sharded(layer):
            raise ValueError(
                "LastLayerNorms cannot see one layer of parameters that FSDP has sharded: use "
                "measurement='exact' or 'features'"
            )
        own = task_passes(graph.losses, layer, free=False)
        if not graph.ranks.several and all(g is None for row in own for g in row):
            raise ValueError(
                "parameters must be reached by the losses, found that none does: the last "
                "registered layer is not in use, name another by LastLayerNorms(parameters=...)"
            )
        scales = graph.scales(layer)
        return observed(own, graph, gramian=gramian, theta=layer, scales=scales, state=state)


def _last_layer(shared: Shared) -> tuple[nn.Parameter, ...]:
    if not isinstance(shared, SharedModule):
        raise ValueError(
            "parameters must be given where what is shared is no module: use "
            "LastLayerNorms(parameters=layer.parameters())"
        )
    layers = [
        own
        for module in shared.module.modules()
        if (own := tuple(p for p in module.parameters(recurse=False) if p.requires_grad))
    ]
    return layers[-1] if layers else ()
