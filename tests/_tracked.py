"""A net of several tasks on any trunk, and the true shares of its update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gaba
from _trunks import TRUNKS, features_of, inputs

K = 5
SCALES = (1.0, 30.0, 0.2, 5.0, 2.0)
NAMES = [f"t{k}" for k in range(K)]


class Net(nn.Module):
    """A trunk and one head a task, each with a loss of its own size."""

    def __init__(self, trunk: nn.Module, width: int = 8, k: int = K) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(k)
        )

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = features_of(self.trunk(x))
        target = torch.linspace(-1, 1, len(x), dtype=z.dtype)
        return {
            f"t{k}": SCALES[k] * (head(z)[:, 0] - target.roll(k)).square().mean()
            for k, head in enumerate(self.heads)
        }


def net_of(kind: str, dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(0)
    return Net(TRUNKS[kind]()).to(dtype)


def theta_of(trunk: nn.Module) -> list[nn.Parameter]:
    return [p for p in trunk.parameters() if p.requires_grad]


def true_shares(net: Net, losses: dict[str, Tensor], multipliers: Tensor) -> Tensor:
    """s_k = m_k ⟨∇L_k, u⟩ / ‖u‖² from one backward pass a task: the slow, obvious way."""
    theta = theta_of(net.trunk)
    rows = []
    for loss in losses.values():
        row = torch.autograd.grad(loss, theta, retain_graph=True, allow_unused=True)
        parts = [
            (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g).double()
            for g, p in zip(row, theta, strict=True)
        ]
        rows.append(torch.cat([part.flatten() for part in parts]))
    products = torch.stack(rows) @ torch.stack(rows).T @ multipliers
    return multipliers * products / (multipliers @ products)


def take(net: Net, balancer: gaba.Balancer, x: Tensor, how: str) -> tuple[gaba.Step, Tensor]:
    """One step, and its true shares."""
    net.zero_grad()
    losses = net.losses(x)
    with torch.random.fork_rng():
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, losses, multipliers)
    if how == "backward":
        return balancer.backward(losses), truth
    balancer(losses).backward()
    assert balancer.last_step is not None
    return balancer.last_step, truth


def assert_probed(net: Net, atol: float = 1e-4) -> None:
    """The second step of the default is a probe, and its shares are the true ones."""
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    step, truth = take(net, balancer, inputs(seed=1), "backward")
    assert step.engine == "probe"
    torch.testing.assert_close(step.shares, truth, rtol=0, atol=atol)
