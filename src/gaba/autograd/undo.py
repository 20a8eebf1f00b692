"""``.grad`` as it was before a backward pass, to be put back where the pass brings NaN or ∞."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from torch import Tensor

from gaba.autograd.combination import overflown, steps_at_once
from gaba.autograd.graph import LossGraph
from gaba.autograd.passes import one_pass
from gaba.autograd.sharding import local_part


@final
class Undo:
    """Remembers ``.grad`` of some leaves, and can put it back.

    Args:
        leaves: whose ``.grad``. What is there is copied; after ``zero_grad()`` that is nothing.

    Raises:
        ValueError: an optimizer steps inside the backward pass, which cannot be undone.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> undo = Undo([w])
        >>> (w * torch.nan).sum().backward()
        >>> undo.sound(), undo.put_back(), w.grad
        (False, None, None)
    """

    def __init__(self, leaves: Iterable[Tensor]) -> None:
        self._leaves = list({id(leaf): leaf for leaf in leaves}.values())
        if steps_at_once(self._leaves):
            raise ValueError(
                "on_nonfinite must be 'pass' where an optimizer steps inside the backward pass, "
                "found a parameter with such a hook: what it has done cannot be undone"
            )
        self._before = [None if p.grad is None else p.grad.clone() for p in self._leaves]

    def sound(self) -> bool:
        """Whether every number in ``.grad`` is finite. Waits for the device."""
        return not bool(overflown(self._leaves))

    def put_back(self) -> None:
        """Leave ``.grad`` as it was."""
        for leaf, before in zip(self._leaves, self._before, strict=True):
            leaf.grad = before


def unsound(graph: LossGraph) -> tuple[int, ...]:
    """The positions of the tasks whose loss or gradient is not finite, by a pass a task."""
    found: list[int] = []
    for k, loss in zip(graph.tasks, graph.losses, strict=True):
        values = [loss, *one_pass(graph, loss, graph.leaves)]
        parts = [local_part(value).detach() for value in values if value is not None]
        sound = [(p.coalesce().values() if p.is_sparse else p).isfinite().all() for p in parts]
        if not all(map(bool, sound)):
            found.append(k)
    return tuple(found)
