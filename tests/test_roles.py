"""Losses that are balanced, added as they are, or only recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gaba
from _models import TwoStage, batch, task_gradients

METHODS = ["gaba", "inverse", "equal-share", "uniform", "paper", "observe"]


def setting(
    method: str, n: int = 4, fixed: tuple[str, ...] = ("task2",), **settings: Any
) -> tuple[TwoStage, gaba.Balancer]:
    """The last tasks of ``n`` have other roles."""
    model = TwoStage([1.0, 5.0, 0.7, 3.0][:n], dtype=torch.float64)
    tasks = [name for name in model.names if name not in fixed]
    coefficients = dict.fromkeys(fixed, 0.25)
    balancer = gaba.Balancer(tasks, model.trunk, method, fixed=coefficients, **settings)
    return model, balancer


def gradient(model: TwoStage) -> Tensor:
    found = [p.grad.flatten() for p in model.trunk.parameters() if p.grad is not None]
    return torch.cat(found)


@pytest.mark.parametrize("form", ["backward", "scalar"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_fixed_is_added_with_its_coefficient(method: str, form: str) -> None:
    model, balancer = setting(method)
    for n in range(25):
        x = batch(n, dtype=torch.float64)
        rows = task_gradients(model, x)
        heads = [p.grad for p in model.heads[2].parameters()]
        assert heads == [None, None]
        losses: Any = model.losses(x)
        if form == "backward":
            step = balancer.backward(losses)
        else:
            balancer(losses).backward()
            step = balancer.history[-1]
        m = dict(zip(balancer.tasks, step.multipliers.tolist(), strict=True)) | {"task2": 0.25}
        expected = sum((m[name] * row for name, row in zip(model.names, rows, strict=True)))
        torch.testing.assert_close(gradient(model), expected)
        weight: Any = model.heads[2].weight
        loss: Any = model.losses(x)["task2"]
        (head,) = torch.autograd.grad(loss, [weight])
        torch.testing.assert_close(weight.grad, 0.25 * head)
        model.zero_grad()


@pytest.mark.parametrize("method", ["gaba", "inverse", "equal-share", "observe"])
def test_only_tasks_are_measured_balanced_and_recorded_by_task(method: str) -> None:
    model, balancer = setting(method)
    losses: Any = model.losses(batch(dtype=torch.float64))
    step = balancer.backward(losses)
    assert step.tasks == ("task0", "task1", "task3")
    truth = [row.norm() for row in task_gradients(model, batch(dtype=torch.float64))]
    torch.testing.assert_close(step.norms, torch.stack([truth[k] for k in (0, 1, 3)]))
    assert len(step.multipliers) == 3
    assert step.asdict()["others"] == {"task2": pytest.approx(float(losses["task2"].detach()))}


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("engine", ["probe", "products"])
def test_the_part_of_what_is_fixed_is_in_the_shares_of_no_task(engine: str, n: int) -> None:
    """s_k of the tasks add up to 1, and q_k is along the whole update, fixed part included."""
    method = gaba.methods.get("gaba", engine=engine, every=1)
    model, _ = setting("gaba", n)
    tasks = [name for name in model.names if name != "task2"]
    balancer = gaba.Balancer(tasks, model.trunk, method, fixed={"task2": 0.25})
    for i in range(8):
        x = batch(i, dtype=torch.float64)
        rows = torch.stack(task_gradients(model, x))
        losses: Any = model.losses(x)
        step = balancer.backward(losses)
        model.zero_grad()
        if not i:
            continue
        assert step.engine == engine
        assert "probe" not in step.about
        m = torch.full((n,), 0.25, dtype=torch.float64)
        at = [k for k in range(n) if k != 2]
        m[at] = step.multipliers
        products = rows @ (m @ rows)
        pulls = (m * products)[at]
        torch.testing.assert_close(step.shares, pulls / pulls.sum(), rtol=1e-3, atol=1e-5)


def test_the_default_balances_beside_a_loud_fixed_loss() -> None:
    model = TwoStage([1.0, 40.0, 2.0], dtype=torch.float64)
    balancer = gaba.Balancer(["task0", "task1"], model.trunk, fixed={"task2": 1.0}, every=1)
    for n in range(60):
        losses: Any = model.losses(batch(n % 3, dtype=torch.float64))
        balancer.backward(losses)
        model.zero_grad()
    step = balancer.history[-1]
    assert step.shares.tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_what_is_observed_is_recorded_and_never_added() -> None:
    model = TwoStage([1.0, 5.0, 0.7])
    balancer = gaba.Balancer(["task0", "task1"], model.trunk, observed=["task2", "accuracy"])
    losses: Any = model.losses(batch())
    balancer.backward(losses | {"accuracy": 0.75})
    assert model.heads[2].weight.grad is None
    assert balancer.history.others["accuracy"].tolist() == [0.75]
    assert balancer.history.others["task2"].tolist() == pytest.approx(
        [float(losses["task2"].detach())]
    )


def test_a_step_without_any_task_still_adds_what_is_fixed() -> None:
    model, balancer = setting("gaba")
    losses: Any = model.losses(batch(dtype=torch.float64))
    step = balancer.backward({"task2": losses["task2"]})
    assert step.losses.isnan().all()
    torch.testing.assert_close(
        gradient(model), 0.25 * task_gradients(model, batch(dtype=torch.float64))[2]
    )


def test_the_record_holds_what_is_no_task(tmp_path: Any) -> None:
    model = TwoStage([1.0, 5.0, 0.7])
    balancer = gaba.Balancer(["task0", "task1"], model.trunk, observed=["task2", "late"])
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        for n in range(5):
            losses: Any = model.losses(batch(n))
            record.write(balancer.backward(losses | ({"late": n} if n > 2 else {})))
    for history in (balancer.history, gaba.History.read(tmp_path / "run.jsonl")):
        assert history.others["late"].tolist()[3:] == [3.0, 4.0]
        assert set(map(str, history.others["late"].tolist()[:3])) == {"nan"}
        assert history[1:].others["task2"].shape == (4,)
        assert float(history[-1].others["late"]) == 4.0
        assert "others/task2" in history.to_pandas().columns


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "two roles": ({"fixed": {"a": 1.0}}, ValueError, "one role, found several for 'a'"),
    "zero": ({"fixed": {"kl": 0.0}}, ValueError, r"observed=\['kl'\]"),
    "negative": ({"fixed": {"kl": -1.0}}, ValueError, "positive number, found -1.0"),
    "a list": ({"fixed": ["kl"]}, TypeError, "map names to coefficients"),
    "a word": ({"observed": "kl"}, TypeError, r"pass \['kl'\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_roles_are_refused(case: str) -> None:
    settings, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        gaba.Balancer(["a", "b"], [torch.nn.Parameter(torch.ones(1))], **settings)


def test_a_loss_without_a_role_is_told_its_choices() -> None:
    model = TwoStage([1.0, 5.0, 0.7])
    balancer = gaba.Balancer(["task0", "task1"], model.trunk)
    losses: Any = model.losses(batch())
    with pytest.raises(ValueError, match=r"fixed=\{'task2': 1.0\}.*observed=\['task2'\]"):
        balancer.backward(losses)
