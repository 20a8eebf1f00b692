"""How far one step of the optimizers moves the parameters: the real update, for any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer


@final
class Moves:
    """How far the next step of some optimizers moves each parameter: d = θ_before − θ_after.

    Decoupled weight decay (AdamW) is taken out: it is not the losses'. Nothing is kept unless
    it was asked for.

    Args:
        optimizers: those that move the parameters; also one a parameter, inside the backward pass.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = torch.optim.SGD([w], lr=0.5)
        >>> moves = Moves([optimizer])
        >>> moves.watch()
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> moves.take([w])
        [tensor([0.5000])]
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._watching = False
        self._before: dict[Tensor, Tensor] = {}
        self._moved: dict[Tensor, Tensor] = {}
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(_before(self))
            optimizer.register_step_post_hook(_after(self))

    def watch(self) -> None:
        """Keep the next move of each parameter; it takes a copy of them."""
        self._watching = True

    def take(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        """Give d by parameter, 0 for one that was not moved; ``None`` if none was; forget it."""
        moved = self._moved
        if not any(p in moved for p in parameters):
            return None
        self._watching, self._before, self._moved = False, {}, {}
        return [moved[p] if p in moved else torch.zeros_like(p) for p in parameters]

    def before(self, optimizer: Optimizer) -> None:
        """A step begins."""
        if self._watching:
            for group in optimizer.param_groups:
                self._before |= {p: p.detach().clone() for p in group["params"]}

    def after(self, optimizer: Optimizer) -> None:
        """A step is over."""
        if not self._watching:
            return
        for group in optimizer.param_groups:
            decay = _decay(optimizer, group)
            for p in group["params"]:
                old = self._before.pop(p, None)
                if old is not None:
                    self._moved[p] = old * (1 - decay) - p.detach()

    def __getstate__(self) -> dict[str, Any]:
        return {"_watching": False, "_before": {}, "_moved": {}}


def _before(moves: Moves) -> Callable[..., None]:
    return lambda optimizer, *_: moves.before(optimizer)


def _after(moves: Moves) -> Callable[..., None]:
    return lambda optimizer, *_: moves.after(optimizer)


def _decay(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """The part of each parameter that decoupled weight decay takes away in a step."""
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    return float(group["lr"]) * float(group["weight_decay"]) if decoupled else 0.0
