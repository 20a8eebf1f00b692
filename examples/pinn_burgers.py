"""Burgers' equation by a physics-informed network, with one line in place of its weight update.

python examples/pinn_burgers.py [STEPS]

u_t + u u_x = (0.01/π) u_xx on x in [−1, 1], t in [0, 1], with u(0, x) = −sin πx and u(t, ±1) = 0.
Three losses: residual, boundary, initial. The error is against the exact solution (Cole–Hopf, by
quadrature). The weights by hand are printed beside those of the preset.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor, nn

import gaba

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
EVERY, TASKS, NU = 20, ("residual", "boundary", "initial"), 0.01 / np.pi


def exact(points: np.ndarray) -> np.ndarray:
    """The solution at (n, 2) points (t, x), t > 0: a quotient of two Gaussian integrals."""
    nodes, weights = np.polynomial.hermite.hermgauss(120)
    t, x = points.T[:, :, None]
    y = x - 2 * np.sqrt(NU * t) * nodes
    heat = weights * np.exp(-(np.cos(np.pi * y) + 1) / (2 * np.pi * NU))
    return -(heat * np.sin(np.pi * y)).sum(1) / heat.sum(1)


def losses(net: nn.Module, n: int = 400) -> dict[str, Tensor]:
    tx = (torch.rand(n, 2) * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 1.0])).requires_grad_()
    u = net(tx)
    (du,) = torch.autograd.grad(u.sum(), tx, create_graph=True)
    (ddu,) = torch.autograd.grad(du[:, 1].sum(), tx, create_graph=True)
    residual = du[:, 0] + u[:, 0] * du[:, 1] - NU * ddu[:, 1]
    edge = torch.stack([torch.rand(100), torch.rand(100).round() * 2 - 1], 1)
    start = torch.stack([torch.zeros(100), torch.rand(100) * 2 - 1], 1)
    wanted = -(torch.pi * start[:, 1:]).sin()
    parts = (residual, net(edge), net(start) - wanted)
    return {task: part.square().mean() for task, part in zip(TASKS, parts, strict=True)}


def weights_by_hand(net: nn.Module, given: dict[str, Tensor], old: Tensor) -> Tensor:
    norms = []
    for loss in given.values():
        found = torch.autograd.grad(loss, [*net.parameters()], retain_graph=True, allow_unused=True)
        norms.append(torch.cat([g.flatten() for g in found if g is not None]).norm())
    return 0.9 * old + 0.1 * torch.stack(norms).sum() / torch.stack(norms)


grid = np.stack(np.meshgrid(np.linspace(0.05, 1, 20), np.linspace(-1, 1, 65)), -1).reshape(-1, 2)
truth, at = exact(grid), torch.tensor(grid, dtype=torch.float32)
for method in ("uniform", "pinn"):
    torch.manual_seed(0)
    layers = [layer for n in (2, 32, 32) for layer in (nn.Linear(n, 32), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    helper = preset = torch.ones(3)
    apart, balancer = 0.0, gaba.Balancer(TASKS, net, method, every=EVERY)
    for step in range(STEPS):
        given = losses(net)
        if step % EVERY == 0:
            helper = weights_by_hand(net, given, helper)
        optimizer.zero_grad()
        seen = balancer.backward(given)  # in place of sum(helper_k * loss_k).backward()
        optimizer.step()
        preset = seen.multipliers
        apart = max(apart, float((preset / helper - 1).abs().max()))
    error = np.linalg.norm(net(at).detach().numpy()[:, 0] - truth) / np.linalg.norm(truth)
    print(f"{method:8}: relative L2 error {error:.4f} after {STEPS} steps")
    if method == "pinn":
        print("by hand", [round(w, 4) for w in helper.tolist()])
        print("preset ", [round(w, 4) for w in preset.tolist()])
        print(f"the same weights in {STEPS} steps, to {apart:.0e}: {apart < 1e-5}")
