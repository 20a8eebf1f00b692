"""The rows of the published methods: each makes a Balancer that does what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gaba
from _made import made as made_on
from _models import TwoStage, batch, grads
from gaba import measurement, methods, rules
from gaba.pieces import Seen

NAMES = [name for name, m in methods.METHODS.items() if m.group == "published"]
NAMES.append("inverse-initial")
MEASURED = {"db-mtl", "gradnorm", "famo-same-step", "ntkmtl", "ntkmtl-sr"}
FREE = [name for name in NAMES if name not in MEASURED]


def made(name: str, model: TwoStage, **settings: Any) -> gaba.Balancer:
    return made_on(name, model.names, model.trunk, **settings)


def test_all_that_are_asked_for_are_there() -> None:
    wanted = {"db-mtl", "gradnorm", "uncertainty", "dwa", "rlw", "scale-invariant"}
    wanted |= {"geometric-mean", "famo", "smooth-tchebycheff", "inverse-initial"}
    wanted |= {"slaw", "uw-so", "ntkmtl", "ntkmtl-sr", "famo-same-step"}
    assert wanted <= set(NAMES)
    for name in NAMES:
        row = methods.METHODS[name]
        assert row.formula
        assert row.needs
        assert row.cost
        assert row.source or row.group == "control"


@pytest.mark.parametrize("name", NAMES)
def test_each_trains(name: str) -> None:
    model = TwoStage((1.0, 30.0, 0.1))
    balancer = made(name, model)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    x = batch(n=64)
    first = [float(v.detach()) for v in model.losses(x).values() if v is not None]
    for _ in range(40):
        optimizer.zero_grad()
        step = balancer.backward(model.losses(x))
        optimizer.step()
        assert bool(step.finite)
    last = [float(v.detach()) for v in model.losses(x).values() if v is not None]
    assert all(after < before for before, after in zip(first, last, strict=True))
    assert balancer.history.measured.any() == (name not in FREE)


@pytest.mark.parametrize("name", FREE)
def test_the_update_has_the_length_of_the_method(name: str) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    balancer, x = made(name, model), batch(dtype=torch.float64)
    step = balancer.backward(model.losses(x))
    found = grads(model)
    rule = balancer.method.rule
    losses = torch.stack([v.detach() for v in model.losses(x).values() if v is not None])
    raw, _ = rule.update(Seen(losses, torch.full_like(losses, torch.nan)), rule.init(3))
    torch.testing.assert_close(step.multipliers, raw, rtol=1e-12, atol=0)
    model.zero_grad()
    given = [v for v in model.losses(x).values() if v is not None]
    torch.autograd.backward(given, list(raw))
    torch.testing.assert_close(found, grads(model), rtol=1e-9, atol=1e-13)


def test_settings_of_the_method_and_of_the_balancer_may_be_mixed() -> None:
    model = TwoStage((1.0, 30.0))
    balancer = made("gradnorm", model, alpha=0.5, descent="sgd", every=3, scale="sum")
    assert balancer.method.rule == rules.GradNorm(alpha=0.5, descent="sgd")
    assert (balancer.method.every, balancer.method.scale) == (3, "sum")
    assert made("dwa", model, window=7).method.rule == rules.DWA(window=7)
    engine = made("db-mtl", model, decay=0.3).method.measure
    assert engine == measurement.SmoothedGradients.like(model.trunk, decay=0.3)
    with pytest.raises(TypeError, match="nonsense"):
        made("famo", model, nonsense=1)


def test_gradnorm_looks_at_the_last_layer_where_there_is_one() -> None:
    model = TwoStage((1.0, 30.0), dtype=torch.float64)
    last, x = model.trunk[2], batch(dtype=torch.float64)
    assert isinstance(last, nn.Linear)
    step = made("gradnorm", model).backward(model.losses(x))
    wanted = []
    for loss in model.losses(x).values():
        assert loss is not None
        own = torch.autograd.grad(loss, list(last.parameters()), retain_graph=True)
        wanted.append(torch.cat([g.flatten() for g in own]).norm())
    torch.testing.assert_close(step.norms, torch.stack(wanted), rtol=1e-6, atol=0)
    plain = made_on("gradnorm", model.names, model.trunk.parameters())
    assert plain.method.measure == measurement.ExactNorms()


def test_db_mtl_takes_parameters_from_a_generator() -> None:
    model = TwoStage((1.0, 30.0))
    balancer = gaba.Balancer(model.names, model.trunk.parameters(), "db-mtl")
    assert bool(balancer.backward(model.losses(batch())).finite)
