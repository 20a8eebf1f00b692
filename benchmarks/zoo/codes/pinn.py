"""A physics-informed network of deepxde: Helmholtz in a square, its border and a few sensors."""

from __future__ import annotations

import contextlib
import io
import os

os.environ["DDE_BACKEND"] = "pytorch"  # read when deepxde is imported

import deepxde as dde
import numpy as np
import torch

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="PINN for Helmholtz",
    package="deepxde",
    metric="relative L2 error, %",
    better="lower",
    tasks=("equation", "border", "sensors"),
)
STEPS, WAVE = 3_000, (1.0, 2.0)
LOSSES = f"dict(zip({ENTRY.terms}, losses))"


def solution(points: np.ndarray) -> np.ndarray:
    """The closed form, (N, 1)."""
    return np.prod(np.sin(np.pi * np.array(WAVE) * points), axis=1, keepdims=True)


def residual(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Δu + u − f with the f that makes the closed form a solution."""
    bent = sum(dde.grad.hessian(u, x, i=k, j=k) for k in range(2))
    wave = torch.sin(np.pi * WAVE[0] * x[:, :1]) * torch.sin(np.pi * WAVE[1] * x[:, 1:])
    return bent + u - (1 - np.pi**2 * (WAVE[0] ** 2 + WAVE[1] ** 2)) * wave


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the error against the closed form on a grid."""
    dde.config.set_random_seed(seed)
    random = np.random.default_rng(seed)
    square = dde.geometry.Rectangle([-1, -1], [1, 1])
    border = dde.icbc.DirichletBC(square, solution, lambda _, on: on)
    places = random.uniform(-1, 1, (10, 2))
    read = solution(places) + 0.01 * random.standard_normal((10, 1))
    sensors = dde.icbc.PointSetBC(places, read)
    data = dde.data.PDE(square, residual, [border, sensors], num_domain=400, num_boundary=100)
    model = dde.Model(data, dde.nn.FNN([2, 40, 40, 40, 1], "tanh", "Glorot normal"))
    balancer = arm.balancer(model.net)  # +
    lines = {"total_loss.backward()": f"balancer.backward({LOSSES})"}
    made = arm.change(dde.Model._compile_pytorch, lines, balancer=balancer)
    model._compile_pytorch = made.__get__(model)
    with contextlib.redirect_stdout(io.StringIO()):
        model.compile("adam", lr=2e-3)
        with arm.training():
            model.train(iterations=STEPS, display_every=STEPS)
    grid = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, 101)]), -1).reshape(-1, 2)
    grid, truth = grid.astype(np.float32), solution(grid)
    error = np.linalg.norm(model.predict(grid) - truth) / np.linalg.norm(truth)
    return Outcome(100 * float(error), model.net)
