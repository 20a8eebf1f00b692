"""The conventions that hold for every rule, those of other people included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from _asserts import (
    assert_batched_like_loop,
    assert_no_host_sync,
    assert_on_simplex,
    assert_same_on_numpy_and_torch,
    assert_zero_like_absent,
)
from _inputs import norm_families, norms_with_zeros, random_gramians
from gaba.rules import (
    EqualProjection,
    EqualShare,
    Gaba,
    InverseNorm,
    LogInverse,
    Needs,
    Proportional,
    RankInverse,
    Rule,
    Seen,
    Targets,
    asked,
    on_simplex,
)

NAN, INF = torch.nan, torch.inf


@dataclass(frozen=True)
class InverseVariance(Rule):
    """All that somebody else has to write."""

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        return 1 / seen.norms**2, state


@dataclass(frozen=True)
class Says(Rule):
    """Gives what it is told to give."""

    values: tuple[float, ...]

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        return torch.tensor(self.values).double(), state


@dataclass(frozen=True)
class SaysOfLosses(Says):
    needs: ClassVar[Needs] = "losses"


@dataclass(frozen=True)
class SaysAtZero(Says):
    defined_at_zero: ClassVar[bool] = True


def found(rule: Rule, norms: list[float]) -> list[float]:
    values = torch.tensor(norms).double()
    return asked(rule, Seen(values, values), ())[0].tolist()


def assert_same(a: list[float], b: list[float]) -> None:
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", norm_families())
def test_one_line_of_somebody_elses_is_a_rule(name: str) -> None:
    norms = norm_families()[name]
    assert_on_simplex(InverseVariance()(norms))
    np.testing.assert_allclose(InverseVariance()(norms), InverseNorm(2)(norms), rtol=1e-12)
    assert_same_on_numpy_and_torch(InverseVariance(), norms)
    assert_no_host_sync(InverseVariance(), norms)


@pytest.mark.parametrize("name", norms_with_zeros())
def test_and_cares_for_no_norm_of_zero(name: str) -> None:
    assert_zero_like_absent(InverseVariance(), norms_with_zeros()[name])
    assert_batched_like_loop(InverseVariance(), np.stack([norms_with_zeros()[name]] * 2))


def test_what_is_said_of_unknown_tasks_does_not_matter() -> None:
    for nonsense in (NAN, INF, -7.0):
        assert_same(found(Says((2.0, nonsense, 4.0)), [1.0, NAN, 1.0]), [2.0, NAN, 4.0])
        assert_same(found(SaysOfLosses((2.0, nonsense, 4.0)), [1.0, NAN, 1.0]), [2.0, NAN, 4.0])


def test_a_task_without_a_gradient_gets_the_mean_of_the_others() -> None:
    for nonsense in (NAN, INF, -7.0):
        assert_same(found(Says((2.0, nonsense, 4.0)), [1.0, 0.0, 1.0]), [2.0, 3.0, 4.0])
    assert_same(found(Says((2.0, 9.0, 4.0)), [0.0, 0.0, NAN]), [1.0, 1.0, NAN])
    assert_same(found(SaysOfLosses((2.0, 0.0, 4.0)), [0.0, 0.0, 1.0]), [2.0, 0.0, 4.0])
    assert_same(found(SaysAtZero((2.0, 9.0, 4.0)), [1.0, 0.0, 1.0]), [2.0, 9.0, 4.0])


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("kind", [Says, SaysOfLosses, SaysAtZero])
def test_a_known_task_that_is_given_no_number_drops_the_step(bad: float, kind: type[Says]) -> None:
    assert_same(found(kind((2.0, bad, 4.0)), [1.0, 1.0, 0.0]), [NAN] * 3)


def test_nothing_but_zeros_drops_the_step_if_norms_are_needed() -> None:
    assert_same(found(Says((0.0, 0.0)), [1.0, 1.0]), [NAN, NAN])
    assert_same(found(SaysOfLosses((0.0, 0.0)), [1.0, 1.0]), [0.0, 0.0])


@pytest.mark.parametrize(
    ("raw", "weights"),
    [
        ([1.0, 3.0], [0.25, 0.75]),
        ([1.0, NAN, 3.0], [0.25, NAN, 0.75]),
        ([1e308, 1e308], [0.5, 0.5]),
        ([1e-308, 3e-308], [0.25, 0.75]),
        ([0.0, 0.0], [NAN, NAN]),
        ([INF, 1.0], [NAN, NAN]),
        ([NAN, NAN], [NAN, NAN]),
        ([[1.0, 1.0], [0.0, 0.0]], [[0.5, 0.5], [NAN, NAN]]),
    ],
)
def test_on_the_simplex(raw: list, weights: list) -> None:
    values = on_simplex(torch.tensor(raw, dtype=torch.float64))
    expected = torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=1e-15, atol=0, equal_nan=True)


ON_NORMS = [Gaba(), InverseNorm(), InverseNorm(0.5), LogInverse(), RankInverse()]


@pytest.mark.parametrize("rule", [*ON_NORMS, Targets((3, 9, 1))], ids=repr)
def test_a_task_of_which_nothing_is_known_is_as_if_there_were_none(rule: Rule) -> None:
    norms = torch.tensor([5.0, NAN, 0.01]).double()
    fewer = Targets((3, 1)) if isinstance(rule, Targets) else rule
    weights = on_simplex(asked(rule, Seen(norms, norms), ())[0])
    torch.testing.assert_close(weights[[0, 2]], fewer(norms[[0, 2]]), rtol=1e-12, atol=0)
    assert bool(weights[1].isnan())


@pytest.mark.parametrize("rule", [EqualShare(), EqualProjection()], ids=repr)
@pytest.mark.parametrize("ratios", [None, (1, 2, 5, 3)])
def test_an_unknown_row_of_a_gramian_is_as_if_there_were_none(
    rule: Proportional, ratios: tuple[float, ...] | None
) -> None:
    for whole in random_gramians(4, count=5):
        gramian, kept = torch.tensor(whole), [0, 2, 3]
        gramian[1] = gramian[:, 1] = NAN
        norms = gramian.diagonal().sqrt()
        one, two = rule, rule
        if ratios is not None:
            one, two = Targets(ratios, rule), Targets([ratios[k] for k in kept], rule)
        weights = on_simplex(asked(one, Seen(norms, norms, gramian), ())[0])
        expected = two(gramian[kept][:, kept])
        torch.testing.assert_close(weights[kept], expected, rtol=1e-8, atol=1e-10)
        assert bool(weights[1].isnan())


def test_an_inner_product_that_is_missing_drops_the_step() -> None:
    gramian = torch.eye(3).double()
    gramian[0, 1] = gramian[1, 0] = NAN
    for rule in (EqualShare(), EqualProjection()):
        raw, _ = asked(rule, Seen(torch.ones(3), torch.ones(3), gramian), ())
        assert raw.isnan().all()


def test_multipliers_have_the_length_of_their_formulas() -> None:
    norms, gramian = np.array([4.0, 0.5]), np.array([[16.0, -1.0], [-1.0, 0.25]])
    assert InverseNorm().raw(norms).tolist() == [0.25, 2.0]
    assert LogInverse().raw(norms).tolist() == (1 / np.log1p([8.0, 1.0])).tolist()
    assert RankInverse().raw(norms).tolist() == [0.5, 1.0]
    np.testing.assert_allclose(Gaba().raw(norms), [0.5 / 4.5, 4 / 4.5], rtol=1e-15)
    m = EqualShare().raw(gramian)
    np.testing.assert_allclose(m * (gramian @ m), 1.0, rtol=1e-10)
    m = EqualProjection().raw(gramian)
    np.testing.assert_allclose(gramian @ m / norms, 1.0, rtol=1e-10)


def test_a_rule_without_its_gramian_says_what_to_do() -> None:
    seen = Seen(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"EqualShare needs .* found none; use measure='exact'"):
        asked(EqualShare(), seen, ())


def test_lists_are_taken_at_the_edge_and_no_graph_comes_out() -> None:
    assert InverseNorm()([1.0, 3.0]).tolist() == [0.75, 0.25]  # pyright: ignore[reportArgumentType]
    norms = torch.tensor([1.0, 3.0], requires_grad=True)
    assert not InverseNorm()(norms).requires_grad
