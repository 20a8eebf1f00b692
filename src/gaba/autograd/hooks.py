"""The hooks that mark what leaves a shared module."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from gaba.autograd.marks import Call, Mark, floating_buffers, marks_of, versions_of


@final
class FeatureHook:
    """Forward hooks that mark what a module returns as features, in the graph itself.

    The mark lives in the nodes that made the tensors and goes with them: nothing is held after the
    step, and several calls a step need no bookkeeping. Where a measurement wants to make the calls
    again, the mark has their inputs and what they returned, without graph. While a graph is being
    compiled the hooks do nothing: name the features.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.keeps_calls = False
        self._count = 0
        self._current: Call | None = None

    def put_on(self, module: nn.Module) -> Callable[[], None]:
        """Watch ``module``; call what comes back to stop."""
        before = module.register_forward_pre_hook(_Ours(self._before), with_kwargs=True)
        after = module.register_forward_hook(_Ours(self._after))

        def stop() -> None:
            before.remove()
            after.remove()

        return stop

    def _before(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if torch.compiler.is_compiling():
            return
        self._count += 1
        if self.keeps_calls and torch.is_grad_enabled():
            self._current = Call(
                *cast("tuple[Any, Any]", tree_map(_without_graph, (args, kwargs))),
                random=_random_states(module),
                autocast=_autocast_dtypes(),
                versions=versions_of((args, kwargs)),
                buffers=versions_of(floating_buffers(module)),
            )

    def _after(self, module: nn.Module, args: object, output: object) -> None:
        if torch.compiler.is_compiling():
            return
        call, self._current = self._current, None
        for position, tensor in enumerate(tree_leaves(output)):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                mark = Mark(self._count, position)
                if call is not None:
                    kept = tensor.detach()
                    mark = replace(mark, kept=call, value=kept, version=tensor._version)
                marks_of(tensor.grad_fn, self.key).setdefault(tensor.output_nr, mark)


@final
class _Ours:
    """One hook. A copy or a pickle of the module gets one that does nothing and needs no gaba."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


def _without_graph(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


def _random_states(module: nn.Module) -> dict[str, Tensor]:
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    states = {str(device): torch.cuda.get_rng_state(device) for device in devices}
    return {"cpu": torch.get_rng_state(), **states}


def _autocast_dtypes() -> dict[str, torch.dtype]:
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {kind: torch.get_autocast_dtype(kind) for kind in kinds}
