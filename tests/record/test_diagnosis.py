"""Every finding appears where it must, and only there."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

import gaba
from _steps import make_history, make_step
from gaba.record.diagnosis import Diagnosis, Finding, diagnose

QUIET = {"balanced", "fixed-would-do", "still"}  # what a healthy history may say


def scattered(n: int, centre: ArrayLike, sigma: float, seed: int = 0) -> np.ndarray[Any, Any]:
    centre = np.asarray(centre, float)
    draws = np.random.default_rng(seed).normal(0.0, sigma, (n, len(centre)))
    return centre * np.exp(draws)


def simplex(raw: ArrayLike) -> np.ndarray[Any, Any]:
    raw = np.asarray(raw, float)
    return raw / raw.sum(-1, keepdims=True)


def found(history: gaba.History, kind: str) -> Finding:
    return found_in(diagnose(history), kind)


def found_in(diagnosis: Diagnosis, kind: str) -> Finding:
    finding = diagnosis.find(kind)
    assert finding is not None, diagnosis.kinds
    return finding


def healthy() -> gaba.History:
    """Norms that drift slowly and weights that follow them: contributions equal within scatter."""
    drift = np.exp(np.linspace(0, 3, 400))[:, None] ** np.array([1.0, -1.0])
    norms, weights = drift * scattered(400, [1, 1], 0.05), 1 / drift
    gain = norms.sum(axis=1) / (weights * norms).sum(axis=1)
    return make_history(norms, gain[:, None] * weights)


# --- nothing to say ---------------------------------------------------------------------------


def test_a_healthy_history_is_told_that_it_is_balanced_and_nothing_else() -> None:
    assert set(diagnose(healthy()).kinds) <= QUIET | {"would-dominate"}
    assert "balanced" in diagnose(healthy()).kinds
    assert not {"fixed-would-do", "still"} & set(diagnose(healthy()).kinds)


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"history: at least one step is needed, found 0"):
        diagnose(gaba.History(["a", "b"]))


@pytest.mark.parametrize("n", [1, 2, 49])
def test_short_histories_say_nothing_of_habits(n: int) -> None:
    kinds = set(diagnose(make_history([[1.0, 1.0]] * n, [0.5, 0.5])).kinds)
    assert not kinds & {"still", "fixed-would-do", "noisy"}
    assert "balanced" in kinds


# --- trouble ----------------------------------------------------------------------------------


def test_non_finite_steps_are_counted_by_task_and_dated() -> None:
    norms = np.ones((100, 2))
    norms[40:43, 1] = np.nan
    norms[70, 1] = np.inf
    finding = found(
        make_history(norms, [0.5, 0.5], losses=norms, finite=np.isfinite(norms[:, 1])), "non-finite"
    )
    assert finding.figures["count"] == 4
    assert finding.figures["share"] == 0.04
    assert (finding.figures["first_step"], finding.figures["last_step"]) == (40, 70)
    assert finding.figures["tasks"] == ["health"]
    assert finding.figures["counts"] == [0.0, 4.0]
    assert "'health'" in finding.text
    assert "step 40" in finding.text


def test_a_run_that_is_lost_is_dated_from_where_it_went() -> None:
    norms = np.ones((100, 2))
    norms[60:, 0] = np.nan
    history = make_history(norms, [0.5, 0.5], losses=np.ones((100, 2)), finite=np.arange(100) < 60)
    assert "in every step since 60" in found(history, "non-finite").text


def test_a_missing_task_is_not_called_non_finite() -> None:
    norms = np.ones((100, 2))
    weights = np.full((100, 2), 0.5)
    norms[::4, 1], weights[::4] = np.nan, (0.5, np.nan)
    diagnosis = diagnose(make_history(norms, weights, losses=norms, finite=True))
    finding = diagnosis.find("missing")
    assert finding is not None
    assert finding.figures["shares"] == pytest.approx([0.0, 0.25])
    assert "'health' in 25.0 %" in finding.text
    assert "non-finite" not in diagnosis.kinds
    assert "dead" not in diagnosis.kinds


@pytest.mark.parametrize(("length", "expected"), [(9, False), (10, True), (60, True)])
def test_a_task_is_dead_after_ten_zero_norms_on_end(length: int, expected: bool) -> None:
    norms = np.ones((100, 2))
    norms[20 : 20 + length, 1] = 0
    diagnosis = diagnose(make_history(norms, [0.5, 0.5]))
    assert ("dead" in diagnosis.kinds) is expected
    if expected:
        finding = found(make_history(norms, [0.5, 0.5]), "dead")
        assert finding.figures == {"tasks": ["health"], "steps": [float(length)], "since": [20.0]}


def test_zeros_that_are_scattered_are_not_death() -> None:
    norms = np.ones((100, 2))
    norms[::2, 1] = 0
    assert "dead" not in diagnose(make_history(norms, [0.5, 0.5])).kinds


def test_steps_without_measurement_do_not_interrupt_or_count() -> None:
    measured = np.arange(200) % 10 == 0
    norms = np.where(measured[:, None], [1.0, 0.0], np.nan)
    history = make_history(norms, [0.5, 0.5], losses=np.ones((200, 2)), measured=measured)
    assert found(history, "dead").figures["steps"] == [20.0]


def test_no_measurement_at_all_is_said() -> None:
    history = make_history(
        np.full((80, 2), np.nan), [0.5, 0.5], losses=np.ones((80, 2)), measured=False
    )
    kinds = diagnose(history).kinds
    assert "unmeasured" in kinds
    assert not {"balanced", "imbalance", "shrunk", "dominated", "would-dominate"} & set(kinds)
    assert "unmeasured" not in diagnose(healthy()).kinds


# --- pulls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.0, 1.9, 2.1, 500.0, 1e30])
def test_dominance_by_norms_and_by_contributions(ratio: float) -> None:
    equal = diagnose(make_history([[ratio, 1.0]] * 60, [0.5, 0.5]))
    inverse = diagnose(make_history([[ratio, 1.0]] * 60, simplex([1 / ratio, 1.0])))
    for diagnosis in (equal, inverse):
        finding = diagnosis.find("would-dominate")
        assert (finding is not None) is (ratio > 2)
        if finding is not None:
            assert finding.figures["task"] == "rul"
            assert finding.figures["ratio"] == pytest.approx(ratio)
    assert ("dominated" in equal.kinds) is (ratio > 2)
    assert "dominated" not in inverse.kinds
    assert "balanced" in inverse.kinds


def test_the_task_with_the_larger_contribution_is_named_not_the_larger_norm() -> None:
    history = make_history([[5.0, 1.0]] * 60, [0.01, 0.99])
    assert found(history, "would-dominate").figures["task"] == "rul"
    assert found(history, "dominated").figures["task"] == "health"
    assert found(history, "dominated").figures["ratio"] == pytest.approx(0.99 / 0.05)


def test_of_three_tasks_one_dominates_all_the_others_together() -> None:
    weights = [1 / 3] * 3
    assert "dominated" not in diagnose(make_history([[3.0, 1.0, 1.0]] * 60, weights)).kinds
    finding = found(make_history([[9.0, 1.0, 2.0]] * 60, weights), "dominated")
    assert finding.figures["ratio"] == pytest.approx(3.0)
    assert "all the others together" in finding.text


def test_imbalance_has_its_median_and_its_worst_step() -> None:
    norms = np.tile([25.0, 1.0], (101, 1))
    norms[17] = [400.0, 1.0]
    finding = found(make_history(norms, [0.5, 0.5]), "imbalance")
    assert finding.figures["median"] == pytest.approx(25.0)
    assert finding.figures["worst"] == pytest.approx(400.0)
    assert finding.figures["worst_step"] == 17
    assert "25.0 times apart" in finding.text


def test_noise_is_told_from_bias() -> None:
    history = make_history(scattered(500, [1, 1], 1.2), [0.5, 0.5])
    assert "noise, not bias" in found(history, "imbalance").text
    assert "noise" not in found(make_history([[9.0, 1.0]] * 60, [0.5, 0.5]), "imbalance").text


def test_imbalance_with_a_weight_of_zero_is_infinite_and_none_in_json() -> None:
    diagnosis = diagnose(make_history([[1.0, 1.0]] * 60, [1.0, 0.0]))
    finding = diagnosis.find("imbalance")
    assert finding is not None
    assert finding.figures["median"] == math.inf
    written = json.loads(json.dumps(diagnosis.asdict(), allow_nan=False))
    figures = {entry["kind"]: entry["figures"] for entry in written["findings"]}
    assert figures["imbalance"]["median"] is None


SGD = {"optimizer": "SGD"}


@pytest.mark.parametrize(("gain", "factor"), [(1.0, 251.0), (251.0, 1.0), (25.1, 10.0)])
def test_the_update_is_shorter_than_that_of_the_plain_sum(gain: float, factor: float) -> None:
    multipliers = gain * simplex([0.01, 5.0])
    finding = diagnose(make_history([[5.0, 0.01]] * 60, multipliers, about=SGD)).find("shrunk")
    assert (finding is not None) is (factor > 2)
    if finding is not None:
        assert finding.figures["factor"] == pytest.approx(factor, rel=1e-3)
        assert finding.code == 'gaba.Balancer(tasks, shared, scale="sum")'
        assert finding.grade == "watch"


def test_equal_multipliers_of_one_are_the_plain_sum() -> None:
    diagnosis = diagnose(make_history([[5.0, 0.01]] * 60, [1.0, 1.0], about=SGD))
    assert "shrunk" not in diagnosis.kinds
    half = diagnose(make_history([[5.0, 0.01]] * 60, [0.4, 0.4], about=SGD))
    assert found_in(half, "shrunk").figures["factor"] == pytest.approx(2.5)


@pytest.mark.parametrize("optimizer", [None, "SGD", "SGD, SGD", "AdamW", "SGD, AdamW"])
def test_only_sgd_is_told_of_the_length_of_the_update(optimizer: str | None) -> None:
    about = {} if optimizer is None else {"optimizer": optimizer}
    diagnosis = diagnose(make_history([[5.0, 0.01]] * 60, [0.01, 5.0], about=about))
    assert ("shrunk" in diagnosis.kinds) is (optimizer in ("SGD", "SGD, SGD"))


# --- measured along the update ----------------------------------------------------------------


@pytest.mark.parametrize("engine", ["products", "probe", "norms"])
def test_pulls_along_the_update_are_those_of_effective_norms(engine: str) -> None:
    about = {"metric": "euclidean"}
    shares = [np.nan] * 2 if engine == "norms" else [16 / 17, 1 / 17]
    history = make_history([[4.0, 1.0]] * 60, [1.0, 1.0], shares=shares, engine=engine, about=about)
    diagnosis = diagnose(history)
    assert found_in(diagnosis, "imbalance").figures["median"] == 4  # the root of 16
    effective = "pulls by effective norms, from the update" in str(diagnosis)
    euclidean = "pulls in the Euclidean metric" in str(diagnosis)
    assert (effective, euclidean) == ((False, True) if engine == "norms" else (True, False))
    assert diagnosis.engines == (engine,)
    assert diagnosis.asdict()["engines"] == [engine]


def opposing(part: float, n: int = 100) -> gaba.History:
    """The last of three tasks opposes the update in this part of the steps; its norm is 0 there."""
    at = np.arange(n) < part * n
    norms, shares = np.ones((n, 3)), np.full((n, 3), 1 / 3)
    norms[at, 2], shares[at] = 0.0, [0.6, 0.6, -0.2]
    return make_history(norms, [1.0] * 3, losses=np.ones((n, 3)), shares=shares, engine="probe")


@pytest.mark.parametrize("part", [0.0, 0.09, 0.1, 1.0])
def test_a_task_that_opposes_the_update_is_not_dead(part: float) -> None:
    diagnosis = diagnose(opposing(part))
    assert "dead" not in diagnosis.kinds
    assert ("opposed" in diagnosis.kinds) is (part >= 0.1)
    if part >= 0.1:
        finding = found_in(diagnosis, "opposed")
        assert finding.figures == {"tasks": ["third"], "shares": pytest.approx([0, 0, part])}
        assert "'third' in 10" in finding.text


@pytest.mark.parametrize("cosine", [-0.01, -0.049, -0.06, -0.5])
def test_a_quiet_task_at_a_right_angle_is_not_opposed(cosine: float) -> None:
    """Two orthogonal loud tasks and a quiet one that points a little against the first."""
    quiet = 0.001
    share = quiet * cosine * 1.0 + quiet**2
    length = 1.0 + 2 * quiet * cosine + quiet**2
    norms, shares = [[1.0, quiet]] * 100, [1 - share / length, share / length]
    history = make_history(norms, [1.0] * 2, losses=np.ones((100, 2)), shares=[shares] * 100)
    assert ("opposed" in diagnose(history).kinds) is (cosine < -0.052)


def test_a_task_without_any_product_is_dead_also_along_the_update() -> None:
    history = make_history(
        [[1.0, 0.0]] * 60, [1.0, 1.0], losses=np.ones((60, 2)), shares=[1.0, 0.0], engine="products"
    )
    assert found(history, "dead").figures["tasks"] == ["health"]


UNREPEATED = "the shared module returns other features when it is called once more"


@pytest.mark.parametrize("engines", [["products"], ["probe", "", "products"], ["probe"], [""]])
def test_why_a_probe_failed_is_told(engines: list[str]) -> None:
    history = make_history(
        [[1.0, 1.0]] * len(engines), [1.0, 1.0], engine=engines, about={"probe": UNREPEATED}
    )
    finding = found(history, "probe")
    assert UNREPEATED in finding.text
    assert finding.text.startswith("The probe was given up, ") is (engines[-1] == "products")
    assert finding.figures == {"reason": UNREPEATED, "probes": float("probe" in engines)}
    assert UNREPEATED in " ".join(str(diagnose(history)).split())


def test_a_probe_that_works_is_not_told() -> None:
    for engine in ("probe", "products", "norms"):
        history = make_history([[1.0, 1.0]], [1.0, 1.0], engine=engine, about={"metric": "x"})
        assert "probe" not in diagnose(history).kinds


# --- multipliers ------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [0, 50, 199, 200])
def test_saturation_is_counted_by_task(since: int) -> None:
    floored = np.stack([np.arange(200) >= since, np.zeros(200, bool)], axis=1)
    diagnosis = diagnose(make_history([[1.0, 1.0]] * 200, [0.5, 0.5], saturated=floored))
    finding = diagnosis.find("saturated")
    assert (finding is not None) is (since < 199)
    if finding is not None:
        assert finding.figures["count"] == 200 - since
        assert finding.figures["share"] == pytest.approx(1 - since / 200)
        assert finding.figures["first_step"] == since
        assert finding.figures["shares"] == pytest.approx([1 - since / 200, 0.0])
        assert f"in every step since {since}" in finding.text
        assert "'health'" not in finding.text


def test_interrupted_saturation_is_dated_from_its_first_step() -> None:
    floored = np.zeros((200, 2), bool)
    floored[50:60, 1] = floored[90:, 1] = True
    finding = found(make_history([[1.0, 1.0]] * 200, [0.5, 0.5], saturated=floored), "saturated")
    assert "first in step 50" in finding.text


def at_a_limit(limit: float | None, method: str = "gaba") -> Diagnosis:
    """Norms 5,000 to 1 under multipliers of at most 32 and at least 1/32."""
    about = {"method": method, **({} if limit is None else {"limit": f"{limit:g}"})}
    held, rows = [False, True], [[5000.0, 1.0]] * 100
    return diagnose(make_history(rows, [0.99, 32.0], saturated=held, about=about))


def test_a_multiplier_at_its_limit_is_told_with_the_limit_that_is_enough() -> None:
    finding = found_in(at_a_limit(32), "saturated")
    assert "The multiplier of 'health' was at its limit in 100 % of the steps" in finding.text
    assert "no loss is multiplied or divided by more than 32" in finding.text
    assert finding.figures["limit"] == 32
    assert finding.code == "gaba.Balancer(tasks, shared, limit=10_000)"  # 32 · 4950 / 32 = 4950
    assert at_a_limit(32).code == finding.code
    other = at_a_limit(32, "inverse").code
    assert other == 'gaba.Balancer(tasks, shared, method="inverse", limit=10_000)'


def test_a_weight_at_its_floor_is_told_with_the_floor() -> None:
    for limit in (None, 1000):  # no limit, or one that is not reached
        finding = found_in(at_a_limit(limit, "paper"), "saturated")
        assert "The weight of 'health' reached its minimum (0.97)" in finding.text
        assert finding.code == 'gaba.Balancer(tasks, shared, method="gaba", limit=1_000)'


def test_a_limit_that_does_no_harm_needs_no_change() -> None:
    about = {"method": "gaba", "limit": "32"}
    history = make_history([[32.0, 1.0]] * 60, [1, 32.0], saturated=[False, True], about=about)
    assert found(history, "saturated").code == ""


def held(
    norms: ArrayLike,
    multipliers: ArrayLike,
    saturated: ArrayLike,
    limit: str | None = "32",
    n: int = 100,
) -> Diagnosis:
    about = {"method": "gaba"} | ({} if limit is None else {"limit": limit})
    norms = np.broadcast_to(norms, (n, np.shape(norms)[-1]))
    return diagnose(make_history(norms, multipliers, saturated=saturated, about=about))


def test_the_limit_that_leaves_tasks_apart_comes_first_with_the_limit_that_is_enough() -> None:
    bad = np.ones(100, bool)
    bad[40:42] = False
    about = {"method": "gaba", "limit": "32"}
    norms = np.tile([5000.0, 1.0, 4000.0], (100, 1))
    norms[:12, 2] = 0  # dead for a while, and two steps are lost: the limit is told before that
    history = make_history(
        norms, [0.9, 32.0, 1.1], saturated=[0, 1, 0], losses=norms, finite=bad, about=about
    )
    diagnosis = diagnose(history)
    assert diagnosis.kinds[:4] == ("limited", "imbalance", "non-finite", "dead")
    assert diagnosis.verdict == (  # 4500 / 32
        "Act: use limit=10_000. With 32, 'rul' pulls 141 times as hard as 'health'."
    )
    assert [finding.grade for finding in diagnosis.findings[:4]] == ["act", "act"] + 2 * ["watch"]
    assert diagnosis.code == "gaba.Balancer(tasks, shared, limit=10_000)"
    assert diagnosis.findings[0].figures["tasks"] == ["health"]
    assert diagnosis.findings[0] in diagnosis.evidence


@pytest.mark.parametrize(("limit", "enough"), [(1.0, 10), (10.0, 100), (10.1, 1000)])
def test_the_limit_that_is_enough_is_the_next_power_of_ten(limit: float, enough: int) -> None:
    diagnosis = held([10 * limit, 1.0], [1.0, limit], [0, 1], limit=f"{limit:g}")
    assert diagnosis.find("limited") is not None
    assert diagnosis.code == f"gaba.Balancer(tasks, shared, limit={enough:_})"


def test_a_multiplier_that_may_fall_no_further_leaves_tasks_apart_as_well() -> None:
    diagnosis = held([5000.0, 1.0], [1 / 32, 1.0], [1, 0])  # the quiet one is the anchor
    assert diagnosis.kinds[0] == "limited"
    assert diagnosis.findings[0].figures["ratio"] == pytest.approx(156.25)


def test_tasks_that_are_never_in_one_batch_are_told_of_the_limit_too() -> None:
    one = np.where(np.arange(100)[:, None] % 2 == [0, 1], [500.0, 1.0], np.nan)
    multipliers = np.where(np.isnan(one), np.nan, [469 / 500, 32.0])
    about = {"method": "gaba", "limit": "32"}
    history = make_history(
        one, multipliers, saturated=one == 1, losses=one, finite=True, about=about
    )
    assert diagnose(history).verdict.endswith("'rul' pulls 14.7 times as hard as 'health'.")


def some(part: float) -> np.ndarray[Any, Any]:
    """The second of two is at its limit in this part of 100 steps."""
    return np.stack([np.zeros(100, bool), np.arange(100) < 100 * part], axis=1)


AWAY: dict[str, Callable[[], Diagnosis]] = {
    "nothing is at its limit": lambda: held([5000.0, 1.0], [0.9, 31.0], [0, 0]),
    "it is balanced there": lambda: held([32.0, 1.0], [1.0, 32.0], [0, 1]),
    "another task is apart": lambda: held([6.0, 1.0, 9.0], [32.0, 32.0, 32.0], [1, 0, 0]),
    "it pulls too hard already": lambda: held([1.0, 9.0], [32.0, 32.0], [0, 1]),
    "it is at its limit now and then": lambda: held([5000.0, 1.0], [0.9, 32.0], some(0.4)),
    "there is no limit": lambda: held([5000.0, 1.0], [0.9, 32.0], [0, 1], limit=None),
    "it is at a floor": lambda: held([5000.0, 1.0], [0.9, 31.0], [0, 1]),
    "it is noise": lambda: held(scattered(100, [1, 1], 1.2), [32.0, 32.0], [0, 1]),
}


@pytest.mark.parametrize("case", AWAY)
def test_a_limit_that_is_not_what_leaves_tasks_apart_is_not_blamed(case: str) -> None:
    assert "limited" not in AWAY[case]().kinds
    assert held([5000.0, 1.0], [0.9, 32.0], some(0.6)).kinds[0] == "limited"


def moving(n: int, factor: float) -> np.ndarray[Any, Any]:
    """Weights whose first one moves by ``factor`` over n steps."""
    first = 0.04 * factor ** np.linspace(0, 1, n)
    return np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize(("factor", "still"), [(1.0, True), (1.04, True), (3.0, False)])
def test_weights_stand_still_within_five_per_cent(factor: float, still: bool) -> None:
    weights = np.concatenate([moving(300, 10)[::-1], moving(300, factor)])
    finding = diagnose(make_history([[20.0, 1.0]] * 600, weights)).find("still")
    assert (finding is not None) is still
    if finding is not None:
        since = finding.figures["since"]
        assert isinstance(since, float)
        assert 290 <= since <= 300
        assert finding.figures["weights"] == pytest.approx(
            np.median(weights[300:], axis=0), rel=0.02
        )


def test_weights_that_never_move_are_told_so() -> None:
    diagnosis = diagnose(make_history([[1.0, 1.0]] * 60, [0.5, 0.5]))
    finding = diagnosis.find("still")
    assert finding is not None
    assert finding.figures["share"] == 1.0
    assert "never moved" in finding.text
    assert "fixed-would-do" not in diagnosis.kinds


def test_a_pause_is_not_standing_still() -> None:
    weights = np.concatenate([moving(300, 10), np.tile(moving(300, 10)[-1], (60, 1))])
    assert "still" not in diagnose(make_history([[1.0, 1.0]] * 360, weights)).kinds


@pytest.mark.parametrize(("scatter", "would_do"), [(0.03, True), (0.08, True), (0.5, False)])
def test_a_fixed_weighting_would_do_where_weights_scatter_little(
    scatter: float, would_do: bool
) -> None:
    weights = simplex(scattered(800, [1.0, 19.0], scatter))
    finding = diagnose(make_history([[19.0, 1.0]] * 800, weights)).find("fixed-would-do")
    assert (finding is not None) is would_do
    if finding is not None:
        assert finding.figures["weights"] == pytest.approx([0.05, 0.95], rel=0.02)
        assert finding.figures["imbalance_fixed"] == pytest.approx(1.0, abs=0.05)


def test_the_judgement_looks_at_the_second_half_only() -> None:
    settled_late = np.concatenate([moving(100, 8)[::-1], scattered(300, [0.04, 0.96], 0.03)])
    finding = found(make_history([[24.0, 1.0]] * 400, simplex(settled_late)), "fixed-would-do")
    assert finding.figures["share"] == 1.0
    assert finding.figures["share_of_all"] == pytest.approx(310 / 400, abs=0.03)
    moving_on = np.concatenate([scattered(200, [0.04, 0.96], 0.03), moving(200, 8)])
    kinds = diagnose(make_history([[24.0, 1.0]] * 400, simplex(moving_on))).kinds
    assert "fixed-would-do" not in kinds


def test_steps_without_a_task_do_not_count_as_movement() -> None:
    weights = np.full((200, 2), [0.1, 0.9])
    norms = np.full((200, 2), [9.0, 1.0])
    weights[::3, 1] = norms[::3, 1] = np.nan
    assert (
        "never moved"
        in found(make_history(norms, weights, losses=norms, finite=True), "still").text
    )


@pytest.mark.parametrize(("scatter", "is_noisy"), [(0.02, False), (0.4, True)])
def test_jumping_weights_are_noisy(scatter: float, is_noisy: bool) -> None:
    history = make_history([[1.0, 1.0]] * 300, simplex(scattered(300, [1, 1], scatter)))
    assert ("noisy" in diagnose(history).kinds) is is_noisy


def test_weights_that_move_one_way_are_not_noisy() -> None:
    assert "noisy" not in diagnose(make_history([[1.0, 1.0]] * 60, moving(60, 1e-6))).kinds


# --- grades and the verdict ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "grade"),
    [(1.0, "fine"), (1.9, "fine"), (2.1, "watch"), (9.9, "watch"), (10.1, "act")],
)
def test_the_grade_follows_from_the_ratio_of_the_pulls(ratio: float, grade: str) -> None:
    diagnosis = diagnose(make_history([[ratio, 1.0]] * 60, [1.0, 1.0]))
    assert diagnosis.grade == grade
    assert diagnosis.verdict.startswith(f"{grade.capitalize()}: ")
    assert ("drowns" in diagnosis.verdict) is (grade == "act")
    assert bool(diagnosis.code) is (grade != "fine")


def test_findings_are_in_the_order_of_their_grades() -> None:
    norms = np.tile([50.0, 1.0], (100, 1))
    norms[10:30, 1] = 0
    diagnosis = diagnose(make_history(norms, [1.0, 1.0], about={"shared": "Two are frozen."}))
    grades = [finding.grade for finding in diagnosis.findings]
    assert grades == sorted(grades, key=["act", "watch", "fine"].index)
    assert set(grades) == {"act", "watch", "fine"}
    assert diagnosis.asdict()["grade"] == diagnosis.grade == "act"


@pytest.mark.parametrize(
    ("n", "few"), [(1, "1 step"), (12, "12 steps"), (49, "49 steps"), (50, "")]
)
def test_the_verdict_says_that_it_rests_on_few_steps(n: int, few: str) -> None:
    verdict = diagnose(make_history([[50.0, 1.0]] * n, [1.0, 1.0])).verdict
    start = f"Act. Only {few}: 'rul' drowns" if few else "Act: 'rul' drowns"
    assert verdict.startswith(start)


@pytest.mark.parametrize(("every", "few"), [(30, True), (10, False)])
def test_the_verdict_says_that_few_steps_were_measured(every: int, few: bool) -> None:
    measured = np.arange(100) % every == 0
    norms = np.where(measured[:, None], [50.0, 1.0], np.nan)
    history = make_history(norms, [1.0, 1.0], losses=np.ones((100, 2)), measured=measured)
    assert diagnose(history).verdict.startswith("Act. Only 4 measured steps: ") is few


def test_of_findings_with_one_grade_the_verdict_tells_the_first_that_speaks_of_the_run() -> None:
    quiet, loud = Finding("still", "No.", {}), Finding("balanced", "Yes.", {}, headline="equal.")
    watch = Finding("dead", "Was.", {}, "use()", "watch", "it was dead.")
    assert Diagnosis(("a", "b"), 90, (quiet, loud)).verdict == "Fine: equal."
    assert Diagnosis(("a", "b"), 90, (watch, quiet, loud)).verdict == "Watch: it was dead."
    assert Diagnosis(("a", "b"), 90, (watch, quiet, loud)).code == "use()"
    assert Diagnosis(("a", "b"), 90, (quiet,)).verdict == (
        "Watch: no step had two tasks that pull, so there was nothing to balance."
    )


# --- observed runs ------------------------------------------------------------------------------

OBSERVED = {"method": "observe"}


def test_a_run_that_is_observed_is_told_what_drowns_and_what_to_do() -> None:
    diagnosis = diagnose(make_history([[208.0, 1.0]] * 60, [1.0, 1.0], about=OBSERVED))
    assert str(diagnosis).splitlines()[:2] == [
        "Act: 'rul' drowns 'health', 208 to 1. Balance them, or multiply 'health' by 210.",
        "Use: gaba.Balancer(tasks, shared)",
    ]
    said = "As the losses are written, 'rul' pulled 208 times as hard as 'health'."
    assert found_in(diagnosis, "dominated").text == said
    assert not {"would-dominate", "still", "fixed-would-do", "shrunk"} & set(diagnosis.kinds)


def test_an_observed_run_that_is_balanced_needs_no_balancer() -> None:
    diagnosis = diagnose(make_history([[1.2, 1.0]] * 60, [1.0, 1.0], about=OBSERVED))
    said = "Fine: the tasks pull equally hard, within a factor of 1.20. No balancer is needed."
    assert diagnosis.verdict == said
    assert (diagnosis.grade, diagnosis.code) == ("fine", "")


def test_the_factors_that_even_out_three_tasks_are_told() -> None:
    history = make_history([[100.0, 5.0, 1.0]] * 60, [1.0] * 3, about=OBSERVED)
    assert diagnose(history).verdict == (  # 100 / (5 + 1)
        "Act: 'rul' drowns all the others together, 16.7 to 1. Balance them."
    )
    assert "Multiply 'health' by 20 and 'third' by 100 to even" in found(history, "imbalance").text
    applied = make_history([[100.0, 5.0, 1.0]] * 60, [1.0, 2.0, 1.0], about={"method": "paper"})
    assert "Multiply" not in found(applied, "imbalance").text


@pytest.mark.parametrize(
    ("ratio", "limit"),
    # The quiet task gets at most the limit, the loud one what is left of the sum:
    # (r + 1 − 64)/64 is below 10 up to r = 702; (r + 1 − 1000)/1000 up to 10,998.
    [(500.0, ""), (702.0, ""), (704.0, "1_000"), (10_990.0, "1_000"), (11_010.0, "10_000")],
)
@pytest.mark.parametrize("method", ["observe", "paper"])
def test_the_code_that_switches_has_the_limit_that_is_needed(
    ratio: float, limit: str, method: str
) -> None:
    multipliers = [1.0, 1.0] if method == "observe" else [0.05, 0.95]
    rows = [[ratio, 1.0]] * 60
    code = diagnose(make_history(rows, multipliers, about={"method": method})).code
    named = "" if method == "observe" else ', method="gaba"'
    wider = f", limit={limit}" if limit else ""
    assert code == f"gaba.Balancer(tasks, shared{named}{wider})"


@pytest.mark.parametrize("ratio", [300.0, 690.0, 710.0, 5000.0, 10_900.0, 11_100.0])
def test_after_the_advice_nothing_is_drowned(ratio: float) -> None:
    observed = make_history([[ratio, 1.0]] * 60, [1.0, 1.0], about=OBSERVED)
    advised = re.search(r"limit=([\d_]+)", diagnose(observed).code)
    limits = [64, *([int(advised[1])] if advised else [])]
    grades = []
    for limit in limits:
        theta = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        balancer = gaba.Balancer(["rul", "health"], [theta], "inverse", limit=limit)
        for _ in range(60):
            balancer.backward({"rul": ratio * theta[0], "health": theta[1]})
        grades.append(diagnose(balancer.history).grade)
    assert grades[-1] != "act"
    assert len(grades) == 1 or grades[0] == "act"


def test_tasks_that_take_turns_are_compared_over_the_run() -> None:
    mine = np.arange(100)[:, None] % 2 == [0, 1]
    for ratio, grade in ((1.5, "fine"), (500.0, "act")):
        norms, ones = np.where(mine, [ratio, 1.0], np.nan), np.where(mine, 1.0, np.nan)
        history = make_history(norms, ones, losses=norms, finite=True, about=OBSERVED)
        diagnosis = diagnose(history)
        assert diagnosis.grade == grade
        assert ("'rul' drowns 'health', 500 to 1." in diagnosis.verdict) is (grade == "act")


def test_a_real_run_is_observed() -> None:
    theta = torch.nn.Parameter(torch.ones(2))
    diagnosis = run(gaba.Observer(["rul", "health"], [theta]), theta, 200)
    assert diagnosis.grade == "act"
    assert "'rul' drowns 'health', 500 to 1." in diagnosis.verdict
    assert diagnosis.code == "gaba.Balancer(tasks, shared)"
    assert "pulls in the Euclidean metric" in str(diagnosis)


@pytest.mark.parametrize("tasks", [["image", "kl"], ["image", "label", "kl"]])
def test_a_quiet_regularizer_is_kept_from_being_amplified_and_told(tasks: list[str]) -> None:
    theta = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    balancer = gaba.Balancer(tasks, [theta])
    scales = [10.0, *[3.0] * (len(tasks) - 2), 0.1]
    for _ in range(100):
        losses = [s * part for s, part in zip(scales, theta, strict=False)]
        balancer.backward(dict(zip(tasks, losses, strict=True)))
    multipliers = balancer.history.multipliers
    assert (multipliers[:, -1] == 1).all()
    diagnosis = balancer.diagnose()
    assert diagnosis.grade in ("fine", "watch")
    assert found_in(diagnosis, "spared").figures["tasks"] == ["kl"]
    assert "limit=" not in diagnosis.code
    if len(tasks) == 2:
        assert diagnosis.verdict == (
            "Fine: there is nothing to balance beside 'image': 'kl' is a regularizer."
        )
    else:
        contributions = balancer.history.contributions[balancer.history.measured][-1, :2]
        assert contributions[0] == pytest.approx(contributions[1], rel=1e-6)


# --- convergence, amplification, noise, conflict ------------------------------------------------


@pytest.mark.parametrize(("fall", "faded"), [(1.0, False), (4.0, False), (1000.0, True)])
def test_a_task_that_may_have_converged_is_watched_only(fall: float, faded: bool) -> None:
    norms = np.tile([100.0, 1.0], (200, 1))
    norms[:, 1] *= fall ** -np.linspace(0, 1, 200)
    diagnosis = diagnose(make_history(norms, [1.0, 1.0], about=OBSERVED))
    assert ("faded" in diagnosis.kinds) is faded
    assert diagnosis.grade == ("watch" if faded else "act")
    assert ("'health' may have converged" in diagnosis.verdict) is faded


def test_a_norm_that_falls_while_its_task_stays_balanced_is_not_worth_a_word() -> None:
    norms = np.stack([np.ones(200), np.logspace(0, -3, 200)], axis=1)
    assert "faded" not in diagnose(make_history(norms, 1 / norms)).kinds


def near_the_limit(
    multiplier: float, losses: ArrayLike, n_tasks: int = 3, limit: str | None = "64"
) -> Diagnosis:
    """200 steps in which the second loss is multiplied; the others fall."""
    about = {"method": "gaba"} | ({} if limit is None else {"limit": limit})
    multipliers = [1.0, multiplier, 1.0][:n_tasks]
    values = np.tile(np.linspace(2, 1, 200)[:, None], (1, n_tasks))
    values[:, 1] = losses
    norms = np.tile(1 / np.array(multipliers), (200, 1))
    return diagnose(make_history(norms, multipliers, losses=values, about=about))


def test_a_loss_that_is_amplified_and_does_not_fall_is_told() -> None:
    diagnosis = near_the_limit(40.0, 0.7)
    assert diagnosis.grade == "watch"
    assert diagnosis.verdict == "Watch: 'health' is multiplied by 40 and does not fall."
    assert diagnosis.code == (
        "gaba.Balancer([t for t in tasks if t not in ['health']], shared, fixed={'health': 1.0})"
    )
    assert found_in(diagnosis, "amplified").figures["multipliers"] == [1.0, 40.0, 1.0]
    assert near_the_limit(40.0, 0.7, n_tasks=2).code == "sum(losses.values()).backward()"
    assert "amplified" in near_the_limit(40.0, -0.7 + np.linspace(0, 0.1, 200)).kinds


CALM: dict[str, Callable[[], Diagnosis]] = {
    "it falls": lambda: near_the_limit(40.0, np.linspace(2, 1, 200)),
    "it falls below zero": lambda: near_the_limit(40.0, np.linspace(-1, -2, 200)),
    "it is solved": lambda: near_the_limit(40.0, 0.0),
    "it is multiplied by less than half the limit": lambda: near_the_limit(31.0, 0.7),
    "there is no limit": lambda: near_the_limit(40.0, 0.7, limit=None),
    "the limit is 1": lambda: near_the_limit(1.0, 0.7, limit="1"),
}


@pytest.mark.parametrize("case", CALM)
def test_a_loss_that_is_not_amplified_in_vain_is_left_alone(case: str) -> None:
    assert "amplified" not in CALM[case]().kinds


@pytest.mark.parametrize(
    ("own", "others", "noise"),
    [(1.0, 0.1, True), (0.1, 0.1, False), (1.0, 1.0, False), (0.3, 0.01, False)],
)
def test_a_norm_that_scatters_far_more_than_the_others_looks_loud(
    own: float, others: float, noise: bool
) -> None:
    sigma = np.array([others, own, others])
    history = make_history(scattered(400, [1.0] * 3, 1.0) ** sigma, [1.0] * 3, about=OBSERVED)
    diagnosis = diagnose(history)
    assert ("scattered" in diagnosis.kinds) is noise
    if noise:
        assert diagnosis.verdict == (
            "Watch: the gradient of 'health' is mostly noise: small batches or few labels look "
            "loud."
        )
        figures = found_in(diagnosis, "scattered").figures
        assert figures["task"] == "health"
        # The median of |x − y| for normal x and y of one σ is 0.6745 · √2 · σ.
        assert figures["jump"] == pytest.approx(math.exp(0.6745 * math.sqrt(2)), rel=0.1)


def test_a_norm_that_drifts_without_scatter_is_no_noise() -> None:
    norms = np.stack([np.ones(400), np.logspace(0, 4, 400)], axis=1)
    assert "scattered" not in diagnose(make_history(norms, 1 / norms)).kinds


def with_cosines(cosines: ArrayLike, n_tasks: int = 2) -> gaba.History:
    """A history whose first two tasks have these cosines; the others are orthogonal."""
    history = gaba.History(("rul", "health", "third")[:n_tasks])
    for i, cosine in enumerate(np.asarray(cosines, float)):
        gramian = np.eye(n_tasks)
        gramian[0, 1] = gramian[1, 0] = cosine
        ones = np.ones(n_tasks)
        history.append(make_step(ones, ones, gramian=gramian, step=i, about=OBSERVED))
    return history


def test_tasks_that_pull_against_each_other_are_named_with_count_and_spread() -> None:
    cosines = np.linspace(-0.6, -0.2, 81)
    diagnosis = diagnose(with_cosines(cosines, 3))
    finding = found_in(diagnosis, "conflict")
    assert finding.figures["tasks"] == ["rul", "health"]
    assert finding.figures["median"] == pytest.approx(-0.4)
    assert finding.figures["low"] == pytest.approx(-0.5)
    assert finding.figures["high"] == pytest.approx(-0.3)
    assert (finding.figures["count"], finding.figures["pairs"]) == (81, 1)
    assert finding.figures["cosines"] == pytest.approx([-0.4, 0.0, 0.0])
    assert "median of 81 steps, the middle half from -0.50 to -0.30" in finding.text
    assert diagnosis.verdict == (
        "Watch: 'rul' and 'health' pull against each other (cosine -0.40)."
    )


@pytest.mark.parametrize("cosine", [-0.15, 0.0, 0.8])
def test_tasks_that_do_not_conflict_have_their_cosines_listed(cosine: float) -> None:
    diagnosis = diagnose(with_cosines(np.full(60, cosine), 3))
    assert diagnosis.grade == "fine"
    assert f"rul/health {cosine:.2f}, rul/third 0.00" in found_in(diagnosis, "cosines").text
    assert "conflict" not in diagnosis.kinds


def test_four_cosines_show_no_conflict_and_lost_steps_have_none() -> None:
    assert not {"conflict", "cosines"} & set(diagnose(with_cosines([-0.5] * 4)).kinds)
    assert "conflict" in diagnose(with_cosines([-0.5] * 5)).kinds
    lost = gaba.History(("rul", "health"))
    for i in range(60):
        gramian = np.array([[1.0, -0.5], [-0.5, 1.0]])
        lost.append(make_step([1.0, 1.0], [1.0, 1.0], gramian=gramian, finite=i < 4, step=i))
    assert not {"conflict", "cosines"} & set(diagnose(lost).kinds)


# --- tasks and parameters that are not what they seem -------------------------------------------


def test_a_task_that_does_not_pull_at_all_needs_action() -> None:
    norms = np.tile([1.0, 0.0], (100, 1))
    diagnosis = diagnose(make_history(norms, [1.0, 1.0]))
    assert diagnosis.verdict == "Act: 'health' does not pull on the shared parameters at all."
    norms[:80, 1] = 1.0
    norms[90:, 1] = 1.0
    assert found(make_history(norms, [1.0, 1.0]), "dead").grade == "watch"


@pytest.mark.parametrize(("every", "is_rare"), [(20, True), (5, True), (4, False), (1, False)])
def test_a_task_that_few_steps_have_is_rare(every: int, is_rare: bool) -> None:
    norms = np.ones((200, 2))
    norms[np.arange(200) % every > 0, 1] = np.nan
    multipliers = np.where(np.isnan(norms), np.nan, 1.0)
    history = make_history(norms, multipliers, losses=norms, finite=True, about=OBSERVED)
    diagnosis = diagnose(history)
    assert ("rare" in diagnosis.kinds) is is_rare
    assert ("missing" in diagnosis.kinds) is (not is_rare and every > 1)
    if is_rare:
        part = f"{100 / every:.1f} %"
        assert diagnosis.verdict == f"Watch: 'health' is in {part} of the steps only."
        assert f"'health' is in {part} ({200 // every})" in found(history, "rare").text


def test_a_rare_task_that_is_loud_where_it_is_there_is_watched_only() -> None:
    norms = np.tile([1.0, 50.0], (200, 1))
    norms[np.arange(200) % 10 > 0, 1] = np.nan
    multipliers = np.where(np.isnan(norms), np.nan, 1.0)
    diagnosis = diagnose(make_history(norms, multipliers, losses=norms, finite=True))
    assert diagnosis.grade == "watch"
    assert "'health' drowns 'rul', 50.0 to 1. But few steps have it." in diagnosis.verdict


def test_parameters_that_are_not_shared_are_told_as_the_balancer_found_them() -> None:
    said = "6 of 12 parameters (4,352 numbers) are reached by 'rul' alone: head.rul.weight, ..."
    about = {"method": "observe", "shared": said}
    diagnosis = diagnose(make_history([[1.0, 1.0]] * 60, [1.0, 1.0], about=about))
    assert diagnosis.verdict == "Watch: `shared` holds parameters that no two losses train."
    assert diagnosis.code == 'gaba.Balancer(tasks, shared="auto", method="observe")'
    assert (
        "(4,352 numbers) are reached by 'rul' alone: head.rul.weight"
        in found_in(diagnosis, "shared").text
    )
    assert found_in(diagnosis, "shared").figures == {"reason": said}
    assert "balanced" in diagnosis.kinds
    right = diagnose(make_history([[1.0, 1.0]] * 60, [1.0, 1.0], about=OBSERVED))
    assert "shared" not in right.kinds


@pytest.mark.parametrize(("n", "ends_in_it"), [(60, True), (100, True), (101, False)])
def test_a_warm_up_that_outlasts_the_run_is_told(n: int, ends_in_it: bool) -> None:
    about = {"method": "paper", "warm-up": "100"}
    diagnosis = diagnose(make_history([[50.0, 1.0]] * n, [0.5, 0.5], about=about))
    assert ("warm-up" in diagnosis.kinds) is ends_in_it
    assert diagnosis.grade == ("watch" if ends_in_it else "act")
    assert diagnosis.code == 'gaba.Balancer(tasks, shared, method="gaba")'
    if ends_in_it:
        said = "Watch: nothing is balanced yet, because the warm-up takes 100 steps."
        assert diagnosis.verdict == said


@pytest.mark.parametrize(
    ("method", "multipliers", "code"),
    [
        ("uniform", [1.0, 1.0], 'gaba.Balancer(tasks, shared, method="observe")'),
        ("dwa", [0.7, 1.3], 'gaba.Balancer(tasks, shared, method="gaba")'),
        ("observe", [1.0, 1.0], ""),
    ],
)
def test_what_was_not_measured_is_told_with_the_way_to_measure_it(
    method: str, multipliers: list[float], code: str
) -> None:
    history = make_history(
        np.full((80, 2), np.nan),
        multipliers,
        losses=np.ones((80, 2)),
        measured=False,
        about={"method": method},
    )
    diagnosis = diagnose(history)
    assert diagnosis.verdict.startswith("Watch: nothing was measured")
    assert diagnosis.code == code


@pytest.mark.parametrize(
    ("lost", "grade"), [(0, "fine"), (2, "fine"), (10, "watch"), (20, "act"), (200, "act")]
)
def test_lost_steps_are_graded_by_their_number(lost: int, grade: str) -> None:
    finite = np.arange(200) % (200 // lost) > 0 if 0 < lost < 200 else np.full(200, lost == 0)
    norms = np.where(finite[:, None], 1.0, [1.0, np.nan])
    diagnosis = diagnose(make_history(norms, [1.0, 1.0], losses=np.ones((200, 2)), finite=finite))
    assert diagnosis.grade == grade
    assert ("non-finite" in diagnosis.kinds) is (lost > 0)
    if lost == 200:
        assert diagnosis.verdict == "Act: no step was finite, so nothing was learnt."


@pytest.mark.parametrize(("method", "told"), [("inverse", True), ("uniform", False)])
def test_multipliers_that_stand_still_come_with_the_code_that_fixes_them(
    method: str, told: bool
) -> None:
    history = make_history([[4.0, 1.0]] * 60, [0.625, 2.5], about={"method": method})
    finding = diagnose(history).find("still")
    assert (finding is not None) is told
    if finding is not None:
        assert finding.grade == "fine"
        assert finding.code == 'gaba.Balancer(tasks, shared, method="fixed:0.625,2.5")'
        rule = gaba.methods.get("fixed:0.625,2.5", ["rul", "health"]).rule
        assert rule == gaba.rules.Fixed((0.625, 2.5))


# --- the whole --------------------------------------------------------------------------------


def test_scaling_every_norm_changes_no_verdict() -> None:
    norms, weights = scattered(300, [5, 0.01, 1], 0.3), simplex(scattered(300, [1, 9, 3], 0.1))
    for factor in (1e-20, 1e20):
        a, b = (diagnose(make_history(f * norms, weights)) for f in (1.0, factor))
        assert a.kinds == b.kinds
        assert str(a) == str(b)


def test_permuting_the_tasks_permutes_the_figures() -> None:
    norms, weights = scattered(300, [5, 0.01, 1], 0.3), simplex(scattered(300, [1, 9, 3], 0.1))
    names = ("rul", "health", "third")
    a = diagnose(make_history(norms, weights, tasks=names))
    b = diagnose(make_history(norms[:, ::-1], weights[:, ::-1], tasks=names[::-1]))
    assert a.kinds == b.kinds
    for one, other in zip(a.findings, b.findings, strict=True):
        for name, value in one.figures.items():
            turned = other.figures[name]
            if isinstance(turned, list):
                turned = turned[::-1]
            assert turned == pytest.approx(value) if not isinstance(value, str) else turned == value


def test_the_text_holds_every_finding_and_the_figures_survive_json() -> None:
    diagnosis = diagnose(make_history([[50.0, 1.0]] * 60, [0.5, 0.5]))
    flat = " ".join(str(diagnosis).split())
    assert str(diagnosis).splitlines()[:4] == [
        "Act: 'rul' drowns 'health', 50.0 to 1. Balance them, or multiply 'health' by 50.",
        'Use: gaba.Balancer(tasks, shared, method="gaba")',
        "60 steps of 2 tasks (rul, health).",
        "- Under the weights used 'rul' pulled 50.0 times as hard as 'health'.",
    ]
    for finding in diagnosis.findings:
        assert finding.text in flat
    assert max(len(line) for line in str(diagnosis).splitlines()) <= 100
    written = json.loads(json.dumps(diagnosis.asdict()))
    assert [entry["kind"] for entry in written["findings"]] == list(diagnosis.kinds)
    assert written["grade"] == "act"
    assert {entry["grade"] for entry in written["findings"]} == {"act", "fine"}


def test_a_finding_is_looked_up_by_kind() -> None:
    finding = Finding("dead", "", {})
    diagnosis = Diagnosis(("a", "b"), 1, (finding,))
    assert diagnosis.find("dead") is finding
    assert diagnosis.find("saturated") is None


# --- real runs --------------------------------------------------------------------------------


def run(balancer: gaba.Balancer, parameter: torch.Tensor, n: int) -> Diagnosis:
    """n steps with norms of exactly 5 and .01."""
    for _ in range(n):
        balancer.backward({"rul": 5.0 * parameter[0], "health": 0.01 * parameter[1]})
        parameter.grad = None
    return diagnose(balancer.history)


def test_the_paper_preset_at_500_times_is_told_that_it_became_a_fixed_weighting(
    tmp_path: Path,
) -> None:
    theta = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["rul", "health"], [theta], method="paper")
    diagnosis = run(balancer, theta, 1000)

    saturated = diagnosis.find("saturated")
    assert saturated is not None
    # After n updates the small weight averages .002 + .498 · .99ⁿ, which is first below .05
    # for n = 233. With the 100 steps of warm-up that is the 333rd step, and steps count from 0.
    assert saturated.figures["first_step"] == 332
    assert saturated.figures["count"] == 668
    assert "in every step since 332" in saturated.text
    assert "reached its minimum (0.0478)" in saturated.text
    assert diagnosis.code == 'gaba.Balancer(tasks, shared, method="gaba")'
    assert diagnosis.verdict == "Act: 'rul' drowns 'health', 25.3 to 1."

    still = diagnosis.find("still")
    assert still is not None
    since = still.figures["since"]
    assert isinstance(since, float)
    assert 325 <= since <= 335
    assert still.figures["weights"] == pytest.approx([0.0478, 0.9522], abs=2e-4)
    assert "0.048/0.952" in still.text
    assert still.code == 'gaba.Balancer(tasks, shared, method="fixed:0.0478,0.952")'

    imbalance = diagnosis.find("imbalance")
    assert imbalance is not None
    assert imbalance.figures["median"] == pytest.approx(25.1, abs=0.2)
    assert {"would-dominate", "dominated", "fixed-would-do"} <= set(diagnosis.kinds)

    balancer.history.write(tmp_path / "run.jsonl")
    again = diagnose(gaba.History.read(tmp_path / "run.jsonl"))
    assert again.asdict() == diagnosis.asdict()


AT_ONCE = gaba.methods.get("gaba", rise=None, limit=32)


@pytest.mark.parametrize("settings", [{"method": AT_ONCE}, {"method": "inverse", "limit": 32}])
def test_at_500_times_the_first_line_tells_the_limit_that_is_enough(
    settings: dict[str, Any],
) -> None:
    """Of the sum of 501 the quiet task has 32 and the loud one 469: 14.7 to 1."""
    theta = torch.nn.Parameter(torch.ones(2))
    diagnosis = run(gaba.Balancer(["rul", "health"], [theta], **settings), theta, 60)
    lines = str(diagnosis).splitlines()
    assert lines[0] == "Act: use limit=1_000. With 32, 'rul' pulls 14.7 times as hard as 'health'."
    named = 'method="inverse", ' if "limit" in settings else ""
    assert lines[1] == f"Use: gaba.Balancer(tasks, shared, {named}limit=1_000)"
    assert diagnosis.kinds[0] == "limited"
    assert diagnosis.findings[0].figures == {
        "tasks": ["health"],
        "ratio": pytest.approx(469 / 32, rel=1e-6),
        "limit": 32.0,
        "enough": 1000.0,
    }
    finding = found_in(diagnosis, "saturated")
    assert "The multiplier of 'health' was at its limit in 100 % of the steps" in finding.text
    wider = run(
        gaba.Balancer(["rul", "health"], [theta], **{**settings, "limit": 1_000}), theta, 60
    )
    assert wider.kinds == ("balanced", "would-dominate", "still")
    assert str(wider).startswith("Fine: the tasks pull equally hard.\n")
    assert wider.grade == "fine"
    assert wider.code == ""


def test_what_the_pulls_are_is_said_as_it_was_measured() -> None:
    theta = torch.nn.Parameter(torch.ones(2))
    for method, said in (
        ("gaba", "pulls by effective norms, from the update"),
        ("inverse", "pulls in the Euclidean metric"),
    ):
        diagnosis = run(gaba.Balancer(["rul", "health"], [theta], method), theta, 5)
        assert f"5 steps of 2 tasks (rul, health), {said}.\n" in str(diagnosis)


def rise_to(n: int, top: float = 64.0, factor: float = 1.2) -> np.ndarray[Any, Any]:
    """The multipliers of n steps: the second one rises from 1 to its top."""
    return np.stack([np.full(n, 0.9), np.minimum(factor ** np.arange(1, n + 1), top)], axis=1)


def of_rise(multipliers: ArrayLike, ratio: float = 500.0, **about: str) -> Diagnosis:
    """Norms in this ratio; what is asked for is at the limit in every step."""
    rows = [[ratio, 1.0]] * len(np.asarray(multipliers))
    about = {"method": "gaba", "limit": "64", **about}
    return diagnose(make_history(rows, multipliers, saturated=[False, True], about=about))


@pytest.mark.parametrize("n", [1, 2, 10, 20])
def test_multipliers_that_are_still_rising_are_told_in_place_of_the_imbalance(n: int) -> None:
    diagnosis = of_rise(rise_to(n))
    assert diagnosis.kinds[0] == "rising"
    at = 1.2**n
    assert diagnosis.verdict == (
        f"Watch. Only {n} step{'s' * (n > 1)}: the multiplier of 'health' is still rising "
        f"({at:.3g} now). Look again later."
    )
    assert diagnosis.findings[0].text == (
        "The multiplier of 'health' is still rising, as fast as the method lets it: it is at "
        f"{at:.3g}. Look again after more steps."
    )
    figures = diagnosis.findings[0].figures
    assert figures["tasks"] == ["health"]
    assert figures["multipliers"] == pytest.approx([at], rel=1e-9)
    assert figures["steps"] == [n]
    assert diagnosis.grade == "watch"
    assert found_in(diagnosis, "imbalance").grade == "watch"  # its figures stay
    assert not {"limited", "saturated"} & set(diagnosis.kinds)  # 64 is far
    json.dumps(diagnosis.asdict(), allow_nan=False)


def test_several_multipliers_that_rise_are_named_together() -> None:
    both = 1.2 ** np.arange(1, 6)
    multipliers = np.stack([np.full(5, 0.9), both, both], axis=1)
    text = found(make_history([[500.0, 1.0, 1.0]] * 5, multipliers), "rising").text
    assert text.startswith("The multipliers of 'health' and 'third' are still rising")
    assert "they are at 2.49, 2.49." in text


def settled_late(n: int) -> np.ndarray[Any, Any]:
    """Steady multipliers of which the second rises again in the last 20 steps of n."""
    multipliers = np.tile([0.9, 1.0], (n, 1))
    multipliers[-20:, 1] = 1.2 ** np.arange(1, 21)
    return multipliers


STEADY: dict[str, Callable[[], Diagnosis]] = {
    "it has arrived": lambda: of_rise(rise_to(23)),
    "it grows by less": lambda: of_rise(rise_to(10, factor=1.19)),
    "it grows by more": lambda: of_rise(rise_to(10, factor=1.21)),
    "it falls": lambda: of_rise(rise_to(10)[::-1]),
    "it never moves": lambda: of_rise(np.tile([0.9, 1.0], (10, 1))),
    "it is balanced all the same": lambda: of_rise(rise_to(3), ratio=1.5),
    "it rises late in a long run": lambda: of_rise(settled_late(200)),
    "the method lets it rise faster": lambda: of_rise(rise_to(10), rise="1.5"),
}


@pytest.mark.parametrize("case", STEADY)
def test_multipliers_that_do_not_rise_as_a_run_begins_are_not_called_rising(case: str) -> None:
    assert "rising" not in STEADY[case]().kinds
    assert "rising" in of_rise(settled_late(30)).kinds
    assert "rising" in of_rise(rise_to(10, factor=1.5), rise="1.5").kinds


def test_micro_batches_and_absences_do_not_hide_a_rise() -> None:
    held = np.repeat(rise_to(5), 3, axis=0)  # three micro-batches a step
    assert of_rise(held).kinds[0] == "rising"
    rows = rise_to(12)
    norms = np.tile([500.0, 1.0], (12, 1))
    rows[4:7, 1] = norms[4:7, 1] = np.nan  # in use it rises on while its task is away
    assert found(make_history(norms, rows, losses=norms, finite=True), "rising").figures[
        "steps"
    ] == [9]


@pytest.mark.parametrize("n", [30, 200])
def test_a_multiplier_is_at_its_limit_from_where_it_has_arrived(n: int) -> None:
    """1.2²² is below 64 and 1.2²³ above: the step with number 22 is the first at the limit."""
    finding = found_in(of_rise(rise_to(n)), "saturated")
    assert finding.figures["first_step"] == 22
    assert finding.figures["count"] == n - 22
    assert "was at its limit" in finding.text


def test_the_first_steps_of_the_default_are_not_settled_and_later_ones_are() -> None:
    """A ratio of 30 asks for 15.5, which is above 1.2¹⁵ and below 1.2¹⁶."""
    theta = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["loud", "quiet"], [theta], every=1)
    verdicts = []
    for _ in range(80):
        balancer.backward({"loud": 30 * theta[0], "quiet": theta[1]})
        theta.grad = None
        verdicts.append(diagnose(balancer.history))
    assert {said.kinds[0] for said in verdicts[:15]} == {"rising"}
    assert all("is still rising" in said.verdict for said in verdicts[:15])
    assert verdicts[-1].grade == "fine"
    assert "saturated" not in diagnose(balancer.history).kinds


def test_to_whom_the_parts_of_the_trunk_belong() -> None:
    """By norms that are known: of 3 w and 1 w on one part, 1 and 4 on the other."""
    first, second = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    trunk = torch.nn.ModuleDict(
        {"first": torch.nn.ParameterList([first]), "second": torch.nn.ParameterList([second])}
    )
    observer = gaba.Observer(["a", "b"], trunk, groups="module")
    for _ in range(5):
        losses = {"a": 3 * first.sum() + second.sum(), "b": first.sum() + 4 * second.sum()}
        observer.backward(losses)
    finding = found_in(observer.diagnose(), "owners")
    assert finding.figures == {"parts": ["first", "second"], "owned": [0.75, 0.8]}
    assert "first 75.0 % 'a', second 80.0 % 'b'" in finding.text
    plain = gaba.Observer(["a", "b"], trunk)
    plain.backward({"a": 3 * first.sum() + second.sum(), "b": first.sum() + 4 * second.sum()})
    assert plain.diagnose().find("owners") is None


def test_pulls_are_judged_by_their_targets() -> None:
    """With shares of 0.9 and 0.1, contributions of 3 to 1 are what was asked for."""
    w = torch.nn.Parameter(torch.ones(2).double())
    targets = {"a": 0.9, "b": 0.1}
    balancer = gaba.Balancer(["a", "b"], [w], "equal-share", share_targets=targets)
    for _ in range(60):
        balancer.backward({"a": w[0], "b": w[1]})
    assert balancer.diagnose().grade == "fine"
    history = gaba.History(["a", "b"])
    for step in balancer.history:
        history.append(dataclasses.replace(step, about={}))
    assert gaba.diagnose(history).grade == "watch"


def test_the_ratio_is_that_of_the_run_not_of_its_dense_beginning() -> None:
    """20 of 24 measurements are in the first 20 of 200 steps, where the ratio is another."""
    at = [*range(20), 60, 100, 140, 180]
    norms = np.full((200, 2), np.nan)
    for n in at:
        norms[n] = [40.0 if n < 20 else 3.0, 1.0]
    measured = np.isin(np.arange(200), at)
    history = make_history(norms, [1.0, 1.0], losses=np.ones((200, 2)), measured=measured)
    finding = found(history, "imbalance")
    assert finding.figures["median"] == pytest.approx(3.0)
    assert (finding.figures["worst"], finding.figures["worst_step"]) == (40.0, 0.0)
    assert found(history, "dominated").figures["ratio"] == pytest.approx(3.0)


def test_the_line_to_paste_keeps_what_is_fixed() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    observer = gaba.Observer(["a", "b"], [w], fixed={"kl": 0.1, "entropy": 2.0})
    for _ in range(60):
        observer.backward({"a": 50 * w[0], "b": w[1], "kl": w[2], "entropy": w[2] ** 2})
    code = observer.diagnose().code
    assert code == 'gaba.Balancer(tasks, shared, fixed={"kl": 0.1, "entropy": 2})'
