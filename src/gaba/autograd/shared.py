"""Which parameters are shared, and the hooks that mark what leaves a shared module."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast, final
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from gaba.autograd.graph import Mark, marks_of

SharedSpec: TypeAlias = "nn.Module | Iterable[nn.Parameter] | Literal['auto']"


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
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    random: dict[str, Tensor]
    autocast: dict[str, torch.dtype]
    versions: tuple[int, ...]
    buffers: tuple[int, ...]

    @property
    def repeatable(self) -> bool:
        """Whether the arguments are still what they were: nobody has written into them since."""
        return self.versions == _versions((self.args, self.kwargs))

    def drifts(self, module: nn.Module) -> bool:
        """Whether a floating buffer of ``module`` was written to, so that a repetition differs.

        What a kernel updates as it runs, such as the statistics of BatchNorm, does not count.
        """
        return self.buffers != _floating_buffers(module)


@final
class FeatureHook:
    """Forward hooks that mark what a module returns as features, in the graph itself.

    The mark lives in the nodes that made the tensors and goes with them: nothing is held after the
    step, several calls a step and evaluation passes need no bookkeeping. Any nest of tensors will
    do. Where a measurement wants to make the calls again, the mark has their inputs and what they
    returned, without graph. While a graph is being compiled the hooks do nothing: name the
    features.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.keeps_calls = False
        self._count = 0
        self._current: Call | None = None

    def before(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Note the call, if calls are kept and this one builds a graph."""
        if torch.compiler.is_compiling():
            return
        self._count += 1
        if self.keeps_calls and torch.is_grad_enabled():
            self._current = Call(
                *cast("tuple[Any, Any]", tree_map(_without_graph, (args, kwargs))),
                random=_random_states(module),
                autocast=_autocast_dtypes(),
                versions=_versions((args, kwargs)),
                buffers=_floating_buffers(module),
            )

    def after(self, module: nn.Module, args: object, output: object) -> None:
        """Mark the tensors in ``output`` that have a graph."""
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


def _versions(nest: object) -> tuple[int, ...]:
    tensors = (t for t in tree_leaves(nest) if isinstance(t, Tensor))
    return tuple(-1 if t.is_inference() else t._version for t in tensors)


def _floating_buffers(module: nn.Module) -> tuple[int, ...]:
    return _versions([b for b in module.buffers() if b.is_floating_point()])


def _without_graph(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


def _random_states(module: nn.Module) -> dict[str, Tensor]:
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    states = {str(device): torch.cuda.get_rng_state(device) for device in devices}
    return {"cpu": torch.get_rng_state(), **states}


def _autocast_dtypes() -> dict[str, torch.dtype]:
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {kind: torch.get_autocast_dtype(kind) for kind in kinds}


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

    def keep_calls(self) -> None:
        """From now on keep this step's calls, for a measurement that makes them again."""
        raise ValueError(
            "shared must be a module for this measurement, which runs the shared part again: pass "
            "shared=model.backbone, or use measurement='exact'"
        )


@final
class SharedModule(Shared):
    """θ = the parameters of one module: ``shared=model.backbone``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.key: str = f"gaba-features-{uuid4().hex}"
        if not any(True for _ in module.parameters()):
            raise ValueError(
                f"shared must hold at least one parameter, found {type(module).__name__} without "
                "any: pass the module (or the parameters) that two or more tasks use"
            )
        self.hook: FeatureHook = FeatureHook(self.key)
        before = module.register_forward_pre_hook(self.hook.before, with_kwargs=True)
        after = module.register_forward_hook(self.hook.after)
        weakref.finalize(self, before.remove)
        weakref.finalize(self, after.remove)

    def keep_calls(self) -> None:
        """Keep the inputs of each call as long as its graph, without graph."""
        self.hook.keeps_calls = True

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
