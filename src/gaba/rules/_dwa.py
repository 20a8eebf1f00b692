"""Weights from how fast each loss falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import check_count, check_positive, counts, masked, softmax, zeros


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
class DWA(StatefulWeighting[Windows]):
    """Weigh more the tasks whose losses fall more slowly, w_k = K e^{r_k/T} / Σ_j e^{r_j/T}.

    r_k is the mean loss of task k in the last whole window over that in the window before, and 1
    until there are two; T is the temperature. Raw weights: w, which sum to K. Losses, weights:
    (K,). Nothing is said about the scale of the losses: all of them falling alike, the weights are
    uniform, whatever the norms.

    A window is an epoch in the paper. Each task counts its own losses: one that is missing in a
    step has its window go on later. K is then the number of tasks present. Where the mean loss of a
    window is 0, r_k is 1.

    Args:
        temperature: T, positive; 2 in the paper. Above it the weights are more even.
        window: how many steps an epoch has, at least 1: say it, there is no knowing it here.

    Raises:
        ValueError: a setting is out of its range.

    Source: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019,
    equation 7.

    Example:
        >>> import torch
        >>> rule = DWA(temperature=1.0, window=1)
        >>> state = rule.init(2)
        >>> for losses in ([4.0, 4.0], [2.0, 4.0], [2.0, 4.0]):
        ...     weights, state = rule.update(Measured(torch.tensor(losses)), state)
        >>> weights  # 2 · softmax(½, 1)
        tensor([0.7551, 1.2449], dtype=torch.float64)
    """

    temperature: float = 2.0
    window: int = 100
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_positive("DWA", "temperature", self.temperature)
        check_count("DWA", "window", self.window)

    def init(self, n_tasks: int) -> Windows:
        """Nothing seen."""
        return Windows(
            zeros(n_tasks), counts(n_tasks), zeros(n_tasks), zeros(n_tasks), counts(n_tasks)
        )

    def update(
        self, measured: Measured, state: Windows, present: Tensor | None = None
    ) -> tuple[Tensor, Windows]:
        """The weights (K,) by the windows before this step, and the state with its losses in."""
        losses, here = masked(measured.losses, present, 0.0)
        known = (state.whole >= 2) & (state.before != 0)
        rates = torch.where(known, state.last / torch.where(known, state.before, 1.0), 1.0)
        weights = here.sum() * softmax(rates / self.temperature, here)
        total, count = state.total + losses, state.count + here
        full = here & (count == self.window)
        return weights, Windows(
            torch.where(full, 0.0, total),
            torch.where(full, 0, count),
            torch.where(full, total / self.window, state.last),
            torch.where(full, state.last, state.before),
            state.whole + full,
        )
