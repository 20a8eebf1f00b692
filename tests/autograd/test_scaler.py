"""Mixed precision: autocast, GradScaler, models in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gaba
from _engines import NAMES, Plain, balanced
from _models import TwoStage, batch, grads

ENGINES: dict[str, Any] = {
    "exact": gaba.measurement.ExactNorms(),
    "stream": gaba.measurement.ExactNorms("stream"),
    "layer": gaba.measurement.ExactNorms(layer="last"),
    "elements": gaba.measurement.ElementNorms(),
    "outputs": gaba.measurement.OutputNorms(),
    "half-batch": gaba.measurement.HalfBatch(),
}


def scaler(scale: float = 2.0**16, **settings: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale, **settings)


def assert_same_state(one: gaba.Balancer, other: gaba.Balancer, rtol: float = 0.0) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    for name, value in mine.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, theirs[name], rtol=rtol, atol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_norms_are_divided_by_the_scale_and_gradients_left_scaled(name: str) -> None:
    found = []
    for scale in (None, 2.0**16):
        world = Plain()
        world.loss_shape = ENGINES[name].loss_shape
        balancer = balanced(NAMES, world.trunk, ENGINES[name])
        for _ in range(3):
            world.zero_grad()
            balancer.backward(world.losses(), scaler=None if scale is None else scaler(scale))
        found.append((balancer, grads(world)))
    (plain, own), (balancer, scaled) = found
    assert_same_state(plain, balancer, 1e-12)
    for key, value in own.items():
        torch.testing.assert_close(scaled[key], value * 2.0**16)
    for name in ("norms", "losses", "multipliers"):
        one, other = getattr(plain.history, name), getattr(balancer.history, name)
        assert one == pytest.approx(other, rel=1e-12)


def test_the_gramian_is_divided_too_and_forward_takes_a_scaler() -> None:
    world = Plain()
    share = gaba.rules.EqualShare()
    plain = balanced(NAMES, world.trunk, rule=share)
    scaled = balanced(NAMES, world.trunk, rule=share)
    one, other = plain(world.losses()), scaled(world.losses(), scaler=scaler())
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert_same_state(plain, scaled, 1e-12)
    off = balanced(NAMES, world.trunk, rule=share)
    off.backward(world.losses(), scaler=scaler(enabled=False))
    assert_same_state(plain, off, 1e-12)


def test_in_float16_a_small_loss_is_lost_without_the_scale_and_found_with_it() -> None:
    model = TwoStage([1.0, 1e-8])
    exact = balanced(model.names, model.trunk).backward(model.losses(batch())).norms
    found = {}
    for name, given in {"plain": None, "scaled": scaler(2.0**15)}.items():
        with torch.autocast("cpu", torch.float16):
            losses = model.losses(batch())
        balancer = balanced(model.names, model.trunk)
        found[name] = balancer.backward(losses, scaler=given).norms
    assert found["plain"][1] == 0
    torch.testing.assert_close(found["scaled"], exact, rtol=2e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["exact", "outputs", "half-batch", "layer"])
def test_autocast(dtype: torch.dtype, name: str) -> None:
    world = Plain().float()
    world.loss_shape = ENGINES[name].loss_shape
    settings: dict[str, Any] = {"measure": ENGINES[name], "believe": gaba.stabilisers.Identity()}
    exact = balanced(NAMES, world.trunk, **settings).backward(world.losses())
    balancer = balanced(NAMES, world.trunk, **settings)
    world.zero_grad()
    with torch.autocast("cpu", dtype):
        losses = world.losses()
    step = balancer.backward(losses, scaler=scaler(2.0**8))
    torch.testing.assert_close(step.norms, exact.norms, rtol=5e-2, atol=0)
    pulls = step.contributions
    assert float(pulls.max() / pulls.min()) == pytest.approx(1, rel=1e-9)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in world.parameters())


def train(scale: torch.amp.GradScaler) -> tuple[gaba.Balancer, TwoStage, list[float]]:
    """Eight steps of SGD, and the scale after each."""
    model = TwoStage([1.0, 300.0], dtype=torch.float64)
    balancer = balanced(model.names, model.trunk)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scales = []
    for number in range(8):
        optimizer.zero_grad()
        balancer.backward(model.losses(batch(number, dtype=torch.float64)), scaler=scale)
        scale.step(optimizer)
        scale.update()
        scales.append(scale.get_scale())
    return balancer, model, scales


def test_growth_and_back_off_leave_no_trace() -> None:
    still, first, _ = train(scaler(growth_interval=10**6))
    grown, second, scales = train(scaler(growth_factor=2.0, growth_interval=2))
    assert len(set(scales)) > 2
    assert_same_state(still, grown)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


class Fragile(torch.autograd.Function):
    """The identity; a gradient above the bound comes out infinite, as in a narrow dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.bound = bound
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        return torch.where(g.abs() > ctx.bound, torch.full_like(g, torch.inf), g), None


