"""Which parameters are shared: those of a module, given ones, or what two or more losses reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, final

from torch import Tensor, nn
from torch.autograd import (
    _unsafe_preserve_version_counter,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.optim import Optimizer

from gaba.autograd.hooks import FeatureHook
from gaba.autograd.sharding import sharded
from gaba.autograd.walk import common_leaves

SharedSpec: TypeAlias = "nn.Module | Iterable[nn.Parameter] | Literal['auto']"


class Shared(ABC):
    """The shared parameters θ: the parameters that two or more tasks reach."""

    spread: bool = False
    """Whether FSDP has been seen to spread the parameters over the ranks, at least now and then."""

    @property
    def key(self) -> str:
        """What marks the features of this shared part in the graph; empty if nothing does."""
        return ""

    @abstractmethod
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The trainable shared parameters, as far as they are known before the backward pass."""

    def look(self, losses: Sequence[Tensor]) -> None:
        """Take note of what the losses of this step reach; by default do not."""
        return

    def keep_calls(self, keep: bool) -> None:
        """Whether to keep the calls from now on, for a measurement that makes them again."""
        return

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While it lasts, passes leave the buffers as they were.

        A pass through an activation checkpoint computes it again, and BatchNorm counts that.
        """
        yield


@final
class SharedModule(Shared):
    """θ = the parameters of one module: ``shared=model.backbone``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters()
        if not any(True for _ in module.parameters()):
            raise ValueError(
                f"shared must hold at least one parameter, found {type(module).__name__} without "
                "any: pass the module (or the parameters) that two or more tasks use"
            )
        self.hook: FeatureHook = FeatureHook(self)
        self.hook.put_on(module)

    @property
    def key(self) -> str:
        """What marks the features of the module; another one for each copy."""
        return self.hook.key

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.hook.adopt(self)

    def keep_calls(self, keep: bool) -> None:
        """Keep the inputs of each call as long as its graph, without graph."""
        self.hook.keeps_calls = keep

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While it lasts, passes leave the buffers of the module as they were."""
        kept = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        yield
        for buffer, values in kept:  # BatchNorm writes without counting it as a new version
            with _unsafe_preserve_version_counter(buffer):
                buffer.copy_(values)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Those that are trainable now: freezing a layer takes effect at once."""
        found = tuple(p for p in self.module.parameters() if p.requires_grad)
        self.spread = self.spread or sharded(found)
        return found


@final
class SharedParameters(Shared):
    """θ = the given parameters: ``shared=[layer.weight, ...]`` or ``shared=net.parameters()``."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = tuple(dict.fromkeys(parameters))
        for found in self._parameters:
            if not isinstance(found, Tensor):
                remedy = "pass module.parameters()"
                if isinstance(found, nn.Module):
                    remedy = "pass [p for m in modules for p in m.parameters()]"
                raise TypeError(
                    "shared must be a module, an iterable of parameters or 'auto', found an "
                    f"element of type {type(found).__name__}: {remedy}"
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

    Args:
        optimizers: if given, only what one of them moves counts. A discriminator that two losses
            of the generator pass through, and that another optimizer moves, is then left out.
    """

    def __init__(self, optimizers: Sequence[Optimizer] = ()) -> None:
        self._optimizers = tuple(optimizers)
        self._seen: dict[nn.Parameter, None] = {}

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Those seen so far that are trainable now; none before the first step."""
        return tuple(p for p in self._seen if p.requires_grad)

    def look(self, losses: Sequence[Tensor]) -> None:
        """Add the parameters that two or more of ``losses`` reach."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        moved = {id(p) for group in groups for p in group["params"]}
        for leaf in common_leaves(losses):
            if isinstance(leaf, nn.Parameter) and (not groups or id(leaf) in moved):
                self._seen.setdefault(leaf)


def as_shared(spec: SharedSpec, optimizers: Sequence[Optimizer] = ()) -> Shared:
    """``spec`` as an object that knows the shared parameters; ``optimizers`` narrow ``"auto"``.

    Raises:
        ValueError: nothing is shared, or the word is not ``"auto"``.
        TypeError: ``spec`` is something else.
    """
    if isinstance(spec, nn.Module):
        return SharedModule(spec)
    if isinstance(spec, str):
        if spec != "auto":
            raise ValueError(
                f"shared must be a module, an iterable of parameters or 'auto', found {spec!r}: "
                + ("write 'auto'" if spec.lower() == "auto" else f"pass the module, model.{spec}")
            )
        return SharedAuto(optimizers)
    if isinstance(spec, Tensor) or not isinstance(spec, Iterable):
        remedy = "pass model.backbone or model.backbone.parameters()"
        if isinstance(spec, nn.Parameter):
            remedy = "pass a list of parameters, [parameter], or the module that holds it"
        raise TypeError(
            "shared must be a module, an iterable of parameters or 'auto', found "
            f"{type(spec).__name__}: {remedy}"
        )
    return SharedParameters(spec)
