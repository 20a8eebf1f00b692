"""What holds for a belief under any sequence of norms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import _reference as reference
from gaba.stabilisers import Belief, Believed
from gaba.state import all_finite, flatten

EVENTS = ("norm", "norm", "norm", "missing", "zero", "negative", "jump", "huge", "tiny")
LARGEST_MOVE = 2 * (1 + 1e-9)
JUSTIFIED = 1 + 1e-9


def random_events(seed: int, n: int, k: int) -> Tensor:
    """n vectors (n, K) of anything that a measurement may say."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(0, 3, k))
    rows = np.empty((n, k))
    for row in rows:
        for j, event in enumerate(rng.choice(EVENTS, k)):
            if event == "jump":
                level[j] *= 100.0 ** rng.choice([-1, 1])
                level[j] = np.clip(level[j], 1e-12, 1e12)
            scatter = math.exp(rng.normal(0, 0.3))
            row[j] = {
                "missing": math.nan,
                "zero": 0.0,
                "negative": -level[j],
                "huge": 1e150 * scatter,
                "tiny": 1e-150 * scatter,
            }.get(str(event), level[j] * scatter)
    return torch.from_numpy(rows)


def taken(belief: Belief, rows: Tensor) -> tuple[Tensor, Believed]:
    """What is believed after each of the rows (n, K), and the last state."""
    state, found = belief.init(rows.shape[1]), []
    for row in rows:
        believed, state = belief.update(row, state)
        found.append(believed)
    return torch.stack(found), state


