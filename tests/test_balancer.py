"""The Balancer against the definition, against the oracle, and against bad input."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import _reference as reference
import gaba
from _models import TwoStage, batch, grads, task_gradients

SHARED = ("module", "parameters", "auto")
AT_ONCE = gaba.methods.get("gaba", rise=None)
"""The default method, with the multipliers that its first norms ask for in the first step."""


def shared_of(model: TwoStage, how: str) -> Any:
    return {
        "module": model.trunk,
        "parameters": list(model.trunk.parameters()),
        "auto": "auto",
    }[how]


def plain_step(model: TwoStage, x: torch.Tensor, coefficients: dict[str, float]) -> dict[str, Any]:
    """The ``.grad`` that one backward pass of Σ c_k L_k leaves."""
    model.zero_grad()
    losses = model.losses(x)
    total = sum(c * losses[n] for n, c in coefficients.items() if losses[n] is not None)  # type: ignore[operator]
    total.backward()  # type: ignore[union-attr]
    return grads(model)


def factors(model: TwoStage, step: gaba.Step) -> dict[str, float]:
    """The multiplier of each task in ``step``."""
    return dict(zip(model.names, step.multipliers.tolist(), strict=True))


def assert_same_grads(found: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("how", SHARED)
@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize(("method", "combined"), [("gaba", "backward"), ("inverse", "by-hand")])
def test_contributions_are_equal_and_grad_is_the_weighted_sum(
    method: str, combined: str, how: str, k: int
) -> None:
    model = TwoStage([10.0**i for i in range(k)], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    made = gaba.methods.get(method, rise=None, limit=None)
    balancer = gaba.Balancer(model.names, shared_of(model, how), made)
    step = balancer.backward(model.losses(x))
    found = grads(model)

    own = task_gradients(model, x)
    norms = torch.stack([g.norm() for g in own])
    torch.testing.assert_close(step.norms, norms, rtol=1e-12, atol=0)
    contributions = step.contributions
    assert float(contributions.max() / contributions.min()) == pytest.approx(1, abs=1e-6)
    assert float(contributions.sum()) == pytest.approx(float(norms.sum()), rel=1e-9)
    assert_same_grads(found, plain_step(model, x, factors(model, step)))
    assert step.combined == combined


@pytest.mark.parametrize("k", [2, 7, 100])
def test_equal_contributions_up_to_a_hundred_tasks_in_float32(k: int) -> None:
    model = TwoStage(np.geomspace(1e-6, 1e6, k).tolist())
    balancer = gaba.Balancer(model.names, model.trunk, AT_ONCE, limit=None)
    step = balancer.backward(model.losses(batch()))
    own = torch.stack([g.double().norm() for g in task_gradients(model, batch())])
    pulls = step.multipliers * own
    assert float(pulls.max() / pulls.min()) - 1 < 1e-6


@pytest.mark.parametrize("scale", ["simplex", "sum", "max", "geometric"])
def test_scale_sets_the_length_that_it_names(scale: Any) -> None:
    model = TwoStage([1.0, 100.0, 3.0])
    balancer = gaba.Balancer(model.names, model.trunk, AT_ONCE, scale=scale, limit=None)
    step = balancer.backward(model.losses(batch()))
    pulls, norms = step.contributions, step.norms
    found, expected = {
        "simplex": (step.multipliers.sum(), 1),
        "sum": (pulls.sum(), norms.sum()),
        "max": (pulls.max(), norms.max()),
        "geometric": (step.multipliers.log().sum().exp(), 1),
    }[scale]
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
    assert float(step.weights.sum()) == pytest.approx(1)
    assert float(step.imbalance) == pytest.approx(1)


def test_equal_norms_are_left_as_the_user_wrote_them() -> None:
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    step = gaba.Balancer(list("abc"), [w]).backward({n: 7 * w[i] for i, n in enumerate("abc")})
    torch.testing.assert_close(step.multipliers, torch.ones(3).double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(w.grad, torch.full((3,), 7.0).double())


def test_anchor_keeps_multiplier_one_and_the_others_theirs_while_it_is_missing() -> None:
    model = TwoStage([1.0, 100.0, 3.0])
    balancer = gaba.Balancer(model.names, model.trunk, AT_ONCE, anchor="task1")
    step = balancer.backward(model.losses(batch()))
    assert float(step.multipliers[1]) == pytest.approx(1)
    without = model.losses(batch()) | {"task1": None}
    again = balancer.backward(without)
    assert again.multipliers[1].isnan()
    torch.testing.assert_close(again.multipliers[[0, 2]], step.multipliers[[0, 2]])


def test_no_loss_is_multiplied_or_divided_by_more_than_the_limit() -> None:
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    for limit in (1000.0, 32.0, 2.0, 1.0):
        balancer = gaba.Balancer(list("abc"), [w], AT_ONCE, limit=limit)
        step = balancer.backward({"a": 1e6 * w[0], "b": w[1], "c": 1e-3 * w[2]})
        assert float(step.multipliers.max()) <= limit
        assert float(step.multipliers.min()) >= 1 / limit
        assert bool(step.saturated[2]) == (limit > 1)
        assert float(step.contributions.sum()) == pytest.approx(1e6 + 1 + 1e-3, rel=1e-9)


def test_a_task_that_converges_is_not_amplified_by_more_than_the_recovery() -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [w])
    for n in range(600):
        balancer.backward({"a": w[0], "b": 0.97**n * w[1]})
    multipliers = balancer.history.multipliers[-1]
    assert float(multipliers[1] / multipliers[0]) == pytest.approx(8, rel=1e-6)


def wandering(n: int, k: int, seed: int) -> np.ndarray:
    """n norms (n, K) that wander, jump by up to a thousand, and scatter."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(size=(n, k)) * 0.1 + (rng.random((n, k)) < 0.02) * rng.normal(0, 5, (n, k))
    return np.exp(rng.normal(size=k) * 2 + moves.cumsum(0) + 0.3 * rng.normal(size=(n, k)))


