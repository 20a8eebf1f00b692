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
from torchjd.linalg import DualConeProjector

import gaba
from _inputs import random_gramians
from _models import TwoStage, batch, grads
from gaba.integrations.torchjd import FromTorchJD, ToTorchJD

SCALES = (100.0, 1.0, 0.1)


class Enumerated(DualConeProjector):
    """min vᵀGv over v ≥ u by trying every set of bounds that are met: exact, without a solver."""

    def __call__(self, U: Tensor, G: Tensor) -> Tensor:
        if U.ndim > 1:
            return torch.stack([self(u, G) for u in U])
        found = []
        for free in product([False, True], repeat=len(U)):
            inside, bound = torch.tensor(free), ~torch.tensor(free)
            v = U.clone()
            if inside.any():
                rest = -G[inside][:, bound] @ U[bound]
                v[inside] = torch.linalg.solve(G[inside][:, inside], rest)
            if bool((v >= U - 1e-12).all()):
                found.append(v)
        return min(found, key=lambda v: float(v @ G @ v))


WEIGHTINGS: dict[str, Callable[[], Any]] = {
    "UPGrad": lambda: jd.UPGradWeighting(projector=Enumerated()),
    "DualProj": lambda: jd.DualProjWeighting(projector=Enumerated()),
    "AlignedMTL": jd.AlignedMTLWeighting,
    "CAGrad": lambda: jd.CAGradWeighting(c=0.4),
    "Constant": lambda: jd.ConstantWeighting(torch.tensor([1.0, 2.0, 0.5])),
    "FairGrad": lambda: jd.FairGradWeighting(alpha=1.0),
    "GradVac": jd.GradVacWeighting,
    "IMTLG": jd.IMTLGWeighting,
    "Krum": lambda: jd.KrumWeighting(n_byzantine=0, n_selected=2),
    "MGDA": jd.MGDAWeighting,
    "Mean": jd.MeanWeighting,
    "PCGrad": jd.PCGradWeighting,
    "Random": jd.RandomWeighting,
    "Sum": jd.SumWeighting,
    "CRMOGM": lambda: jd.CRMOGMWeighting(jd.MGDAWeighting(), alpha=0.5),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "ExcessMTL": jd.ExcessMTLWeighting,
    "MoDo": jd.MoDoWeighting,
    "SDMGrad": jd.SDMGradWeighting,
    "ExcessMTL as aggregator": jd.ExcessMTL,
    "CRMOGM of MoDo": lambda: jd.CRMOGMWeighting(jd.MoDoWeighting()),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_rule_is_their_weights_brought_to_sum_1(name: str) -> None:
    gramians = torch.from_numpy(random_gramians(3, count=5))
    torch.manual_seed(0)
    rule, theirs = FromTorchJD(WEIGHTINGS[name]()), WEIGHTINGS[name]()
    ours = rule(gramians)
    torch.manual_seed(0)
    for row, gramian in zip(ours, gramians, strict=True):
        expected = theirs(gramian).to(torch.float64)
        assert float(expected.sum()) > 0
        torch.testing.assert_close(row * expected.sum(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["MGDA", "IMTLG", "CAGrad", "AlignedMTL", "UPGrad"])
def test_batches_and_arrays_are_taken_like_one_tensor(name: str) -> None:
    rule = FromTorchJD(WEIGHTINGS[name]())
    gramians = random_gramians(3, count=6).reshape(2, 3, 3, 3)
    many = rule(gramians)
    assert isinstance(many, np.ndarray)
    assert many.dtype == np.float64
    assert many.shape == (2, 3, 3)
    for i, j in product(range(2), range(3)):
        np.testing.assert_allclose(many[i, j], rule(torch.from_numpy(gramians[i, j])), rtol=1e-12)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_update_is_that_of_torchjd(name: str) -> None:
    """In three steps on one model: the same direction, and the same length but for Σw."""
    ours = TwoStage(SCALES, dtype=torch.float64)
    theirs = TwoStage(SCALES, dtype=torch.float64)
    balancer = gaba.Balancer(
        ours.names,
        shared=ours.trunk,
        weighting=FromTorchJD(WEIGHTINGS[name]()),
        norm_stabiliser=None,
        scale="simplex",
    )
    weighting = WEIGHTINGS[name]()
    matrix = isinstance(weighting, (jd.ConstantWeighting, jd.RandomWeighting)) or name in (
        "Mean",
        "Sum",
    )
    if isinstance(weighting, jd.ConstantWeighting):
        weighting = jd.ConstantWeighting(weighting.weights.double())
    aggregator = (jd.WeightedAggregator if matrix else jd.GramianWeightedAggregator)(weighting)
    for i in range(3):
        x = batch(i, dtype=torch.float64)
        torch.manual_seed(i)
        step = balancer.backward(ours.losses(x))
        torch.manual_seed(i)
        z = theirs.trunk(x)
        losses = [
            scale * (head(z) - k).square().mean()
            for k, (scale, head) in enumerate(zip(SCALES, theirs.heads, strict=True))
        ]
        mtl_backward(losses, features=z)
        weights = jac_to_grad(theirs.trunk.parameters(), aggregator)
        assert weights is not None
        torch.testing.assert_close(step.weights * weights.sum(), weights, rtol=1e-6, atol=1e-9)
        found, expected = grads(ours.trunk), grads(theirs.trunk)
        for key, gradient in expected.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(
                found[key] * weights.sum(), gradient, rtol=1e-6, atol=1e-7 * scale
            )
        for model in (ours, theirs):
            model.zero_grad()
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.9)


@pytest.mark.parametrize("name", ["inverse", "gaba", "equal-share", "equal-projection"])
def test_our_rules_in_their_aggregators_and_engine(name: str) -> None:
    model = TwoStage(SCALES, dtype=torch.float64)
    x = batch(dtype=torch.float64)
    balancer = gaba.Balancer(
        model.names, model.trunk, weighting=name, norm_stabiliser=None, scale="simplex"
    )
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
    weights = ToTorchJD(gaba.weighting.by_name(name))(engine.compute_gramian(values))
    torch.testing.assert_close(weights, step.weights, rtol=1e-9, atol=0)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_there_and_back_is_the_rule_itself(k: int) -> None:
    gramians = torch.from_numpy(random_gramians(k, count=4))
    for rule in (gaba.weighting.EqualShare(), gaba.weighting.EqualProjection()):
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
        gaba.weighting.EqualProjection()(gramians[positive]),
        rtol=1e-6,
        atol=1e-9,
    )


