"""What wraps the model: DistributedDataParallel, and what it cannot do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, final

from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.parallel import DistributedDataParallel


def in_first_static_pass(nodes: Iterable[Node]) -> bool:
    """Whether this backward pass is the first of a DistributedDataParallel with static graph.

    It leaves a node of its own in that graph and takes the first pass through it for the one that
    reduces: a pass that only measures would leave all gradients unreduced.
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

    def held_back(self) -> bool:
        """Whether the coming backward pass leaves gradients as this rank has them (``no_sync``)."""
        return any(not wrapper.require_backward_grad_sync for wrapper in self._wrappers())

    def _wrappers(self) -> list[DistributedDataParallel]:
        if self._found is None:
            kind = DistributedDataParallel
            alive = (o for o in gc.get_objects() if issubclass(type(o), kind))
            self._found = tuple(weakref.ref(wrapper) for wrapper in alive)
        return [wrapper for ref in self._found if (wrapper := ref()) is not None]