def dialled(tasks: str, *args: Any, **settings: Any) -> tuple[gaba.Balancer, torch.nn.Parameter]:
    """A balancer of tasks with one letter each, and θ, of which L_k = g_k·θ_k has the norm g_k."""
    theta = torch.nn.Parameter(torch.zeros(len(tasks), dtype=torch.float64))
    return gaba.Balancer(list(tasks), [theta], *args, **settings), theta


def drive(
    pair: tuple[gaba.Balancer, torch.nn.Parameter],
    norms: np.ndarray,
    gone: float = 0.0,
    seed: int = 0,
) -> gaba.Balancer:
    """Steps with these norms (n, K), each task missing in a part of them."""
    balancer, theta = pair
    away = np.random.default_rng(seed).random(norms.shape) < gone
    for row, missing in zip(norms, away, strict=True):
        tasks = zip(balancer.tasks, row, theta, missing, strict=True)
        losses = {name: float(g) * one for name, g, one, lost in tasks if not lost}
        theta.grad = None
        if losses:
            balancer.backward(losses)
    return balancer


@pytest.mark.parametrize("settings", [{}, {"every": 3}, {"limit": None}, {"anchor": "b"}], ids=str)
@pytest.mark.parametrize("measure", ["tracked", "exact"])
@pytest.mark.parametrize("seed", range(3))
def test_no_multiplier_in_use_grows_by_more_than_the_rise_in_one_step(
    seed: int, measure: str, settings: dict[str, Any]
) -> None:
    pair = dialled("abc", gaba.methods.get("gaba", measure=measure), **settings)
    balancer = drive(pair, wandering(300, 3, seed), gone=0.1, seed=seed)
    used = balancer.history.multipliers
    fastest, lowest = 0.0, 0.0
    for k in range(3):
        here = np.flatnonzero(~np.isnan(used[:, k]))
        steps = np.diff(balancer.history.steps[here], prepend=-1)
        growth = np.diff(np.log(used[here, k]), prepend=0.0)
        assert (growth <= steps * np.log(1.2) + 1e-9).all()
        fastest, lowest = max(fastest, (growth / steps).max()), min(lowest, growth.min())
    assert fastest == pytest.approx(np.log(1.2), rel=1e-9)  # the bound is reached
    assert lowest < -np.log(1.5)  # and what falls, falls at once


def test_the_rise_is_of_the_multipliers_in_use_and_learns_as_without() -> None:
    """In each step the smaller of what a twin without the bound uses, and 1.2 times the last."""
    norms = wandering(400, 4, 5)
    norms[300:] = norms[300]
    made = gaba.methods.get("gaba", measure="exact")
    methods = made, made.replace(rise=None)
    slow, free = (drive(dialled("abcd", method), norms) for method in methods)
    used, asked = slow.history.multipliers, free.history.multipliers
    before = np.concatenate([np.ones((1, 4)), used[:-1]])
    np.testing.assert_allclose(used, np.minimum(asked, 1.2 * before), rtol=1e-12)
    held = used < asked * (1 - 1e-9)
    assert 0.05 < held.mean() < 0.9
    fell = asked < before / 2
    assert fell.any()
    np.testing.assert_array_equal(used[fell], asked[fell])
    np.testing.assert_allclose(used[-1], asked[-1], rtol=1e-12)  # at last it is the same
    beliefs = [one.state_dict()["_state.method_believe_log"] for one in (slow, free)]
    torch.testing.assert_close(*beliefs, rtol=0, atol=0)
    pulls = slow.history.contributions.sum(1)
    plain = free.history.contributions.sum(1)
    assert (pulls <= plain * (1 + 1e-9)).all()


def test_multipliers_rise_on_in_steps_without_measurement() -> None:
    method = gaba.methods.get("gaba", measure="exact", every=1000)
    balancer = drive(dialled("ab", method), np.tile([500.0, 1.0], (30, 1)))
    assert balancer.history.measured.sum() == 1
    quiet = np.minimum(64.0, 1.2 ** np.arange(1, 31))
    np.testing.assert_allclose(balancer.history.multipliers[:, 1], quiet, rtol=1e-12)
    np.testing.assert_allclose(balancer.history.multipliers[:, 0], 437 / 500, rtol=1e-12)


def test_micro_batches_of_one_optimizer_step_rise_together() -> None:
    balancer = drive(dialled("ab", accumulate=4), np.tile([500.0, 1.0], (40, 1)))
    quiet = balancer.history.multipliers[:, 1].reshape(10, 4)
    np.testing.assert_array_equal(quiet, quiet[:, :1].repeat(4, 1))
    np.testing.assert_allclose(quiet[:, 0], 1.2 ** np.arange(1, 11), rtol=1e-12)


def test_the_multipliers_of_a_balancer_are_those_of_its_next_step() -> None:
    pair = dialled("ab")
    balancer = drive(pair, np.array([[500.0, 1.0]]))
    for n in range(2, 30):
        expected = balancer.multipliers
        drive(pair, np.array([[500.0, 1.0]]))
        assert balancer.last_step is not None
        assert balancer.last_step.asdict()["multipliers"] == pytest.approx(expected, rel=1e-12)
        if n < 20:
            assert expected["b"] == pytest.approx(1.2**n, rel=1e-12)
    after = balancer.multipliers
    assert balancer.weights["b"] == pytest.approx(after["b"] / sum(after.values()), rel=1e-12)


def test_only_the_default_method_has_a_rise() -> None:
    rises = {name: gaba.methods.get(name).rise for name in ("gaba", "inverse", "paper")}
    assert rises == {"gaba": 1.2, "inverse": None, "paper": None}


@pytest.mark.parametrize("heads", ["weighted", "plain"])
def test_heads(heads: Any) -> None:
    model, x = TwoStage([1.0, 50.0], dtype=torch.float64), batch(dtype=torch.float64)
    method = gaba.methods.get("gaba", heads=heads)
    step = gaba.Balancer(model.names, model.trunk, method).backward(model.losses(x))
    found = {n: g for n, g in grads(model).items() if n.startswith("heads")}
    own = factors(model, step) if heads == "weighted" else dict.fromkeys(model.names, 1.0)
    expected = plain_step(model, x, own)
    assert_same_grads(found, {n: g for n, g in expected.items() if n.startswith("heads")})


