"""What the rules on Gramians keep: equal shares, equal projections, and their fallbacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls
from torchjd.aggregation import FairGradWeighting, IMTLGWeighting

from _asserts import (
    assert_batched_like_loop,
    assert_equal_projections,
    assert_equal_shares,
    assert_no_host_sync,
    assert_on_simplex,
    assert_permutation_equivariant,
    assert_same_on_numpy_and_torch,
    assert_scale_invariant,
    assert_zero_like_absent,
    projections,
    share_parts,
)
from _inputs import (
    BATCH_SHAPES,
    cosines_of,
    gramian_families,
    gramian_of,
    random_gramians,
    with_norms,
)
from gaba.measures import shares
from gaba.rules import EqualProjection, EqualShare, Rule

RULES: dict[str, Rule] = {"share": EqualShare(), "projection": EqualProjection()}
GRAMIANS = gramian_families(100)
WELL_CONDITIONED = ("orthogonal", "random", "alternating", "one against all")


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule:
    return RULES[request.param]


# ---- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAMIANS)
def test_weights_of_every_family_are_on_the_simplex(rule: Rule, name: str) -> None:
    assert_on_simplex(rule(GRAMIANS[name]))
    assert_same_on_numpy_and_torch(rule, GRAMIANS[name], rtol=1e-9)


@pytest.mark.parametrize("name", WELL_CONDITIONED)
def test_order_and_unit_do_not_matter(name: str) -> None:
    gramian = GRAMIANS[name]
    assert_permutation_equivariant(EqualShare(), gramian, gramian=True, rtol=1e-9)
    assert_scale_invariant(EqualShare(), gramian, (1e-6, 49.0, 1e6), rtol=1e-9)


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 10])
def test_order_and_unit_do_not_matter_to_a_batch(rule: Rule, n_tasks: int) -> None:
    # Weights that the rule makes 0 are 0 only to about 1e-12, hence the absolute comparison.
    gramians = random_gramians(n_tasks)
    weights = rule(gramians)
    order = np.random.default_rng(0).permutation(n_tasks)
    again = rule(gramians[:, order][:, :, order])
    np.testing.assert_allclose(again, weights[:, order], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(rule(1e-40 * gramians), weights, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", BATCH_SHAPES)
def test_any_batch_shape(rule: Rule, shape: tuple[int, ...]) -> None:
    gradients = np.random.default_rng(1).standard_normal((*shape, 4, 12))
    gradients[..., 0, :] *= np.random.default_rng(2).integers(0, 2, (*shape, 1))
    assert_batched_like_loop(rule, gramian_of(gradients), n_core=2, rtol=1e-9, atol=1e-12)


def test_a_task_without_a_gradient_gets_the_uniform_weight(rule: Rule) -> None:
    gradients = np.random.default_rng(3).standard_normal((5, 20)) + 1
    gradients[[1, 4]] = 0
    assert_zero_like_absent(rule, gramian_of(gradients), gramian=True, rtol=1e-9)
    np.testing.assert_array_equal(rule(np.zeros((4, 4))), np.full(4, 0.25))


def test_one_task_gets_everything(rule: Rule) -> None:
    assert rule(np.array([[1e-46]])).tolist() == [1.0]
    assert rule(np.array([[1e40]])).tolist() == [1.0]


@pytest.mark.parametrize("where", [(0, 0), (0, 1)])
def test_nan_propagates_and_stays_in_its_matrix(rule: Rule, where: tuple[int, int]) -> None:
    batch = np.stack([np.eye(3), np.eye(3)])
    batch[(0, *where)] = np.nan
    weights = rule(batch)
    assert np.isnan(weights[0]).all()
    np.testing.assert_allclose(weights[1], 1 / 3)


@pytest.mark.parametrize("broken", [np.inf, -np.inf])
def test_an_infinite_gramian_is_not_silently_weighed(rule: Rule, broken: float) -> None:
    gramian = torch.eye(2, dtype=torch.float64)
    gramian[0, 0] = broken
    assert torch.isnan(rule(gramian)).all()


def test_no_host_sync(rule: Rule) -> None:
    gramians = random_gramians(3)
    gramians[0, 0, :] = gramians[0, :, 0] = 0
    gramians[1] = 1
    assert_no_host_sync(rule, gramians)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_weights_are_float64_whatever_comes_in(rule: Rule, dtype: torch.dtype) -> None:
    gramian = torch.tensor([[8.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 4.0]]).to(dtype)
    weights = rule(gramian)
    assert weights.dtype == torch.float64
    assert torch.equal(weights, rule(gramian.double()))


def test_what_is_passed_is_left_as_it_was(rule: Rule) -> None:
    gramian = GRAMIANS["random"].copy()
    gramian.flags.writeable = False
    rule(gramian)
    tensor = torch.tensor(gramian)
    rule(tensor)
    np.testing.assert_array_equal(tensor.numpy(), gramian)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 0)])
def test_what_is_no_square_is_refused(rule: Rule, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        rule(np.ones(shape))


def test_negative_squared_norms_are_refused_on_the_host(rule: Rule) -> None:
    with pytest.raises(ValueError, match="diagonal must be zero or more, found -1"):
        rule(np.diag([1.0, -1.0]))


@pytest.mark.parametrize("seed", range(5))
def test_a_matrix_that_is_no_gramian_still_gives_weights(rule: Rule, seed: int) -> None:
    symmetric = np.random.default_rng(seed).standard_normal((50, 6, 6))
    indefinite = symmetric + np.swapaxes(symmetric, -1, -2) + 3 * np.eye(6)
    assert_on_simplex(rule(indefinite * (1 - np.eye(6)) + 3 * np.eye(6)))


# ---- equal shares --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAMIANS)
def test_shares_are_equal_at_100_tasks_singular_or_not(name: str) -> None:
    assert_equal_shares(EqualShare()(GRAMIANS[name]), GRAMIANS[name], rtol=1e-10)
    assert_equal_shares(EqualShare(iterations=50)(GRAMIANS[name]), GRAMIANS[name], rtol=1e-10)


@pytest.mark.parametrize("n_tasks", [2, 3, 5, 10, 40])
def test_shares_are_equal_for_any_number_of_tasks(n_tasks: int) -> None:
    gramians = random_gramians(n_tasks)
    assert_equal_shares(EqualShare()(gramians), gramians, rtol=1e-10)
    for gramian in gramian_families(n_tasks).values():
        assert_equal_shares(EqualShare()(gramian), gramian, rtol=1e-10)


def test_rounding_a_singular_gramian_to_float32_does_no_harm() -> None:
    gradients = np.abs(np.random.default_rng(0).standard_normal((20, 30, 4))).astype(np.float32)
    gramians = gramian_of(gradients.astype(np.float64)).astype(np.float32)
    exact = gramians.astype(np.float64)
    assert (np.linalg.eigvalsh(exact)[:, 0] < -1e-8).all()
    assert_equal_shares(EqualShare()(torch.tensor(gramians)).numpy(), exact, rtol=1e-10)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_near_cancellation_costs_digits_in_proportion(gap: float) -> None:
    # The combined update is about sqrt(gap/2) of the contributions: rounding grows as its inverse
    # square.
    for n_tasks in (2, 3, 10):
        rng = np.random.default_rng(n_tasks)
        base = rng.standard_normal((n_tasks, 40))
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        pairs = np.concatenate([base, -base + np.sqrt(2 * gap / 40) * rng.standard_normal(40)])
        gramian = gramian_of(pairs)
        assert_equal_shares(EqualShare()(gramian), gramian, rtol=1e-10 + 1e-13 / gap)


@pytest.mark.parametrize("reach", [1.4, 1.5, 1.55, 1.565, 1.57, 1.5705])
def test_shares_are_equal_to_what_the_docstring_promises(reach: float) -> None:
    # 100 directions in a plane that leave ever less than a half turn for a common descent.
    angles = np.linspace(-reach, reach, 100)
    gramian = gramian_of(np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    weights = EqualShare()(gramian)
    left = np.sqrt(share_parts(weights, gramian).sum())  # of Σ λ_k g_k, which is 1 here
    assert_equal_shares(weights, gramian, rtol=1e-10 if left > 0.1 else 1e-12 / left**2)


@pytest.mark.parametrize("n_tasks", [3, 6])
def test_the_same_minimum_as_a_general_optimiser(n_tasks: int) -> None:
    for gramian in random_gramians(n_tasks, count=4):
        found = minimize(
            lambda x, G=gramian: (
                0.5 * np.exp(x) @ G @ np.exp(x) - x.sum(),
                np.exp(x) * (G @ np.exp(x)) - 1,
            ),
            -0.5 * np.log(np.diag(gramian)),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-9},
        )
        expected = np.exp(found.x) / np.exp(found.x).sum()
        np.testing.assert_allclose(EqualShare()(gramian), expected, rtol=1e-5)


@pytest.mark.parametrize("n_tasks", [2, 4, 8])
def test_torchjd_solves_the_same_system(n_tasks: int) -> None:
    peer = FairGradWeighting(alpha=1.0)  # at alpha 1 it is Gλ = 1/λ, the system of Nash-MTL
    for gramian in random_gramians(n_tasks, count=4):
        scaled = gramian / gramian.max()
        weights = peer(torch.tensor(scaled)).numpy()
        np.testing.assert_allclose(EqualShare()(scaled), weights / weights.sum(), rtol=1e-4)


def test_exactly_opposite_gradients_take_the_weight() -> None:
    norms = np.array([2.0, 0.5, 1.0])
    cosines = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    gramian = with_norms(cosines, norms)
    for tasks in ([0, 1], [0, 1, 2]):
        part = gramian[np.ix_(tasks, tasks)]
        weights = EqualShare()(part)
        assert_on_simplex(weights)
        np.testing.assert_allclose(weights[:2], [0.2, 0.8], atol=1e-6)
        assert np.sqrt(max(weights @ part @ weights, 0)) < 1e-6 * (weights @ norms[tasks])


def test_the_fallback_is_the_limit_of_the_rule() -> None:
    def gramian(gap: float) -> np.ndarray:
        cosines = np.eye(3)
        cosines[0, 1] = cosines[1, 0] = gap - 1
        return with_norms(cosines, np.array([2.0, 0.5, 1.0]))

    limit = EqualShare()(gramian(0.0))
    distances = [np.abs(EqualShare()(gramian(gap)) - limit).max() for gap in (1e-2, 1e-4, 1e-6)]
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert distances[2] < 2e-3


def test_three_gradients_that_cancel_out_are_weighed_equally() -> None:
    angles = 2 * np.pi * np.arange(3) / 3
    star = gramian_of(np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    for rule in RULES.values():
        np.testing.assert_allclose(rule(star), 1 / 3, atol=1e-6)


def test_too_few_iterations_are_refused() -> None:
    with pytest.raises(
        ValueError, match="iterations must be an int of at least 1, found 0; 30 is enough"
    ):
        EqualShare(iterations=0)


# ---- equal projections ---------------------------------------------------------------------------


def imtl_g(gramian: np.ndarray) -> np.ndarray:
    """IMTL-G as TorchJD solves it, for comparison."""
    return IMTLGWeighting()(torch.tensor(gramian)).numpy()


@pytest.mark.parametrize("n_tasks", [2, 3, 5, 10])
def test_it_is_imtl_g_wherever_that_stays_on_the_simplex(n_tasks: int) -> None:
    compared = 0
    rng = np.random.default_rng(n_tasks)
    nearly_orthogonal = gramian_of(rng.standard_normal((20, n_tasks, 60 * n_tasks)))
    for gramian in (*random_gramians(n_tasks), *nearly_orthogonal):
        expected = imtl_g(gramian)
        weights = EqualProjection()(gramian)
        if (expected >= 0).all():
            compared += 1
            np.testing.assert_allclose(weights, expected, rtol=1e-8)
            assert_equal_projections(weights, gramian)
    assert compared >= 5


def test_where_imtl_g_is_negative_the_others_are_equal_and_it_gets_more() -> None:
    fallbacks = 0
    for gramian in random_gramians(10, count=40):
        if (imtl_g(gramian) >= 0).all():
            continue
        fallbacks += 1
        weights = EqualProjection()(gramian)
        assert_on_simplex(weights)
        along = projections(weights, gramian)
        carried = weights > 1e-8
        assert not carried.all()
        np.testing.assert_allclose(along[carried], along[carried].mean(), rtol=1e-7)
        assert (along >= along[carried].mean() * (1 - 1e-7)).all()
    assert fallbacks >= 5


@pytest.mark.parametrize("name", GRAMIANS)
def test_it_is_the_shortest_vector_in_the_hull_of_the_unit_gradients(name: str) -> None:
    norms = np.sqrt(np.diag(GRAMIANS[name]))
    cosines = GRAMIANS[name] / np.outer(norms, norms)
    lengths = EqualProjection()(GRAMIANS[name]) * norms
    lengths /= lengths.sum()
    root = np.linalg.cholesky(cosines + 1e-11 * np.eye(100)).T
    oracle, _ = nnls(root, np.linalg.solve(root.T, np.ones(100)), maxiter=100_000)
    oracle /= oracle.sum()
    shortest = oracle @ cosines @ oracle
    assert lengths @ cosines @ lengths == pytest.approx(shortest, rel=1e-6)


def test_the_fallback_meets_the_closed_form_where_a_weight_reaches_0() -> None:
    # The third gradient lies between the other two; at some slant it is just not needed.
    slants = np.linspace(-0.3, 0.6, 901)
    gradients = np.zeros((901, 3, 3))
    gradients[:, 0, 0] = gradients[:, 1, 1] = gradients[:, 2, 2] = 1
    gradients[:, 2, 0] = gradients[:, 2, 1] = 0.5 + slants
    path = EqualProjection()(gramian_of(gradients))
    assert (path[:, 2] > 1e-3).any()
    assert (path[:, 2] < 1e-8).any()
    assert np.abs(np.diff(path, axis=0)).max() < 5e-3


def test_tasks_with_the_same_direction_pull_equally() -> None:
    gradients = np.random.default_rng(0).standard_normal((3, 30))[[0, 0, 1, 2]]
    norms = np.array([5.0, 0.01, 1.0, 1.0])
    weights = EqualProjection()(with_norms(cosines_of(gradients), norms))
    assert weights[0] * norms[0] == pytest.approx(weights[1] * norms[1], rel=1e-5)


def test_opposite_gradients_cancel_out() -> None:
    gramian = with_norms(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([2.0, 0.5]))
    np.testing.assert_allclose(EqualProjection()(gramian), [0.2, 0.8], rtol=1e-12)


def test_shares_and_projections_are_read_from_the_same_gramian() -> None:
    gramian = random_gramians(4, count=1)[0]
    weights = EqualShare()(gramian)
    np.testing.assert_allclose(shares(weights, gramian), 0.25, rtol=1e-10)
    np.testing.assert_allclose(
        share_parts(weights, gramian) / share_parts(weights, gramian).sum(), 0.25, rtol=1e-10
    )
