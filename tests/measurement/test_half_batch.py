"""The norm of the expected gradient from two halves of a batch, and the noise scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _engines import NAMES, WORLDS, Counting, Plain, World, balanced
from gaba.measurement import ExactNorms, HalfBatch, SignalAndNoise, by_name


def by_half_batch(world: World, **settings: Any) -> gaba.Balancer:
    world.loss_shape = (2,)
    return balanced(NAMES, world.trunk, HalfBatch(**settings))


def half_gradients(world: World, half: int) -> list[Tensor]:
    """The oracle: each task's shared gradient on one half, by a plain backward pass."""
    x = world.x.data
    world.loss_shape, world.x.data = (), x.chunk(2)[half]
    own = world.own()
    world.loss_shape, world.x.data = (2,), x
    return [
        torch.cat([g.flatten() for i in world.theta() if (g := row[i]) is not None]) for row in own
    ]


@pytest.mark.parametrize("kind", ["Plain", "EncoderBelow", "SeveralCalls"])
def test_one_step_is_the_inner_product_and_the_distance_of_the_halves(kind: str) -> None:
    world = WORLDS[kind]()
    world.x.data[6:] += 0.1
    balancer = by_half_batch(world, decay=0.7)
    step = balancer.backward(world.losses())
    pairs = list(zip(half_gradients(world, 0), half_gradients(world, 1), strict=True))
    signal = torch.stack([a @ b for a, b in pairs])
    noise = torch.stack([(a - b).square().sum() / 4 for a, b in pairs])
    found: SignalAndNoise = balancer.measurement_state
    torch.testing.assert_close(found.signal, signal, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.noise, noise, rtol=1e-5, atol=0)
    plain = torch.stack([((a + b) / 2).square().sum() for a, b in pairs])
    torch.testing.assert_close(found.signal + found.noise, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(step.norms, torch.maximum(signal, 0.01 * plain).sqrt())
    assert bool((signal > 0).any())


def quadratic(theta: Tensor, centre: Tensor, scatter: float, size: int, seed: int) -> Tensor:
    """Losses ½‖θ − x‖² of ``size`` examples x about ``centre``: ∇ E L = θ − centre, Σ = s² I."""
    noise = torch.randn(size, len(theta), generator=torch.Generator().manual_seed(seed)).double()
    return (theta - centre - scatter * noise).square().sum(1) / 2


def by_halves(errors: Tensor) -> Tensor:
    return torch.stack([half.mean() for half in errors.chunk(2)])


def test_unbiased_where_the_plain_square_is_not() -> None:
    """Over many batches: signal → ‖∇ E L‖², noise → tr Σ/B, within their standard errors."""
    n, size, draws = 5, 8, 600
    theta = nn.Parameter(torch.zeros(n, dtype=torch.float64))
    centres = [torch.full((n,), c, dtype=torch.float64) for c in (1.0, 0.2)]
    scatters = (0.5, 1.0)
    engine = HalfBatch(decay=0.9999999999)  # all samples count alike
    balancer = balanced(["a", "b"], [theta], engine)
    plain = torch.zeros(2, dtype=torch.float64)
    for i in range(draws):
        errors = [
            quadratic(theta, c, s, size, 2 * i + k)
            for k, (c, s) in enumerate(zip(centres, scatters, strict=True))
        ]
        for k, e in enumerate(errors):
            plain[k] += torch.autograd.grad(e.mean(), theta, retain_graph=True)[0].square().sum()
        balancer.backward(dict(zip("ab", map(by_halves, errors), strict=True)))
        theta.grad = None
    plain /= draws
    found = balancer.measurement_state
    for k, (c, s) in enumerate(zip(centres, scatters, strict=True)):
        signal, noise = float(c.square().sum()), n * s**2 / size
        # var⟨a, b⟩ = 2 v ‖g‖² + n v² with v the variance of an entry of a half's gradient
        v = s**2 / (size / 2)
        error = ((2 * v * signal + n * v**2) / draws) ** 0.5
        assert abs(float(found.signal[k]) - signal) < 4 * error
        assert float(found.noise[k]) == pytest.approx(noise, rel=0.1)
        assert abs(float(plain[k]) - (signal + noise)) < 4 * error + 0.1 * noise
    torch.testing.assert_close(found.noise_scale, found.noise / found.signal)
    assert float(plain[1]) > 3 * float(found.signal[1])  # the plain square is far off


def test_a_noisy_task_is_not_taken_for_a_loud_one() -> None:
    """Two tasks with equal expected gradients, one of them noisy, must weigh about the same."""
    weights = {}
    for engine in (HalfBatch(decay=0.99), ExactNorms()):
        theta = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        balancer = balanced(["calm", "noisy"], [theta], engine)
        centre = torch.full((5,), 1.0, dtype=torch.float64)
        for i in range(300):
            errors = {
                "calm": quadratic(theta, centre, 0.1, 8, 2 * i),
                "noisy": quadratic(theta, centre.flip(0), 8.0, 8, 2 * i + 1),
            }
            reduce = by_halves if engine.loss_shape else Tensor.mean
            balancer.backward({name: reduce(e) for name, e in errors.items()})
            theta.grad = None
        weights[type(engine)] = balancer.weights["noisy"]
    assert weights[HalfBatch] == pytest.approx(0.5, abs=0.1)
    assert weights[ExactNorms] < 0.3


def test_a_lost_signal_is_reported_as_the_floor_and_an_infinite_noise_scale() -> None:
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    engine = HalfBatch(floor=0.04)
    balancer = balanced(["a", "b"], [theta], engine)
    opposite = torch.tensor([3.0, -1.0], dtype=torch.float64) * theta
    step = balancer.backward({"a": opposite, "b": torch.ones(2).double() * theta})
    state = balancer.measurement_state
    assert state.signal.tolist() == pytest.approx([-3, 1])
    assert state.noise.tolist() == pytest.approx([4, 0])
    assert state.noise_scale.tolist() == pytest.approx([float("inf"), 0])
    assert step.norms.tolist() == pytest.approx([0.2, 1])  # (0.04 · (−3 + 4))^½


def test_two_passes_a_task_and_no_more() -> None:
    world = Plain()
    balancer = by_half_batch(world)
    Counting.passes.clear()
    balancer.backward(world.losses())
    assert Counting.passes == {"heads": 6, "trunk": 6}


def test_what_is_shared_is_found_by_itself() -> None:
    world = Plain()
    world.loss_shape = (2,)
    one, other = (balanced(NAMES, shared, "half-batch") for shared in ("auto", world.trunk))
    torch.testing.assert_close(
        one.backward(world.losses()).norms, other.backward(world.losses()).norms
    )


@pytest.mark.parametrize("bad", [(), (1,), (3,), (2, 1)])
def test_losses_must_come_by_halves(bad: tuple[int, ...]) -> None:
    world = Plain()
    balancer = by_half_batch(world)
    losses = world.losses()
    assert losses["b"] is not None
    losses["b"] = losses["b"].sum().expand(bad)
    with pytest.raises(ValueError, match=r"losses\['b'\] must have shape \(2,\)"):
        balancer.backward(losses)
    assert all(p.grad is None for p in world.parameters())


def test_losses_by_halves_are_refused_elsewhere() -> None:
    world = Plain()
    world.loss_shape = (2,)
    with pytest.raises(ValueError, match="must be a scalar"):
        balanced(NAMES, world.trunk).backward(world.losses())


def test_evaluation_gives_the_sum_of_the_means() -> None:
    world = Plain()
    balancer = by_half_batch(world).eval()
    with torch.no_grad():
        value = balancer(world.losses())
        world.loss_shape = ()
        expected = sum(loss for loss in world.losses().values() if loss is not None)
    torch.testing.assert_close(value, expected)


def test_no_gramian() -> None:
    world = Plain()
    world.loss_shape = (2,)
    balancer = balanced(NAMES, world.trunk, "half-batch", rule=gaba.rules.EqualShare())
    with pytest.raises(ValueError, match="gives no Gramian"):
        balancer.backward(world.losses())


BAD: list[tuple[dict[str, float], str]] = [
    ({"decay": 1.0}, "decay"),
    ({"decay": -0.1}, "decay"),
    ({"floor": 0.0}, "floor"),
    ({"floor": 1.1}, "floor"),
]


@pytest.mark.parametrize(("settings", "name"), BAD)
def test_bad_settings_are_refused(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        HalfBatch(**settings)


def test_it_has_a_name() -> None:
    assert by_name("half-batch") == HalfBatch()
