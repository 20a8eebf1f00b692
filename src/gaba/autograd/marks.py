"""Places in the autograd graph, and the marks on those where features leave the shared part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, cast, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map

Edge: TypeAlias = "tuple[Node, int]"


def edge_of(tensor: Tensor) -> Edge:
    """The place of ``tensor`` in the graph: the node that made it, and which of its outputs."""
    found = get_gradient_edge(tensor)
    return found.node, found.output_nr


@final
@dataclass(frozen=True)
class Call:
    """One call of the shared module, as far as it takes to make it again.

    Attributes:
        args: the positional arguments, without graph.
        kwargs: those by name, without graph.
        random: the states of the random number generators before the call.
        autocast: the dtype of autocast by device type, where it was on.
        versions: how often each tensor among the arguments had been written to.
        buffers: the same of the module's floating buffers.
        parameters: which tensors the module had for parameters, by ``id``.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    random: dict[str, Tensor]
    autocast: dict[str, torch.dtype]
    versions: tuple[int, ...]
    buffers: tuple[int, ...]
    parameters: tuple[int, ...]

    def repeatable(self, module: nn.Module) -> bool:
        """Whether ``module`` would compute the same.

        Nobody has written into the arguments since, and the parameters were the module's own
        (``torch.func.functional_call`` lends it others).
        """
        own = tuple(map(id, module.parameters()))
        return own == self.parameters and self.versions == versions_of((self.args, self.kwargs))

    def outside_autocast(self) -> Call:
        """The call without autocast, and with arguments that are no coarser than float32."""
        args, kwargs = tree_map(_at_least_float32, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs, autocast={})

    def drifts(self, module: nn.Module) -> bool:
        """Whether a floating buffer of ``module`` was written to, so that a repetition differs.

        What a kernel updates as it runs, such as the statistics of BatchNorm, does not count.
        """
        return self.buffers != versions_of(floating_buffers(module))


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
    """The features noted on ``node``, by output number."""
    return _notes(node).get(key, {})


def note(tensor: Tensor, key: str, mark: Mark) -> None:
    """Mark the place of ``tensor`` in the graph, unless it is; the note lives as long as that."""
    if tensor.grad_fn is not None:
        _notes(tensor.grad_fn).setdefault(key, {}).setdefault(tensor.output_nr, mark)


def _at_least_float32(value: object) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _notes(node: Node) -> dict[str, dict[int, Mark]]:
    return cast("dict[str, dict[int, Mark]]", node.metadata)  # declared a method, is a dictionary


def versions_of(nest: object) -> tuple[int, ...]:
    """How often each tensor in ``nest`` has been written to; -1 where nobody counts."""
    tensors = (t for t in tree_leaves(nest) if isinstance(t, Tensor))
    return tuple(-1 if t.is_inference() else t._version for t in tensors)


def floating_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers of ``module`` that hold numbers with a fraction."""
    return [b for b in module.buffers() if b.is_floating_point()]
