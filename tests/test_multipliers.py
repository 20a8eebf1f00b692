"""Bounds: each scale by its defining property, the limit, recovery, dead and missing tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gaba.multipliers import Asked, Bounds, Multiplied

SCALES = ("sum", "geometric", "max")
RTOL = 1e-12


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spread(seed: int, k: int, sigma: float = 3.0) -> Tensor:
    """(k,) positive numbers whose logarithms have the standard deviation ``sigma``."""
    generator = torch.Generator().manual_seed(seed)
    return (sigma * torch.randn(k, generator=generator, dtype=torch.float64)).exp()


def bound(bounds: Bounds, wanted: Tensor, norms: Tensor, state: Multiplied | None = None) -> Any:
    return bounds.update(Asked(wanted, norms), state or bounds.init(len(wanted)))


@pytest.mark.parametrize("k", [2, 5, 40])
@pytest.mark.parametrize("limit", [1.0, 1.5, 8.0, 1000.0])
def test_sum_pulls_as_hard_as_the_plain_sum_within_any_limit(k: int, limit: float) -> None:
    for seed in range(10):
        wanted, norms = spread(seed, k), spread(seed + 100, k)
        found, state = bound(Bounds("sum", limit), wanted, norms)
        assert float(found.max()) <= limit
        assert float(found.min()) >= 1 / limit
        assert float((found * norms).sum()) == pytest.approx(float(norms.sum()), rel=1e-9)
        free = ~state.saturated & (found < limit) & (found > 1 / limit)
        ratio = found[free] / wanted[free]
        assert not free.any() or float(ratio.max() / ratio.min()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("limit", [8.0, 1000.0, None])
@pytest.mark.parametrize("spared", [(0,), (1, 3)])
def test_a_spared_task_is_never_amplified_and_the_sum_pulls_as_hard(
    limit: float | None, spared: tuple[int, ...]
) -> None:
    others = [k for k in range(5) if k not in spared]
    pressed = held = 0
    for seed in range(20):
        wanted, norms = spread(seed, 5, 1.0), spread(seed + 100, 5, 1.0)
        found, state = bound(Bounds("sum", limit, spared=spared), wanted, norms)
        assert float(found[list(spared)].max()) <= 1
        free = [k for k in others if not state.saturated[k]]
        ratio = found[free] / wanted[free]
        assert float(ratio.max() / ratio.min()) == pytest.approx(1, rel=1e-9)
        assert float((found * norms).sum()) == pytest.approx(float(norms.sum()), rel=1e-9)
        for k in spared:
            asked, low = float(ratio[0] * wanted[k]), 0.0 if limit is None else 1 / limit
            assert float(found[k]) == pytest.approx(min(1.0, max(low, asked)), rel=1e-9)
            held, pressed = held + (asked > 1), pressed + (asked < 1)
    assert held
    assert pressed


@pytest.mark.parametrize("k", [2, 5, 40])
def test_without_a_limit_each_scale_is_a_common_factor_with_the_length_it_names(k: int) -> None:
    for seed in range(10):
        wanted, norms = spread(seed, k), spread(seed + 100, k)
        for scale in SCALES:
            found, state = bound(Bounds(scale, None), wanted, norms)
            assert not state.saturated.any()
            torch.testing.assert_close(found / found[0], wanted / wanted[0], rtol=RTOL, atol=0)
            length, expected = {
                "sum": ((found * norms).sum(), norms.sum()),
                "geometric": (found.log().mean().exp(), vector(1.0)[0]),
                "max": ((found * norms).max(), norms.max()),
            }[scale]
            torch.testing.assert_close(length, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("scale", [*SCALES, "simplex", "rule"])
def test_permuting_tasks_permutes_the_multipliers(scale: Any) -> None:
    order = torch.tensor([3, 1, 4, 0, 2])
    for seed in range(5):
        wanted, norms = spread(seed, 5), spread(seed + 50, 5)
        found, _ = bound(Bounds(scale, 10.0), wanted, norms)
        again, _ = bound(Bounds(scale, 10.0), wanted[order], norms[order])
        torch.testing.assert_close(again, found[order], rtol=1e-11, atol=0)


def test_the_rule_scale_is_what_the_rule_gives_and_has_no_limit() -> None:
    wanted = vector(1e9, 0.0, -3.0)
    found, state = bound(Bounds("rule", 2.0), wanted, vector(1.0, 1.0, 1.0))
    assert found.tolist() == wanted.tolist()
    assert not state.saturated.any()


def test_the_simplex_has_no_limit_and_sums_to_one_with_those_it_does_not_know() -> None:
    bounds = Bounds("simplex", 2.0)
    state = bounds.init(3)
    assert state.multipliers.tolist() == [1 / 3] * 3
    weights = bounds.shared_out(vector(1e-9, 1.0, math.nan), state)
    found, _ = bounds.update(Asked(weights, vector(1.0, 1.0, math.nan)), state)
    assert float(found.sum()) == pytest.approx(1, abs=1e-15)
    assert float(found[2]) == 1 / 3
    assert float(found[0] / found[1]) == pytest.approx(1e-9, rel=1e-9)


def test_an_anchor_keeps_one_and_the_others_stay_in_proportion_within_the_limit() -> None:
    wanted = vector(1.0, 4.0, 1e9)
    found, state = bound(Bounds(limit=100.0, anchor=1), wanted, vector(1.0, 1.0, 1.0))
    assert found.tolist() == pytest.approx([0.25, 1.0, 100.0], rel=RTOL)
    assert state.saturated.tolist() == [False, False, True]
    bounds = Bounds(limit=100.0, anchor=1)
    missing, _ = bounds.update(Asked(vector(7.0, math.nan, 7e9), vector(1.0, math.nan, 1.0)), state)
    assert float(missing[1]) == 1.0


@pytest.mark.parametrize("scale", SCALES)
def test_an_unknown_task_keeps_its_multiplier_and_does_not_change_the_others(scale: Any) -> None:
    bounds = Bounds(scale, 100.0)
    wanted, norms = spread(0, 4), spread(9, 4)
    _, state = bound(bounds, wanted, norms)
    gone = torch.tensor([False, False, True, False])
    without, after = bounds.update(
        Asked(wanted.masked_fill(gone, math.nan), norms.masked_fill(gone, math.nan)), state
    )
    assert float(without[2]) == float(state.multipliers[2])
    here = torch.tensor([0, 1, 3])
    alone, _ = bound(bounds, wanted[here], norms[here])
    torch.testing.assert_close(without[here], alone, rtol=1e-11, atol=0)
    assert after.peak.tolist() == state.peak.tolist()


@pytest.mark.parametrize("recovery", [1.0, 8.0, 32.0])
def test_recovery_holds_a_norm_within_a_factor_of_its_peak(recovery: float) -> None:
    bounds = Bounds(recovery=recovery)
    state = bounds.init(2)
    peak = vector(0.0, 0.0)
    for seed in range(30):
        norms = spread(seed, 2)
        found = bounds.recovered(norms, state)
        expected = torch.maximum(norms, peak / recovery)
        torch.testing.assert_close(found, expected, rtol=RTOL, atol=0)
        _, state = bounds.update(Asked(1 / found, found), state)
        peak = torch.maximum(peak, norms)
        torch.testing.assert_close(state.peak, peak, rtol=RTOL, atol=0)
    assert bounds.recovered(vector(math.nan, 1.0), state)[0].isnan()


def test_a_task_whose_pull_has_all_but_vanished_is_left_alone_once_it_is_known() -> None:
    bounds = Bounds()
    new = bounds.init(3)
    faint = vector(1.0, 1.0, 1e-9)
    assert bounds.living(faint, new).tolist() == faint.tolist()  # the first norm counts
    _, known = bounds.update(Asked(vector(1.0, 1.0, 1.0), vector(1.0, 1.0, 1.0)), new)
    assert bounds.living(faint, known).isnan().tolist() == [False, False, True]
    assert bounds.living(vector(1.0, 1.0, 1e-5), known).isnan().any().item() is False
    assert bounds.living(vector(1.0, 1.0, 0.0), known).isnan().tolist() == [False, False, True]
    for exempt in (Bounds("simplex"), Bounds("rule")):
        assert exempt.living(faint, known).tolist() == faint.tolist()


@pytest.mark.parametrize("norms", [[0.0, 0.0], [math.nan, math.nan]])
def test_without_a_norm_every_task_counts_as_equally_loud(norms: list[float]) -> None:
    for scale in ("sum", "max"):
        found, _ = bound(Bounds(scale, None), vector(1.0, 3.0), vector(*norms))
        assert float(found[1] / found[0]) == pytest.approx(3, rel=RTOL)
        length = found.mean() if scale == "sum" else found.max()
        assert float(length) == pytest.approx(1, rel=RTOL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "mean"}, "sum, geometric, max, simplex, rule, found 'mean'"),
        ({"limit": 0.9}, "limit must be at least 1, or None for none, found 0.9"),
        ({"limit": math.nan}, "limit must be at least 1"),
        ({"recovery": 0.0}, "recovery must be at least 1"),
    ],
)
def test_settings_that_break_their_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bounds(**settings)


@pytest.mark.parametrize("every", [1, 2, 3, 10, 20])
def test_a_loud_task_that_is_rare_is_pressed_down_less(every: int) -> None:
    """In 1 of ``every`` batches: divided by 4/every up to 1, and the others get what they got."""
    norms = vector(8.0, 1.0, 1.0)
    plain, excusing = Bounds(), Bounds(excuse_rare=True)
    states = [bounds.init(3) for bounds in (plain, excusing)]
    found: list[Tensor] = []
    for n in range(400):
        there = torch.tensor([n % every == 0, True, True])
        found = []
        for i, bounds in enumerate((plain, excusing)):
            multipliers, states[i] = bounds.update(Asked(1 / norms, norms, there), states[i])
            found.append(multipliers)
    assert float(states[1].gap[0]) == pytest.approx(every, rel=0.2)  # 1 in the beginning
    excuse = min(max(float(states[1].gap[0]) / 4, 1.0), 1 / float(found[0][0]))
    assert float(found[1][0] / found[0][0]) == pytest.approx(excuse)
    assert torch.equal(found[1][1:], found[0][1:])


def test_no_task_is_amplified_for_being_rare() -> None:
    norms, bounds = vector(1.0, 8.0), Bounds(excuse_rare=True)
    found, state = norms, bounds.init(2)
    for n in range(400):
        there = torch.tensor([n % 20 == 0, True])
        found, state = bounds.update(Asked(1 / norms, norms, there), state)
    assert torch.equal(found, Bounds().update(Asked(1 / norms, norms), bounds.init(2))[0])
    assert float(state.gap[0]) > 10  # it is known to be rare


def test_a_task_that_was_away_for_long_is_not_rare_for_that() -> None:
    norms, bounds = vector(8.0, 1.0), Bounds(excuse_rare=True)
    state = bounds.init(2)
    whole = bounds.update(Asked(1 / norms, norms), state)[0]
    for n in range(1100):
        there = torch.tensor([not 50 <= n < 1090, True])
        found, state = bounds.update(Asked(1 / norms, norms, there), state)
        assert torch.equal(found, whole)


def test_tasks_that_take_turns_are_not_rare() -> None:
    norms, state = vector(8.0, 1.0, 3.0), Bounds(excuse_rare=True).init(3)
    for n in range(200):
        there = torch.arange(3) == n % 3
        found, state = Bounds(excuse_rare=True).update(Asked(1 / norms, norms, there), state)
        torch.testing.assert_close(found * norms, torch.full_like(norms, 4.0))
