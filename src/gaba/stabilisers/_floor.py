"""A least weight for every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from gaba.stabilisers._base import Stabiliser
from gaba.stabilisers._checks import check_n_tasks, incoming


@final
@dataclass(frozen=True, eq=False)
class Bounded:
    """Which weights (K,) asked for less than they were allowed, in the last step."""

    saturated: Tensor

    @staticmethod
    def free(n_tasks: int) -> Bounded:
        """No weight is saturated."""
        return Bounded(torch.zeros(check_n_tasks(n_tasks), dtype=torch.bool))


@final
@dataclass(frozen=True)
class Floor(Stabiliser[Bounded]):
    """Keep every weight from falling below a floor.

    With ``mode="renormalise"``, as the paper does, λ_k ← max(λ_k, m) / Σ_l max(λ_l, m), where λ
    (K,) are the weights, without unit, and m is the floor. This does *not* keep the floor: the
    division lowers every weight again, for K = 2 down to m / (1 + m), which is .0476 for .05.
    With ``mode="project"``, λ becomes the nearest point, in the Euclidean distance, of
    {λ : λ_k ≥ m, Σλ = 1}, and the floor is kept exactly.

    A floor also caps the imbalance that weights can repair, for K = 2 at (1 − m) / m, which is 19
    for .05, or at 1 / m if it is renormalised. Beyond that the weights stand still; ``saturated``
    in the state says which of them asked for less than m in this step.

    Missing tasks are ignored: the others are brought to sum 1 among themselves before the floor,
    and do so after it; for a missing task its own value comes out, never saturated.

    Attributes:
        floor: m in [0, 1); with ``mode="project"`` below 1/K, or there is no such point.
        mode: ``"renormalise"`` or ``"project"``.

    Raises:
        ValueError: If a setting breaks its rule; the rule with K is checked by ``init``.

    Source: Duchi et al. 2008, figure 1, for the projection.

    >>> import torch
    >>> from gaba.stabilisers import Floor
    >>> weights = torch.tensor([0.0, 1.0])
    >>> floor = Floor(0.05)
    >>> floor.update(weights, floor.init(2))[0]
    tensor([0.0476, 0.9524], dtype=torch.float64)
    >>> floor = Floor(0.05, mode="project")
    >>> floor.update(weights, floor.init(2))[0]
    tensor([0.0500, 0.9500], dtype=torch.float64)
    """

    floor: float = 0.05
    mode: Literal["renormalise", "project"] = "renormalise"

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise ValueError(
                f"floor must lie in [0, 1), found {self.floor!r}: it is a weight; 0 sets no floor"
            )
        if self.mode not in ("renormalise", "project"):
            raise ValueError(
                f"mode must be 'renormalise' or 'project', found {self.mode!r}: 'project' keeps "
                "the floor exactly, 'renormalise' is the paper's"
            )

    def init(self, n_tasks: int) -> Bounded:
        """No weight is saturated."""
        state = Bounded.free(n_tasks)
        if self.mode == "project" and n_tasks > 1 and self.floor >= 1 / n_tasks:
            raise ValueError(
                f"floor must be below 1/K = {1 / n_tasks:.4g} for {n_tasks} tasks, found "
                f"{self.floor!r}: lower it, or the weights cannot sum to 1"
            )
        return state

    def update(
        self, value: Tensor, state: Bounded, present: Tensor | None = None
    ) -> tuple[Tensor, Bounded]:
        """The weights ``value`` (K,) with the floor in force."""
        value, present = incoming(value, present, state.saturated.shape[0])
        whole = torch.where(present, value, 0.0).sum()
        asked = torch.where(present.all() | (whole == 0), value, value / whole)
        if self.mode == "project":
            bounded = _project(asked, self.floor, present)
        else:
            raised = asked.clamp(min=self.floor)
            bounded = raised / torch.where(present, raised, 0.0).sum()
        saturated = present & (asked < self.floor)
        return torch.where(present, bounded, value), Bounded(saturated)


def _project(value: Tensor, floor: float, present: Tensor) -> Tensor:
    """The nearest point of {λ ≥ floor, Σλ = 1} over the tasks present: λ = floor + (x − τ)₊."""
    excess = torch.where(present, value - floor, -torch.inf)
    rest = 1 - floor * present.to(value.dtype).sum()
    ordered = excess.sort(descending=True).values
    count = torch.arange(1, len(value) + 1, device=value.device)
    threshold = (ordered.cumsum(0) - rest) / count
    last = ((ordered > threshold).sum(0, keepdim=True) - 1).clamp(min=0)
    return floor + (excess - threshold.gather(0, last)).clamp(min=0)
