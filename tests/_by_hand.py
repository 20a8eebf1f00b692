"""The loop that every framework is held against, with the true shares of each of its updates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage

SCALES = (100.0, 1.0, 10.0)
"""Three tasks, so that the shares are measured by a probe."""


def balancer_of(net: TwoStage, accumulate: int = 1) -> gaba.Balancer:
    """A Balancer that measures in every step."""
    return gaba.Balancer(net.names, shared=net.trunk, every=1, accumulate=accumulate)


def true_shares(net: TwoStage, losses: Iterable[Tensor | None], multipliers: Tensor) -> Tensor:
    """s_k = m_k ⟨∇L_k, u⟩ / ‖u‖² (K,), from a backward pass a task."""
    theta, rows = tuple(net.trunk.parameters()), []
    for loss in losses:
        assert loss is not None
        row = torch.autograd.grad(loss, theta, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in row]).double())
    products = torch.stack(rows) @ torch.stack(rows).T @ multipliers
    return multipliers * products / (multipliers @ products)


def loop(
    net: TwoStage,
    balancer: gaba.Balancer,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    *,
    accumulate: int = 1,
    clip: float | None = None,
) -> Tensor:
    """Train ``net``; the true shares (N, K) of each batch's update."""
    found = []
    for i, x in enumerate(batches):
        losses = net.losses(x)
        whole = balancer(losses)
        assert balancer.last_step is not None
        found.append(true_shares(net, losses.values(), balancer.last_step.multipliers))
        (whole / accumulate).backward()
        if (i + 1) % accumulate == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return torch.stack(found)


def assert_probed(balancer: gaba.Balancer, expected: gaba.Balancer, truth: Tensor) -> None:
    """A probe in each step but the first, and the shares that the loop by hand found."""
    history = balancer.history
    assert history.engines.tolist() == ["norms"] + ["probe"] * (len(truth) - 1)
    np.testing.assert_allclose(history.multipliers, expected.history.multipliers, rtol=1e-4)
    # float32: a feature is off by 6e-8, and the difference is divided by ε = 1e-4
    np.testing.assert_allclose(history.shares[1:], expected.history.shares[1:], rtol=0, atol=1e-3)
    np.testing.assert_allclose(history.shares[1:], truth[1:], atol=0.01)