def test_the_trunk_keeps_the_multiplier_where_one_task_with_a_plain_head_is_there_alone() -> None:
    model, x = TwoStage([1.0, 100.0], dtype=torch.float64), batch(dtype=torch.float64)
    method = gaba.methods.get("gaba", heads="plain", rise=None)
    balancer = gaba.Balancer(model.names, model.trunk, method, anchor="task1")
    balancer.backward(model.losses(x))
    model.zero_grad()
    step = balancer.backward(model.losses(x) | {"task1": None})
    found = grads(model)
    multiplier = float(step.multipliers[0])
    assert multiplier > 2
    expected = plain_step(model, x, {"task0": 1.0})
    trunk = {n: multiplier * g for n, g in expected.items() if n.startswith("trunk")}
    heads = {n: g for n, g in expected.items() if n.startswith("heads.0")}
    assert_same_grads({n: found[n] for n in (*trunk, *heads)}, trunk | heads)


def test_grad_is_added_to_and_never_overwritten() -> None:
    model, x = TwoStage([1.0, 50.0], dtype=torch.float64), batch(dtype=torch.float64)
    balancer = gaba.Balancer(model.names, model.trunk, AT_ONCE)
    balancer.backward(model.losses(x))
    once = grads(model)
    balancer.backward(model.losses(x))
    assert_same_grads(grads(model), {n: 2 * g for n, g in once.items()})


def test_parameters_before_the_shared_part_and_inputs_get_their_gradient_too() -> None:
    torch.manual_seed(0)
    early, shared = torch.nn.Linear(6, 6).double(), torch.nn.Linear(6, 4).double()
    x = batch(dtype=torch.float64).requires_grad_()

    def losses() -> dict[str, torch.Tensor | None]:
        z = shared(early(x).tanh())
        return {"a": z[:, 0].square().mean(), "b": 90 * z[:, 1].abs().mean()}

    step = gaba.Balancer(["a", "b"], shared, scale="simplex").backward(losses())
    found = [early.weight.grad, early.bias.grad, shared.weight.grad, x.grad]
    again = losses()
    total = sum(
        float(m) * loss
        for m, loss in zip(step.multipliers, again.values(), strict=True)
        if loss is not None
    )
    assert isinstance(total, torch.Tensor)
    expected = torch.autograd.grad(total, [early.weight, early.bias, shared.weight, x])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_forward_gives_the_scalar_with_the_same_gradient() -> None:
    model, x = TwoStage([1.0, 50.0], dtype=torch.float64), batch(dtype=torch.float64)
    gaba.Balancer(model.names, model.trunk).backward(model.losses(x))
    by_hand = grads(model)
    model.zero_grad()
    balancer = gaba.Balancer(model.names, model.trunk)
    balancer(model.losses(x)).backward()
    assert_same_grads(grads(model), by_hand)
    assert len(balancer.history) == 1


@pytest.mark.parametrize("how", ["eval", "no_grad"])
def test_forward_in_evaluation_learns_nothing(how: str) -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    balancer.backward(model.losses(batch()))
    before = copy.deepcopy(balancer.state_dict())
    balancer.train(how != "eval")
    with torch.set_grad_enabled(how != "no_grad"):
        value = balancer(model.losses(batch(1)))
    with torch.no_grad():
        losses = model.losses(batch(1))
    multipliers = balancer.multipliers
    expected = sum(multipliers[n] * float(v) for n, v in losses.items() if v is not None)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
    assert_same_state(balancer.state_dict(), before)
    assert len(balancer.history) == 1


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in other.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(one[name], value), name
        else:
            assert one[name] == value, name


# ---- against the oracle -------------------------------------------------------------------


