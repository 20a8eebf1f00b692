"""The autograd graph behind the losses of a step: what they reach, and where the features are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast, final

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_leaves

from gaba.ranks.processes import Ranks

if TYPE_CHECKING:
    from gaba.measurement.metric import OptimizerMetric
    from gaba.autograd.shared import Call, Shared


@final
class LossGraph:
    """The losses of one step with the graph behind them; gone when the step is over.

    Args:
        losses: the scalar losses of the tasks present.
        shared: which parameters are shared.
        features: the tensors that leave the shared part, in any nest, if the user names them.
        tasks: the positions of the tasks present among all K; by default there are no others.
        step: the number of this step, from 0.
        factors: one for each task present: what its gradient would be multiplied by if nothing
            were learnt from this step; ``None`` where nobody knows.
        halves: one for each task present, (2,), the loss on each half of the batch, if the losses
            came so.
        metric: in which metric the gradients are measured; ``None`` is the Euclidean one.
        ranks: with whom the gradients are averaged before they are measured.
        loss_scale: (), by what the losses have been multiplied, as a GradScaler does; norms are
            divided by it. ``None`` is 1.
    """

    def __init__(
        self,
        losses: Sequence[Tensor],
        shared: Shared,
        features: object = None,
        tasks: Sequence[int] | None = None,
        *,
        step: int = 0,
        factors: Tensor | None = None,
        halves: Sequence[Tensor] | None = None,
        metric: OptimizerMetric | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
        loss_scale: Tensor | None = None,
    ) -> None:
        self.losses: tuple[Tensor, ...] = tuple(losses)
        self.shared = shared
        self.tasks: tuple[int, ...] = tuple(range(len(self.losses)) if tasks is None else tasks)
        self.step = step
        self.factors = factors
        self.halves = halves
        self.metric = metric
        self.ranks = ranks
        self.loss_scale = loss_scale
        self._named = None if features is None else tuple(tree_leaves(features))

    def scales(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        """The metric P of ``parameters``, by which gradients are multiplied before their length.

        ``None`` in the Euclidean metric, where nothing is to be done.
        """
        if self.metric is None or not parameters:
            return None
        return self.metric.scales(parameters)

    @cached_property
    def features(self) -> tuple[GradientEdge, ...] | None:
        """Where the shared part ends: the edges z of the graph by which tasks reach θ, if sound.

        ``None`` where there is no such boundary: no features are known, a path leads from a shared
        parameter to a loss around them, or one of them is computed from another.
        """
        found, _ = self._above
        shared = {id(p) for p in self.shared.parameters()}
        nested = any(
            (child, index) in found for node in self._below for child, index in node.next_functions
        )
        leaks = any(id(leaf) in shared for leaf in self.heads)
        if not found or nested or leaks:
            return None
        return tuple(GradientEdge(node, index) for node, index in found)

    @property
    def heads(self) -> tuple[Tensor, ...]:
        """The leaves that a loss reaches without passing through a feature, if there is one."""
        return self._above[1]

    @cached_property
    def below(self) -> tuple[Tensor, ...]:
        """The leaves below the features: shared parameters in use, and what comes before them."""
        return _leaves_of(self._below)

    @cached_property
    def apart(self) -> bool:
        """Whether no leaf is among the heads and below the features as well."""
        return {id(leaf) for leaf in self.heads}.isdisjoint(id(leaf) for leaf in self.below)

    @cached_property
    def _above(self) -> tuple[dict[Edge, None], tuple[Tensor, ...]]:
        wanted = None
        if self._named is not None:
            wanted = {edge_of(tensor) for tensor in self._named if tensor.requires_grad}
        return _above(self.losses, wanted, self.shared.key)

    @cached_property
    def _below(self) -> dict[Node, None]:
        return _nodes([node for node, _ in self._above[0]])

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """Every leaf that a backward pass would reach, the shared parameters in front."""
        known = self.shared.parameters()
        return tuple({id(p): p for p in (*known, *_leaves_of(self.nodes))}.values())

    @cached_property
    def nodes(self) -> dict[Node, None]:
        """Every node of the graph."""
        return _nodes([loss.grad_fn for loss in self.losses if loss.grad_fn is not None])

    def unscaled(self, norms: Tensor) -> Tensor:
        """Norms of the losses as they were before ``loss_scale``."""
        return norms if self.loss_scale is None else norms / self.loss_scale.to(norms)


Edge: TypeAlias = "tuple[Node, int]"


def edge_of(tensor: Tensor) -> Edge:
    """The place of ``tensor`` in the graph: the node that made it, and which of its outputs."""
    found = get_gradient_edge(tensor)
    return found.node, found.output_nr


@final
@dataclass(frozen=True)
class Mark:
    """Where a feature comes from: which call of the module, which tensor of what it returned.

    Attributes:
        call: the number of the call.
        position: the number of the tensor in the nest that was returned.
        kept: what it takes to make the call again, where calls are kept for that.
        value: the tensor itself, without graph, where calls are kept to be made again.
        version: how often that tensor had been written to.
    """

    call: int
    position: int
    kept: Call | None = None
    value: Tensor | None = None
    version: int = 0


def mark_of(edge: GradientEdge, key: str) -> Mark | None:
    """What was noted on this feature, if it was found by a hook."""
    return marks_of(edge.node, key).get(edge.output_nr)


def marks_of(node: Node, key: str) -> dict[int, Mark]:
    """The features noted on ``node``, by output number; the notes live as long as the graph."""
    noted = cast("dict[str, dict[int, Mark]]", node.metadata)  # declared a method, is a dictionary
    return noted.setdefault(key, {})


def reachable_leaves(losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaf tensors whose ``.grad`` a backward pass from ``losses`` would fill.

    Found by walking the autograd graph, each node once: no tensor is computed and nothing is kept.
    """
    return _leaves_of(_nodes([loss.grad_fn for loss in losses if loss.grad_fn is not None]))


def _nodes(roots: Iterable[Node]) -> dict[Node, None]:
    """``roots`` and every node below them."""
    seen = dict.fromkeys(roots)
    stack = list(seen)
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in seen:
                seen[child] = None
                stack.append(child)
    return seen


def _leaves_of(nodes: Iterable[Node]) -> tuple[Tensor, ...]:
    leaves = (getattr(node, "variable", None) for node in nodes)
    return tuple({id(leaf): leaf for leaf in leaves if leaf is not None}.values())


def _above(
    losses: Sequence[Tensor], wanted: set[Edge] | None, key: str
) -> tuple[dict[Edge, None], tuple[Tensor, ...]]:
    """The features that the losses reach, and the leaves reached without passing through one.

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
    return found, _leaves_of(seen)
