"""The most memory that one training step holds."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The largest number of bytes held at once while ``work`` runs, above those held before.

    On a GPU as its allocator counts it. On a CPU by the tensors that operators return, those of the
    backward pass included, for as long as each is held; what kernels allocate within for themselves
    is not seen. Neither changes what is computed.

    >>> peak_bytes(lambda: torch.ones(1000, dtype=torch.float64) + 1, torch.device("cpu"))
    16000
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    collects = gc.isenabled()
    gc.disable()  # so that what is held does not depend on when garbage is collected
    try:
        with _Held() as held:
            work()
    finally:
        if collects:
            gc.enable()
    return held.peak


@final
class _Held(TorchDispatchMode):
    """Counts the bytes of the storages that are made within and still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: dict[int, weakref.finalize[[int, int], torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            place = storage.data_ptr()
            if storage.nbytes() and place not in given and place not in self.alive:
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                self.alive[place] = weakref.finalize(storage, self._freed, place, storage.nbytes())
        return made

    def _freed(self, place: int, size: int) -> None:
        if self.alive.pop(place, None) is not None:
            self.now -= size

    def __exit__(self, *error: Any) -> None:
        for finalizer in self.alive.values():
            finalizer.detach()
        self.alive = {}
        super().__exit__(*error)


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
