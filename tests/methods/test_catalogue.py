"""The catalogue: one name means one thing everywhere, and nothing is averaged twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import gaba
from _models import TwoStage, batch
from gaba import methods, rules
from gaba.measurement import ExactNorms
from gaba.pieces import Seen
from gaba.stabilisers import EMA, Belief, Chain, Floor, Identity, LogEMA, Warmup
from gaba.state import all_finite

ARGUMENTS = {"fixed": "fixed:1,3", "single": "single:task0"}
HERE = [name for name, entry in methods.METHODS.items() if entry.group != "peer"]
NAMES = [ARGUMENTS.get(name, name) for name in HERE if name != "from-run"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_and_its_method_are_the_same_balancer(name: str) -> None:
    model, x = TwoStage([1.0, 30.0], dtype=torch.float64), batch(dtype=torch.float64)
    adam = torch.optim.Adam(model.parameters())
    made = methods.get(name, model.names, model.trunk)
    optimizer = adam if made.metric == "optimizer" else None
    halves = made.measured.loss_shape == (2,)

    def multipliers(method: str | gaba.Method) -> list[list[float]]:
        balancer = gaba.Balancer(model.names, model.trunk, method, optimizer=optimizer)
        for _ in range(3):
            losses = model.losses(x)
            if halves:
                losses = {n: torch.stack([v, v]) for n, v in losses.items() if v is not None}
            balancer.backward(losses)
        return balancer.history.multipliers.tolist()

    found = methods.get(name, model.names, model.trunk)
    assert isinstance(found, gaba.Method)
    assert multipliers(name) == multipliers(found)


def test_the_paper_is_the_published_algorithm() -> None:
    paper = methods.get("paper")
    assert paper.rule == rules.Gaba()
    assert paper.believe == Identity()
    assert paper.smooth == Chain((Warmup(100), EMA(0.99), Floor(0.05)))
    assert (paper.scale, paper.every) == ("simplex", 1)


def test_the_default_is_bounded_and_believes_by_a_bounded_step() -> None:
    default = gaba.Balancer(["a", "b"], torch.nn.Linear(2, 2)).method
    assert default == methods.get("gaba")
    assert default.believe == Belief()
    assert (default.scale, default.recovery) == ("sum", 8.0)
    assert default.limit is not None


@pytest.mark.parametrize("measure", ["half-batch", "exact"])
@pytest.mark.parametrize("name", ["inverse", "gaba", "equal-share", "inverse-half"])
def test_what_averages_itself_is_not_averaged_again(name: str, measure: str) -> None:
    """Two ways to say the same: a setting, and a replacement."""
    trunk = torch.nn.Linear(2, 2)
    tasks = [f"t{k}" for k in range(8)]
    by_setting = methods.get(name, measure=measure)
    replaced = methods.get(name).replace(measure=measure)
    for method in (by_setting, replaced, gaba.Balancer(tasks, trunk, by_setting).method):
        assert isinstance(method.believe, Identity) == method.measured.averages
        assert method.measured.averages == (measure == "half-batch")
    kept = methods.get(name).replace(measure=measure, believe=LogEMA(0.5))
    assert kept.believe == LogEMA(0.5)


def test_methods_have_the_length_that_is_their_own() -> None:
    """In 0.1.0 three of them lost it, and were as long as the weights on the simplex."""
    model, x = TwoStage([1.0, 30.0, 0.1], dtype=torch.float64), batch(dtype=torch.float64)
    losses = torch.stack([v.detach() for v in model.losses(x).values() if v is not None])
    expected = {
        "uncertainty": torch.full((3,), 0.5),
        "dwa": torch.ones(3),
        "scale-invariant": 1 / losses,
        "uniform": torch.ones(3),
    }
    for name, wanted in expected.items():
        step = gaba.Balancer(model.names, model.trunk, name).backward(model.losses(x))
        torch.testing.assert_close(step.multipliers, wanted.double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "famo", "scale-invariant", "gradnorm"])
@pytest.mark.parametrize("size", [1e150, 1e200, 1e300])
def test_one_huge_loss_does_not_stay_in_the_state(name: str, size: float) -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [w], name)

    def losses(factor: float = 1.0) -> dict[str, torch.Tensor]:
        return {"a": factor * w[0] ** 2, "b": 0.1 * w[1] ** 2}

    for _ in range(3):
        balancer.backward(losses())
    calm = gaba.Balancer(["a", "b"], [w], name)
    calm.load_state_dict(balancer.state_dict())
    step = balancer.backward(losses(size))
    for key, value in balancer.state_dict().items():
        assert not isinstance(value, torch.Tensor) or bool(value.isfinite().all()), key
    for _ in range(200):
        balancer.backward(losses())
        calm.backward(losses())
    if not bool(step.finite):
        assert balancer.multipliers == calm.multipliers
    assert all(0 < m < float("inf") for m in balancer.multipliers.values())


@pytest.mark.parametrize("name", ["gradnorm", "vqgan", "uniform"])
def test_norms_believed_as_they_are_stay_so_under_another_measurement(name: str) -> None:
    layer = ExactNorms(layer="last")
    assert methods.get(name, ["a", "b"], measure=layer).believe == Identity()
    assert methods.get(name, ["a", "b"]).replace(measure="exact").believe == Identity()
    halved = methods.get("inverse", measure="half-batch")
    assert halved.replace(measure="exact").believe == LogEMA()


@pytest.mark.parametrize("name", ["sketch", "features", "last-layer", "auto", "batched"])
def test_what_has_been_removed_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"measure must be one of .*exact.*, found '{name}'"):
        methods.get("inverse", measure=name)
    with pytest.raises(ValueError, match="found 'inverse-sketch'"):
        methods.get("inverse-sketch")


def test_a_measurement_is_an_object_or_a_name() -> None:
    with pytest.raises(TypeError, match="measure must be a Measurement object or its name"):
        gaba.Method(rules.InverseNorm(), measure=ExactNorms)  # pyright: ignore[reportArgumentType]


def test_settings_of_the_balancer_replace_those_of_the_method() -> None:
    trunk = torch.nn.Linear(2, 2)
    method = methods.get("inverse")
    found = gaba.Balancer(
        ["a", "b"], trunk, method, limit=None, scale="geometric", every=7, anchor="b"
    ).method
    assert (found.limit, found.scale, found.every, found.anchor) == (None, "geometric", 7, 1)
    assert dataclasses.replace(found, limit=1000.0, scale="sum", every=1, anchor=None) == method


@pytest.mark.parametrize("name", methods.METHODS)
def test_an_entry_says_what_it_is(name: str) -> None:
    entry = methods.METHODS[name]
    assert entry.name == name
    assert all((entry.formula, entry.needs, entry.cost))
    assert entry.source or entry.group == "control"


def test_a_run_gives_the_multipliers_that_it_came_to(tmp_path: Path) -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [w], "inverse")
    for _ in range(10):
        balancer.backward({"a": 30.0 * w[0], "b": w[1]})
    balancer.history.write(tmp_path / "history.jsonl")
    found = gaba.Balancer(["b", "a"], [w], f"from-run:{tmp_path}")
    step = found.backward({"a": 30.0 * w[0], "b": w[1]})
    assert step.multipliers.tolist() == pytest.approx([15.5, 15.5 / 30], rel=1e-9)
    with pytest.raises(ValueError, match="needs a run of the tasks"):
        gaba.Balancer(["b", "c"], [w], f"from-run:{tmp_path}")


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_answers_for_the_known_tasks_beside_one_that_is_not_known(name: str) -> None:
    name = "fixed:1,3,2" if name == "fixed:1,3" else name
    rule = methods.get(name, ["task0", "task1", "task2"], torch.nn.Linear(2, 2)).rule
    losses = torch.tensor([3.0, torch.nan, 1.0], dtype=torch.float64)
    norms = torch.tensor([2.0, torch.nan, 0.5], dtype=torch.float64)
    gramian = norms[:, None] * norms * torch.eye(3).double()
    statistics = torch.stack([norms, norms / 3], -1)
    state = rule.init(3)
    for _ in range(3):
        raw, state = rules.asked(rule, Seen(losses, norms, gramian, statistics), state)
        assert raw.isfinite().tolist() == [True, False, True]
        assert bool(all_finite(state))


def test_the_diagnosis_names_a_warm_up_that_outlasts_the_run() -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [w], "paper")
    for _ in range(60):
        balancer.backward({"a": 3.0 * w[0], "b": w[1]})
    said = " ".join(str(balancer.diagnose()).split())
    assert "never moved" in said
    assert "because the method warms up for 100 steps" in said


def test_the_diagnosis_blames_a_rule_that_answers_nothing_and_not_the_losses() -> None:
    class Nothing(rules.Rule):
        def update(self, seen: Seen, state: Any) -> tuple[torch.Tensor, Any]:
            return seen.norms * torch.nan, state

    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [w], gaba.Method(Nothing()))
    for _ in range(5):
        assert not bool(balancer.backward({"a": 3.0 * w[0], "b": w[1]}).finite)
    found = balancer.diagnose()
    assert found.verdict == "Act. Only 5 steps: no step was finite, so nothing was learnt."
    assert "left the rule or a stabiliser with a number that was not finite" in " ".join(
        str(found).split()
    )


@pytest.mark.parametrize(
    ("tasks", "spared"),
    [
        (["reconstruction", "kl"], (1,)),
        (["EntropyBonus", "policy", "weight_decay"], (0, 2)),
        (["cross_entropy", "box", "health"], ()),
    ],
)
def test_the_default_spares_what_has_the_name_of_a_regularizer(
    tasks: list[str], spared: tuple[int, ...]
) -> None:
    assert methods.get("gaba", tasks).spared == spared
    assert methods.get("gaba", tasks, spared=()).spared == ()
    assert methods.get("inverse", tasks).spared == ()


def test_every_entry_can_be_built_and_every_builder_has_an_entry() -> None:
    from gaba.methods import own, peers, published, relatives

    assert all(callable(entry.build) for entry in methods.METHODS.values())
    built = [name for part in (own, published, relatives, peers) for name in part.BUILDS]
    plain = [entry.name for entry in methods.METHODS.values() if entry.rule]
    assert sorted([*built, *plain]) == sorted(methods.METHODS)
