"""Which parameters are shared, and what a backward pass from the losses would reach."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, TypeAlias, cast, final
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_leaves

SharedSpec: TypeAlias = "nn.Module | Iterable[nn.Parameter] | Literal['auto']"


@final
class LossGraph:
    """The losses of one step with the graph behind them; gone when the step is over.

    Args:
        losses: the scalar losses of the tasks present.
        shared: which parameters are shared.
        features: the tensors that leave the shared part, in any nest, if the user names them.
    """

    def __init__(self, losses: Sequence[Tensor], shared: Shared, features: object = None) -> None:
        self.losses = tuple(losses)
        self.shared = shared
        self._named = None if features is None else tuple(tree_leaves(features))

    @cached_property
    def features(self) -> tuple[GradientEdge, ...] | None:
        """Where the shared part ends: the edges z of the graph by which tasks reach θ, if sound.

        ``None`` where there is no such boundary: no features are known, a path leads from a shared
        parameter to a loss around them, or one of them is computed from another.
        """
        if self._named is not None:
            wanted = {edge_of(tensor) for tensor in self._named if tensor.requires_grad}
        else:
            wanted = None
        found, leaves = _above(self.losses, wanted, self.shared.key)
        shared = {id(p) for p in self.shared.parameters()}
        below = _nodes([node for node, _ in found])
        nested = any(
            (child, index) in found for node in below for child, index in node.next_functions
        )
        leaks = any(id(leaf) in shared for leaf in leaves)
        if not found or nested or leaks:
            return None
        return tuple(GradientEdge(node, index) for node, index in found)

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """Every leaf that a backward pass would reach, the shared parameters in front."""
        known = self.shared.parameters()
        return tuple({id(p): p for p in (*known, *reachable_leaves(self.losses))}.values())


Edge: TypeAlias = "tuple[Node, int]"


def edge_of(tensor: Tensor) -> Edge:
    """The place of ``tensor`` in the graph: the node that made it, and which of its outputs."""
    found = get_gradient_edge(tensor)
    return found.node, found.output_nr


def _marks(node: Node) -> dict[str, set[int]]:
    """What was noted on ``node``; it lives as long as the graph."""
    return cast("dict[str, set[int]]", node.metadata)  # declared a method, is a dictionary


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
        marks = _marks(node).get(key, ()) if wanted is None else ()
        if index in marks or (wanted is not None and (node, index) in wanted):
            found.setdefault((node, index))
        elif node not in seen:
            seen[node] = None
            stack += [(child, i) for child, i in node.next_functions if child is not None]
    return found, _leaves_of(seen)


@final
class FeatureHook:
    """A forward hook that marks what a module returns as features, in the graph itself.

    The mark lives in the nodes that made the tensors and goes with them: nothing is held after the
    step, several calls a step and evaluation passes need no bookkeeping. Any nest of tensors will
    do. While a graph is being compiled it does nothing: name the features there.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        """Mark the tensors in ``output`` that have a graph."""
        if torch.compiler.is_compiling():
            return
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                _marks(tensor.grad_fn).setdefault(self.key, set()).add(tensor.output_nr)


class Shared(ABC):
    """The shared parameters θ: the parameters that two or more tasks reach."""

    key: str = ""
    """What marks the features of this shared part in the graph; empty if nothing does."""

    @abstractmethod
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The trainable shared parameters, as far as they are known before the backward pass."""

    def learn(self, leaves: Sequence[Tensor], reached: Sequence[Sequence[bool]]) -> None:
        """Take note of which of ``leaves`` each task reached in this step; by default do not."""
        return


@final
class SharedModule(Shared):
    """θ = the parameters of one module: ``shared=model.backbone``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.key = f"gaba-features-{uuid4().hex}"
        if not any(True for _ in module.parameters()):
            raise ValueError(
                f"shared must hold at least one parameter, found {type(module).__name__} without "
                "any: pass the module (or the parameters) that two or more tasks use"
            )
        handle = module.register_forward_hook(FeatureHook(self.key))
        weakref.finalize(self, handle.remove)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Read anew at each step, so that freezing a layer takes effect at once."""
        return tuple(p for p in self.module.parameters() if p.requires_grad)


@final
class SharedParameters(Shared):
    """θ = the given parameters: ``shared=[layer.weight, ...]`` or ``shared=net.parameters()``."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = tuple(dict.fromkeys(parameters))
        for found in self._parameters:
            if not isinstance(found, Tensor):
                raise TypeError(
                    "shared must be a module, an iterable of parameters or 'auto', found an "
                    f"element of type {type(found).__name__}: pass module.parameters()"
                )
        if not self._parameters:
            raise ValueError(
                "shared must hold at least one parameter, found none (a generator that was "
                "already used up?): pass the parameters that two or more tasks use"
            )

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Those given that are trainable now."""
        return tuple(p for p in self._parameters if p.requires_grad)


@final
class SharedAuto(Shared):
    """θ = what two or more losses reached, in this step or in an earlier one: ``shared="auto"``.

    A parameter once seen to be shared stays so, which keeps θ the same when a task is missing.
    """

    def __init__(self) -> None:
        self._seen: dict[nn.Parameter, None] = {}

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Those seen so far that are trainable now; none before the first step."""
        return tuple(p for p in self._seen if p.requires_grad)

    def learn(self, leaves: Sequence[Tensor], reached: Sequence[Sequence[bool]]) -> None:
        """Add the parameters among ``leaves`` that two or more tasks reached."""
        for leaf, tasks in zip(leaves, zip(*reached, strict=True), strict=True):
            if sum(tasks) >= 2 and isinstance(leaf, nn.Parameter):
                self._seen.setdefault(leaf)


def as_shared(spec: SharedSpec) -> Shared:
    """``spec`` as an object that knows the shared parameters."""
    if isinstance(spec, nn.Module):
        return SharedModule(spec)
    if isinstance(spec, str):
        if spec != "auto":
            raise ValueError(
                f"shared must be a module, an iterable of parameters or 'auto', found {spec!r}"
            )
        return SharedAuto()
    if isinstance(spec, Tensor) or not isinstance(spec, Iterable):
        raise TypeError(
            "shared must be a module, an iterable of parameters or 'auto', found "
            f"{type(spec).__name__}: pass model.backbone or model.backbone.parameters()"
        )
    return SharedParameters(spec)
