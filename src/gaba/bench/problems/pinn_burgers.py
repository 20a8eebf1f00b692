"""A physics-informed network for Burgers' equation, against its solution by Cole and Hopf.

u_t + u u_x = ν u_xx with ν = 0.01/π on −1 ≤ x ≤ 1 and 0 ≤ t ≤ 1, u(0, x) = −sin πx, u(t, ±1) = 0:
the first example of Raissi, Perdikaris, Karniadakis, Physics-informed neural networks, Journal of
Computational Physics 378, 2019. From t = 1/π on a front of a width of about ν stands at x = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from gaba.bench.problem import Metric, Problem, Rates, Session, Split
from gaba.bench.problems._pinn import Equation, Jet, Judge, Training, rms, uniform

VISCOSITY = 0.01 / math.pi
INSIDE, BOUNDARY, INITIAL = 256, 64, 64
"""Points of a batch."""
_JUDGED = {"residual": 2000, "boundary": 500, "initial": 500}
_SEEDS = {"validation": 1, "test": 2}
_NODES = 2001


def solution(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """u(t, x) for t ≥ 0, all (N,), by quadrature of the formula of Cole and Hopf.

    u = −∫ sin(π(x − η)) E dη / ∫ E dη with E = exp(−cos(π(x − η))/(2πν) − η²/(4νt)), E relative to
    its largest value, by the trapezoidal rule with 2001 nodes for |η| ≤ t + 12 √(2νt). A smooth
    integrand that has vanished at both ends makes that rule exact to rounding; and it has vanished
    there, because its peaks lie at η = t u, and |u| ≤ 1.
    """
    t, x = np.asarray(t, dtype=np.float64), np.asarray(x, dtype=np.float64)
    out = -np.sin(np.pi * x)
    later = t > 0
    if not later.any():
        return out
    t, x = t[later, None], x[later, None]
    eta = np.linspace(-1, 1, _NODES) * (t + 12 * np.sqrt(2 * VISCOSITY * t))
    angle = np.pi * (x - eta)
    exponent = -np.cos(angle) / (2 * np.pi * VISCOSITY) - eta**2 / (4 * VISCOSITY * t)
    e = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    out[later] = -(np.sin(angle) * e).sum(axis=1) / e.sum(axis=1)
    return out


@final
class BurgersEquation(Equation):
    """Burgers' equation in (t, x), with the conditions at the start and on both sides."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary", "initial")
    coefficients: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """256 points inside, 64 on the two sides in turn, 64 at the start."""
        return _points(generator, INSIDE, BOUNDARY, INITIAL)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(u_t + u u_x − ν u_xx)², u², (u + sin πx)²."""
        inside, start = jets["residual"], points["initial"][:, 1]
        residual = inside.p + inside.u * inside.q - VISCOSITY * inside.second
        return {
            "residual": residual.square(),
            "boundary": jets["boundary"].u.square(),
            "initial": (jets["initial"].u + torch.sin(math.pi * start)).square(),
        }

    def judges(self, split: Split) -> dict[str, Judge]:
        """2,000 points inside, 500 on the sides, 500 at the start."""
        return _judges(split)


def _points(generator: torch.Generator, *counts: int) -> dict[str, Tensor]:
    inside, boundary, initial = counts
    sides = torch.tensor([-1.0, 1.0]).repeat(boundary // 2)
    pairs = (
        (uniform(generator, inside, 0, 1), uniform(generator, inside, -1, 1)),
        (uniform(generator, boundary, 0, 1), sides),
        (torch.zeros(initial), uniform(generator, initial, -1, 1)),
    )
    stacked = (torch.stack(pair, dim=1) for pair in pairs)
    return dict(zip(BurgersEquation.tasks, stacked, strict=True))


@cache
def _judges(split: Split) -> dict[str, Judge]:
    generator = torch.Generator().manual_seed(_SEEDS[split])
    points = {k: x.double() for k, x in _points(generator, *_JUDGED.values()).items()}
    truth = {k: solution(x[:, 0].numpy(), x[:, 1].numpy()) for k, x in points.items()}
    return {k: Judge(x, torch.from_numpy(truth[k])) for k, x in points.items()}


@final
class Burgers(Problem):
    """The equation's residual, the boundary and the initial condition, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 for
    each condition. Judged by the relative L2 error of u inside against the reference solution, by
    the root mean squared error on the boundary, where the reference is the root mean square of the
    solution inside, as it is 0 on the boundary, and by that at the start.
    """

    name = "pinn-burgers"
    tasks: tuple[str, ...] = BurgersEquation.tasks
    steps = 3000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012

    def __init__(self) -> None:
        judges = _judges("validation")
        self.metrics = (
            Metric("relative_l2", task="residual"),
            Metric("rmse_boundary", task="boundary", reference=rms(judges["residual"].truth)),
            Metric("rmse_initial", task="initial", reference=rms(judges["initial"].truth)),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return Training(BurgersEquation(), seed, device)