PIPELINES: dict[str, tuple[Any, Any]] = {
    "paper": (
        lambda t, s: gaba.Balancer(t, s, "paper"),
        lambda k: reference.Pipeline.paper(k),
    ),
    "default": (
        lambda t, s: gaba.Balancer(t, s, gaba.methods.get("gaba", measure="exact")),
        lambda k: reference.Pipeline.default(k),
    ),
    "tight limit": (
        lambda t, s: gaba.Balancer(t, s, gaba.methods.get("gaba", measure="exact"), limit=4.0),
        lambda k: reference.Pipeline(
            k, reference.inverse, believe=reference.Belief(k), recovery=8.0, limit=4.0, rise=1.2
        ),
    ),
    "max": (
        lambda t, s: gaba.Balancer(t, s, "inverse", scale="max", limit=None),
        lambda k: reference.Pipeline(
            k, reference.inverse, believe=reference.LogEMA(k), scale="max", limit=np.inf
        ),
    ),
    "geometric": (
        lambda t, s: gaba.Balancer(t, s, "inverse", scale="geometric"),
        lambda k: reference.Pipeline(
            k, reference.inverse, believe=reference.LogEMA(k), scale="geometric"
        ),
    ),
    "anchor": (
        lambda t, s: gaba.Balancer(t, s, "inverse", anchor="t1"),
        lambda k: reference.Pipeline(k, reference.inverse, believe=reference.LogEMA(k), anchor=1),
    ),
    "smoothed": (
        lambda t, s: gaba.Balancer(
            t, s, gaba.methods.get("inverse", smooth=gaba.stabilisers.EMA(0.9))
        ),
        lambda k: reference.Pipeline(
            k, reference.inverse, believe=reference.LogEMA(k), smooth=reference.EMA(k, 0.9)
        ),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in ("max", "geometric", "smoothed") else [])
        for n in PIPELINES
    ],
)
@pytest.mark.parametrize("k", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_thousand_random_steps_against_the_reference(name: str, k: int) -> None:
    """Norms are dialled in exactly: L_k = c_k·θ_k has the gradient norm c_k."""
    make, oracle_of = PIPELINES[name]
    rng = np.random.default_rng(k)
    theta = torch.nn.Parameter(torch.zeros(k, dtype=torch.float64))
    names = [f"t{i}" for i in range(k)]
    balancer, oracle = make(names, [theta]), oracle_of(k)
    level = rng.normal(size=k) * 3
    for _ in range(1000):
        level += rng.normal(size=k) * 0.1
        norms = np.exp(level + rng.normal(size=k))
        present = rng.random(k) > 0.1
        present[rng.integers(k)] = True
        if rng.random() < 0.02:
            norms[rng.integers(k)] = rng.choice([0.0, np.inf, np.nan, 1e-23, 1e20])
        losses = {n: norms[i] * theta[i] for i, n in enumerate(names) if present[i]}
        step = balancer.backward(losses)
        truth = oracle.step(norms.tolist(), present.tolist())
        assert bool(step.finite) == truth.finite
        np.testing.assert_allclose(step.multipliers, truth.multipliers, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(step.weights, truth.weights, rtol=1e-9, atol=1e-15)
        np.testing.assert_array_equal(step.saturated, truth.saturated)
        theta.grad = None


def test_paper_preset_is_saturated_from_step_333_and_stands_still() -> None:
    theta = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    balancer = gaba.Balancer(["rul", "health"], [theta], method="paper")
    for _ in range(1200):
        balancer.backward({"rul": 5.0 * theta[0], "health": 0.01 * theta[1]})
    history = balancer.history
    first = int(np.argmax(history.saturated[:, 0]))
    assert first == 332  # the 333rd step
    assert history.saturated[first:, 0].all()
    floored = 0.05 / (0.05 + 5.0 / 5.01)  # the other weight, before renormalising, is S − g over S
    np.testing.assert_allclose(history.weights[-1], [floored, 1 - floored], rtol=1e-5)
    assert history.imbalance[-1] == pytest.approx(25, rel=0.01)
    assert not history.saturated[:, 1].any()
    np.testing.assert_array_equal(history.weights[:100], 0.5)


# ---- missing tasks, bad values ------------------------------------------------------------


@pytest.mark.parametrize("measure", ["exact", "tracked"])
@pytest.mark.parametrize("gone", ["absent", "none"])
def test_a_missing_task_keeps_its_state_and_changes_nothing_for_the_others(
    gone: str, measure: str
) -> None:
    model = TwoStage([1.0, 50.0, 3.0])
    method = gaba.methods.get("gaba", measure=measure, every=1, limit=1000, rise=None)
    balancer = gaba.Balancer(model.names, model.trunk, method)
    for i in range(5):
        balancer.backward(model.losses(batch(i)))
        model.zero_grad()
    twin = gaba.Balancer(model.names, model.trunk, method)
    twin.load_state_dict(balancer.state_dict())
    before, multipliers = balancer.state_dict(), balancer.multipliers
    losses = model.losses(batch(9))
    if gone == "absent":
        del losses["task2"]
    else:
        losses["task2"] = None
    step = balancer.backward(losses)
    for values in (step.multipliers, step.norms, step.losses):
        assert values.isnan().tolist() == [False, False, True]
    assert step.weights[2] == 0
    assert float(step.weights.sum()) == pytest.approx(1)
    assert balancer.multipliers["task2"] == pytest.approx(multipliers["task2"], rel=0.5)
    after = balancer.state_dict()
    for name in ("_state.method_believe_log", "_state.method_believe_count"):
        assert torch.equal(after[name][2], before[name][2])
        assert not torch.equal(after[name][:2], before[name][:2])
    assert step.asdict()["losses"]["task2"] is None
    model.zero_grad()
    whole = twin.backward(model.losses(batch(9)))
    ratio = step.multipliers[0] / step.multipliers[1]
    torch.testing.assert_close(ratio, whole.multipliers[0] / whole.multipliers[1])
    if measure == "exact":  # an effective norm is of what the update was, which was another one
        beliefs = [balancer.state_dict(), twin.state_dict()]
        mine, other = (b["_state.method_believe_log"][:2] for b in beliefs)
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    else:
        used = [multipliers["task0"], multipliers["task1"]]
        assert step.multipliers[:2].tolist() == whole.multipliers[:2].tolist() == used


@pytest.mark.parametrize("method", ["gaba", "inverse"])
def test_one_task_a_batch_pulls_as_hard_as_the_others(method: str) -> None:
    """Norms 500 to 1, never together: the belief remembers, so the pulls are equal all the same."""
    theta = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    made = gaba.methods.get(method, limit=1000, every=1, rise=None)
    balancer = gaba.Balancer(["loud", "quiet"], [theta], made)
    pulls = []
    for i in range(40):
        loss = {"loud": 500.0 * theta[0]} if i % 2 else {"quiet": theta[1]}
        theta.grad = None
        balancer.backward(loss)
        assert theta.grad is not None
        pulls.append(float(torch.Tensor(theta.grad).norm()))
    np.testing.assert_allclose(pulls[2:], pulls[2], rtol=1e-9)


def test_a_task_that_returns_finds_its_weight_as_it_left_it() -> None:
    theta = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    balancer = gaba.Balancer(["rul", "health"], [theta], method="paper")
    for i in range(801):
        health = None if 600 <= i < 800 else 0.01 * theta[1]
        balancer.backward({"rul": 5.0 * theta[0], "health": health})
    history = balancer.history
    np.testing.assert_array_equal(history.weights[600:800], [[1, 0]] * 200)
    np.testing.assert_allclose(history.multipliers[800], history.multipliers[599], rtol=0.02)
    alone = history.multipliers[600:800, 0]
    np.testing.assert_allclose(alone, history.multipliers[599, 0], rtol=0.02)


def test_a_single_task_present_from_the_start_is_left_as_the_user_wrote_it() -> None:
    model = TwoStage([1.0, 50.0])
    for shared in (model.trunk, "auto"):
        step = gaba.Balancer(model.names, shared).backward(
            {"task1": model.losses(batch())["task1"]}
        )
        assert step.weights.tolist() == [0, 1]
        assert float(step.multipliers[1]) == pytest.approx(1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["loss", "norm"])
def test_nonfinite_leaves_the_state_and_fills_grad_with_the_last_multipliers(
    bad: float, where: str
) -> None:
    theta = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [theta], method="paper")
    for _ in range(150):
        balancer.backward({"a": 7 * theta[0], "b": theta[1:].sum()})
    before, multipliers = balancer.state_dict(), balancer.multipliers
    theta.grad = None
    a = 7 * theta[0] + bad if where == "loss" else bad * theta[0]
    step = balancer.backward({"a": a, "b": theta[1:].sum()})
    assert not step.finite
    after = balancer.state_dict()
    assert after.pop("_extra_state") != before.pop("_extra_state")  # the step is counted
    assert_same_state(after, before)
    again = theta.detach().clone().requires_grad_()
    a = 7 * again[0] + bad if where == "loss" else bad * again[0]
    (multipliers["a"] * a + multipliers["b"] * again[1:].sum()).backward()
    torch.testing.assert_close(theta.grad, again.grad, equal_nan=True)
    assert step.asdict()["finite"] is False


def test_nonfinite_can_raise_before_anything_changes() -> None:
    model = TwoStage([1.0, 2.0])
    balancer = gaba.Balancer(model.names, model.trunk, on_nonfinite="raise")
    balancer.backward(model.losses(batch()))
    model.zero_grad()
    before = balancer.state_dict()
    losses = model.losses(batch())
    assert losses["task0"] is not None
    losses["task0"] = losses["task0"] * float("nan")
    with pytest.raises(FloatingPointError, match="'task0': nan"):
        balancer.backward(losses)
    assert_same_state(balancer.state_dict(), before)
    assert not grads(model)


def test_a_task_without_pull_does_not_stop_the_others() -> None:
    theta = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [theta])
    step = balancer.backward({"a": theta[0] * 3, "b": (theta[1] - 5).relu() + 0 * theta[1]})
    assert float(step.norms[1]) == 0
    assert step.weights.tolist() == [0.5, 0.5]
    assert step.multipliers.tolist() == [1.0, 1.0]
    assert bool(step.finite)


