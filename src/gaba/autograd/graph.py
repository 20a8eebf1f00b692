"""The autograd graph behind the losses of a step: what they reach, and where the features are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.utils._pytree import tree_leaves

from gaba.autograd.marks import Edge, edge_of, marks_of
from gaba.autograd.shared import Shared
from gaba.autograd.walk import leaves_of, nodes_below
from gaba.tensors import on_device, spread, spread_square


@final
class LossGraph:
    """The losses of one step with the graph behind them; gone when the step is over.

    Args:
        losses: the scalar losses of the tasks present.
        shared: which parameters are shared.
        features: the tensors that leave the shared part, in any nest, if the user names them.
        tasks: the positions of the tasks present among all K; by default there are no others.
        n_tasks: K; by default as small as ``tasks`` allows.
        given: the losses as the user gave them, where they are not scalars.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        shared: Shared,
        features: object = None,
        *,
        tasks: Sequence[int] | None = None,
        n_tasks: int | None = None,
        given: Sequence[Tensor] | None = None,
    ) -> None:
        self.losses: tuple[Tensor, ...] = tuple(losses)
        self.shared = shared
        self.tasks: tuple[int, ...] = tuple(range(len(self.losses)) if tasks is None else tasks)
        self.n_tasks: int = max(self.tasks) + 1 if n_tasks is None else n_tasks
        self.given: tuple[Tensor, ...] = self.losses if given is None else tuple(given)
        self._named = None if features is None else tuple(tree_leaves(features))

    def only(self, tasks: Sequence[int]) -> LossGraph:
        """The part of these tasks, which must be present."""
        if tuple(tasks) == self.tasks:
            return self
        places = [self.tasks.index(k) for k in tasks]
        return LossGraph(
            [self.losses[i] for i in places],
            self.shared,
            self._named,
            tasks=tasks,
            n_tasks=self.n_tasks,
            given=[self.given[i] for i in places],
        )

    @property
    def device(self) -> torch.device:
        """Where the losses, and so all that is known of them, live."""
        return self.losses[0].device

    @cached_property
    def present(self) -> Tensor:
        """(K,), bool: which tasks are present."""
        return on_device([k in self.tasks for k in range(self.n_tasks)], self.device)

    def spread(self, values: Tensor, missing: float = torch.nan) -> Tensor:
        """Entries (k, ...) of the tasks present → (K, ...), with ``missing`` for the others."""
        return spread(values, self.tasks, self.n_tasks, missing)

    def spread_square(self, matrix: Tensor) -> Tensor:
        """A matrix over the tasks present → (K, K), with NaN for the others."""
        return spread_square(matrix, self.tasks, self.n_tasks)

    def take(self, values: Tensor) -> Tensor:
        """(K, ...) → the entries of the tasks present."""
        if len(self.tasks) == self.n_tasks:
            return values
        return values[on_device(self.tasks, values.device)]

    @cached_property
    def theta(self) -> tuple[nn.Parameter, ...]:
        """The trainable shared parameters θ; ``"auto"`` has taken note of this graph."""
        self.shared.look(self.losses)
        return self.shared.parameters()

    @cached_property
    def features(self) -> tuple[GradientEdge, ...] | None:
        """Where the shared part ends: the edges z of the graph by which tasks reach θ, if sound.

        ``None`` where there is no such boundary: no features are known, a path leads from a shared
        parameter to a loss around them, or one of them is computed from another.
        """
        shared = {id(p) for p in self.theta}
        leaks = any(id(leaf) in shared for leaf in self.heads)
        return None if leaks else self.edges

    @cached_property
    def edges(self) -> tuple[GradientEdge, ...] | None:
        """The edges z, also if a loss goes around them; ``None`` where one stems from another."""
        found, _ = self._above
        nested = any(
            (child, index) in found for node in self._below for child, index in node.next_functions
        )
        if not found or nested:
            return None
        return tuple(GradientEdge(node, index) for node, index in found)

    @cached_property
    def around(self) -> tuple[int, ...]:
        """The positions of the tasks whose loss reaches θ by a path around the features."""
        if self.features is not None or self.edges is None:
            return ()
        shared = {id(p) for p in self.theta}
        wanted = {(edge.node, edge.output_nr) for edge in self.edges}
        return tuple(
            k
            for k, loss in zip(self.tasks, self.losses, strict=True)
            if any(id(leaf) in shared for leaf in leaves_of(_above([loss], wanted, "")[1]))
        )

    @property
    def heads_part(self) -> float:
        """How many parameters the K passes through the heads meet, as a part of all."""
        wanted = {(edge.node, edge.output_nr) for edge in self.edges or ()}
        met = [leaf for one in self.losses for leaf in leaves_of(_above([one], wanted, "")[1])]
        return sum(p.numel() for p in met) / max(sum(p.numel() for p in self.leaves), 1)

    @cached_property
    def heads(self) -> tuple[Tensor, ...]:
        """The leaves that a loss reaches without passing through a feature, if there is one."""
        return leaves_of(self._above[1])

    @cached_property
    def below(self) -> tuple[Tensor, ...]:
        """The leaves below the features: shared parameters in use, and what comes before them."""
        return leaves_of(self._below)

    @cached_property
    def apart(self) -> bool:
        """Whether no leaf is among the heads and below the features as well."""
        return {id(leaf) for leaf in self.heads}.isdisjoint(id(leaf) for leaf in self.below)

    @cached_property
    def _above(self) -> tuple[dict[Edge, None], dict[Node, None]]:
        wanted = None
        if self._named is not None:
            wanted = {edge_of(tensor) for tensor in self._named if tensor.requires_grad}
        return _above(self.losses, wanted, self.shared.key)

    @cached_property
    def _below(self) -> dict[Node, None]:
        return nodes_below([node for node, _ in self._above[0]])

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """θ, and behind it every other leaf that a backward pass would reach."""
        return tuple({id(p): p for p in (*self.theta, *leaves_of(self.nodes))}.values())

    @cached_property
    def nodes(self) -> dict[Node, None]:
        """Every node of the graph."""
        return nodes_below([loss.grad_fn for loss in self.losses if loss.grad_fn is not None])

    @cached_property
    def fresh(self) -> bool:
        """Whether ``torch.compile`` has yet to compile the backward pass of a part of the graph.

        If the first pass through such a part does not keep the graph, the compiler lets it reuse
        buffers, and no later pass may ever keep it again.
        """
        if "torch._functorch._aot_autograd.runtime_wrappers" not in sys.modules:
            return False
        kinds = (getattr(node, "_forward_cls", None) for node in self.nodes)
        return any(getattr(kind, "compiled_bw", kind) is None for kind in kinds if kind is not None)


def _above(
    losses: Sequence[Tensor], wanted: set[Edge] | None, key: str
) -> tuple[dict[Edge, None], dict[Node, None]]:
    """The features that the losses reach, and the nodes met without passing through one.

    A feature is one of the edges ``wanted`` or, if that is ``None``, one marked with ``key``.
    """
    found: dict[Edge, None] = {}
    seen: dict[Node, None] = {}
    stack = [edge_of(loss) for loss in losses]
    while stack:
        node, index = stack.pop()
        marks = marks_of(node, key) if wanted is None and key else ()
        if index in marks or (wanted is not None and (node, index) in wanted):
            found.setdefault((node, index))
        elif node not in seen:
            seen[node] = None
            stack += [(child, i) for child, i in node.next_functions if child is not None]
    return found, seen
