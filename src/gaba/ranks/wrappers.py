"""What wraps the model: DistributedDataParallel, FSDP, and what each of them cannot do."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, final

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.parallel import DistributedDataParallel


def sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether FSDP (``fully_shard``) has spread one of them over the ranks."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(t, module.DTensor) for t in tensors)


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be spread over the ranks."""
    to_local: Any = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def copies(tensor: Tensor) -> int:
    """On how many ranks each part of a tensor lies that is spread over them."""
    mesh: Any = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return 1
    number = 1
    for dimension, placement in enumerate(getattr(tensor, "placements", ())):
        if placement.is_replicate():
            number *= mesh.size(dimension)
    return number


def holds_gradients_back(module: nn.Module) -> bool:
    """Whether FSDP has been told not to reduce gradients in this backward pass."""
    for part in module.modules():
        state_of: Any = getattr(part, "_get_fsdp_state", None)
        state = None if state_of is None else state_of()
        groups = getattr(state, "_fsdp_param_groups", None) or [
            getattr(state, "_fsdp_param_group", None)
        ]
        if any(not getattr(group, "reduce_grads", True) for group in groups):
            return True
    return False


def in_first_static_pass(nodes: Iterable[Node]) -> bool:
    """Whether this backward pass is the first of a DistributedDataParallel with static graph.

    It leaves a node of its own in that graph, by which the first pass that goes through it is taken
    for the one that reduces: one that merely measures would leave gradients unreduced.
    """
    for node in nodes:
        wrapper_of: Any = getattr(node, "ddp_weakref", None)
        wrapper = None if wrapper_of is None else wrapper_of()
        if wrapper is not None and wrapper.static_graph:
            return True
    return False


@final
class Wrappers:
    """The DistributedDataParallel modules of this process, looked for once, when first needed."""

    def __init__(self) -> None:
        self._found: tuple[weakref.ref[DistributedDataParallel], ...] | None = None

    def complaint(self, leaves: Sequence[Tensor]) -> str | None:
        """Why a pass that fills ``leaves`` alone cannot be reduced, if it cannot.

        A wrapper that neither looks for unused parameters nor has been told to wait waits for the
        gradient of each of its parameters.
        """
        filled = {id(leaf) for leaf in leaves}
        for wrapper in self._wrappers():
            if not wrapper.require_backward_grad_sync:
                continue
            if wrapper.find_unused_parameters and not wrapper.static_graph:
                continue
            own = list(wrapper.module.named_parameters())
            missed = [name for name, p in own if p.requires_grad and id(p) not in filled]
            if missed and len(missed) < len(own):
                how = "a static graph" if wrapper.static_graph else "find_unused_parameters=False"
                return (
                    "losses must reach every parameter of a DistributedDataParallel with "
                    f"{how} on every rank, found none for {missed[0]!r}: wrap the model with "
                    "find_unused_parameters=True, or give each missing task the loss "
                    "0 * output.sum()"
                )
        return None

    def _wrappers(self) -> list[DistributedDataParallel]:
        if self._found is None:
            kind = DistributedDataParallel
            alive = (o for o in gc.get_objects() if issubclass(type(o), kind))
            self._found = tuple(weakref.ref(wrapper) for wrapper in alive)
        return [wrapper for ref in self._found if (wrapper := ref()) is not None]
