"""What every rule on norms keeps, on every family of norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _asserts import (
    NoCheckedLinearAlgebra,
    NoHostSync,
    SynchronisationError,
    assert_batched_like_loop,
    assert_no_host_sync,
    assert_on_simplex,
    assert_permutation_equivariant,
    assert_same_on_numpy_and_torch,
    assert_scale_invariant,
    assert_zero_like_absent,
)
from _inputs import BATCH_SHAPES, norm_families, norms_with_zeros
from gaba.rules import Gaba, InverseNorm, LogInverse, RankInverse, Rule

RULES: dict[str, Rule] = {
    "gaba": Gaba(),
    "inverse": InverseNorm(),
    "square root": InverseNorm(power=0.5),
    "inverse variance": InverseNorm(power=2),
    "uniform power": InverseNorm(power=0),
    "log-inverse": LogInverse(),
    "rank-inverse": RankInverse(),
}
NORMS = norm_families()
ZEROS = norms_with_zeros()


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule:
    return RULES[request.param]


@pytest.mark.parametrize("name", NORMS)
def test_weights_of_every_family(rule: Rule, name: str) -> None:
    norms = NORMS[name]
    assert_on_simplex(rule(norms))
    assert_permutation_equivariant(rule, norms)
    assert_scale_invariant(rule, norms)
    assert_same_on_numpy_and_torch(rule, norms)


@pytest.mark.parametrize("shape", BATCH_SHAPES)
def test_any_batch_shape(rule: Rule, shape: tuple[int, ...]) -> None:
    norms = np.exp(np.random.default_rng(1).standard_normal((*shape, 5)))
    norms[..., 0] *= np.random.default_rng(2).integers(0, 2, shape)
    assert_batched_like_loop(rule, norms)
    assert_same_on_numpy_and_torch(rule, norms)


@pytest.mark.parametrize("name", ZEROS)
def test_a_task_without_a_gradient_gets_the_uniform_weight(rule: Rule, name: str) -> None:
    if not isinstance(rule, Gaba):  # the published formula stands as it is
        assert_zero_like_absent(rule, ZEROS[name])
    assert_same_on_numpy_and_torch(rule, ZEROS[name])


def test_the_published_formula_holds_for_a_norm_of_zero() -> None:
    assert Gaba()(np.array([0.0, 3.0])).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(Gaba()(np.array([0.0, 3.0, 1.0])), [1 / 2, 1 / 8, 3 / 8])


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_no_gradient_at_all_is_uniform(rule: Rule, n_tasks: int) -> None:
    assert rule(np.zeros(n_tasks)).tolist() == [1 / n_tasks] * n_tasks


def test_one_task_gets_everything(rule: Rule) -> None:
    for norm in (1e-23, 3.0, 1e20):
        assert rule(np.array([norm])).tolist() == [1.0]


@pytest.mark.parametrize("norms", [[np.nan, 1.0], [0.0, np.nan, 2.0], [np.nan]])
def test_nan_propagates_and_stays_in_its_row(rule: Rule, norms: list[float]) -> None:
    batch = np.array([norms, np.ones(len(norms))])
    for weights in (rule(batch), rule(torch.tensor(batch)).numpy()):
        assert np.isnan(weights[0]).all()
        assert_on_simplex(weights[1])


def test_only_infinite_norms_are_not_silently_weighed(rule: Rule) -> None:
    weights = rule(torch.tensor([torch.inf, torch.inf])).numpy()
    assert np.isnan(weights).all() or weights.tolist() == [0.5, 0.5]


def test_louder_tasks_never_weigh_more(rule: Rule) -> None:
    for norms in NORMS.values():
        weights = rule(norms)[np.argsort(norms)]
        assert (np.diff(weights) <= 1e-15 * weights[1:]).all()


def test_negative_norms_are_refused_on_the_host(rule: Rule) -> None:
    with pytest.raises(ValueError, match=r"norms must be zero or more, found -2"):
        rule(np.array([1.0, -2.0]))


@pytest.mark.parametrize("norms", [np.array(1.0), np.empty((3, 0))])
def test_norms_without_tasks_are_refused(rule: Rule, norms: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"norms must have shape \(..., K\)"):
        rule(norms)


def test_no_host_sync(rule: Rule) -> None:
    assert_no_host_sync(rule, np.array([[5.0, 0.01, 0.0], [1.0, 2.0, 3.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_weights_are_float64_whatever_comes_in(rule: Rule, dtype: torch.dtype) -> None:
    norms = torch.tensor([[8.0, 2.0, 0.0, 1.0]]).to(dtype)
    weights = rule(norms)
    assert weights.dtype == torch.float64
    assert torch.equal(weights, rule(norms.double()))


def test_the_guard_against_waiting_sees_waiting() -> None:
    tensor = torch.ones(2, 2)
    waits = [
        lambda: tensor.sum().item(),
        lambda: bool(tensor[0, 0] > 0),
        lambda: tensor[tensor > 0],
        lambda: torch.tensor([1.0, 2.0]),
        lambda: torch.equal(tensor, tensor),
        lambda: torch.linalg.cholesky(tensor),
        lambda: torch.linalg.solve(tensor, tensor),
        lambda: torch.linalg.cholesky_ex(tensor, check_errors=True),
    ]
    for wait in waits:
        with NoHostSync(), NoCheckedLinearAlgebra(), pytest.raises(SynchronisationError):
            wait()
