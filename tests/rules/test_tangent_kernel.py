"""NTKMTL and NTKMTL-SR against eigenvalues, clipped gradients and sums that torch makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage, batch, grads, task_gradients
from gaba.measurement import SubBatchNorms
from gaba.rules import KernelRatio

SCALES = (1.0, 30.0, 0.1)


def present(losses: dict[str, Tensor | None]) -> list[Tensor]:
    return [loss for loss in losses.values() if loss is not None]


@pytest.mark.parametrize("exponent", [0.5, 0.75])
@pytest.mark.parametrize("max_norm", [0.05, 1.0, 1e6])
def test_ntkmtl_fills_grad_as_the_published_loop_does(exponent: float, max_norm: float) -> None:
    model, x = TwoStage(SCALES, dtype=torch.float64), batch(dtype=torch.float64)
    method = gaba.methods.get("ntkmtl", model.names, exponent=exponent, max_norm=max_norm)
    gaba.Balancer(model.names, model.trunk, method).backward(model.losses(x))
    found = grads(model)
    own = torch.stack(task_gradients(model, x), 1)  # (parameters, K)
    gram = own.T @ own
    weights = (gram.trace() / gram.diagonal()) ** exponent
    model.zero_grad()
    torch.stack(present(model.losses(x))).sum().backward()  # heads get their own gradients
    place = 0
    for p in model.trunk.parameters():
        p.grad = 3 * (own @ weights)[place : place + p.numel()].view_as(p)
        place += p.numel()
    nn.utils.clip_grad_norm_(model.trunk.parameters(), max_norm)
    torch.testing.assert_close(found, grads(model), rtol=1e-6, atol=1e-12)


def test_ntkmtl_sr_fills_grad_by_the_eigenvalues_of_four_sub_batches() -> None:
    model, x = TwoStage(SCALES, dtype=torch.float64), batch(n=24, dtype=torch.float64)
    step = gaba.Balancer(model.names, model.trunk, "ntkmtl-sr").backward(model.losses(x))
    found = grads(model)
    z = model.trunk(x).detach().requires_grad_()
    largest = []
    for k, (scale, head) in enumerate(zip(SCALES, model.heads, strict=True)):
        errors = scale * (head(z) - k).square().flatten()
        parts = [part.mean() for part in errors.chunk(4)]
        rows = [torch.autograd.grad(part, z, retain_graph=True)[0].flatten() for part in parts]
        j = torch.stack(rows)
        largest.append(torch.linalg.eigvalsh(j @ j.T)[-1])
    eigenvalues = torch.stack(largest)
    weights = (eigenvalues.sum() / eigenvalues).sqrt()
    torch.testing.assert_close(step.norms, eigenvalues.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(step.multipliers, weights, rtol=1e-6, atol=0)
    model.zero_grad()
    torch.autograd.backward(present(model.losses(x)), list(weights))  # heads are weighted, too
    torch.testing.assert_close(found, grads(model), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("n", "parts"), [(16, 1), (10, 4), (3, 4)])
def test_sub_batches_of_unequal_size(n: int, parts: int) -> None:
    model, x = TwoStage(SCALES, dtype=torch.float64), batch(n=n, dtype=torch.float64)
    method = gaba.methods.get("ntkmtl-sr", model.names, parts=parts)
    step = gaba.Balancer(model.names, model.trunk, method).backward(model.losses(x))
    z = model.trunk(x).detach().requires_grad_()
    for k, (scale, head) in enumerate(zip(SCALES, model.heads, strict=True)):
        errors = scale * (head(z) - k).square().flatten()
        rows = [torch.autograd.grad(e.mean(), z, retain_graph=True)[0] for e in errors.chunk(parts)]
        expected = max(float(row.norm()) for row in rows)
        assert float(step.norms[k]) == pytest.approx(expected, rel=1e-6)


def test_at_one_half_it_is_the_inverse_norm_at_another_length() -> None:
    norms = np.array([3.0, 0.2, 7.0])
    np.testing.assert_allclose(KernelRatio()(norms), gaba.rules.InverseNorm()(norms), rtol=1e-12)
    raw = KernelRatio().raw(norms)
    np.testing.assert_allclose(raw * norms, np.full(3, np.linalg.norm(norms)), rtol=1e-12)


def test_a_silent_task_does_not_break_the_clipping() -> None:
    gramian = torch.diag(torch.tensor([9.0, 0.0, 16.0]))
    found, _ = gaba.rules.asked(
        KernelRatio(max_norm=1.0), gaba.rules.Seen(torch.ones(3), gramian.diagonal(), gramian), ()
    )
    pulls = found[[0, 2]] * torch.tensor([3.0, 4.0])
    assert pulls.tolist() == pytest.approx([0.5**0.5] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: KernelRatio(exponent=0.0), "exponent must be finite and positive"),
        (lambda: KernelRatio(max_norm=0.0), "max_norm must be finite and positive"),
        (lambda: SubBatchNorms(parts=0), "parts must be a whole number of at least 1"),
    ],
)
def test_settings_out_of_range(wrong: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        wrong()


def test_what_cannot_be_measured_at_the_features_is_refused() -> None:
    w = nn.Parameter(torch.ones(2))
    losses = {"a": w.sum(), "b": 2 * w.sum()}
    with pytest.raises(ValueError, match="SubBatchNorms needs the features z"):
        gaba.Balancer(["a", "b"], [w], "ntkmtl-sr").backward(losses)
    rule = gaba.rules.EqualShare()
    model = TwoStage((1.0, 2.0))
    balancer = gaba.Balancer(model.names, model.trunk, gaba.Method(rule, SubBatchNorms()))
    with pytest.raises(ValueError, match="found that the Gramian is asked for"):
        balancer.backward(model.losses(batch()))
