"""Streams of losses and norms, and how a weighting with a memory is led along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gaba import _state
from gaba.rules import Measured, StatefulWeighting

Stream = list[Measured]


def stream(n_tasks: int, steps: int = 12, seed: int = 0, spread: float = 1.0) -> Stream:
    """Losses and norms (K,) that wander about a scale of their own, all of them positive."""
    generator = torch.Generator().manual_seed(seed)

    def walk() -> Tensor:
        start = 3 * spread * torch.randn(n_tasks, generator=generator, dtype=torch.float64)
        moves = 0.3 * torch.randn(steps, n_tasks, generator=generator, dtype=torch.float64)
        return (start + moves.cumsum(0)).exp()

    return [Measured(*row) for row in zip(walk(), walk(), strict=True)]


def streams() -> dict[str, Stream]:
    """By name: few and many tasks, all alike, far apart, tiny and huge."""
    small = stream(3, seed=1)
    found = {f"{k} tasks": stream(k, seed=k) for k in (1, 2, 3, 10, 40)}
    found["alike"] = [Measured(torch.ones(4).double(), torch.ones(4).double())] * 8
    found["far apart"] = stream(4, spread=4.0)
    for name, factor in (("tiny", 1e-18), ("huge", 1e18)):
        found[name] = [Measured(m.losses * factor, norms_of(m) * factor) for m in small]
    return found


def norms_of(measured: Measured) -> Tensor:
    assert measured.norms is not None
    return measured.norms


def taken(measured: Measured, order: Sequence[int]) -> Measured:
    """Some of the tasks, in this order."""
    index = list(order)
    return Measured(measured.losses[index], norms_of(measured)[index])


def without(measured: Measured, present: Tensor) -> Measured:
    """NaN for the tasks that are missing."""
    pair = (measured.losses, norms_of(measured))
    return Measured(*(torch.where(present, values, torch.nan) for values in pair))


def led(
    rule: StatefulWeighting[Any],
    along: Sequence[Measured],
    present: Sequence[Tensor | None] | None = None,
    state: Any = None,
) -> tuple[Tensor, Any]:
    """The raw weights (steps, K) along a stream, and the last state."""
    state = rule.init(len(along[0].losses)) if state is None else state
    rows = []
    for measured, here in zip(along, present or [None] * len(along), strict=True):
        weights, state = rule.update(measured, state, here)
        rows.append(weights)
    return torch.stack(rows), state


def parts(state: Any, n_tasks: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state that have an entry for each task."""
    for name, tensor in _state.flatten(state).items():
        if tensor.shape[:1] == (n_tasks,):
            yield name, tensor


def assert_same_state(a: Any, b: Any) -> None:
    """Two states are the same, to the last bit."""
    one, two = _state.flatten(a), _state.flatten(b)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype
        assert torch.equal(tensor, two[name]), name