def test_tiny_and_huge_norms_neither_vanish_nor_overflow() -> None:
    for dtype in (torch.float32, torch.float64):
        theta = torch.nn.Parameter(torch.zeros(2, 50, dtype=dtype))
        balancer = gaba.Balancer(["tiny", "huge"], [theta], AT_ONCE, scale="simplex")
        step = balancer.backward(
            {"tiny": (1e-23 * theta[0]).sum(), "huge": (1e20 * theta[1]).sum()}
        )
        expected = torch.tensor([1e-23, 1e20], dtype=torch.float64) * 50**0.5
        torch.testing.assert_close(step.norms, expected, rtol=1e-6, atol=0)
        assert float(step.imbalance) == pytest.approx(1, abs=1e-6)


# ---- errors, each before any state changes ------------------------------------------------


def _losses(model: TwoStage, **changes: Any) -> Any:
    return {**model.losses(batch()), **changes}


BAD_LOSSES: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": (lambda m: list(m.losses(batch()).values()), TypeError, "mapping"),
    "unknown name": (
        lambda m: _losses(m, other=m.trunk(batch()).sum()),
        ValueError,
        "unknown task 'other'",
    ),
    "no tensor": (lambda m: _losses(m, task0=3.0), TypeError, "float"),
    "no scalar": (
        lambda m: _losses(m, task0=m.trunk(batch())[:, 0]),
        ValueError,
        r"shape \(16,\)",
    ),
    "none at all": (lambda m: {"task0": None}, ValueError, "at least one"),
}


@pytest.mark.parametrize("case", BAD_LOSSES)
def test_bad_losses_are_refused_and_change_nothing(case: str) -> None:
    make, kind, message = BAD_LOSSES[case]
    model = TwoStage([1.0, 2.0])
    balancer = gaba.Balancer(model.names, model.trunk, "inverse")  # it measures every step
    balancer.backward(model.losses(batch()))
    model.zero_grad()
    before = balancer.state_dict()
    with pytest.raises(kind, match=message):
        balancer.backward(make(model))
    assert_same_state(balancer.state_dict(), before)
    assert len(balancer.history) == 1
    assert not grads(model)


BAD_AT_FIRST: dict[str, tuple[Any, type[Exception], str]] = {
    "no graph": (lambda m: _losses(m, task0=torch.ones(())), ValueError, "no graph"),
    "around the shared part": (
        lambda m: _losses(m, task0=m.heads[0](torch.ones(5)).sum()),
        ValueError,
        r"losses\['task0'\] reaches no shared",
    ),
}
"""Mistakes as long as the task was never seen with a gradient; later its batch lacks it."""


@pytest.mark.parametrize("case", BAD_AT_FIRST)
def test_a_first_loss_without_a_gradient_is_refused(case: str) -> None:
    make, kind, message = BAD_AT_FIRST[case]
    model = TwoStage([1.0, 2.0])
    for method in ("inverse", "gaba", "observe"):
        balancer = gaba.Balancer(model.names, model.trunk, method)
        before = balancer.state_dict()
        with pytest.raises(kind, match=message):
            balancer.backward(make(model))
        assert_same_state(balancer.state_dict(), before)
        assert len(balancer.history) == 0
        assert not grads(model)


@pytest.mark.parametrize("case", BAD_AT_FIRST)
@pytest.mark.parametrize("method", ["inverse", "gaba", "observe"])
def test_a_later_loss_without_a_gradient_changes_nothing_for_the_others(
    method: str, case: str
) -> None:
    """As if the task were left out of the mapping, and its own head gets what reaches it."""
    make, _, _ = BAD_AT_FIRST[case]
    model = TwoStage([1.0, 2.0, 5.0])
    twins = [gaba.Balancer(model.names, model.trunk, method, every=1) for _ in range(2)]
    for n in range(3):
        for twin in twins:
            model.zero_grad()
            twin.backward(model.losses(batch(n)))
    found = []
    for twin, losses in zip(twins, (make(model), _losses(model, task0=None)), strict=True):
        model.zero_grad()
        twin.backward(losses)
        found.append([None if p.grad is None else p.grad.clone() for p in model.trunk.parameters()])
    for mine, left_out in zip(*found, strict=True):
        torch.testing.assert_close(mine, left_out, rtol=1e-6, atol=1e-7)
    rounding = 1e-7 / 1e-5 / 80**0.5  # of 16 · 5 features, over the step of a probe
    mine, left_out = (twin.multipliers for twin in twins)
    assert mine == pytest.approx(left_out, rel=rounding)


