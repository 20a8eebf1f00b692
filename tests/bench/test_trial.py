"""One training: the same bit for bit, chosen by validation, tested once, honest when it breaks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import _bench_toys as toys
import gaba
from gaba.bench import Problem, Trial, run_trial
from gaba.bench._peak import peak_bytes
from gaba.bench._points import Candidate
from gaba.bench.trial import problem_of, schedule, validations

METHODS = ("uniform", "gaba", "paper", "inverse", "inverse-optimizer", "equal-share", "fixed:1,3")


def trial(name: str = "Toy", method: str = "uniform", **changes: Any) -> Trial:
    base = Trial("toy", method, "adam", 0.03, 0.0, seed=0, steps=8, spec=toys.spec(name))
    return replace(base, **changes)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Without what time and place decide."""
    kept = {k: v for k, v in result.items() if "seconds" not in k and k != "peak_memory_bytes"}
    for split in ("validation", "test"):
        kept[split] = {k: v for k, v in kept[split].items() if k != "process"}
    return kept


def toy(name: str) -> Problem:
    return problem_of(toys.spec(name), None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_same_trial_is_the_same_bit_for_bit(method: str, optimizer: Any) -> None:
    asked = trial(method=method, optimizer=optimizer, learning_rate=1e-3)
    first = run_trial(asked)
    torch.rand(5)  # whatever else the process draws
    assert figures(first) == figures(run_trial(asked))
    assert not first["diverged"]


def test_a_trial_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run_trial(trial())
    assert torch.equal(torch.rand(3), expected)


def test_the_key_is_that_of_the_outcome() -> None:
    base = trial()
    same = (
        replace(base, stage="tune"),
        replace(base, data_dir="/data"),
        replace(base, device="cuda"),
        replace(base, spec=None),
    )
    other: tuple[Trial, ...] = (
        replace(base, problem="other"),
        replace(base, method="gaba"),
        replace(base, optimizer="sgd"),
        replace(base, learning_rate=0.031),
        replace(base, weight_decay=1e-9),
        replace(base, seed=1),
        replace(base, steps=9),
        replace(base, multipliers=(1.0, 1.0)),
    )
    assert {t.key for t in same} == {base.key}
    assert len({t.key for t in (base, *other)}) == 1 + len(other)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = np.array([schedule(t, 200) for t in range(200)])
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert (np.diff(rates[10:]) < 0).all() or rates[10] == 1.0
    assert rates.argmax() == 9
    assert 0 < rates[-1] < 1e-3
    np.testing.assert_allclose(rates[10 + 95], 0.5, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 20, 21, 500])
def test_validations_are_even_and_end_with_the_training(steps: int) -> None:
    found = sorted(validations(steps))
    assert found[-1] == steps
    assert len(found) == min(20, steps)
    assert max(np.diff([0, *found])) <= math.ceil(steps / 20)


