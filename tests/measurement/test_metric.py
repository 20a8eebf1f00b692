"""The optimizer's metric: what P is, and what a task alone would do to the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaba
from _engines import balanced
from _models import TwoStage, batch
from gaba.measurement import ElementNorms, ExactNorms, HalfBatch, Measurement
from gaba.measurement.metric import OptimizerMetric
from gaba.record.diagnosis import diagnose

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, 1e-3, betas=(0.0, 0.999)),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.0, 0.999), weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.AdamW(p, 1e-3, (0.0, 0.999), weight_decay=0.0, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, alpha=0.999),
    "centered": lambda p: torch.optim.RMSprop(p, 1e-3, alpha=0.999, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "sgd": lambda p: torch.optim.SGD(p, 1e-2),
}


def trained(make: Make, steps: int = 400) -> tuple[TwoStage, torch.optim.Optimizer]:
    """A model in float64 whose optimizer has seen some steps of both tasks."""
    torch.manual_seed(0)
    model = TwoStage([1.0, 30.0]).double()
    optimizer = make(list(model.parameters()))
    for i in range(steps):
        optimizer.zero_grad()
        torch.stack([x for x in losses_of(model, i).values() if x is not None]).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def losses_of(model: TwoStage, i: int) -> dict[str, Tensor | None]:
    return dict(model.losses(batch(i).double()))


def moved_by(task: str, model: TwoStage, optimizer: torch.optim.Optimizer) -> Tensor:
    """How far one real step of the optimizer takes θ when ``task`` acts alone, at its rate 1."""
    own, its = copy.deepcopy((model, optimizer))
    before = [p.detach().clone() for p in own.trunk.parameters()]
    loss = losses_of(own, 1000)[task]
    assert loss is not None
    loss.backward()
    its.step()
    after = zip(before, own.trunk.parameters(), strict=True)
    return torch.cat([(a - b.detach()).flatten() for a, b in after]) / its.param_groups[0]["lr"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_are_what_one_step_does_when_a_task_acts_alone(name: str) -> None:
    model, optimizer = trained(OPTIMIZERS[name])
    balancer = balanced(model.names, model.trunk, metric="optimizer", optimizer=optimizer)
    step = balancer.backward(losses_of(model, 1000))
    moved = torch.stack([moved_by(task, model, optimizer).norm() for task in model.names])
    # the step itself takes this gradient into √v̂ first, a part in a thousand of which is new
    np.testing.assert_allclose(step.norms.numpy(), moved.numpy(), rtol=0.02)
    assert step.imbalance == pytest.approx(1)


def test_plain_sgd_has_the_euclidean_metric() -> None:
    model, optimizer = trained(OPTIMIZERS["sgd"], steps=3)
    seen = [
        balanced(model.names, model.trunk, **how).backward(losses_of(model, 7)).norms
        for how in ({}, {"metric": "optimizer", "optimizer": optimizer})
    ]
    torch.testing.assert_close(*seen, rtol=1e-12, atol=0)


def test_before_the_first_step_the_metric_is_euclidean() -> None:
    model = TwoStage([1.0, 30.0])
    optimizer = torch.optim.AdamW(model.parameters())
    scales = OptimizerMetric((optimizer,)).scales(list(model.trunk.parameters()))
    assert all(bool((scale == 1).all()) for scale in scales)


def test_slower_groups_count_by_their_share_of_the_largest_rate() -> None:
    a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [{"params": [a], "lr": 0.2}, {"params": [b], "lr": 0.05}]
    metric = OptimizerMetric((torch.optim.SGD(groups),))
    assert [s.tolist() for s in metric.scales([a, b, c])] == [[1, 1], [0.25, 0.25], [0, 0]]


def test_a_parameter_without_state_counts_as_the_others_on_average() -> None:
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([a, b])
    (a[0] + 2 * a[1]).backward()
    optimizer.step()
    first, second = OptimizerMetric((optimizer,)).scales([a, b])
    torch.testing.assert_close(first, torch.tensor([1.0, 0.5]), rtol=1e-5, atol=0)
    torch.testing.assert_close(second, first.mean().expand(2))


ENGINES: dict[str, Measurement] = {
    "stream": ExactNorms("stream"),
    "elements": ElementNorms(),
    "half-batch": HalfBatch(decay=0.0),
}


@pytest.mark.parametrize("name", ENGINES)
def test_every_exact_engine_measures_the_same_pull(name: str) -> None:
    model, optimizer = trained(OPTIMIZERS["adamw"], steps=20)
    how = {"metric": "optimizer", "optimizer": optimizer}
    losses = losses_of(model, 50)
    expected = balanced(model.names, model.trunk, **how).backward(losses).norms
    losses = losses_of(model, 50)
    if name == "half-batch":  # two halves that are alike: no noise
        losses = {task: torch.stack([x, x]) for task, x in losses.items() if x is not None}
    balancer = balanced(model.names, model.trunk, ENGINES[name], **how)
    torch.testing.assert_close(balancer.backward(losses).norms, expected, rtol=1e-6, atol=0)


def test_the_gramian_is_in_the_metric_too() -> None:
    model, optimizer = trained(OPTIMIZERS["adamw"], steps=20)
    how = {"metric": "optimizer", "optimizer": optimizer, "rule": gaba.rules.EqualShare()}
    step = balanced(model.names, model.trunk, **how).backward(losses_of(model, 50))
    scales = OptimizerMetric((optimizer,)).scales(list(model.trunk.parameters()))
    rows = []
    for loss in losses_of(model, 50).values():
        assert loss is not None
        grads = torch.autograd.grad(loss, list(model.trunk.parameters()), retain_graph=True)
        rows.append(torch.cat([(g * p).flatten() for g, p in zip(grads, scales, strict=True)]))
    matrix = torch.stack(rows)
    assert step.gramian is not None
    torch.testing.assert_close(step.gramian, matrix @ matrix.T, rtol=1e-9, atol=0)


def test_a_layer_is_measured_in_the_metric_of_its_own_parameters() -> None:
    model, optimizer = trained(OPTIMIZERS["adamw"], steps=20)
    layer = list(model.trunk.parameters())[-2:]
    engine = ExactNorms(layer=layer)
    balancer = balanced(model.names, model.trunk, engine, metric="optimizer", optimizer=optimizer)
    found = balancer.backward(losses_of(model, 50)).norms
    scales = OptimizerMetric((optimizer,)).scales(layer)
    for k, loss in enumerate(losses_of(model, 50).values()):
        assert loss is not None
        grads = torch.autograd.grad(loss, layer, retain_graph=True)
        squares = [(g * p).square().sum() for g, p in zip(grads, scales, strict=True)]
        assert float(found[k]) == pytest.approx(float(torch.stack(squares).sum().sqrt()))


def test_the_record_says_which_metric_was_used() -> None:
    model, optimizer = trained(OPTIMIZERS["sgd"], steps=1)
    balancer = balanced(model.names, model.trunk, metric="optimizer", optimizer=optimizer)
    balancer.backward(losses_of(model, 0))
    assert balancer.history.about["metric"] == "optimizer"
    assert "optimizer's metric" in str(diagnose(balancer.history))


def test_what_cannot_be_is_refused() -> None:
    model = TwoStage([1.0, 30.0])
    other = nn.Parameter(torch.ones(1))
    stranger = torch.optim.SGD([other], 0.1)
    with pytest.raises(ValueError, match="go together"):
        balanced(model.names, model.trunk, metric="optimizer")
    with pytest.raises(ValueError, match="go together"):
        balanced(model.names, model.trunk, optimizer=stranger)
    with pytest.raises(TypeError, match="LBFGS"):
        balanced(model.names, model.trunk, metric="optimizer", optimizer=torch.optim.LBFGS([other]))
    balancer = balanced(model.names, model.trunk, metric="optimizer", optimizer=stranger)
    with pytest.raises(ValueError, match="none of them in its groups"):
        balancer.backward(model.losses(batch(0)))