def test_the_dtype_of_the_gramian_comes_back_from_our_rules() -> None:
    gramian = torch.diag(torch.tensor([9.0, 1.0]))
    weights = ToTorchJD("inverse")(gramian)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.75]))
    assert "InverseNorm" in repr(ToTorchJD("inverse"))


@pytest.mark.parametrize("name", ["GradVac", "CRMOGM"])
def test_making_a_balancer_leaves_no_trace_in_a_weighting_with_a_state(name: str) -> None:
    weighting, fresh = WEIGHTINGS[name](), WEIGHTINGS[name]()
    before = torch.get_rng_state()
    model = TwoStage(SCALES)
    torch.set_rng_state(before)
    gaba.Balancer(model.names, model.trunk, weighting=FromTorchJD(weighting))
    assert torch.equal(torch.get_rng_state(), before)
    gramian = torch.from_numpy(random_gramians(3, count=1))[0]
    asked = weighting(gramian)
    torch.set_rng_state(before)
    assert torch.equal(asked, fresh(gramian))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["MGDA", "UPGrad", "GradVac", "Mean"])
def test_what_is_not_finite_gives_nan_and_reaches_no_state(name: str, bad: float) -> None:
    weighting = WEIGHTINGS[name]()
    gramian = torch.eye(3, dtype=torch.float64) * 2
    gramian[1, 1] = bad
    assert bool(FromTorchJD(weighting)(gramian).isnan().all())
    assert not any(tensor.isnan().any() for tensor in weighting.state_dict().values())


def test_weights_without_a_positive_sum_leave_the_step_out() -> None:
    model = TwoStage(SCALES)
    rule = FromTorchJD(jd.ConstantWeighting(torch.tensor([1.0, -2.0, 0.5])))
    assert bool(rule(torch.eye(3)).isnan().all())
    balancer = gaba.Balancer(model.names, model.trunk, weighting=rule)
    step = balancer.backward(model.losses(batch()))
    assert not bool(step.finite)
    assert list(balancer.weights.values()) == pytest.approx([1 / 3] * 3)


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
        FromTorchJD(gaba.weighting.InverseNorm())  # pyright: ignore[reportArgumentType]


def test_a_rule_on_losses_is_refused() -> None:
    class OnLosses(gaba.weighting.Weighting):
        needs = "losses"

        def __call__(self, measured: Any, /) -> Any:
            return measured / measured.sum(-1)

    with pytest.raises(ValueError, match="which needs the losses"):
        ToTorchJD(OnLosses())
