"""A physics-informed network for the Klein-Gordon equation, against a solution that oscillates.

u_tt − u_xx + u³ = f on 0 ≤ t, x ≤ 1 with u(0, x) = x, u_t(0, x) = 0, and u given at x = 0 and at
x = 1; f and the values are those of u = x cos(5πt) + (tx)³. The set-up is that of Wang, Teng,
Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural
Networks, SIAM Journal on Scientific Computing 43, 2021, with α = −1, β = 0, γ = 1 and k = 3. Both
conditions at the start are one task, as there. The network is smaller than theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.bench.problems._pinn import Box, Equation, Jet, Judge, Training, inside, rms, uniform

INSIDE, BOUNDARY, INITIAL = 256, 64, 64
"""Points of a batch."""
BOX: Box = ((0, 1), (0, 1))
FREQUENCY = 5 * math.pi
_JUDGED = {"residual": 2000, "boundary": 500, "initial": 500}
_SEEDS = {"validation": 1, "test": 2}


def solution(points: Tensor) -> Tensor:
    """The solution u = x cos(5πt) + (tx)³ at points (t, x) of (N, 2), (N,)."""
    t, x = points.unbind(dim=1)
    return x * torch.cos(FREQUENCY * t) + (t * x) ** 3


def source(points: Tensor) -> Tensor:
    """The right side f = −25π² x cos(5πt) + 6tx³ − 6t³x + u³, (N,)."""
    t, x = points.unbind(dim=1)
    waves = -(FREQUENCY**2) * x * torch.cos(FREQUENCY * t) + 6 * t * x**3 - 6 * t**3 * x
    return waves + solution(points) ** 3


@final
class KleinGordonEquation(Equation):
    """The Klein-Gordon equation in (t, x), with conditions at the start and on both sides."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary", "initial")
    coefficients: ClassVar[tuple[float, float]] = (1.0, -1.0)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """256 points inside, 64 on the two sides in turn, 64 at the start."""
        return _points(generator, INSIDE, BOUNDARY, INITIAL)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(u_tt − u_xx + u³ − f)², (u − g)², (u − x)² + u_t²."""
        within, edge, start = (jets[task] for task in self.tasks)
        residual = within.second + within.u**3 - source(points["residual"])
        return {
            "residual": residual.square(),
            "boundary": (edge.u - solution(points["boundary"])).square(),
            "initial": (start.u - points["initial"][:, 1]).square() + start.p.square(),
        }

    def judges(self, split: Split) -> dict[str, Judge]:
        """2,000 points inside, 500 on the sides, 500 at the start."""
        return _judges(split)


def _points(generator: torch.Generator, *counts: int) -> dict[str, Tensor]:
    within, boundary, initial = counts
    sides = torch.tensor([0.0, 1.0]).repeat(boundary // 2)
    edge = uniform(generator, boundary, *BOX[0]), sides
    start = torch.zeros(initial), uniform(generator, initial, *BOX[1])
    return {
        "residual": inside(generator, within, BOX),
        "boundary": torch.stack(edge, dim=1),
        "initial": torch.stack(start, dim=1),
    }


@cache
def _judges(split: Split) -> dict[str, Judge]:
    generator = torch.Generator().manual_seed(_SEEDS[split])
    points = _points(generator, *_JUDGED.values())
    return {k: Judge(x.double(), solution(x.double())) for k, x in points.items()}


@final
class KleinGordon(Problem):
    """The equation's residual, the boundary and the initial conditions, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 for
    each condition. Judged by the relative L2 error of u inside, and by the root mean squared error
    of u on the boundary and at the start, where the reference is the root mean square of the
    solution there.
    """

    name = "pinn-klein-gordon"
    tasks: tuple[str, ...] = KleinGordonEquation.tasks
    steps = 3000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012

    def __init__(self) -> None:
        judges = _judges("validation")
        self.metrics = (
            Metric("relative_l2", task="residual"),
            Metric("rmse_boundary", task="boundary", reference=rms(judges["boundary"].truth)),
            Metric("rmse_initial", task="initial", reference=rms(judges["initial"].truth)),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return Training(KleinGordonEquation(), seed, device)