def test_a_loss_that_stays_a_constant_is_named_once() -> None:
    model = TwoStage([1.0, 2.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    step = balancer.backward(model.losses(batch()))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for n in range(250):
            step = balancer.backward(_losses(model, task1=torch.ones(())))
            assert len(heard) == (n >= 99)
    assert "losses['task1'] has been a constant" in str(heard[0].message)
    assert step.about["constant"] == "task1"
    assert step.losses.isnan().tolist() == [False, True]
    assert "constant" not in balancer.backward(model.losses(batch())).about


PLAIN_HEADS = gaba.methods.get("inverse", heads="plain")


def test_entries_that_are_no_task_and_need_no_gradient_are_ignored() -> None:
    model = TwoStage([1.0, 2.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    step = balancer.backward(_losses(model, accuracy=0.9, total=torch.ones(3), note="text"))
    assert step.losses.isfinite().all()


BAD_SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one task": ({"tasks": ["a"]}, ValueError, "at least 2"),
    "a task twice": ({"tasks": ["a", "a"]}, ValueError, "at least 2"),
    "a string": ({"tasks": "ab"}, TypeError, "sequence of names"),
    "scale": ({"scale": "big"}, ValueError, "geometric, max, simplex, rule, found 'big'"),
    "limit": ({"limit": 0.5}, ValueError, "limit must be at least 1"),
    "anchor": ({"anchor": "c"}, ValueError, "a, b, found 'c'"),
    "metric": ({"metric": "l1"}, ValueError, "metric"),
    "every": ({"every": 0}, ValueError, "every"),
    "plain heads now and then": ({"every": 2, "method": PLAIN_HEADS}, ValueError, "every"),
    "plain heads and micro-batches": (
        {"accumulate": 2, "method": PLAIN_HEADS},
        ValueError,
        "accumulate",
    ),
    "nonfinite": ({"on_nonfinite": "ignore"}, ValueError, "pass, skip, drop, raise"),
    "method": ({"method": "best"}, ValueError, "found 'best'"),
    "nearly a method": ({"method": "invers"}, ValueError, "Did you mean 'inverse'"),
    "method without argument": ({"method": "fixed"}, ValueError, "fixed:ARGUMENT"),
    "shared name": ({"shared": "all"}, ValueError, "'all'"),
    "shared tensor": ({"shared": torch.ones(2)}, TypeError, "Tensor"),
    "shared of nothing": ({"shared": []}, ValueError, "found none"),
    "shared module of nothing": ({"shared": torch.nn.ReLU()}, ValueError, "ReLU"),
    "a rule for three": (
        {"method": gaba.Method(gaba.rules.Fixed([1, 2, 3]))},
        ValueError,
        "2 tasks",
    ),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_refused(case: str) -> None:
    changes, kind, message = BAD_SETTINGS[case]
    settings = {"tasks": ["a", "b"], "shared": torch.nn.Linear(2, 2), **changes}
    with pytest.raises(kind, match=message):
        gaba.Balancer(**settings)


BAD_SLOTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "heads": ({"heads": "none"}, ValueError, "weighted, plain"),
    "measure": ({"measure": "guess"}, ValueError, "'guess'"),
    "believe": ({"believe": "best"}, TypeError, "found 'best'"),
    "smooth": ({"smooth": None}, TypeError, "Identity"),
    "every": ({"every": 0}, ValueError, "every"),
    "recovery": ({"recovery": 0.0}, ValueError, "recovery must be at least 1"),
    "rise": ({"rise": 1.0}, ValueError, "rise must be above 1, or None for no bound, found 1.0"),
    "no rise": ({"rise": float("nan")}, ValueError, "rise must be above 1"),
    "no such setting": ({"weighting": "inverse"}, TypeError, "'weighting'"),
}


@pytest.mark.parametrize("case", BAD_SLOTS)
def test_bad_slots_are_refused(case: str) -> None:
    changes, kind, message = BAD_SLOTS[case]
    with pytest.raises(kind, match=message):
        gaba.methods.get("inverse", **changes)


# ---- state --------------------------------------------------------------------------------


def run(balancer: gaba.Balancer, theta: torch.nn.Parameter, start: int, stop: int) -> None:
    for i in range(start, stop):
        g = np.random.default_rng(i).lognormal(size=3) * (100, 1, 0.1)
        theta.grad = None
        balancer.backward({n: g[k] * theta[k] for k, n in enumerate("abc") if (i + k) % 7})


STABILISERS: dict[str, gaba.stabilisers.Stabiliser] = {
    "none": gaba.stabilisers.Identity(),
    "ema": gaba.stabilisers.EMA(0.9),
    "ema of norms": gaba.stabilisers.EMA(0.9, debias=True),
    "log-ema": gaba.stabilisers.LogEMA(0.9),
    "belief": gaba.stabilisers.Belief(0.1),
    "floor": gaba.stabilisers.Floor(0.1),
    "floor, projected": gaba.stabilisers.Floor(0.1, mode="project"),
    "warmup": gaba.stabilisers.Warmup(30),
    "clip": gaba.stabilisers.Clip(0.1, 0.6),
    "freeze": gaba.stabilisers.Freeze(30),
    "chain": gaba.stabilisers.Chain((gaba.stabilisers.Warmup(9), gaba.stabilisers.EMA(0.8))),
}


@pytest.mark.parametrize("slot", ["believe", "smooth", "paper", "gaba", "anchor"])
@pytest.mark.parametrize("name", STABILISERS)
def test_resume_is_bit_for_bit(slot: str, name: str) -> None:
    theta = torch.nn.Parameter(torch.zeros(3))

    def make_named() -> gaba.Balancer:
        if slot in ("paper", "gaba"):
            return gaba.Balancer(list("abc"), [theta], method=slot)
        where = "believe" if slot == "anchor" else slot
        slots: dict[str, Any] = {where: STABILISERS[name]}
        method = gaba.methods.get("inverse", **slots)
        anchor = "b" if slot == "anchor" else None
        return gaba.Balancer(list("abc"), [theta], method, anchor=anchor)

    whole = make_named()
    run(whole, theta, 0, 50)
    first = make_named()
    run(first, theta, 0, 25)
    saved = pickle.loads(pickle.dumps(first.state_dict()))
    second = make_named()
    second.load_state_dict(saved)
    run(second, theta, 25, 50)
    assert_same_state(second.state_dict(), whole.state_dict())
    np.testing.assert_array_equal(second.history.multipliers, whole.history.multipliers[25:])
    np.testing.assert_array_equal(second.history.steps, whole.history.steps[25:])


def test_state_of_other_tasks_is_refused_and_changes_nothing() -> None:
    theta = torch.nn.Parameter(torch.zeros(3))
    one = gaba.Balancer(list("abc"), [theta])
    run(one, theta, 0, 5)
    other = gaba.Balancer(["a", "b", "z"], [theta])
    before = other.state_dict()
    with pytest.raises(ValueError, match="'z'"):
        other.load_state_dict(one.state_dict())
    assert_same_state(other.state_dict(), before)


def test_state_exists_from_construction_and_hands_out_no_alias() -> None:
    theta = torch.nn.Parameter(torch.zeros(3))
    balancer = gaba.Balancer(list("abc"), [theta], method="paper")
    saved = balancer.state_dict()
    names = set(saved)
    kept = copy.deepcopy(saved)
    run(balancer, theta, 0, 5)
    assert set(balancer.state_dict()) == names
    assert_same_state(saved, kept)
    for value in balancer.state_dict().values():
        if isinstance(value, torch.Tensor):
            value.fill_(0)
    assert sum(balancer.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_change_of_dtype_leaves_the_state_exact(dtype: torch.dtype) -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    balancer.backward(model.losses(batch()))
    before = balancer.state_dict()
    nest = torch.nn.ModuleDict({"model": model, "balancer": balancer}).to(dtype)
    assert_same_state(balancer.state_dict(), before)
    step = balancer.backward(model.losses(batch(dtype=dtype)))
    assert step.multipliers.dtype == torch.float64
    assert next(nest["model"].parameters()).dtype == dtype


def test_the_balancer_owns_no_parameter_of_the_model() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    assert list(balancer.parameters()) == []
    assert not any("trunk" in name for name in balancer.state_dict())


@pytest.mark.parametrize("how", SHARED)
def test_copies_by_deepcopy_and_pickle_train_on_their_own(how: str) -> None:
    model = TwoStage([1.0, 50.0])
    pair = torch.nn.ModuleDict({"m": model, "b": gaba.Balancer(model.names, shared_of(model, how))})
    balancer: Any = pair["b"]
    balancer.backward(model.losses(batch()))
    for twin in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        twin.zero_grad()
        copied: Any = twin
        step = copied["b"].backward(copied["m"].losses(batch(1)))
        assert float(step.weights.sum()) == pytest.approx(1)
        assert grads(copied["m"]).keys() == grads(model).keys()


def test_reset_forgets() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    new = balancer.state_dict()
    balancer.backward(model.losses(batch()))
    balancer.reset()
    assert_same_state(balancer.state_dict(), new)


# ---- cost: passes, graph, device ----------------------------------------------------------


class CountingTrunk(torch.autograd.Function):
    """The identity, which counts how often a backward pass goes through it."""

    passes = 0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        CountingTrunk.passes += 1
        return grads[0]


def counted(model: TwoStage, balancer: gaba.Balancer) -> int:
    CountingTrunk.passes = 0
    model.zero_grad()
    z = CountingTrunk.apply(model.trunk(batch()))
    heads = zip(model.names, model.heads, strict=True)
    balancer.backward({name: head(z).square().mean() for name, head in heads})
    return CountingTrunk.passes


@pytest.mark.parametrize("k", [2, 5])
def test_k_passes_in_all_and_one_where_norms_are_not_needed(k: int) -> None:
    model = TwoStage([1.0] * k)
    assert counted(model, gaba.Balancer(model.names, model.trunk, "inverse")) == k
    assert counted(model, gaba.Balancer(model.names, model.trunk, "equal-share")) == k
    assert counted(model, gaba.Balancer(model.names, model.trunk, "uniform")) == 1
    every = gaba.Balancer(model.names, model.trunk, "inverse", every=3)
    assert [counted(model, every) for _ in range(6)] == [k, 1, 1, k, 1, 1]
    assert every.history.measured.tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("hook", ["tensor", "post-accumulate"])
def test_a_listener_gets_one_real_backward_pass(hook: str) -> None:
    model, x = TwoStage([1.0, 50.0], dtype=torch.float64), batch(dtype=torch.float64)
    weight = model.trunk.get_parameter("0.weight")
    heard: list[torch.Tensor] = []
    if hook == "tensor":
        weight.register_hook(lambda g: heard.append(g.clone()))
    else:
        weight.register_post_accumulate_grad_hook(lambda p: heard.append(p.grad.clone()))
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(x))
    assert step.combined == "backward"
    # a tensor hook hears the per-task passes too, the last call is the combined gradient
    assert len(heard) == (3 if hook == "tensor" else 1)
    torch.testing.assert_close(heard[-1], weight.grad)
    found = grads(model)
    assert_same_grads(found, plain_step(model, x, factors(model, step)))


def test_an_optimizer_that_steps_inside_the_backward_pass() -> None:
    model = TwoStage([1.0, 50.0])
    before = [p.detach().clone() for p in model.parameters()]

    def step_now(p: torch.Tensor) -> None:
        with torch.no_grad():
            p -= 0.1 * p.grad  # type: ignore[operator]
        p.grad = None

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    assert step.combined == "backward"
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_plain_heads_are_refused_where_someone_listens() -> None:
    model = TwoStage([1.0, 50.0])
    model.trunk.get_parameter("0.weight").register_hook(lambda g: None)
    with pytest.raises(ValueError, match="heads='weighted'"):
        gaba.Balancer(model.names, model.trunk, PLAIN_HEADS).backward(model.losses(batch()))
    assert not grads(model)


class Token:
    """Something that lives as long as the node of the graph that holds it."""


class HoldsToken(torch.autograd.Function):
    """The identity, whose node in the graph holds a token."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, token: Token) -> torch.Tensor:
        ctx.token = token
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


@pytest.mark.parametrize("how", SHARED)
def test_no_graph_is_kept_alive(how: str) -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, shared_of(model, how))
    token = Token()
    alive = weakref.ref(token)
    losses = model.losses(HoldsToken.apply(batch().requires_grad_(), token))
    del token
    gc.collect()
    assert alive() is not None
    step = balancer.backward(losses)
    del losses
    gc.collect()
    assert alive() is None
    assert not any(getattr(step, n).requires_grad for n in ("losses", "norms", "multipliers"))


@pytest.mark.parametrize("method", ["gaba", "inverse", "paper", "equal-share", "equal-projection"])
@pytest.mark.parametrize(
    "scale", ["sum", *(pytest.param(s, marks=pytest.mark.slow) for s in ("max", "geometric"))]
)
def test_the_hot_path_never_waits_for_the_device(method: str, scale: Any) -> None:
    """On a device without data every look at a value raises; only ``asdict`` looks."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        trunk, heads = torch.nn.Linear(3, 4, device="meta"), torch.nn.Linear(4, 2, device="meta")
        smooth = gaba.stabilisers.Floor(0.1, mode="project")
        made = gaba.methods.get(method, smooth=smooth, every=1)
        balancer = gaba.Balancer(["a", "b"], trunk, made, scale=scale)
        for _ in range(3):
            z = heads(trunk(torch.ones(5, 3, device="meta")))
            balancer.backward({"a": z[:, 0].mean(), "b": z[:, 1].square().mean()})
        step = balancer.backward({"a": heads(trunk(torch.ones(5, 3, device="meta"))).mean()})
        assert step.multipliers.device.type == "meta"
        assert trunk.weight.grad is not None
        with pytest.raises(DataDependentOutputException):
            step.asdict()


def test_frozen_parameters_are_left_alone() -> None:
    model = TwoStage([1.0, 50.0])
    model.trunk[0].requires_grad_(False)
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    assert model.trunk[0].weight.grad is None
    assert bool((step.norms > 0).all())


def test_auto_finds_what_two_losses_reach_and_keeps_it_when_a_task_is_missing() -> None:
    model = TwoStage([1.0, 50.0, 4.0])
    balancer = gaba.Balancer(model.names, "auto")
    first = balancer.backward(model.losses(batch()))
    model.zero_grad()
    by_name = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    model.zero_grad()
    assert torch.equal(first.norms, by_name.norms)
    alone = balancer.backward({"task1": model.losses(batch())["task1"]})
    torch.testing.assert_close(alone.norms[1], by_name.norms[1])


def test_what_a_person_sees_of_a_balancer_a_step_and_a_method() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk, "inverse", fixed={"kl": 0.1})
    step = balancer.backward(model.losses(batch()))
    said = (
        "Balancer(task0, task1, fixed kl 0.1; method 'inverse'; 4 shared parameters (101 numbers)"
    )
    assert repr(balancer) == f"{said}; 1 step)"
    a, b = step.losses.tolist()
    assert repr(step).startswith(f"Step 0 of task0, task1: losses {a:.4g}, {b:.4g}; norms ")
    assert "nan" not in repr(
        gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    )
    method = gaba.methods.get("inverse", limit=None)
    assert repr(method) == "Method(InverseNorm(power=1.0), limit=None)"
    assert repr(gaba.methods.get("uniform")).startswith("Method(Uniform(), believe=Identity()")


def test_a_result_that_nobody_trains_on_is_told_once() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk, every=1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for n in range(20):
            losses: Any = model.losses(batch(n))
            balancer(losses)
            sum(losses.values(), start=torch.zeros(())).backward()
    (warning,) = heard
    assert "balancer(losses) returns was not trained on" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        used = gaba.Balancer(model.names, model.trunk, every=1)
        for n in range(20):
            total = used(model.losses(batch(n)))
            if n % 3:  # a step may be left out
                total.backward()
        observer = gaba.Observer(model.names, model.trunk, every=1)
        for n in range(20):
            observer(model.losses(batch(n)))


@pytest.mark.parametrize("method", ["gaba", "inverse", "observe"])
def test_a_loss_that_reaches_nothing_for_long_is_named_once(method: str) -> None:
    model = TwoStage([1.0, 2.0, 5.0])
    balancer = gaba.Balancer(model.names, model.trunk, method, every=1)
    step = balancer.backward(model.losses(batch()))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for n in range(250):
            apart = model.heads[1](torch.ones(5)).sum()
            step = balancer.backward(_losses(model, task1=apart))
            assert len(heard) == (n >= 100), n
    assert "losses['task1'] has reached no shared parameter" in str(heard[0].message)
    assert step.about["unreached"] == "task1"
    balancer.backward(model.losses(batch()))
    assert "unreached" not in balancer.backward(model.losses(batch())).about


@pytest.mark.parametrize("method", ["gaba", "inverse", "paper", "uncertainty", "observe"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_eval_is_the_same_for_backward_and_forward(method: str, accumulate: int) -> None:
    """The multipliers are used as they are; nothing is learnt and nothing recorded."""
    if (method, accumulate) == ("observe", 3):
        method = "equal-share"
    model = TwoStage([1.0, 50.0], dtype=torch.float64)
    balancer = gaba.Balancer(model.names, model.trunk, method, accumulate=accumulate)
    x = batch(dtype=torch.float64)
    for _ in range(4):
        balancer.backward(model.losses(x))
    before, last = balancer.state_dict(), balancer.last_step
    multipliers = balancer.multipliers
    balancer.eval()
    found = []
    for by_hand in (True, False):
        model.zero_grad()
        if by_hand:
            step = balancer.backward(model.losses(x))
            assert not step.measured
            assert dict(zip(model.names, step.multipliers.tolist(), strict=True)) == multipliers
        else:
            balancer(model.losses(x)).backward()
        found.append(grads(model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)
    assert len(balancer.history) == 4
    assert balancer.last_step is last
    after = balancer.state_dict()
    assert after.pop("_extra_state") == before.pop("_extra_state")
    assert_same_state(after, before)
