"""Exact norms: one backward pass a task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn

from gaba.autograd.losses import check_choice
from gaba.autograd.passes import TaskGradients, one_pass, task_passes
from gaba.autograd.reach import NOTHING_SHARED
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared, SharedModule
from gaba.measurement._fsdp import sharded_passes
from gaba.measurement.averages import averages
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import norm, observation, observed, scaled, summed

Mode: TypeAlias = Literal["store", "stream"]
Layer: TypeAlias = "Iterable[nn.Parameter] | Literal['last'] | None"


@final
@dataclass(frozen=True)
class ExactNorms(Measurement):
    """The norms g_k = ‖∇_θ L_k‖₂ from the K per-task gradients themselves.

    Args:
        mode: how the passes are made. ``"store"``: one a task, and the K gradients, those of the
            heads included, are held until they are combined, which needs no further pass.
            ``"stream"``: each gradient is let go before the next is there, and the combined
            gradient is one more backward pass; it gives no Gramian.
        layer: parameters to measure at in place of θ, for methods that are defined so. ``"last"``
            are those of the last module in the shared one, in the order of registration, that has
            any that are trainable. The passes stop there, and one more combines the gradients.

    On several ranks the gradients are averaged before they are measured
    (:class:`gaba.ranks.Sync`), and the combined gradient is one more pass.

    Norms are accumulated in float32 at least and in float64 where float32 would lose them: 1e-23
    and 1e20 neither vanish nor overflow.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1: at a layer W, "generally chosen as the
    last shared layer of weights"; here by default over all shared parameters.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> graph = LossGraph([w @ w, 2 * w.sum()], as_shared([w]))
        >>> seen, _ = ExactNorms().update(Request(graph, gramian=True), ())
        >>> [[round(x, 4) for x in row] for row in seen.gramian.tolist()]
        [[100.0, 28.0], [28.0, 8.0]]
    """

    mode: Mode = "store"
    layer: Layer = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, get_args(Mode))
        if isinstance(self.layer, str):
            check_choice("layer", self.layer, ("last",))
        elif self.layer is not None:
            object.__setattr__(self, "layer", tuple(self.layer))
            if not self.layer:
                raise ValueError(
                    "layer must hold at least one parameter, found none (a generator that was "
                    "already used up?): pass layer.parameters(), or 'last'"
                )

    def __repr__(self) -> str:
        named = repr(self.layer) if isinstance(self.layer, str) else "..."
        layer = "" if self.layer is None else f", layer={named}"
        return f"ExactNorms(mode={self.mode!r}{layer})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExactNorms) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        """What makes two of them equal; parameters are compared as objects, not by their values."""
        layer = self.layer
        named = layer if layer is None or isinstance(layer, str) else tuple(map(id, layer))
        return self.mode, named

    @property
    def unreached_says(self) -> str:
        """What is wrong with a loss that is in :attr:`Observation.unreached`, and what to do."""
        if self.layer is None:
            return super().unreached_says
        return (
            "does not reach the layer whose gradients are measured: name a layer that every task "
            "reaches, measure=gaba.measurement.ExactNorms(layer=layer.parameters()), and check "
            "that the loss is computed from what is shared"
        )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses; there is no state."""
        graph = told.graph
        if self.mode == "stream" and told.gramian:
            raise ValueError(
                "mode='stream' lets each gradient go before the next is there, and so gives no "
                "Gramian: use ExactNorms(mode='store'), or a rule that needs norms only"
            )
        if self.layer is None and sharded(graph.theta):
            return sharded_passes(told), state
        theta = graph.theta if self.layer is None else self._layer(graph.shared)
        if self.mode == "stream" or told.ranks.several:
            return _one_at_a_time(told, theta), state
        kept = told.gradients and self.layer is None
        leaves, n = graph.leaves if kept else theta, len(theta)
        rows = task_passes(graph, leaves, free=kept and told.frees)
        found = TaskGradients(leaves, tuple(rows)) if kept else None
        own = [row[:n] for row in rows]
        return observed(told, own, theta=theta, gradients=found), state

    def _layer(self, shared: Shared) -> tuple[nn.Parameter, ...]:
        """The trainable parameters of the layer."""
        layer = _last(shared) if isinstance(self.layer, str) else tuple(self.layer or ())
        layer = tuple(p for p in layer if p.requires_grad)
        if not layer:
            raise ValueError(
                "layer must hold a trainable parameter, found frozen ones only: name another one "
                "by ExactNorms(layer=layer.parameters())"
            )
        if sharded(layer):
            raise ValueError(
                "layer must be whole on each rank, found parameters that FSDP has sharded: use "
                "measure='exact', which measures at all that is shared"
            )
        return layer


def _last(shared: Shared) -> tuple[nn.Parameter, ...]:
    """The trainable parameters of the last module in the shared one that has any of its own."""
    if not isinstance(shared, SharedModule):
        raise ValueError(
            "layer='last' needs shared=... to be a module, found that it is none: use "
            "ExactNorms(layer=layer.parameters())"
        )
    layers = [
        own
        for module in shared.module.modules()
        if (own := tuple(p for p in module.parameters(recurse=False) if p.requires_grad))
    ]
    return layers[-1] if layers else ()


def _one_at_a_time(request: Request, theta: Sequence[nn.Parameter]) -> Observation:
    """One pass a task; on several ranks a gradient is averaged while the next pass runs."""
    graph, ranks = request.graph, request.ranks
    if not theta:
        raise ValueError(NOTHING_SHARED)
    scales = request.scales(theta)
    means = averages(ranks, theta, request.step) if ranks.several else None
    norms: list[Tensor] = []
    reached: list[bool] = []
    for loss in graph.losses:
        row = one_pass(graph, loss, theta)
        reached.append(any(g is not None for g in row))
        if means is None:
            norms.append(norm(scaled(row, scales), graph.device))
        else:
            means.add(scaled(row, scales))
        del row  # or it would be there while the next pass runs
    if means is not None:
        return summed(request, means.parts(), reached)
    return observation(request, torch.stack(norms), reached)
