"""Which parameters are shared, and what a backward pass from the losses would reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, TypeAlias, final

from torch import Tensor, nn

SharedSpec: TypeAlias = "nn.Module | Iterable[nn.Parameter] | Literal['auto']"


@final
class LossGraph:
    """The losses of one step with the graph behind them; gone when the step is over.

    Args:
        losses: the scalar losses of the tasks present.
        shared: which parameters are shared.
        features: the tensors that leave the shared part, if the user names them.
    """

    def __init__(
        self, losses: Sequence[Tensor], shared: Shared, features: Sequence[Tensor] | None = None
    ) -> None:
        self.losses = tuple(losses)
        self.shared = shared
        self.features = None if features is None else tuple(features)

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """Every leaf that a backward pass would reach, the shared parameters in front."""
        known = self.shared.parameters()
        return tuple({id(p): p for p in (*known, *reachable_leaves(self.losses))}.values())


def reachable_leaves(losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaf tensors whose ``.grad`` a backward pass from ``losses`` would fill.

    Found by walking the autograd graph, each node once: no tensor is computed and nothing is kept.
    """
    found: dict[int, Tensor] = {}
    stack = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.setdefault(id(leaf), leaf)
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    return tuple(found.values())


class Shared(ABC):
    """The shared parameters θ: the parameters that two or more tasks reach."""

    @abstractmethod
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The trainable shared parameters, as far as they are known before the backward pass."""

    def learn(self, leaves: Sequence[Tensor], reached: Sequence[Sequence[bool]]) -> None:
        """Take note of which of ``leaves`` each task reached in this step; by default do not."""
        return


@final
class SharedModule(Shared):
    """θ = the parameters of one module: ``shared=model.backbone``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        if not any(True for _ in module.parameters()):
            raise ValueError(
                f"shared must hold at least one parameter, found {type(module).__name__} without "
                "any: pass the module (or the parameters) that two or more tasks use"
            )

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