@pytest.mark.parametrize("name", ["exact", "outputs"])
def test_nothing_is_learnt_from_a_step_that_overflows_when_combined_only(name: str) -> None:
    theta = torch.nn.Linear(3, 3).double()
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    balancer = balanced(["a", "b"], theta, ENGINES[name], scale="max")
    theta.weight.register_hook(lambda g: g)  # someone listens, so there is a combined pass
    scale = scaler(1.0)
    optimizer = torch.optim.SGD([*theta.parameters(), w], lr=0.1)

    def step(bound: float) -> gaba.Step:
        optimizer.zero_grad()
        z = theta(torch.ones(4, 3, dtype=torch.float64))
        small = Fragile.apply(1e-3 * (z * w).sum(), bound)
        found = balancer.backward({"a": small, "b": (z.square() * w).sum()}, scaler=scale)
        scale.step(optimizer)
        scale.update(1.0)
        return found

    assert step(1e9).finite
    before, here = balancer.state_dict(), w.clone()
    spoilt = step(2.0)  # the probe comes with a factor of 1, the combined pass with hundreds
    assert spoilt.norms.isfinite().all()
    assert not spoilt.finite
    after = balancer.state_dict()
    for key, value in before.items():
        assert not isinstance(value, Tensor) or torch.equal(value, after[key]), key
    assert torch.equal(w, here)
    assert step(1e9).finite


def test_a_step_whose_probe_overflows_is_skipped_by_scaler_and_balancer_alike() -> None:
    model = TwoStage([1.0, 300.0])
    balancer = balanced(model.names, model.trunk)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scale = scaler(2.0**10)
    balancer.backward(model.losses(batch()), scaler=scale)
    scale.step(optimizer)
    scale.update(3e38)
    before, here = balancer.state_dict(), [p.clone() for p in model.parameters()]
    optimizer.zero_grad()
    assert not balancer.backward(model.losses(batch(1)), scaler=scale).finite
    scale.step(optimizer)
    scale.update()
    after = balancer.state_dict()
    for key, value in before.items():
        assert not isinstance(value, Tensor) or torch.equal(value, after[key]), key
    for p, was in zip(model.parameters(), here, strict=True):
        assert torch.equal(p, was)
    assert scale.get_scale() < 3e38


def test_a_bfloat16_model_has_its_state_in_full_precision() -> None:
    model = TwoStage([1.0, 300.0], dtype=torch.bfloat16)
    balancer = balanced(model.names, model.trunk).to(torch.bfloat16)
    wide = TwoStage([1.0, 300.0])
    wide.load_state_dict(model.state_dict())
    reference = balanced(wide.names, wide.trunk)
    for number in range(300):  # an average of decay 0.99 stands still in bfloat16
        model.zero_grad()
        x = batch(number, dtype=torch.bfloat16)
        balancer.backward(model.losses(x))
        reference.backward(wide.losses(x.float()))
    floating = [b for b in balancer.buffers() if b.is_floating_point()]
    assert all(b.dtype == torch.float64 for b in floating)
    assert all(p.grad is None or p.grad.dtype == torch.bfloat16 for p in model.parameters())
    assert balancer.weights["task0"] == pytest.approx(reference.weights["task0"], rel=2e-2)


def test_several_optimizers_under_one_scaler() -> None:
    """One for the shared part and one for the heads: as without a scaler, and skipped together."""
    found = []
    for given in (None, scaler()):
        world = Plain()
        heads = [p for p in world.parameters() if all(p is not q for q in world.trunk.parameters())]
        parts = (list(world.trunk.parameters()), heads)
        optimizers = [torch.optim.SGD(part, 1e-3) for part in parts]
        balancer = balanced(NAMES, world.trunk)
        for number in range(4):
            world.zero_grad()
            losses = world.losses()
            if number == 2:
                first = losses[NAMES[0]]
                assert first is not None
                losses[NAMES[0]] = first * torch.inf
            step = balancer.backward(losses, scaler=given)
            for optimizer in optimizers:
                if given is not None:
                    given.step(optimizer)
                elif bool(step.finite):
                    optimizer.step()
            if given is not None:
                given.update()
        found.append((balancer, [p.detach() for p in world.parameters()]))
    (plain, own), (balancer, scaled) = found
    assert_same_state(plain, balancer, 1e-9)
    assert not balancer.history.finite[2]
    for one, other in zip(own, scaled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0)
