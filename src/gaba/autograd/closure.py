"""Closures: an optimizer that evaluates the losses several times in one step is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, final
from weakref import WeakSet

import torch
from torch.optim import Optimizer

_REMEDY = (
    "weights that move between two evaluations give it another function each time. Balance once "
    "before the step, then hold the weights: call balancer.eval(), and in the closure "
    "balancer(losses).backward()"
)


@final
class ClosureGuard:
    """Sees to it that the weights move at most once within one step of an optimizer.

    A closure that is evaluated once (as frameworks hand it to ``optimizer.step``) is welcome.
    """

    def __init__(self) -> None:
        self._watched: WeakSet[Optimizer] = WeakSet()
        self._used: WeakSet[Optimizer] = WeakSet()

    def check(self) -> None:
        """Called once for each time that the weights move.

        Raises:
            RuntimeError: for the second time in this very step of an optimizer; or within a step
                of LBFGS, which is about to come back.
        """
        optimizer = _stepping(sys._getframe(1))
        if optimizer is None:
            return
        if isinstance(optimizer, torch.optim.LBFGS) or optimizer in self._used:
            raise RuntimeError(
                f"{type(optimizer).__name__} evaluates its closure several times in a step: "
                f"{_REMEDY}"
            )
        self._used.add(optimizer)
        if optimizer not in self._watched:
            self._watched.add(optimizer)
            optimizer.register_step_pre_hook(_beginning(self._used))

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()


def _beginning(used: WeakSet[Optimizer]) -> Callable[..., None]:
    """A hook that runs as a step begins; one within a step (``super().step``) begins nothing."""

    def begin(optimizer: Optimizer, *_: object) -> None:
        if _stepping(sys._getframe(1)) is not optimizer:
            used.discard(optimizer)

    return begin


def _stepping(frame: FrameType | None) -> Optimizer | None:
    """The optimizer in whose ``step`` we are, if in any."""
    while frame is not None:
        if frame.f_code.co_name == "step":
            found = frame.f_locals.get("self")
            if isinstance(found, Optimizer):
                return found
        frame = frame.f_back
    return None
