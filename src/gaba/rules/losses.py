"""Rules on the values of the losses, which need no gradient at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_count, check_number
from gaba.rules._vectors import counts, known, positive, softmax, zeros
from gaba.rules.rule import Needs, Rule


@final
@dataclass(frozen=True)
class ScaleInvariant(Rule):
    """Descend on Σ_k log L_k, m_k = 1/L_k.

    The factor of a loss cancels in m_k ∇L_k, so relative falls count alike. Contributions g_k/L_k
    are equal only where norms are in proportion to losses. A loss that is not above 0 has no
    logarithm: a Balancer refuses it, and here the answer is NaN.

    Source: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022 (a baseline there).

    Example:
        >>> import numpy as np
        >>> ScaleInvariant().raw(np.array([4.0, 1.0])).tolist()
        [0.25, 1.0]
    """

    needs: ClassVar[Needs] = "losses"

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """Losses that have no logarithm (K,)."""
        return losses <= 0

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """1/L_k (..., K)."""
        return 1 / positive(seen.losses), state


@final
@dataclass(frozen=True)
class GeometricMean(Rule):
    """Descend on the geometric mean of the losses, m_k = (Π_j L_j)^{1/K} / (K L_k).

    The proportions are those of :class:`ScaleInvariant`; the length of the update falls with the
    losses. K and the product are over the tasks present. A loss that is not above 0 has no
    logarithm: a Balancer refuses it, and here the answer is NaN.

    Source: Chennupati et al., MultiNet++, CVPR workshops 2019 (geometric loss strategy).

    Example:
        >>> import numpy as np
        >>> GeometricMean().raw(np.array([4.0, 1.0])).tolist()  # 2 / (2 L)
        [0.25, 1.0]
    """

    needs: ClassVar[Needs] = "losses"

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """Losses that have no logarithm (K,)."""
        return losses <= 0

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """(Π L)^{1/K} / (K L_k) (..., K)."""
        logs, here = known(positive(seen.losses).log(), 0.0)
        n_tasks = here.sum(-1, keepdim=True)
        mean = logs.sum(-1, keepdim=True) / n_tasks
        return torch.where(here, (mean - logs).exp() / n_tasks, torch.nan), state


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """Mean losses of whole windows, and what has been seen of the present one.

    Attributes:
        total: (K,), the sum of the losses in the present window.
        count: (K,), int64, how many those are.
        last: (K,), the mean loss of the last whole window.
        before: (K,), that of the window before.
        whole: (K,), int64, how many whole windows there have been.
    """

    total: Tensor
    count: Tensor
    last: Tensor
    before: Tensor
    whole: Tensor


@final
@dataclass(frozen=True)
class DWA(Rule):
    """Raise the tasks whose losses fall more slowly, m_k = K e^{r_k/T} / Σ_j e^{r_j/T}.

    r_k is the mean loss of task k in the last whole window over that in the window before; it is 1
    until there are two, and where the earlier one is 0. Sums and K are over the tasks present. Each
    task counts its own losses, so its window waits for it. The scale of the losses is not seen.

    Args:
        temperature: T, positive; the larger, the more even.
        window: how many steps an epoch has, at least 1. Say it: the rule cannot know.

    Raises:
        ValueError: A setting is out of its range.

    Source: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019,
    equation 7.

    Example:
        >>> rule, norms = DWA(temperature=1.0, window=1), torch.ones(2)
        >>> state = rule.init(2)
        >>> for losses in ([4.0, 4.0], [2.0, 4.0], [2.0, 4.0]):
        ...     m, state = rule.update(Seen(torch.tensor(losses), norms), state)
        >>> m  # 2 · softmax(½, 1)
        tensor([0.7551, 1.2449], dtype=torch.float64)
    """

    temperature: float = 2.0
    window: int = 100
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_number(self, "temperature", "the paper has 2")
        check_count(self, "window", "give the steps of an epoch")

    def init(self, n_tasks: int) -> Windows:
        """Nothing seen."""
        total, last, before = zeros(n_tasks), zeros(n_tasks), zeros(n_tasks)
        return Windows(total, counts(n_tasks), last, before, counts(n_tasks))

    def update(self, seen: Seen, state: Windows) -> tuple[Tensor, Windows]:
        """The multipliers (K,) by the windows before this step, and the state with its losses."""
        losses, here = known(seen.losses, 0.0)
        rated = (state.whole >= 2) & (state.before != 0)
        rates = torch.where(rated, state.last / torch.where(rated, state.before, 1.0), 1.0)
        # finite also where a rate overflows: else every later step would be dropped
        most = torch.finfo(rates.dtype).max
        powers = (rates / self.temperature).clamp(-most, most)
        multipliers = here.sum(-1, keepdim=True) * softmax(powers, here)
        total, count = state.total + losses, state.count + here
        full = here & (count == self.window)
        return multipliers, Windows(
            torch.where(full, 0.0, total),
            torch.where(full, 0, count),
            torch.where(full, total / self.window, state.last),
            torch.where(full, state.last, state.before),
            state.whole + full,
        )


@final
@dataclass(frozen=True, eq=False)
class Nadir:
    """The losses to compare with, as they are being averaged.

    Attributes:
        total: (K,), the sum of the losses that count.
        count: (K,), int64, how many losses each task has had, those before the window included.
    """

    total: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class SmoothTchebycheff(Rule):
    """Descend on a smooth maximum of the relative log-losses, K μ log Σ_k (L_k/n_k)^{1/μ}.

    m_k = K softmax(log(L/n)/μ)_k / L_k. n_k is the mean over ``window`` losses of task k after the
    first ``warm_up``; until then m_k = 1/L_k. Small μ looks at the worst task alone; large μ comes
    to :class:`ScaleInvariant`.

    Args:
        mu: μ, positive.
        warm_up: how many losses pass before they are averaged, zero or more.
        window: how many are averaged, at least 1.

    Raises:
        ValueError: A setting is out of its range. A loss that is not above 0 is refused by a
            Balancer, and here the answer is NaN.

    Source: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML
    2024, definition of g^(STCH); relative log-losses, n_k and K as in its published code.

    Example:
        >>> rule, norms = SmoothTchebycheff(warm_up=0, window=1), torch.ones(2)
        >>> _, state = rule.update(Seen(torch.tensor([1.0, 10.0]), norms), rule.init(2))
        >>> rule.update(Seen(torch.tensor([0.5, 10.0]), norms), state)[0]  # 2 · (⅓, ⅔) / L
        tensor([1.3333, 0.1333], dtype=torch.float64)
    """

    mu: float = 1.0
    warm_up: int = 400
    window: int = 100
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_number(self, "mu", "1 is the default")
        check_count(self, "warm_up", "the published code has 4 epochs", least=0)
        check_count(self, "window", "the published code has 1 epoch")

    def init(self, n_tasks: int) -> Nadir:
        """No loss seen."""
        return Nadir(zeros(n_tasks), counts(n_tasks))

    def unfit(self, losses: Tensor, state: Any) -> Tensor | None:
        """Losses that have no logarithm (K,)."""
        return losses <= 0

    def update(self, seen: Seen, state: Nadir) -> tuple[Tensor, Nadir]:
        """The multipliers (K,) of this step, and the state with its losses taken in."""
        losses, here = known(seen.losses, 1.0)
        losses = positive(losses)
        warm = state.count >= self.warm_up + self.window
        ready = here & warm
        nadir = torch.where(warm, state.total / self.window, 1.0)
        part = softmax((losses / nadir).log() / self.mu, ready)
        part = torch.where(ready, ready.sum(-1, keepdim=True) * part, 1.0)
        counted = here & (state.count >= self.warm_up) & ~warm
        total = torch.where(counted, state.total + losses, state.total)
        return part / losses, Nadir(total, torch.where(warm, state.count, state.count + here))
