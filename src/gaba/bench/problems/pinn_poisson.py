"""A physics-informed network for Poisson's equation, against an exact solution with fine detail.

Δu = f on the square −1 ≤ x, y ≤ 1 with u given on its boundary; f and the boundary's values are
those of u = cos(πx/2) sin(πy/2) + 0.1 sin(3πx) sin(3πy). The second part is a tenth of the first in
u, and over three times as large in f: so the residual outweighs the boundary, as Wang, Teng,
Perdikaris describe (Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed
Neural Networks, SIAM Journal on Scientific Computing 43, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.bench.problems._pinn import Equation, Jet, Judge, Training, rms, uniform

INSIDE, BOUNDARY = 256, 64
"""Points of a batch."""
SLOW, FAST, DETAIL = math.pi / 2, 3 * math.pi, 0.1
_JUDGED = {"residual": 2000, "boundary": 500}
_SEEDS = {"validation": 1, "test": 2}


def _parts(points: Tensor) -> tuple[Tensor, Tensor]:
    x, y = points.unbind(dim=1)
    coarse = torch.cos(SLOW * x) * torch.sin(SLOW * y)
    return coarse, DETAIL * torch.sin(FAST * x) * torch.sin(FAST * y)


def solution(points: Tensor) -> Tensor:
    """The solution u = cos(πx/2) sin(πy/2) + 0.1 sin(3πx) sin(3πy) at points (N, 2), (N,)."""
    coarse, fine = _parts(points)
    return coarse + fine


def source(points: Tensor) -> Tensor:
    """The right side f = −(π²/2) cos(πx/2) sin(πy/2) − 1.8π² sin(3πx) sin(3πy), (N,)."""
    coarse, fine = _parts(points)
    return -2 * SLOW**2 * coarse - 2 * FAST**2 * fine


@final
class PoissonEquation(Equation):
    """Poisson's equation in (x, y), with values on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """256 points inside and 64 on the four sides in turn."""
        return _points(generator, INSIDE, BOUNDARY)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(Δu − f)² inside, (u − g)² on the boundary."""
        residual = jets["residual"].second - source(points["residual"])
        edge = jets["boundary"].u - solution(points["boundary"])
        return {"residual": residual.square(), "boundary": edge.square()}

    def judges(self, split: Split) -> dict[str, Judge]:
        """2,000 points inside and 500 on the boundary."""
        return _judges(split)


def _points(generator: torch.Generator, inside: int, boundary: int) -> dict[str, Tensor]:
    pair = uniform(generator, inside, -1, 1), uniform(generator, inside, -1, 1)
    along = uniform(generator, boundary, -1, 1)
    side = torch.tensor([-1.0, 1.0]).repeat_interleave(2).repeat(boundary // 4)
    upright = (torch.arange(boundary) % 2).bool()
    edge = torch.where(upright, side, along), torch.where(upright, along, side)
    return {"residual": torch.stack(pair, dim=1), "boundary": torch.stack(edge, dim=1)}


@cache
def _judges(split: Split) -> dict[str, Judge]:
    generator = torch.Generator().manual_seed(_SEEDS[split])
    points = _points(generator, *_JUDGED.values())
    return {k: Judge(x.double(), solution(x.double())) for k, x in points.items()}


@final
class Poisson(Problem):
    """The equation's residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of u inside, and by the root mean squared error on
    the boundary, where the reference is the root mean square of the solution.
    """

    name = "pinn-poisson"
    tasks: tuple[str, ...] = PoissonEquation.tasks
    steps = 3000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012

    def __init__(self) -> None:
        edge = _judges("validation")["boundary"].truth
        self.metrics = (
            Metric("relative_l2", task="residual"),
            Metric("rmse_boundary", task="boundary", reference=rms(edge)),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return Training(PoissonEquation(), seed, device)
