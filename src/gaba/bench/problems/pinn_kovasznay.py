"""A physics-informed network for Kovasznay's flow, an exact solution of Navier and Stokes.

u·∇u + ∇p = ν Δu and ∇·u = 0 for the velocity (u, v) and the pressure p on −½ ≤ x ≤ 1, −½ ≤ y ≤ 3/2,
with ν = 1/40 and all three given on the boundary. The solution is u = 1 − e^(λx) cos 2πy,
v = λ/(2π) e^(λx) sin 2πy, p = ½ (1 − e^(2λx)) with λ = 1/(2ν) − √(1/(4ν²) + 4π²): Kovasznay,
Laminar flow behind a two-dimensional grid, Proceedings of the Cambridge Philosophical Society 44,
1948. Domain, Reynolds number and both losses are those of Liu, Chu, Thuerey, ConFIG: Towards
Conflict-free Training of Physics Informed Neural Networks, arXiv 2408.11104: the residual is the
sum of three squares, of both momenta and of continuity. The network is smaller than theirs.
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
BOX: Box = ((-0.5, 1.0), (-0.5, 1.5))
VISCOSITY = 1 / 40
DECAY = 1 / (2 * VISCOSITY) - math.sqrt(1 / (4 * VISCOSITY**2) + 4 * math.pi**2)
"""λ, about −0.96."""
_JUDGED = {"residual": 2000, "boundary": 500}
_SEEDS = {"validation": 1, "test": 2}


def solution(points: Tensor) -> Tensor:
    """Velocities and pressure (u, v, p) at points (N, 2), (N, 3)."""
    x, y = points.unbind(dim=1)
    fade, angle = torch.exp(DECAY * x), 2 * math.pi * y
    u = 1 - fade * torch.cos(angle)
    v = DECAY / (2 * math.pi) * fade * torch.sin(angle)
    return torch.stack([u, v, (1 - fade.square()) / 2], dim=1)


@final
class KovasznayEquation(Equation):
    """Navier's and Stokes' equations in (x, y), at rest in time, with values on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)
    components: ClassVar[int] = 3

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """256 points inside and 64 on the four sides in turn."""
        return _points(generator, INSIDE, BOUNDARY)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of three squared residuals inside, the mean of three squared errors outside."""
        jet = jets["residual"]
        u, v, _ = jet.u.unbind(dim=1)
        gradient = torch.stack([jet.p[:, 2], jet.q[:, 2]], dim=1)
        carried = u[:, None] * jet.p[:, :2] + v[:, None] * jet.q[:, :2]
        momenta = carried + gradient - VISCOSITY * jet.second[:, :2]
        continuity = jet.p[:, 0] + jet.q[:, 1]
        wrong = jets["boundary"].u - solution(points["boundary"])
        return {
            "residual": momenta.square().sum(dim=1) + continuity.square(),
            "boundary": wrong.square().mean(dim=1),
        }

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
class Kovasznay(Problem):
    """The equations' residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→3, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of (u, v, p) inside, and by the root mean squared
    error on the boundary, where the reference is the root mean square of the solution.
    """

    name = "pinn-kovasznay"
    tasks: tuple[str, ...] = KovasznayEquation.tasks
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
        return Training(KovasznayEquation(), seed, device)
