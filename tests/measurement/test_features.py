"""Norms at the features: what they are, what they cost, how they are corrected."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gaba
from _engines import NAMES, WORLDS, Counting, Leaking, Plain, SkipAround, World, balanced, observe
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import SharedSpec, as_shared
from gaba.measurement import ExactNorms, FeatureNorms, Observation, by_name


def graph_of(world: World, shared: SharedSpec | None = None) -> LossGraph:
    marked = as_shared(world.trunk if shared is None else shared)  # before anything is computed
    return LossGraph([loss for loss in world.losses().values() if loss is not None], marked)


def observed(
    world: World, engine: Any = None, shared: SharedSpec | None = None, **asked: Any
) -> Observation:
    return observe(engine or FeatureNorms(), graph_of(world, shared), **asked)[0]


def test_norms_and_gramian_are_those_of_the_gradients_at_the_features() -> None:
    world = Plain()
    z = world.trunk(world.x).detach().requires_grad_()
    at = []
    for scale, head in zip(world.scales, world.heads, strict=True):
        loss = scale * head(z).sub(0.3).square().mean()
        at.append(torch.autograd.grad(loss, z)[0].flatten())
    expected = torch.stack(at)
    seen = observed(world, gramian=True)
    torch.testing.assert_close(seen.norms, expected.norm(dim=1), rtol=1e-6, atol=0)
    assert seen.gramian is not None
    torch.testing.assert_close(seen.gramian, expected @ expected.T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["SeveralCalls", "TwoFeatures"])
def test_all_features_count_together(kind: str) -> None:
    world = WORLDS[kind]()
    caught: list[torch.Tensor] = []

    def note(module: Any, args: Any, out: Any) -> None:
        caught.extend(out if isinstance(out, tuple) else [out])

    handle = world.trunk.register_forward_hook(note)
    losses = [loss for loss in world.losses().values() if loss is not None]
    handle.remove()
    expected = []
    for loss in losses:
        parts = torch.autograd.grad(loss, caught, retain_graph=True, allow_unused=True)
        expected.append(torch.cat([g.flatten() for g in parts if g is not None]).norm())
    torch.testing.assert_close(observed(world).norms, torch.stack(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["EncoderBelow", "SkipAround"])
def test_measuring_alone_writes_no_gradient_and_keeps_the_graph(kind: str) -> None:
    world = WORLDS[kind]()
    shared = as_shared(world.trunk)
    losses = [loss for loss in world.losses().values() if loss is not None]
    graph = LossGraph(losses, shared)
    assert graph.features is not None
    for _ in range(2):
        observe(FeatureNorms(), graph)
    assert all(p.grad is None for p in world.parameters())
    sum(losses).backward()  # type: ignore[union-attr]


def passes(world: World, balancer: gaba.Balancer) -> dict[str, int]:
    Counting.passes.clear()
    balancer.backward(world.losses())
    return dict(Counting.passes)


def test_one_pass_a_head_and_one_through_the_shared_part() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, "features")
    for _ in range(3):
        assert passes(world, balancer) == {"heads": 3, "trunk": 1}
    assert balancer.history.measured.all()


def test_a_calibration_costs_the_exact_passes_and_only_when_due() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, FeatureNorms(calibrate_every=3))
    cheap, dear = {"heads": 3, "trunk": 1}, {"heads": 6, "trunk": 3}
    assert [passes(world, balancer) for _ in range(5)] == [dear, cheap, cheap, dear, cheap]


def test_a_listener_gets_one_weighted_pass_besides_those_through_the_heads() -> None:
    world = Plain()
    world.heads[0].get_parameter("bias").register_hook(lambda g: None)
    balancer = balanced(NAMES, world.trunk, "features")
    assert passes(world, balancer) == {"heads": 6, "trunk": 1}


def test_gradients_that_cannot_be_had_by_hand_are_left_to_one_weighted_pass() -> None:
    world = SkipAround()
    assert observed(world, gradients=True).gradients is None
    assert passes(world, balanced(NAMES, world.trunk, "features")) == {"trunk": 1}


@pytest.mark.parametrize("calibrate_every", [None, 5])
@pytest.mark.parametrize("step", [0, 1])
def test_without_a_boundary_the_norms_are_exact(calibrate_every: int | None, step: int) -> None:
    world, engine = Leaking(), FeatureNorms(calibrate_every)
    state = engine.init(3)
    seen, after = observe(engine, graph_of(world), state, step=step, gramian=True)
    exact = observed(world, ExactNorms(), gramian=True)
    assert seen.gramian is not None
    assert exact.gramian is not None
    assert torch.equal(seen.norms, exact.norms)
    assert torch.equal(seen.gramian, exact.gramian)
    assert after is state


def test_shared_parameters_have_no_features_unless_named() -> None:
    world = Plain()
    parameters = list(world.trunk.parameters())
    exact = observed(world, ExactNorms())
    assert torch.equal(observed(world, shared=parameters).norms, exact.norms)
    z = world.trunk(world.x)
    losses = [head(z).square().mean() for head in world.heads]
    seen, _ = observe(FeatureNorms(), LossGraph(losses, as_shared(parameters), z))
    at = [torch.autograd.grad(loss, z, retain_graph=True)[0].norm() for loss in losses]
    torch.testing.assert_close(seen.norms, torch.stack(at), rtol=1e-6, atol=0)


class ReturnsLosses(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.a, self.b = (torch.nn.Linear(4, n) for n in (4, 1, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.trunk(x)
        return {"a": 1000 * self.a(z).square().mean(), "b": self.b(z).square().mean()}


@pytest.mark.parametrize("measure", ["features", "sketch"])
@pytest.mark.parametrize("scale", [None, 2.0**10])
def test_losses_that_the_shared_module_returns_are_no_features(
    measure: str, scale: float | None
) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    found = []
    for how in ("exact", measure):
        model = ReturnsLosses()
        step = balanced(["a", "b"], model, how).backward(model(x), scaler=scaler)
        found.append(step.norms)
    torch.testing.assert_close(*found)


def test_auto_learns_what_two_heads_share_above_the_features() -> None:
    """A layer after the named features that two tasks use belongs to θ: z is no boundary then."""
    world, joint = Plain(), torch.nn.Linear(4, 4).double()
    balancer = balanced(NAMES, "auto", "features")

    def step() -> gaba.Step:
        z = world.trunk(world.x)
        outs = [head(joint(z)) for head in world.heads]
        return balancer.backward(
            {n: out.square().mean() for n, out in zip(NAMES, outs, strict=True)}, features=z
        )

    step()
    z = world.trunk(world.x)
    losses = [head(joint(z)).square().mean() for head in world.heads]
    theta = [*joint.parameters(), *world.trunk.parameters()]
    own = [torch.autograd.grad(loss, theta, retain_graph=True) for loss in losses]
    expected = torch.stack([torch.cat([g.flatten() for g in row]).norm() for row in own])
    torch.testing.assert_close(step().norms, expected, rtol=1e-6, atol=0)


# ---- calibration --------------------------------------------------------------------------


def test_calibrated_norms_are_exact_when_measured_and_corrected_in_between() -> None:
    world, engine = Plain(), FeatureNorms(calibrate_every=4)
    exact, near = observed(world, ExactNorms()).norms, observed(world).norms
    assert float((exact / near).max() / (exact / near).min()) > 1.01  # there is something to do
    first, state = observe(engine, graph_of(world), gramian=True)
    assert torch.equal(first.norms, exact)
    torch.testing.assert_close(state.ratio, exact / near)
    world.x.data += 0.5  # other inputs, the old ratios
    later, state = observe(engine, graph_of(world), state, step=3, gramian=True)
    torch.testing.assert_close(later.norms, observed(world).norms * exact / near)
    assert later.gramian is not None
    torch.testing.assert_close(later.gramian.diagonal(), later.norms.square())
    plain = observed(world, gramian=True)
    assert plain.gramian is not None
    ratio = exact / near
    torch.testing.assert_close(later.gramian, plain.gramian * ratio[:, None] * ratio)
    again, _ = observe(engine, graph_of(world), state, step=4)
    assert torch.equal(again.norms, observed(world, ExactNorms()).norms)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_calibrations_are_counted_in_measured_steps(accumulate: int) -> None:
    """Every 2nd step is measured, and every 2nd measurement calibrates."""
    world = Plain()
    balancer = balanced(
        NAMES, world.trunk, FeatureNorms(calibrate_every=2), every=2, accumulate=accumulate
    )
    found = [passes(world, balancer)["trunk"] for _ in range(8 * accumulate)]
    assert found[::accumulate] == [3, 1, 1, 1, 3, 1, 1, 1]
    assert sum(balancer.history.measured) == 4


def test_a_task_missing_at_the_calibration_keeps_its_ratio_or_takes_the_typical_one() -> None:
    world, engine = Plain(), FeatureNorms(calibrate_every=10)
    ratio = observed(world, ExactNorms()).norms / observed(world).norms

    def some(step: int, state: Any, *tasks: int) -> tuple[Observation, Any]:
        shared = as_shared(world.trunk)
        losses = [loss for loss in world.losses().values() if loss is not None]
        graph = LossGraph([losses[k] for k in tasks], shared, tasks=tasks, n_tasks=3)
        return observe(engine, graph, state, step=step)

    first, state = some(0, engine.init(3), 0, 2)
    assert first.norms.isnan().tolist() == [False, True, False]
    assert state.known.tolist() == [True, False, True]
    later, state = some(1, state, 1, 2)
    near = observed(world).norms
    torch.testing.assert_close(
        later.norms[1:], near[1:] * torch.stack([(ratio[0] * ratio[2]).sqrt(), ratio[2]])
    )
    world.x.data *= 2
    _, state = some(10, state, 0, 1)
    assert state.known.all()
    torch.testing.assert_close(state.ratio[2], ratio[2])
    assert not torch.isclose(state.ratio[0], ratio[0])


def test_a_norm_of_zero_or_nan_calibrates_nothing() -> None:
    world, engine = Plain(), FeatureNorms(calibrate_every=1)
    _, state = observe(engine, graph_of(world))
    for bad in (0.0, float("nan"), float("inf")):
        shared = as_shared(world.trunk)
        losses = [loss for loss in world.losses().values() if loss is not None]
        losses[1] = losses[1] * bad
        seen, after = observe(engine, LossGraph(losses, shared), state)
        assert not bool(seen.norms[1] > 0) or bool(seen.norms[1].isinf())
        torch.testing.assert_close(after.ratio, state.ratio)  # other tasks: measured again


@pytest.mark.parametrize("n", [0, -3])
def test_bad_settings_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"calibrate_every must be at least 1, or None, found {n}"):
        FeatureNorms(calibrate_every=n)


def test_it_has_a_name() -> None:
    assert by_name("features") == FeatureNorms()
