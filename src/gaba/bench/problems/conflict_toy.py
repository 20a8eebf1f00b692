"""Two conflicting objectives of two parameters, with a Pareto front that is known.

The example of Liu et al. (Conflict-Averse Gradient Descent, NeurIPS 2021, section 5) in the form
and with the five start points of the code of Navon et al. (Multi-Task Learning as a Bargaining
Game, ICML 2022, section 6.1), whose first objective is a tenth of that of the former.
"""

from __future__ import annotations

from functools import cache
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from gaba.bench.problem import Metric, Problem, Rates, Session, Split

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
"""Where the trainings of seeds 0 to 4 begin."""
SCALE = (0.1, 1.0)
SHIFT = 21.0
"""Neither objective comes below −20; shifted by this, both losses are positive everywhere."""
_SMALLEST = 5e-6
_FRONT_POINTS = 2001


def losses(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses at the points (x, y), of any shape: L_k = s_k (f_k + 21), s = (0.1, 1).

    f_k = c₁ u_k + c₂ q_k with c₁ = max(tanh(y/2), 0), c₂ = max(tanh(−y/2), 0),
    u₁ = log max(|−(x + 7)/2 + tanh y|, 5e-6) + 6, u₂ = log max(|(3 − x)/2 − tanh y + 2|, 5e-6) + 6,
    q₁ = ((x − 7)² + 0.1 (y + 8)²)/10 − 20, q₂ = ((x + 7)² + 0.1 (y + 8)²)/10 − 20.

    The constant 21, which no gradient sees, is ours: it lets rules run that take log L_k.
    """
    upper, lower = torch.tanh(y / 2).clamp(min=0), torch.tanh(-y / 2).clamp(min=0)
    tanh, flat = torch.tanh(y), 0.1 * (y + 8).square()
    u1 = (-(x + 7) / 2 + tanh).abs().clamp(min=_SMALLEST).log() + 6
    u2 = ((3 - x) / 2 - tanh + 2).abs().clamp(min=_SMALLEST).log() + 6
    q1 = ((x - 7).square() + flat) / 10 - 20
    q2 = ((x + 7).square() + flat) / 10 - 20
    f = (upper * u1 + lower * q1, upper * u2 + lower * q2)
    first, second = (s * (value + SHIFT) for s, value in zip(SCALE, f, strict=True))
    return first, second


@cache
def front() -> np.ndarray:
    """The Pareto front, 2001 points (L₁, L₂) from the lowest L₂ to the lowest L₁.

    Every point of it minimises w f₁ + (1 − w) f₂ for a w in [0, 1], in y < 0, where this is
    tanh(−y/2) · (w q₁ + (1 − w) q₂). In x that is least at x = 7(2w − 1), exactly, and leaves
    tanh(−y/2) · (19.6 w(1 − w) − 20 + 0.01 (y + 8)²), whose least y between −12 and −8 is found by
    bisection of its derivative. Above y = 0 no objective is below −6.3, and all is dominated.
    """
    w = np.linspace(0, 1, _FRONT_POINTS)
    x, level = 7 * (2 * w - 1), 19.6 * w * (1 - w) - 20
    low, high = np.full_like(w, -12.0), np.full_like(w, -8.0)
    for _ in range(60):
        y = (low + high) / 2
        value = level + 0.01 * (y + 8) ** 2
        slope = -0.5 / np.cosh(y / 2) ** 2 * value + np.tanh(-y / 2) * 0.02 * (y + 8)
        low, high = np.where(slope < 0, y, low), np.where(slope < 0, high, y)
    both = losses(torch.from_numpy(x), torch.from_numpy((low + high) / 2))
    return torch.stack(both, dim=1).numpy()


def distance(point: np.ndarray) -> float:
    """From (L₁, L₂) to the front, each loss in parts of its range along the front."""
    points = front()
    scale = np.ptp(points, axis=0)
    a, b, p = points[:-1] / scale, points[1:] / scale, point / scale
    along = ((p - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1)
    nearest = a + along.clip(0, 1)[:, None] * (b - a)
    return float(np.sqrt(((nearest - p) ** 2).sum(1)).min())


def start_point(seed: int) -> Tensor:
    """Seeds 0 to 4: the five of the literature; further ones: one of them in turn, ± 0.5."""
    point = np.array(STARTS[seed % len(STARTS)])
    if seed >= len(STARTS):
        point = point + np.random.default_rng(seed).normal(scale=0.5, size=2)
    return torch.from_numpy(point).float()


@final
class Point(nn.Module):
    """The two parameters, which both tasks share; there are no heads."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(start.clone())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Both losses at the point."""
        return losses(self.at[0], self.at[1])


@final
class _Training(Session):
    grad_clip = None

    def __init__(self, seed: int, device: torch.device) -> None:
        self.model = self.shared = self.point = Point(start_point(seed)).to(device)

    def losses(self) -> dict[str, Tensor]:
        return dict(zip(ConflictToy.tasks, self.point(), strict=True))

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        found = np.array([float(loss) for loss in self.point()])
        x, y = self.point.at.tolist()
        first, second = found.tolist()
        return {"f1": first, "f2": second, "distance": distance(found), "x": x, "y": y}


@final
class ConflictToy(Problem):
    """Two losses of one point in the plane, ten times apart, which pull it to opposite sides.

    Judged by both losses where the training ended; the reference is their mean over the five start
    points. Shown besides: the distance to the Pareto front, which every optimum of a weighted sum
    has at 0. Nothing is drawn, so validation and test are the same, and the seed chooses the start.
    """

    name = "conflict-toy"
    tasks: tuple[str, ...] = ("f1", "f2")
    steps = 2000
    learning_rates: Rates = {"adam": (0.01, 0.03, 0.1), "sgd": (0.1, 0.3, 1.0)}  # noqa: RUF012

    def __init__(self) -> None:
        starts = torch.tensor(STARTS, dtype=torch.float64)
        found = losses(starts[:, 0], starts[:, 1])
        self.metrics = tuple(
            Metric(task, task=task, reference=float(loss.mean()))
            for task, loss in zip(self.tasks, found, strict=True)
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training from the start point of ``seed``."""
        return _Training(seed, device)