def test_the_tested_parameters_are_those_with_the_best_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tested once, after training, with exactly the parameters of the best validation."""
    seen: list[tuple[str, list[float]]] = []
    session = type(toy("Toy").start(0, torch.device("cpu")))  # the class in the problem's own file
    real = session.evaluate

    def spy(self: Any, split: Any) -> dict[str, float]:
        seen.append((split, [float(p.detach().sum()) for p in self.model.parameters()]))
        return real(self, split)

    monkeypatch.setattr(session, "evaluate", spy)
    for seed in range(10):
        seen.clear()
        result = run_trial(trial(learning_rate=0.5, steps=40, seed=seed))
        curve = result["curve"]
        best = min(range(len(curve)), key=lambda i: curve[i][1])
        if 0 < best < len(curve) - 1:
            break
    else:
        pytest.fail("one case at least must have its best in between")
    assert [split for split, _ in seen] == ["validation"] * len(curve) + ["test"]
    assert result["selected_step"] == curve[best][0]
    assert result["quality"] == curve[best][1]
    assert seen[-1][1] == seen[best][1]
    assert result["quality"] == toy("Toy").quality(result["validation"])


def test_test_figures_do_not_choose_the_checkpoint() -> None:
    result = run_trial(trial("Poisoned", problem="poisoned", steps=30))
    assert result["quality"] == min(quality for _, quality in result["curve"])
    for name in ("a", "b"):
        assert result["test"][name] == pytest.approx(1 / result["validation"][name])


def test_constant_multipliers_are_those_that_were_asked_for() -> None:
    result = run_trial(trial(method="fixed-sweep", multipliers=(0.2, 1.8)))
    assert result["multipliers"] == pytest.approx({"a": 0.2, "b": 1.8})
    assert result["weights_mean"] == pytest.approx({"a": 0.1, "b": 0.9})
    assert result["weights_std"] == pytest.approx({"a": 0.0, "b": 0.0}, abs=1e-12)
    same = run_trial(trial(method="fixed:.2,1.8"))
    assert figures(result) == figures(same)


def test_equal_weights_of_a_sweep_are_the_plain_sum() -> None:
    assert Candidate(0.1, 0.0, (0.5, 0.5)).multipliers == (1.0, 1.0)
    swept = run_trial(trial(method="fixed-sweep", multipliers=(1.0, 1.0)))
    assert swept["curve"] == run_trial(trial())["curve"]


def test_a_frozen_method_makes_the_same_steps_where_it_did_not_adapt() -> None:
    """Multipliers held at those of a run with constant ones: the very same training."""
    same = {"optimizer": "sgd", "learning_rate": 1e-3}
    fixed = run_trial(trial(method="fixed:1,3", **same))
    multipliers = tuple(fixed["multipliers"].values())
    held = run_trial(trial(method="frozen:fixed", multipliers=multipliers, **same))
    assert held["curve"] == fixed["curve"]


def test_multipliers_are_factors_of_the_losses() -> None:
    """For plain SGD without a clip in reach: twice the factor, half the rate, the same training."""
    one = trial(optimizer="sgd")
    result = run_trial(replace(one, multipliers=(1e-4, 1e-4), learning_rate=0.1))
    again = run_trial(replace(one, multipliers=(2e-4, 2e-4), learning_rate=0.05))
    assert result["curve"][0] != result["curve"][-1]
    for (_, first), (_, second) in zip(result["curve"], again["curve"], strict=True):
        assert first == pytest.approx(second, rel=1e-5)


def test_what_the_multipliers_did_is_told() -> None:
    result = run_trial(trial(method="paper", steps=160))
    assert sum(result["weights_mean"].values()) == pytest.approx(1)
    assert result["weights_mean"]["a"] > result["weights_mean"]["b"]  # b is the loud one
    assert result["imbalance_median"] > 1
    assert 0 <= result["saturated"] <= 1
    assert run_trial(trial())["imbalance_median"] is None  # nothing was measured
    assert result["peak_memory_bytes"] > 0


def test_a_warm_up_is_told() -> None:
    result = run_trial(trial(method="paper", steps=8))
    assert result["warm_up"] == 100
    assert result["weights_mean"] == {"a": 0.5, "b": 0.5}
    assert gaba.methods.get("paper", every=3).warm_up == 300
    w = torch.nn.Parameter(torch.ones(1))
    names = [name for name, entry in gaba.methods.METHODS.items() if not entry.argument]
    found = {name for name in names if gaba.methods.get(name, ("a", "b"), [w]).warm_up}
    assert found == {"paper"}


def test_a_method_gets_what_it_needs_of_the_session() -> None:
    """On one's own ground, a last layer and features that the session names."""
    base = Trial("synthetic-40", "vqgan", "sgd", 1e-3, 0.0, seed=0, steps=3)
    for method in ("vqgan", "encodec", "gradnorm"):
        result = run_trial(replace(base, method=method))
        assert result["steps"] == 3
        assert len(result["weights_mean"]) == 40


def test_divergence_is_a_result() -> None:
    result = run_trial(trial("Exploding", problem="exploding", seed=1, steps=60))
    assert result["diverged"]
    assert result["error"] is None
    assert result["quality"] == math.inf
    assert 3 < result["steps"] < 60
    assert all(math.isnan(result[split][m]) for split in ("validation", "test") for m in "ab")
    calm = run_trial(trial("Exploding", problem="exploding", seed=0, steps=60))
    assert not calm["diverged"]
    assert calm["steps"] == 60


def test_what_cannot_be_made_is_an_error() -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        run_trial(trial(method="gabba"))
    with pytest.raises(ValueError, match="optimizer: must be adam or sgd, found 'lion'"):
        run_trial(trial(optimizer="lion"))
    with pytest.raises(NotImplementedError, match="losses by halves"):
        run_trial(trial(method="inverse-half"))


def test_the_memory_of_a_step_is_what_its_tensors_hold() -> None:
    """Of k numbers in, a hidden layer of n, and a sum: closed form, whatever was held before."""
    x = torch.ones(10, 50)
    weight = torch.nn.Parameter(torch.ones(50, 200))

    def step() -> None:
        hidden = x @ weight  # 2000 numbers
        loss = (2 * hidden).sum()  # 2000 more, freed once summed; and 1
        loss.backward()  # the gradients of both, 2000 each, and that of the weight, 10 000

    for _ in range(2):  # with a gradient there already, the new one is added to it and freed
        assert peak_bytes(step, torch.device("cpu")) >= 4 * (2000 + 10_000)
        assert peak_bytes(step, torch.device("cpu")) <= 4 * (4 * 2000 + 10_000 + 10)
        weight.grad = None
    assert peak_bytes(lambda: None, torch.device("cpu")) == 0
    assert peak_bytes(lambda: weight.data.mul_(2), torch.device("cpu")) == 0, "in place"
