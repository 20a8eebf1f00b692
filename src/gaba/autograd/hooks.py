"""The hooks that mark what leaves a shared module."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, cast, final
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from gaba.autograd.marks import Call, Mark, floating_buffers, note, versions_of


@final
class FeatureHook:
    """Forward hooks that mark what a module returns as features, in the graph itself.

    The mark lives in the nodes that made the tensors and goes with them: nothing is held after the
    step, and several calls a step need no bookkeeping. Where a measurement wants to make the calls
    again, the mark has their inputs and what they returned, without graph. While a graph is being
    compiled or traced the hooks do nothing: name the features.

    A copy of the module has a copy of the hook, with a key of its own. It does nothing until a copy
    of the owner adopts it. TorchScript does not see the hooks.

    Args:
        owner: whose features they are; the hooks do nothing once it is gone.
    """

    def __init__(self, owner: object) -> None:
        self.keeps_calls = False
        self.adopt(owner)

    def adopt(self, owner: object) -> None:
        """Mark features for ``owner`` from now on."""
        self.key: str = f"gaba-features-{uuid4().hex}"
        self._owner = weakref.ref(owner)
        self._count = 0
        self._current: Call | None = None

    def put_on(self, module: nn.Module) -> None:
        """Watch ``module`` as long as there is an owner."""
        owner = self._owner()
        own = vars(module)  # setattr of a compiled module would reach the one inside
        for name in ("_forward_pre_hooks", "_forward_hooks"):
            if name in own and not own[name]:  # no handle of anybody's refers to it
                own[name] = _Hooks()
        before = module.register_forward_pre_hook(_Before(self), with_kwargs=True)
        after = module.register_forward_hook(_After(self))
        weakref.finalize(owner, before.remove)
        weakref.finalize(owner, after.remove)

    def before(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        """Note the call, if calls are kept and this one builds a graph."""
        self._count += 1
        if self.keeps_calls and torch.is_grad_enabled():
            self._current = Call(
                *cast("tuple[Any, Any]", tree_map(_without_graph, (args, kwargs))),
                random=_random_states(module),
                autocast=_autocast_dtypes(),
                versions=versions_of((args, kwargs)),
                buffers=versions_of(floating_buffers(module)),
                parameters=tuple(map(id, module.parameters())),
            )

    def after(self, output: object) -> None:
        """Mark the tensors in ``output`` that have a graph; a single number is a loss."""
        call, self._current = self._current, None
        for position, tensor in enumerate(tree_leaves(output)):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None and tensor.numel() > 1:
                mark = Mark(self._count, position)
                if call is not None:
                    kept = tensor.detach()
                    mark = replace(mark, kept=call, value=kept, version=tensor._version)
                note(tensor, self.key, mark)

    @property
    def orphaned(self) -> bool:
        """Whether nobody is left whose features these would be."""
        return self._owner() is None

    def __getstate__(self) -> dict[str, Any]:
        return {"keeps_calls": self.keeps_calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(_Nobody())
        self.__dict__.update(state)


class _Nobody:
    """An owner that is gone at once."""


@final
@dataclass(frozen=True, eq=False)
class _Before:
    hook: FeatureHook

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not _watched_by_a_compiler() and not self.hook.orphaned:
            self.hook.before(module, args, kwargs)


@final
@dataclass(frozen=True, eq=False)
class _After:
    hook: FeatureHook

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not _watched_by_a_compiler() and not self.hook.orphaned:
            self.hook.after(output)


def _watched_by_a_compiler() -> bool:
    tracing = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage]
    return torch.compiler.is_compiling() or tracing()


class _Hooks(OrderedDict[int, Any]):
    """The hooks of a module, of which ``torch.jit.script`` looks at the values: at all but ours."""

    def values(self) -> Any:
        return [hook for hook in super().values() if not isinstance(hook, _Before | _After)]


def _without_graph(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


def _random_states(module: nn.Module) -> dict[str, Tensor]:
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    states = {str(device): torch.cuda.get_rng_state(device) for device in devices}
    return {"cpu": torch.get_rng_state(), **states}


def _autocast_dtypes() -> dict[str, torch.dtype]:
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {kind: torch.get_autocast_dtype(kind) for kind in kinds}
