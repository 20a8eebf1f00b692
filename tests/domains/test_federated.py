"""Weights of clients from the norms of their updates: the properties, without Flower."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _inputs import norm_families
from gaba.domains.federated import ClientWeights, Round, merge, update_norm
from gaba.extras import install
from gaba.stabilisers import LogEMA

NAN, INF = math.nan, math.inf
NORMS = st.dictionaries(
    st.integers(0, 99), st.floats(1e-20, 1e20, allow_subnormal=False), min_size=1, max_size=12
)


def named(norms: Any) -> dict[str, float]:
    return {f"client {k}": float(norm) for k, norm in enumerate(norms)}


@given(norms=NORMS)
def test_contributions_are_equal_and_weights_are_a_mean(norms: dict[int, float]) -> None:
    seen = ClientWeights().weigh(norms)
    assert sum(seen.weights.values()) == pytest.approx(1, rel=1e-12)
    assert seen.imbalance == pytest.approx(1, rel=1e-9)
    pull = np.array([*seen.contributions.values()])
    np.testing.assert_allclose(pull, pull[0], rtol=1e-9)


@pytest.mark.parametrize("family", norm_families())
def test_weights_are_the_closed_formula(family: str) -> None:
    norms = norm_families()[family]
    seen = ClientWeights().weigh(named(norms))
    inverse = norms.min() / norms
    np.testing.assert_allclose([*seen.weights.values()], inverse / inverse.sum(), rtol=1e-12)
    assert [*seen.weights] == [*named(norms)]


@given(norms=NORMS, draw=st.randoms(use_true_random=False))
def test_contributions_follow_the_examples(norms: dict[int, float], draw: Any) -> None:
    examples = {client: draw.randint(1, 1000) for client in norms}
    seen = ClientWeights("examples").weigh(norms, examples)
    per_example = [seen.contributions[k] / examples[k] for k in norms]
    np.testing.assert_allclose(per_example, per_example[0], rtol=1e-9)


def test_equal_norms_by_examples_is_plain_federated_averaging() -> None:
    examples = {"a": 10, "b": 30, "c": 60}
    seen = ClientWeights("examples").weigh(dict.fromkeys(examples, 2.5), examples)
    assert seen.weights == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_client_without_a_finite_norm_is_left_out_and_named(bad: float) -> None:
    rule = ClientWeights(believe=LogEMA(0.5))
    first = rule.weigh({"a": 1.0, "b": 4.0})
    second = rule.weigh({"a": 1.0, "b": bad}, beliefs=first.beliefs)
    assert second.weights == {"a": 1.0}
    assert second.left_out == {"b": f"norm is {bad}"}
    for part in ("mean", "mass"):  # nothing was learnt of it
        assert getattr(second.beliefs["b"], part) == getattr(first.beliefs["b"], part)


def test_no_usable_client_gives_no_weights_and_says_why() -> None:
    assert ClientWeights().weigh({}).weights == {}
    seen = ClientWeights().weigh({1: NAN, 2: INF})
    assert (seen.weights, seen.left_out.keys()) == ({}, {1, 2})
    assert math.isnan(seen.imbalance)


def test_a_client_that_changed_nothing_gets_the_uniform_weight() -> None:
    seen = ClientWeights().weigh({"a": 0.0, "b": 1.0, "c": 3.0})
    assert seen.weights == pytest.approx({"a": 1 / 3, "b": 1 / 2, "c": 1 / 6})
    assert seen.contributions["a"] == 0


def test_a_missing_client_keeps_what_is_believed_and_clients_are_smoothed_apart() -> None:
    rule, decay = ClientWeights(believe=LogEMA(0.75)), 0.75
    visits = [{"a": 1.0, "b": 8.0}, {"a": 5.0}, {"b": 0.5, "late": 2.0}, {"a": 0.2, "b": 3.0}]
    logs: dict[str, list[float]] = {"a": [], "b": [], "late": []}
    beliefs = None
    for norms in visits:
        seen = rule.weigh(norms, beliefs=beliefs)
        beliefs = seen.beliefs
        for client, norm in norms.items():
            logs[client].append(math.log(norm))
        believed = {}
        for client in norms:  # the debiased mean over that client's own rounds
            part = decay ** np.arange(len(logs[client]))[::-1]
            believed[client] = math.exp(np.average(logs[client], weights=part))
        inverse = {client: 1 / value for client, value in believed.items()}
        total = sum(inverse.values())
        assert seen.weights == pytest.approx({k: v / total for k, v in inverse.items()}, rel=1e-9)
    assert beliefs is not None
    assert beliefs.keys() == {"a", "b", "late"}


def test_beliefs_of_the_caller_are_not_changed() -> None:
    rule = ClientWeights(believe=LogEMA(0.5))
    first = rule.weigh({"a": 1.0})
    kept = dict(first.beliefs)
    again = [rule.weigh({"a": 9.0, "b": 1.0}, beliefs=first.beliefs) for _ in range(2)]
    assert first.beliefs == kept
    assert again[0].weights == again[1].weights


@given(norms=NORMS)
def test_the_scale_makes_all_pulls_together_as_long_as_the_median(norms: dict[int, float]) -> None:
    seen = ClientWeights().weigh(norms)
    total = sum(seen.contributions.values())
    assert total == pytest.approx(float(np.median([*norms.values()])), rel=1e-9)
    mean = ClientWeights(scale="simplex").weigh(norms)
    assert mean.multipliers == pytest.approx(seen.weights, rel=1e-12)


@pytest.mark.parametrize("odd", [0.0, 1e-12, 1e12])
def test_one_client_of_any_norm_hardly_changes_the_length_of_the_step(odd: float) -> None:
    seen = ClientWeights().weigh({"odd": odd, **{f"client {k}": 1.0 for k in range(9)}})
    others = [c for k, c in seen.contributions.items() if k != "odd"]
    np.testing.assert_allclose(others, 0.1 if odd else 1 / 9, rtol=1e-9)


def test_of_nothing_but_zeros_a_mean_is_taken() -> None:
    assert ClientWeights().weigh({"a": 0.0, "b": 0.0}).multipliers == {"a": 0.5, "b": 0.5}


def test_a_mean_of_models_where_multipliers_sum_to_one() -> None:
    before, models = models_of()
    weights = {"a": 0.5, "b": 0.2, "c": 0.3}
    for key in "wb":
        mean = sum(weight * models[name][key] for name, weight in weights.items())
        np.testing.assert_allclose(merge(before, models, weights)[key], mean, rtol=1e-5, atol=1e-6)


def test_the_floor_keeps_others_from_being_silenced_by_one_that_hardly_moves() -> None:
    norms = {"idle": 1e-9, **{f"client {k}": 1.0 for k in range(9)}}
    free, bounded = ClientWeights().weigh(norms), ClientWeights(floor=0.2).weigh(norms)
    assert min(free.weights.values()) < 1e-8
    assert min(bounded.weights.values()) == pytest.approx(0.2 / 10)
    assert sum(bounded.weights.values()) == pytest.approx(1)
    assert bounded.saturated == norms.keys() - {"idle"}
    assert not free.saturated


@dataclass(frozen=True)
class Case:
    rule: ClientWeights
    norms: dict[str, float]
    examples: dict[str, float] | None
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Case(ClientWeights(), {"a": -1.0, "b": 1.0}, None, "negative|zero or more"),
        Case(ClientWeights("examples"), {"a": 1.0}, None, r"examples must give .*\['a'\]"),
        Case(ClientWeights("examples"), {"a": 1.0, "b": 1.0}, {"a": 1}, r"none for \['b'\]"),
        Case(ClientWeights("examples"), {"a": 1.0, "b": 1.0}, {"a": 1, "b": 0}, "ratios"),
    ],
)
def test_bad_input_is_one_clear_line(case: Case) -> None:
    with pytest.raises(ValueError, match=case.message) as caught:
        case.rule.weigh(case.norms, case.examples)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "mean"}, "'median' or 'simplex'"),
        ({"floor": 1.0}, "floor must lie"),
        ({"proportional_to": "size"}, "'clients' or 'examples'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClientWeights(**settings)


def models_of(seed: int = 0) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    draw = np.random.default_rng(seed)

    def model() -> dict[str, Any]:
        return {
            "w": draw.standard_normal((3, 2)).astype(np.float32),
            "b": draw.standard_normal(2).astype(np.float32),
            "count": np.array(draw.integers(1, 9)),
        }

    return model(), {name: model() for name in "abc"}


def test_update_norm_is_that_of_all_floating_arrays_together() -> None:
    before, models = models_of()
    flat = [np.concatenate([(m[k] - before[k]).ravel() for k in "wb"]) for m in models.values()]
    found = [update_norm(before, model) for model in models.values()]
    np.testing.assert_allclose(found, np.linalg.norm(flat, axis=1), rtol=1e-6)
    assert update_norm(before, before) == 0
    broken = {**before, "b": np.array([NAN, 0.0], dtype=np.float32)}
    assert math.isnan(update_norm(before, broken))


@pytest.mark.parametrize("change", ["absent", "shape"])
def test_models_of_another_kind_are_refused_by_name(change: str) -> None:
    before, models = models_of()
    other = dict(models["a"])
    if change == "absent":
        del other["b"]
    else:
        other["b"] = np.zeros(5)
    with pytest.raises(ValueError, match="difference in b"):
        update_norm(before, other)
    with pytest.raises(ValueError, match="difference in b"):
        merge(before, {**models, "a": other}, dict.fromkeys(models, 1 / 3))


@pytest.mark.parametrize("scale", ["median", "simplex"])
def test_merged_updates_pull_equally_hard(scale: Literal["median", "simplex"]) -> None:
    before, models = models_of()
    models["a"] = {
        k: (before[k] + 100 * (v - before[k])).astype(v.dtype) for k, v in models["a"].items()
    }
    rule = ClientWeights(scale=scale)
    seen = rule.weigh({k: update_norm(before, m) for k, m in models.items()})
    merged = merge(before, models, seen.multipliers)
    steps = {
        name: {k: m * (models[name][k].astype(float) - before[k]) for k in "wb"}
        for name, m in seen.multipliers.items()
    }
    lengths = [math.sqrt(sum((s**2).sum() for s in step.values())) for step in steps.values()]
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-6)
    for key in "wb":
        total = before[key] + sum(step[key] for step in steps.values())
        np.testing.assert_allclose(merged[key], total, rtol=1e-4, atol=1e-5)
        assert merged[key].dtype == np.float32
    assert merged["count"].dtype == before["count"].dtype
    mean = sum(weight * int(models[name]["count"]) for name, weight in seen.weights.items())
    assert merged["count"] == round(mean)


def test_a_model_without_multiplier_is_not_used() -> None:
    before, models = models_of()
    models["c"]["w"] = np.full((3, 2), NAN, dtype=np.float32)
    assert np.isfinite(merge(before, models, {"a": 0.5, "b": 0.5})["w"]).all()
    with pytest.raises(ValueError, match="no model of"):
        merge(before, models, {"a": 0.5, "z": 0.5})
    with pytest.raises(ValueError, match="found 0 multipliers"):
        merge(before, models, {})


def test_a_round_reports_the_imbalance_of_what_was_done() -> None:
    seen: Round[str] = ClientWeights(floor=0.5).weigh({"a": 1.0, "b": 100.0})
    assert seen.weights == pytest.approx({"a": 0.75, "b": 0.25})
    assert seen.imbalance == pytest.approx(100 * 0.25 / 0.75)


@pytest.mark.parametrize("kind", ["clients", "examples"])
def test_the_strategy_says_what_is_missing_without_flower(
    kind: Literal["clients", "examples"], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    from gaba.domains import _flower

    for name in ("flwr", "flwr.serverapp.strategy"):
        monkeypatch.setitem(sys.modules, name, None)
    module = importlib.reload(_flower)
    try:
        with pytest.raises(ImportError, match=re.escape(install("flwr"))):
            module.BalancedFedAvg(ClientWeights(kind))
    finally:
        monkeypatch.undo()
        importlib.reload(module)
