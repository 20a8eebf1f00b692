"""TorchJD's weightings in our Balancer, and our rules in TorchJD, against TorchJD's own results."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchjd import aggregation as jd
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

import gaba
from _inputs import random_gramians
from _models import TwoStage, batch, grads
from _torchjd_cases import AGGREGATORS, THREE_AT_LEAST, seeded
from gaba.integrations.torchjd import FromTorchJD, ToTorchJD
from gaba.pieces import Seen
from gaba.stabilisers import Identity

# of TorchJD's own solver, in the aggregators that are the oracle here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SCALES = (100.0, 1.0, 0.1)

EVERY = {**AGGREGATORS, **THREE_AT_LEAST}
REFUSED: dict[str, Callable[[], Any]] = {
    "ExcessMTL": jd.ExcessMTLWeighting,
    "MoDo": jd.MoDoWeighting,
    "SDMGrad": jd.SDMGradWeighting,
    "ExcessMTL as aggregator": jd.ExcessMTL,
    "CRMOGM of MoDo": lambda: jd.CRMOGMWeighting(jd.MoDoWeighting()),
}


def jacobians(k: int, count: int) -> Tensor:
    """Rows of norms over some decades, some of them in conflict: (count, k, 3 k)."""
    generator = torch.Generator().manual_seed(k)
    rows = torch.randn(count, k, 3 * k, generator=generator, dtype=torch.float64)
    rows = rows + torch.randn(count, 1, 3 * k, generator=generator, dtype=torch.float64)
    return rows * torch.randn(count, k, 1, generator=generator, dtype=torch.float64).exp()


def combined(jacobian: Tensor, aggregator: Any, call: int = 0) -> Tensor:
    seeded(call)
    return aggregator(jacobian)


@pytest.mark.parametrize(
    ("name", "k"), [*product(AGGREGATORS, (2, 3, 5)), *product(THREE_AT_LEAST, (3, 5))]
)
def test_raw_weights_give_what_their_aggregator_makes_of_the_jacobian(name: str, k: int) -> None:
    rule = FromTorchJD(EVERY[name](k))
    for jacobian in jacobians(k, 2 if "Nash" in name else 4):
        raw = rule.raw(jacobian @ jacobian.T)
        expected = combined(jacobian, EVERY[name](k))
        error = (raw @ jacobian - expected).norm() / expected.norm()
        assert float(error) < 1e-6
        weights = rule(jacobian @ jacobian.T)
        if float(raw.sum()) > 0:
            torch.testing.assert_close(weights, raw / raw.sum(), rtol=1e-12, atol=0)
        else:
            assert bool(weights.isnan().all())


@pytest.mark.parametrize("name", ["MGDA", "IMTLG", "CAGrad", "AlignedMTL", "ConFIG", "PCGrad"])
def test_batches_and_arrays_are_taken_like_one_tensor(name: str) -> None:
    rule = FromTorchJD(AGGREGATORS[name](3))
    gramians = random_gramians(3, count=6).reshape(2, 3, 3, 3)
    for ask in (rule, rule.raw):
        many = ask(gramians)
        assert isinstance(many, np.ndarray)
        assert many.dtype == np.float64
        assert many.shape == (2, 3, 3)
        for i, j in product(range(2), range(3)):
            one = ask(torch.from_numpy(gramians[i, j]))
            np.testing.assert_allclose(many[i, j], one, rtol=1e-12)
        assert ask(gramians[:0]).shape == (0, 3, 3)


@pytest.mark.parametrize("name", EVERY)
def test_the_update_is_that_of_torchjd(name: str) -> None:
    """In three steps on one model: every gradient, with the heads' own, and so the length."""
    ours = TwoStage(SCALES, dtype=torch.float64)
    theirs = TwoStage(SCALES, dtype=torch.float64)
    rule = FromTorchJD(EVERY[name](3), seed=7)
    method = gaba.Method(rule, believe=Identity(), scale="rule", heads="plain")
    balancer = gaba.Balancer(ours.names, ours.trunk, method)
    aggregator = EVERY[name](3)
    rtol = 1e-3 if "Nash" in name else 1e-6  # when its search ends hangs on the last bits
    for i in range(3):
        x = batch(i, dtype=torch.float64)
        step = balancer.backward(ours.losses(x))
        assert bool(step.finite)
        z = theirs.trunk(x)
        losses = [
            scale * (head(z) - k).square().mean()
            for k, (scale, head) in enumerate(zip(SCALES, theirs.heads, strict=True))
        ]
        mtl_backward(losses, features=z)
        seeded(i, seed=7)
        jac_to_grad(theirs.trunk.parameters(), aggregator)
        found, expected = grads(ours), grads(theirs)
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            size = float(gradient.abs().max())
            torch.testing.assert_close(found[key], gradient, rtol=rtol, atol=rtol * size / 10)
        for model in (ours, theirs):
            model.zero_grad()
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.9)


