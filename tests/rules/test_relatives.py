"""The rules of other fields: where they come to rest, what they keep, what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from _asserts import (
    NoHostSync,
    assert_batched_like_loop,
    assert_equal_contributions,
    assert_no_host_sync,
    assert_on_simplex,
    assert_permutation_equivariant,
    assert_same_on_numpy_and_torch,
)
from _inputs import norm_families
from _streams import parts
from gaba import state as states
from gaba.rules import PINN, VQGAN, EnCodec, InverseNorm, PINNAnnealing, Seen

POSITIVE = {
    name: norms
    for name, norms in norm_families().items()
    if np.isfinite(norms).all() and (norms > 1e-9).all() and norms.ndim == 1
}
families = pytest.mark.parametrize("name", POSITIVE)


def seen(norms: Any) -> Seen:
    """Norms (K,), with largest entries of twice and mean entries of a tenth of them."""
    values = torch.as_tensor(norms, dtype=torch.float64)
    return Seen(values, values, statistics=torch.stack([2 * values, values / 10], -1))


def settled(rule: Any, norms: Any, steps: int = 400) -> Tensor:
    """The weights that a rule comes to when the norms stay as they are."""
    told = seen(norms)
    weights, state = rule.update(told, rule.init(len(told.losses)))
    for _ in range(steps):
        weights, state = rule.update(told, state)
    return weights


def test_there_are_families() -> None:
    assert len(POSITIVE) >= 3


@families
def test_encodec_gives_each_its_part_of_the_total(name: str) -> None:
    norms = POSITIVE[name]
    ratios = np.arange(1.0, len(norms) + 1)
    raw = EnCodec(tuple(ratios), total_norm=3.0).raw(norms)
    np.testing.assert_allclose(raw * norms, 3 * ratios / ratios.sum(), rtol=1e-2)
    exact = EnCodec(tuple(ratios), total_norm=3.0, epsilon=1e-30).raw(norms)
    np.testing.assert_allclose(exact * norms, 3 * ratios / ratios.sum(), rtol=1e-12)
    equal = EnCodec(epsilon=1e-30)
    np.testing.assert_allclose(equal(norms), InverseNorm()(norms), rtol=1e-12)
    assert_on_simplex(equal(norms))
    assert_permutation_equivariant(equal, norms)
    assert_same_on_numpy_and_torch(equal.raw, norms)
    assert_same_on_numpy_and_torch(equal, norms)


def test_encodec_in_batches_and_without_waiting() -> None:
    norms = np.random.default_rng(0).random((4, 2, 3)) + 0.1
    rule = EnCodec((1, 2, 3))
    assert_batched_like_loop(rule, norms)
    assert_batched_like_loop(rule.raw, norms)
    assert_no_host_sync(rule, norms)
    unknown = torch.tensor([5.0, torch.nan, 0.5], dtype=torch.float64)
    raw, _ = rule.update(Seen(unknown, unknown), rule.init(3))
    torch.testing.assert_close(
        raw[[0, 2]], EnCodec((1, 3)).raw(unknown[[0, 2]]), rtol=1e-15, atol=0
    )
    assert EnCodec()(np.array([7.0])).tolist() == [1.0]
    assert np.isnan(EnCodec()(np.array([np.nan, 1.0]))).all()
    assert EnCodec(epsilon=1e-3).raw(np.array([0.0, 1.0]))[0] == pytest.approx(500.0)


@families
@pytest.mark.parametrize("total", ["sum", "mean"])
def test_pinn_comes_to_rest_at_equal_contributions(name: str, total: Any) -> None:
    norms = POSITIVE[name]
    weights = settled(PINN(total=total), norms).numpy()
    assert_equal_contributions(weights, norms)
    length = norms.sum() if total == "sum" else norms.mean()
    np.testing.assert_allclose(weights * norms, length, rtol=1e-8)
    np.testing.assert_allclose(weights / weights.sum(), InverseNorm()(norms), rtol=1e-8)


@families
def test_annealing_comes_to_rest_at_largest_over_mean(name: str) -> None:
    norms = POSITIVE[name]
    expected = 20 * norms[0] / norms
    expected[0] = 1
    np.testing.assert_allclose(settled(PINNAnnealing(), norms), expected, rtol=1e-8)


def test_annealing_with_weighted_gradients_comes_to_the_square_root() -> None:
    norms = np.array([2.0, 0.5, 8.0])
    weights = settled(PINNAnnealing(weighted=True), norms)
    np.testing.assert_allclose(weights[1:], np.sqrt(20 * norms[0] / norms[1:]), rtol=1e-8)


@families
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_vqgan_brings_every_other_to_the_pull_of_the_reference(name: str, weight: float) -> None:
    norms = POSITIVE[name]
    for reference in (0, len(norms) - 1):
        rule = VQGAN(weight=weight, epsilon=1e-30, most=1e30, reference=reference)
        weights, _ = rule.update(seen(norms), rule.init(len(norms)))
        pulls = weights.numpy() * norms
        assert weights[reference] == 1
        others = np.delete(pulls, reference)
        np.testing.assert_allclose(others, weight * norms[reference], rtol=1e-12)


RULES: dict[str, Any] = {
    "vqgan": VQGAN(start=1),
    "pinn": PINN(),
    "annealing": PINNAnnealing(),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def taught(rule: Any) -> Any:
    """The weights after three steps of the same norms, and the state."""
    told = seen([3.0, 1.0, 0.5])
    _, state = rule.update(told, rule.init(3))
    _, state = rule.update(told, state)
    return rule.update(told, state)


@every_rule
def test_a_missing_task_keeps_its_weight(rule: Any) -> None:
    before, state = taught(rule)
    weights, after = rule.update(seen([5.0, torch.nan, 0.1]), state)
    assert all(torch.equal(dict(parts(after, 3))[name][1], old[1]) for name, old in parts(state, 3))
    assert weights[1] == before[1]
    assert bool(weights.isfinite().all())
    assert weights[2] != before[2]


@pytest.mark.parametrize("name", ["vqgan", "annealing"])
def test_without_the_reference_all_weights_stay(name: str) -> None:
    rule = RULES[name]
    before, state = taught(rule)
    weights, _ = rule.update(seen([torch.nan, 2.0, 9.0]), state)
    assert torch.equal(weights, before)


@pytest.mark.parametrize("name", ["pinn", "annealing"])
def test_a_task_without_a_gradient_keeps_its_weight(name: str) -> None:
    rule = RULES[name]
    weights, _ = rule.update(seen([3.0, 0.0, 0.5]), rule.init(3))
    assert weights[1] == 1
    assert bool(weights.isfinite().all())


def test_vqgan_bounds_what_a_silent_adversary_would_get() -> None:
    rule = VQGAN(weight=0.5)
    weights, _ = rule.update(seen([3.0, 0.0, 1e-9]), rule.init(3))
    assert weights.tolist() == [1.0, 5000.0, 5000.0]


@every_rule
def test_pure_and_without_waiting_for_the_device(rule: Any) -> None:
    state, told = rule.init(2), seen([3.0, 1.0])
    copies = {key: value.clone() for key, value in states.flatten(state).items()}
    with NoHostSync():
        weights, after = rule.update(told, state)
    for key, value in copies.items():
        assert torch.equal(value, states.flatten(state)[key])
    assert weights.dtype == torch.float64
    again, _ = rule.update(told, state)
    assert torch.equal(weights, again)
    nowhere, statistics = told.losses.to("meta"), torch.empty(2, 2, device="meta")
    meta = Seen(nowhere, nowhere, None, statistics)
    moved = {key: value.to("meta") for key, value in states.flatten(after).items()}
    assert rule.update(meta, states.unflatten(after, moved))[0].shape == (2,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: VQGAN(weight=-1.0),
            "VQGAN: weight must be finite and zero or more, found -1.0; 1 lets",
        ),
        (
            lambda: VQGAN(epsilon=0.0),
            "VQGAN: epsilon must be finite and positive, found 0.0; leave it out",
        ),
        (lambda: VQGAN(most=float("inf")), "most must be finite and positive, found inf"),
        (lambda: VQGAN(start=-1), "start must be an int of at least 0, found -1"),
        (lambda: VQGAN(reference=2).init(2), "one of the 2 tasks, found 2"),
        (lambda: EnCodec((1, 0)), "ratios must be finite and positive, found 0"),
        (lambda: EnCodec(total_norm=0.0), "total_norm must be finite and positive"),
        (lambda: EnCodec((1, 2))(np.ones(3)), "found 2 for 3 tasks; give 3"),
        (lambda: EnCodec()(np.array([-1.0, 1.0])), "norms must be zero or more"),
        (lambda: PINN(decay=1.0), r"decay must lie in \[0, 1\), found 1.0"),
        (lambda: PINN(total="max"), "total must be 'sum' or 'mean', found 'max'"),  # type: ignore[arg-type]
        (lambda: PINNAnnealing(decay=-0.1), r"decay must lie in \[0, 1\)"),
        (lambda: PINNAnnealing(reference=-1), "reference must be an int of at least 0, found -1"),
        (lambda: PINNAnnealing(reference=3).init(3), "one of the 3 tasks, found 3"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
