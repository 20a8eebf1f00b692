"""Values that stop moving after some steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaba.stabilisers._base import Stabiliser
from gaba.stabilisers._checks import DTYPE, check_count, check_n_tasks, incoming


@final
@dataclass(frozen=True, eq=False)
class Held:
    """The last values let through.

    Attributes:
        value: The values: (K,).
        seen: For which tasks there has been one: (K,) bool.
        count: How many updates there have been: an int64 of shape ().
    """

    value: Tensor
    seen: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class Freeze(Stabiliser[Held]):
    """Pass values unchanged for the first updates, and hold the last ones for ever after.

    y_k = x_k in the updates 1 to ``after``, and y_k = the last x_k of those from then on, where
    x (K,) are weights or norms. It turns an adaptive weighting into the fixed one that it has
    found. A missing task keeps its last value, which is also what comes out for it; a task that
    was missing in all of these updates is held at its first value.

    Attributes:
        after: How many updates to let through, at least 1.

    Raises:
        ValueError: If ``after`` is below 1 or no int.

    >>> import torch
    >>> from gaba.stabilisers import Freeze
    >>> freeze = Freeze(after=1)
    >>> weights, state = freeze.update(torch.tensor([0.25, 0.75]), freeze.init(2))
    >>> freeze.update(torch.tensor([0.5, 0.5]), state)[0]
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    after: int = 1000

    def __post_init__(self) -> None:
        check_count("after", self.after, 1, "one value at least must pass before it can be held")

    def init(self, n_tasks: int) -> Held:
        """No value yet."""
        check_n_tasks(n_tasks)
        return Held(
            torch.zeros(n_tasks, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=torch.bool),
            torch.zeros((), dtype=torch.int64),
        )

    def update(
        self, value: Tensor, state: Held, present: Tensor | None = None
    ) -> tuple[Tensor, Held]:
        """The values ``value`` (K,), or those held."""
        value, present = incoming(value, present, state.value.shape[0])
        passing = present & ((state.count < self.after) | ~state.seen)
        held = torch.where(passing, value, state.value)
        seen = state.seen | present
        return torch.where(seen, held, value), Held(held, seen, state.count + 1)
