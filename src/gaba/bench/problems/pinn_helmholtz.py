"""A physics-informed network for Helmholtz' equation, against an exact solution of two scales.

Δu + k²u = f on the square −1 ≤ x, y ≤ 1 with k = 1 and u = 0 on its boundary; f is that of
u = sin(πx) sin(4πy). It is the third problem of Bischof and Kraus, Multi-Objective Loss Balancing
for Physics-Informed Deep Learning, arXiv 2110.09813 (ReLoBRaLo), after Wang, Teng, Perdikaris
(Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural Networks, SIAM
Journal on Scientific Computing 43, 2021). f is 167 times as large as u, so the residual outweighs
the boundary. The network is smaller than theirs, and the four sides are one task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.bench.problems._pinn import Box, Equation, Jet, Judge, Training, around, inside, rms

INSIDE, BOUNDARY = 256, 64
"""Points of a batch."""
BOX: Box = ((-1, 1), (-1, 1))
WAVENUMBER = 1.0
WAVES = (1, 4)
"""Full waves of the solution along x and along y."""
_JUDGED = {"residual": 2000, "boundary": 500}
_SEEDS = {"validation": 1, "test": 2}


def solution(points: Tensor) -> Tensor:
    """The solution u = sin(πx) sin(4πy) at points (N, 2), (N,)."""
    x, y = points.unbind(dim=1)
    return torch.sin(WAVES[0] * math.pi * x) * torch.sin(WAVES[1] * math.pi * y)


def source(points: Tensor) -> Tensor:
    """The right side f = (k² − π² − 16π²) sin(πx) sin(4πy), (N,)."""
    squares = math.pi**2 * (WAVES[0] ** 2 + WAVES[1] ** 2)
    return (WAVENUMBER**2 - squares) * solution(points)


@final
class HelmholtzEquation(Equation):
    """Helmholtz' equation in (x, y), with 0 on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """256 points inside and 64 on the four sides in turn."""
        return _points(generator, INSIDE, BOUNDARY)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(Δu + k²u − f)² inside, u² on the boundary."""
        jet = jets["residual"]
        residual = jet.second + WAVENUMBER**2 * jet.u - source(points["residual"])
        return {"residual": residual.square(), "boundary": jets["boundary"].u.square()}

    def judges(self, split: Split) -> dict[str, Judge]:
        """2,000 points inside and 500 on the boundary."""
        return _judges(split)


def _points(generator: torch.Generator, within: int, boundary: int) -> dict[str, Tensor]:
    return {
        "residual": inside(generator, within, BOX),
        "boundary": around(generator, boundary, BOX),
    }


@cache
def _judges(split: Split) -> dict[str, Judge]:
    generator = torch.Generator().manual_seed(_SEEDS[split])
    points = _points(generator, *_JUDGED.values())
    return {k: Judge(x.double(), solution(x.double())) for k, x in points.items()}


@final
class Helmholtz(Problem):
    """The equation's residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of u inside, and by the root mean squared error on
    the boundary, where the reference is the root mean square of the solution inside, as it is 0 on
    the boundary.
    """

    name = "pinn-helmholtz"
    tasks: tuple[str, ...] = HelmholtzEquation.tasks
    steps = 3000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012

    def __init__(self) -> None:
        within = _judges("validation")["residual"].truth
        self.metrics = (
            Metric("relative_l2", task="residual"),
            Metric("rmse_boundary", task="boundary", reference=rms(within)),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return Training(HelmholtzEquation(), seed, device)