@pytest.mark.parametrize("name", ["inverse", "paper", "equal-share", "equal-projection"])
def test_our_rules_in_their_aggregators_and_engine(name: str) -> None:
    model = TwoStage(SCALES, dtype=torch.float64)
    x = batch(dtype=torch.float64)
    method = gaba.methods.get(name, believe=Identity(), smooth=Identity(), scale="simplex")
    balancer = gaba.Balancer(model.names, model.trunk, method)
    step = balancer.backward(model.losses(x))
    ours = grads(model.trunk)
    model.zero_grad()

    z = model.trunk(x)
    losses = [
        scale * (head(z) - k).square().mean()
        for k, (scale, head) in enumerate(zip(SCALES, model.heads, strict=True))
    ]
    mtl_backward(losses, features=z)
    aggregator = jd.GramianWeightedAggregator(ToTorchJD(name))
    weights = jac_to_grad(model.trunk.parameters(), aggregator)
    torch.testing.assert_close(weights, step.weights, rtol=1e-9, atol=0)
    for key, gradient in grads(model.trunk).items():
        torch.testing.assert_close(gradient, ours[key], rtol=1e-9, atol=1e-12)

    engine = Engine(model.trunk, batch_dim=None)
    values = torch.stack([loss for loss in model.losses(x).values() if loss is not None])
    weights = ToTorchJD(method.rule)(engine.compute_gramian(values))
    torch.testing.assert_close(weights, step.weights, rtol=1e-9, atol=0)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_there_and_back_is_the_rule_itself(k: int) -> None:
    gramians = torch.from_numpy(random_gramians(k, count=4))
    for rule in (gaba.rules.EqualShare(), gaba.rules.EqualProjection()):
        torch.testing.assert_close(
            FromTorchJD(ToTorchJD(rule))(gramians), rule(gramians), rtol=1e-12, atol=1e-12
        )


def test_their_equal_projections_are_ours_where_no_weight_is_negative() -> None:
    gramians = torch.from_numpy(random_gramians(3, count=20))
    theirs = FromTorchJD(jd.IMTLG())(gramians)
    positive = (theirs > 0).all(-1)
    assert int(positive.sum()) >= 5
    torch.testing.assert_close(
        theirs[positive],
        gaba.rules.EqualProjection()(gramians[positive]),
        rtol=1e-6,
        atol=1e-9,
    )


def test_the_dtype_of_the_gramian_comes_back_from_our_rules() -> None:
    gramian = torch.diag(torch.tensor([9.0, 1.0]))
    weights = ToTorchJD("inverse")(gramian)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.75]))
    assert "InverseNorm" in repr(ToTorchJD("inverse"))


@pytest.mark.parametrize("scale", ["sum", "simplex"])
def test_weights_without_a_positive_sum_leave_the_step_out(scale: Any) -> None:
    model = TwoStage(SCALES)
    rule = FromTorchJD(jd.ConstantWeighting(torch.tensor([1.0, -2.0, 0.5])))
    assert bool(rule(torch.eye(3)).isnan().all())
    balancer = gaba.Balancer(model.names, model.trunk, gaba.Method(rule, scale=scale))
    step = balancer.backward(model.losses(batch()))
    assert not bool(step.finite)
    assert list(balancer.weights.values()) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    "weights", [[1.0, -2.0, 0.5], [1.0, -2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]
)
def test_with_their_own_length_weights_of_any_sum_are_taken_as_they_are(
    weights: list[float],
) -> None:
    model = TwoStage(SCALES, dtype=torch.float64)
    rule = FromTorchJD(jd.ConstantWeighting(torch.tensor(weights)))
    balancer = gaba.Balancer(model.names, model.trunk, gaba.Method(rule, scale="rule"))
    step = balancer.backward(model.losses(batch(dtype=torch.float64)))
    assert bool(step.finite)
    assert step.multipliers.tolist() == weights
    found = grads(model)
    model.zero_grad()
    again = model.losses(batch(dtype=torch.float64))
    values = torch.stack([loss for loss in again.values() if loss is not None])
    (values @ torch.tensor(weights).double()).backward()
    for key, gradient in grads(model).items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12)


def test_one_task_has_weight_1() -> None:
    rule = FromTorchJD(jd.KrumWeighting(n_byzantine=0))
    assert rule(np.array([[4.0]])).tolist() == [1.0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_more_than_a_gramian_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"must take a Gramian, found .*Weighting"):
        FromTorchJD(REFUSED[name]())


def test_what_is_no_weighting_is_refused() -> None:
    with pytest.raises(TypeError, match="found GradDrop"):
        FromTorchJD(jd.GradDrop())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="found InverseNorm"):
        FromTorchJD(gaba.rules.InverseNorm())  # pyright: ignore[reportArgumentType]


def test_a_rule_on_losses_is_refused() -> None:
    class OnLosses(gaba.rules.Rule):
        needs = "losses"

        def update(self, seen: Seen, state: Any) -> Any:
            return seen.losses, state

    with pytest.raises(ValueError, match="which needs the losses"):
        ToTorchJD(OnLosses())


def test_a_rule_with_a_memory_is_refused() -> None:
    with pytest.raises(TypeError, match="rule must have no memory, found FromTorchJD"):
        ToTorchJD(FromTorchJD(jd.MGDA()))
    for_three = ToTorchJD(FromTorchJD(jd.NashMTL(n_tasks=3)))
    with pytest.raises(TypeError, match="rule must have no memory, found FromTorchJD"):
        for_three(torch.eye(3))


def test_a_rule_for_a_number_of_tasks_works_for_that_number() -> None:
    weighting = ToTorchJD(gaba.rules.Targets((3, 2, 1)))
    weights = weighting(torch.eye(3))
    torch.testing.assert_close(weights, torch.tensor([3.0, 2.0, 1.0]) / 6)
    with pytest.raises(ValueError, match="ratios"):
        weighting(torch.eye(2))
