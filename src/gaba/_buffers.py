"""A state as the buffers of a module: on the device of the model, in its own dtype for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from gaba import _state
from gaba.arrays import work_dtype

S = TypeVar("S")


@final
class StateBuffers(nn.Module, Generic[S]):
    """Holds one state; :meth:`get` and :meth:`set` take and give it whole.

    The buffers exist from construction on. They follow ``.to(device)``, but no change of dtype (an
    average in bfloat16 stands still). ``state_dict()`` hands out copies, never the buffers.
    """

    def __init__(self, state: S) -> None:
        super().__init__()
        self._template = state
        for name, tensor in _state.flatten(state).items():
            self.register_buffer(name.replace(".", "_"), tensor.clone())

    def get(self) -> S:
        """The state; its tensors are read only by convention: updates make new ones."""
        names = _state.flatten(self._template)
        buffers = {name: self.get_buffer(name.replace(".", "_")) for name in names}
        return _state.unflatten(self._template, buffers)

    def set(self, state: S) -> None:
        """Replace the state."""
        for name, tensor in _state.flatten(state).items():
            self._buffers[name.replace(".", "_")] = tensor.detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StateBuffers[S]:
        for name, buffer in self._buffers.items():
            if buffer is None:
                continue
            moved = fn(buffer)
            if moved.dtype != buffer.dtype:
                wide = work_dtype(moved.device) if buffer.is_floating_point() else buffer.dtype
                moved = buffer.to(moved.device, wide)
            self._buffers[name] = moved
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, buffer in self._buffers.items():
            if buffer is not None:
                destination[prefix + name] = torch.clone(buffer.detach())
