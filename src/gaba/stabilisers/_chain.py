"""Stabilisers one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from gaba.stabilisers._base import AnyStabiliser, Stabiliser
from gaba.stabilisers._checks import check_n_tasks, incoming


@final
@dataclass(frozen=True)
class Chain(Stabiliser[tuple[Any, ...]]):
    """Apply stabilisers in turn, each to what the one before it gave.

    y = f_n(… f_2(f_1(x))), where x and y have shape (K,) and f_1 … f_n are the stabilisers; each
    keeps its own state, and every one of them is told which tasks are missing.

    Attributes:
        stabilisers: f_1 … f_n, in the order of their application; with none, values pass
            unchanged.

    Raises:
        ValueError: If one of them is no stabiliser.

    >>> import torch
    >>> from gaba.stabilisers import EMA, Chain, Floor, Warmup
    >>> paper = Chain((Warmup(100), EMA(0.99), Floor(0.05)))
    >>> weights, state = paper.update(torch.tensor([0.002, 0.998]), paper.init(2))
    >>> weights
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    stabilisers: tuple[AnyStabiliser, ...]

    def __init__(self, stabilisers: Iterable[AnyStabiliser]) -> None:
        object.__setattr__(self, "stabilisers", tuple(stabilisers))
        for position, stabiliser in enumerate(self.stabilisers):
            if not isinstance(stabiliser, Stabiliser):
                raise ValueError(
                    f"stabilisers must all be Stabiliser objects, found {stabiliser!r} at position "
                    f"{position}: write EMA(), not EMA or 'ema'"
                )

    def init(self, n_tasks: int) -> tuple[Any, ...]:
        """The first state of each."""
        check_n_tasks(n_tasks)
        return tuple(stabiliser.init(n_tasks) for stabiliser in self.stabilisers)

    def update(
        self, value: Tensor, state: tuple[Any, ...], present: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """The value (K,) that the last one gives for ``value`` (K,)."""
        value, present = incoming(value, present)
        value = value.clone()
        states: list[Any] = []
        for stabiliser, before in zip(self.stabilisers, state, strict=True):
            value, after = stabiliser.update(value, before, present)
            states.append(after)
        return value, tuple(states)
