"""What an adaptive rule has to beat: constant, initial and random multipliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba import splitmix
from gaba.pieces import Seen
from gaba.rules._settings import check_count, check_each, keep_ratios
from gaba.rules._vectors import counts, known, positive, row, softmax, zeros
from gaba.rules.rule import Needs, Rule


@final
@dataclass(frozen=True)
class Uniform(Rule):
    """Multiply every loss by 1: the plain sum.

    Example:
        >>> import numpy as np
        >>> Uniform()(np.array([3.0, 0.2])).tolist()
        [0.5, 0.5]
    """

    needs: ClassVar[Needs] = "losses"

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """Ones (..., K)."""
        return torch.ones_like(seen.losses), state


@final
@dataclass(frozen=True)
class Fixed(Rule):
    """Multiply the losses by constants.

    Args:
        weights: one finite number a task, zero or more, not all zero, used as they are.

    Raises:
        ValueError: A weight is negative or not finite, all are zero, or their number is not K.

    Example:
        >>> import numpy as np
        >>> Fixed((1, 20)).raw(np.array([3.0, 0.2])).tolist()
        [1.0, 20.0]
    """

    weights: Sequence[float]
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        keep_ratios(self, "weights", zero=True)
        if not any(self.weights):
            raise ValueError("Fixed: weights must not all be zero, found only zeros; raise one")

    def init(self, n_tasks: int) -> Any:
        """No memory."""
        check_each(self, "weights", n_tasks)
        return ()

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The constants (..., K)."""
        return row(self.weights, seen.losses).expand_as(seen.losses), state


@final
@dataclass(frozen=True, eq=False)
class FirstLosses:
    """The first losses of each task.

    Attributes:
        total: (K,), their sum.
        count: (K,), int64, how many there have been, up to ``steps``.
    """

    total: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class InverseInitial(Rule):
    """Divide each loss by its value at the start, m_k = 1/L̄_k, and leave it at that.

    L̄_k is the mean of the first ``steps`` losses of task k, or of those so far, this step's
    included. So each term m_k L_k starts at about 1.

    Args:
        steps: at least 1.

    Raises:
        ValueError: ``steps`` is out of its range. A Balancer refuses a loss that brings L̄_k to 0
            or below; here the answer is NaN.

    Example:
        >>> rule, norms = InverseInitial(), torch.ones(2)
        >>> _, state = rule.update(Seen(torch.tensor([4.0, 0.5]), norms), rule.init(2))
        >>> rule.update(Seen(torch.tensor([1.0, 1.0]), norms), state)[0]
        tensor([0.2500, 2.0000], dtype=torch.float64)
    """

    steps: int = 1
    needs: ClassVar[Needs] = "losses"
    takes: ClassVar[str] = "above 0 in the mean of its first values"

    def __post_init__(self) -> None:
        check_count(self, "steps", "1 takes the first loss alone")

    def init(self, n_tasks: int) -> FirstLosses:
        """No loss seen."""
        return FirstLosses(zeros(n_tasks), counts(n_tasks))

    def unfit(self, losses: Tensor, state: FirstLosses) -> Tensor | None:
        """Losses that bring the mean of the first ones to 0 or below (K,)."""
        return (state.count < self.steps) & (state.total + losses <= 0)

    def update(self, seen: Seen, state: FirstLosses) -> tuple[Tensor, FirstLosses]:
        """The inverse first losses (K,), and the state with this step's, as long as they count."""
        losses, here = known(seen.losses, 0.0)
        counted = here & (state.count < self.steps)
        total = torch.where(counted, state.total + losses, state.total)
        count = state.count + counted
        return count / torch.where(here, positive(total), 1.0), FirstLosses(total, count)


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """Where the stream of random numbers stands.

    Attributes:
        step: (), int64, how many vectors have been drawn.
        seed: (), int64.
    """

    step: Tensor
    seed: Tensor


@final
@dataclass(frozen=True)
class RLW(Rule):
    """Multiply at random in every step, m = softmax(x) over the tasks present, x standard normal.

    What another method gains over this one is not due to mere movement of the multipliers. x_k of
    step n is a hash of the seed, n and k. So it is the same on every device and after a resume, and
    no generator is touched.

    Args:
        seed: of the stream, an int of 64 bits.

    Raises:
        ValueError: ``seed`` is no such int.

    Source: Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022 (there with the
    normal distribution).

    Example:
        >>> rule, seen = RLW(seed=7), Seen(torch.ones(3), torch.ones(3))
        >>> (m, _), (again, _) = rule.update(seen, rule.init(3)), rule.update(seen, rule.init(3))
        >>> bool((m == again).all()), round(float(m.sum()), 12)
        (True, 1.0)
    """

    seed: int = 0
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"RLW: seed must be an int of 64 bits, found {self.seed!r}; use 0")

    def init(self, n_tasks: int) -> Drawn:
        """The start of the stream."""
        seed = torch.tensor(self.seed, dtype=torch.int64)
        return Drawn(torch.zeros((), dtype=torch.int64), seed)

    def update(self, seen: Seen, state: Drawn) -> tuple[Tensor, Drawn]:
        """The multipliers (K,) of this step; the stream moves on by one, whoever is missing."""
        losses, here = known(seen.losses, 0.0)
        x = _normals(state.seed, state.step, losses)
        return softmax(x, here), Drawn(state.step + 1, state.seed)


def _normals(seed: Tensor, step: Tensor, like: Tensor) -> Tensor:
    """Standard normal numbers (K,) of step number ``step`` in the stream ``seed``."""
    start = splitmix.mix(seed + splitmix.GOLDEN) + step * splitmix.GOLDEN
    key = splitmix.words(2 * like.shape[-1], splitmix.mix(start))[::2]
    angle = _fraction(splitmix.mix(key + splitmix.GOLDEN), like)
    return (-2 * _fraction(key, like).log()).sqrt() * torch.cos(2 * math.pi * angle)


def _fraction(words: Tensor, like: Tensor) -> Tensor:
    """Numbers in (0, 1] from the upper 53 bits (24 where the dtype is float32)."""
    used = 53 if like.dtype == torch.float64 else 24
    return (splitmix.shifted(words, 64 - used) + 1).to(like.dtype) * 2.0**-used
