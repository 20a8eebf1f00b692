"""Parameters that FSDP has spread over the ranks, seen from one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether FSDP (``fully_shard``) has spread one of them over the ranks."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(t, module.DTensor) for t in tensors)


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be spread over the ranks."""
    to_local: Any = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over the ranks; then every rank must ask."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def copies(tensor: Tensor) -> int:
    """How many ranks hold the same part of a tensor that is spread over them."""
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
