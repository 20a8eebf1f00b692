"""A physics-informed network for Burgers' equation, against its solution by Cole and Hopf.

u_t + u u_x = ν u_xx with ν = 0.01/π on −1 ≤ x ≤ 1 and 0 ≤ t ≤ 1, u(0, x) = −sin πx, u(t, ±1) = 0:
the first example of Raissi, Perdikaris, Karniadakis, Physics-informed neural networks, Journal of
Computational Physics 378, 2019. From t = 1/π on a front of a width of about ν stands at x = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from gaba.bench.problems._pinn import Box, Equation, Jet, Pinn, strip

BOX: Box = ((0, 1), (-1, 1))
"""Of t, and of x."""
VISCOSITY = 0.01 / math.pi
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

    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Inside, on the two sides in turn, at the start."""
        return strip(generator, counts, BOX)

    def truth(self, points: Tensor) -> Tensor:
        """The solution, in float64."""
        t, x = points.double().numpy().T
        return torch.from_numpy(solution(t, x))

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(u_t + u u_x − ν u_xx)², u², (u + sin πx)²."""
        inside, start = jets["residual"], points["initial"][:, 1]
        residual = inside.p + inside.u * inside.q - VISCOSITY * inside.second
        return {
            "residual": residual.square(),
            "boundary": jets["boundary"].u.square(),
            "initial": (jets["initial"].u + torch.sin(math.pi * start)).square(),
        }


@final
class Burgers(Pinn):
    """The equation's residual, the boundary and the initial condition, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 for
    each condition. Judged by the relative L2 error of u inside against the reference solution, by
    the root mean squared error on the boundary, where the reference is the root mean square of the
    solution inside, as it is 0 on the boundary, and by that at the start.
    """

    name = "pinn-burgers"
    equation = BurgersEquation
    tasks: tuple[str, ...] = BurgersEquation.tasks
    zero = ("boundary",)