def noisy(seed: int, n: int, k: int, level: float = 3.0) -> Tensor:
    """n log-normal norms (n, K) about ``level`` that scatter by 30 %."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(level * np.exp(rng.normal(0, 0.3, (n, k))))


def same(one: Believed, other: Believed, at: int | None = None) -> bool:
    pairs = zip(flatten(one).values(), flatten(other).values(), strict=True)
    return all(torch.equal(a, b) if at is None else bool(a[at] == b[at]) for a, b in pairs)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("belief", [Belief(), Belief(0.3, 10.0), Belief(0.001, 0.1)], ids=repr)
def test_any_sequence_leaves_it_finite_and_moves_it_by_a_bounded_factor(
    belief: Belief, seed: int
) -> None:
    """By 2 at most, and up to as close below the norm as the jump allows."""
    rows = random_events(seed, 400, 4)
    state = belief.init(4)
    before = torch.full((4,), math.nan, dtype=torch.float64)
    for row in rows:
        believed, new = belief.update(row, state)
        assert bool(all_finite(new))
        known = state.count > 0
        assert (believed[known] > 0).all()
        assert believed[known].isfinite().all()
        least = row * math.exp(-belief.jump)
        followed = (row > 0) & known
        assert (believed[followed] >= least[followed] / JUSTIFIED).all()
        assert (believed[known] >= before[known] / LARGEST_MOVE).all()
        slow = known & ~(believed <= before * LARGEST_MOVE)
        assert ((row > 0) | ~slow).all()
        assert (believed[slow] <= least[slow] * JUSTIFIED).all()
        assert ((new.rate >= belief.rate) & (new.rate <= 0.5)).all()
        away = row.isnan() | (row == 0)
        for k in away.nonzero().flatten().tolist():
            assert same(new, state, k)
        assert torch.equal(new.count, state.count + ~away)
        before, state = believed, new
    assert (state.count > 100).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rate", "jump"), [(0.01, 2.3), (0.3, 10.0), (0.001, 0.1)])
def test_it_is_the_slow_and_obvious_one(seed: int, rate: float, jump: float) -> None:
    rows = random_events(100 + seed, 400, 3)
    slow = reference.Belief(3, rate, jump)
    expected = [slow.step(row, list(~np.isnan(row))) for row in rows.numpy()]
    found, _ = taken(Belief(rate, jump), rows)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_happens_to_one_task_changes_another(seed: int) -> None:
    rows, others = random_events(seed, 300, 3), random_events(1000 + seed, 300, 3)
    mixed = torch.stack([rows[:, 0], others[:, 1], torch.full((300,), math.nan)], dim=1)
    whole, state = taken(Belief(), rows)
    found, changed = taken(Belief(), mixed)
    assert torch.equal(found[:, 0].nan_to_num(nan=-1), whole[:, 0].nan_to_num(nan=-1))
    assert same(state, changed, 0)
    assert found[:, 2].isnan().all()


def test_a_norm_of_zero_is_missing() -> None:
    rows = random_events(5, 300, 2)
    zeros = torch.where(rows.isnan(), 0.0, rows)
    nothing = torch.where(rows == 0, math.nan, rows)
    assert same(taken(Belief(), zeros)[1], taken(Belief(), nothing)[1])


@pytest.mark.parametrize("seed", range(6))
def test_a_task_that_opposes_the_update_counts_for_less_by_a_factor_of_two_at_most(
    seed: int,
) -> None:
    belief = Belief()
    _, state = taken(belief, noisy(seed, 50, 1))
    believed = state.log.exp()
    factor = 1.0
    for norm in (-3.0, -1e-300, -1e300, -0.5) * 8:
        before = believed
        believed, state = belief.update(torch.tensor([norm], dtype=torch.float64), state)
        factor = float(believed / before)
        assert 1 / LARGEST_MOVE <= factor < 1
        assert factor == pytest.approx(max(0.5, math.exp(-2.3 * float(state.rate))), rel=1e-12)
    assert factor == pytest.approx(0.5)  # by now at the fastest rate


@pytest.mark.parametrize("norm", [5.0, 1e-200, 1e200])
def test_a_task_that_opposes_the_first_update_is_known_from_then_on(norm: float) -> None:
    row = torch.tensor([norm, -norm], dtype=torch.float64)
    believed, state = Belief(jump=1.5).update(row, Belief().init(2))
    assert float(believed[0]) == pytest.approx(norm, rel=1e-12)
    assert float(believed[1]) == pytest.approx(norm * math.exp(-1.5), rel=1e-12)
    assert state.count.tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factor", [30.0, 100.0, 1e6])
def test_a_task_that_gets_loud_is_believed_at_once_to_within_a_factor_of_ten(
    seed: int, factor: float
) -> None:
    _, state = taken(Belief(), noisy(seed, 200, 5))
    before = state.log.exp()
    believed, _ = Belief().update(before * factor, state)
    expected = before * factor * math.exp(-2.3)
    torch.testing.assert_close(believed, expected, rtol=1e-12, atol=0)
    quiet, _ = Belief().update(before / factor, state)
    assert (quiet >= before / LARGEST_MOVE).all()


@pytest.mark.parametrize("n", [5, 20, 80])
def test_it_averages_over_no_more_norms_than_there_were(n: int) -> None:
    """Norms above and below in turn: a settled belief is the geometric mean of all of them."""
    rows = torch.tensor([[2.0], [0.5]], dtype=torch.float64).repeat(n, 1)
    _, state = taken(Belief(), torch.cat([torch.ones(1, 1, dtype=torch.float64), rows]))
    assert float(state.rate) == pytest.approx(max(0.01, 1 / (1 + 2 * n)), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_jump_by_a_hundred_is_followed_within_25_measurements(seed: int, factor: float) -> None:
    rows = noisy(seed, 400, 5)
    _, state = taken(Belief(), rows)
    assert (state.rate < 0.1).all()  # it was settled
    believed = state.log.exp()
    for row in noisy(seed + 100, 25, 5, level=3.0 * factor):
        believed, state = Belief().update(row, state)
    apart = (believed / (3.0 * factor)).log().abs()
    assert (apart < math.log(1.5)).all()


def test_noise_of_thirty_per_cent_leaves_it_within_ten_per_cent_most_of_the_time() -> None:
    found, _ = taken(Belief(), noisy(3, 3000, 20))
    apart = (found[500:] / 3.0).log().abs()
    assert float((apart < math.log(1.1)).double().mean()) > 0.8
    assert float(apart.median()) < math.log(1.05)


def test_an_absence_of_five_thousand_updates_leaves_it_as_it_was() -> None:
    belief = Belief()
    rows = noisy(4, 100, 2)
    _, state = taken(belief, rows)
    kept, believed = state, state.log.exp()
    for row in noisy(5, 5000, 2):
        row[1] = math.nan
        found, state = belief.update(row, state)
        assert found[1] == believed[1]
    assert same(kept, state, 1)
    assert not same(kept, state, 0)
    assert state.count.tolist() == [5100, 100]
