"""Faults, one by one and in random order: training goes on, or stops with one clear message."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gaba
from _models import TwoStage, batch

X = batch(dtype=torch.float64)
STEPS = 100


class Poison(torch.autograd.Function):
    """0, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, what: float) -> Tensor:
        ctx.what = what
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.what, None


def net() -> TwoStage:
    return TwoStage([1.0, 300.0, 0.01], dtype=torch.float64)


def tensors(balancer: gaba.Balancer) -> dict[str, Tensor]:
    return {k: v for k, v in balancer.state_dict().items() if isinstance(v, Tensor)}


def assert_sound(balancer: gaba.Balancer) -> None:
    """No state is poisoned, and the multipliers are multipliers."""
    for name, value in tensors(balancer).items():
        assert not value.is_floating_point() or value.isfinite().all(), name
    weights = torch.tensor(list(balancer.weights.values()))
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1)


def assert_unchanged(before: dict[str, Tensor], balancer: gaba.Balancer) -> None:
    for name, value in tensors(balancer).items():
        assert torch.equal(value, before[name]), name


EVENTS = (
    *("nothing", "nothing", "nothing"),
    *("nan", "inf", "nan gradient", "inf gradient"),
    *("detached", "apart", "missing", "all but one missing", "none", "unknown", "vector"),
    *("tiny", "huge", "zero", "save and load", "load of other tasks", "no grad", "eval"),
)


def spoil(event: str, task: str, model: TwoStage, losses: dict[str, Any]) -> dict[str, Any]:
    """The losses after an accident that hits ``task``."""
    loss: Tensor = losses[task]
    aside = model.heads[0].get_parameter("bias").sum() * 0 + 1
    changed: dict[str, Any] = {
        "nan": loss * torch.nan,
        "inf": loss * torch.inf,
        "nan gradient": loss + Poison.apply(loss, torch.nan),
        "inf gradient": loss + Poison.apply(loss, torch.inf),
        "detached": loss.detach(),
        "apart": aside,
        "missing": None,
        "vector": loss.expand(3),
        "tiny": loss * 1e-23,
        "huge": loss * 1e20,
        "zero": loss * 0,
    }
    if event in changed:
        return losses | {task: changed[event]}
    if event == "all but one missing":
        return {task: loss}
    if event == "none":
        return dict.fromkeys(losses)
    if event == "unknown":
        return losses | {"task9": loss}
    return losses


REFUSED = {"detached", "apart", "none", "unknown", "vector"}
SKIPPED = {"nan", "inf", "nan gradient", "inf gradient"}

sequences = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 2)), min_size=STEPS, max_size=STEPS
)
kinds = st.sampled_from(
    [
        {"every": 1},
        {"every": 1, "method": gaba.methods.get("gaba", engine="probe")},
        {"method": gaba.methods.get("gaba", measure="exact")},
        {"method": "equal-share"},
        {"method": "paper"},
        {"method": "uncertainty"},
        {"every": 3, "method": "inverse"},
        {"accumulate": 2},
        {"anchor": "task1"},
        {"limit": 4.0},
        {"scale": "geometric"},
    ]
)


def given_accidents(examples: int) -> Any:
    """Sequences of accidents, ``examples`` of them, of STEPS steps each."""
    setting = settings(
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate],  # a shorter sequence is quickly found by hand
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )
    return lambda test: setting(given(sequences, kinds)(test))


@given_accidents(30)
def test_any_sequence_of_accidents(events: list[tuple[str, int]], kind: dict[str, Any]) -> None:
    live_through(events, kind)


@pytest.mark.slow
@given_accidents(100)
def test_ten_thousand_accidents(events: list[tuple[str, int]], kind: dict[str, Any]) -> None:
    live_through(events, kind)


def live_through(events: list[tuple[str, int]], kind: dict[str, Any]) -> None:
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, **kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for event, k in events:
        optimizer.zero_grad()
        before, count = tensors(balancer), len(balancer.history)
        losses = spoil(event, model.names[k], model, model.losses(X))
        if event in REFUSED:
            refused(balancer, losses, event, k)
            assert len(balancer.history) <= count + 1
        elif event == "load of other tasks":
            with pytest.raises(ValueError, match="tasks"):
                balancer.load_state_dict(gaba.Balancer(["x", "y"], model.trunk).state_dict())
            assert_unchanged(before, balancer)
        elif event == "save and load":
            again = gaba.Balancer(model.names, model.trunk, **kind)
            again.load_state_dict(copy.deepcopy(balancer.state_dict()))
            assert_unchanged(before, again)
        elif event in ("no grad", "eval"):
            with torch.no_grad():
                assert balancer(model.losses(X)).isfinite()
            assert_unchanged(before, balancer)
        else:
            step = balancer.backward(losses)
            if event in SKIPPED and step.measured:
                assert not step.finite
            if not step.finite:
                assert_unchanged(before, balancer)
            length = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if length.isfinite():  # a step that measures nothing cannot see what gradients hold
                optimizer.step()
        assert_sound(balancer)


def refused(balancer: gaba.Balancer, losses: dict[str, Any], event: str, k: int) -> None:
    """Refused with state and ``.grad`` as they were; a known task may be away for a step."""
    before, count = tensors(balancer), len(balancer.history)
    try:
        balancer.backward(losses)
    except (ValueError, TypeError) as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "losses" in said
        assert_unchanged(before, balancer)
        assert len(balancer.history) == count
    else:
        assert event in ("apart", "detached")
        assert not balancer.history.norms[-1, k] > 0


@pytest.mark.parametrize(
    "kind",
    [{"method": gaba.methods.get("gaba", measure="exact")}, {"anchor": "task1"}],
)
def test_a_task_that_vanishes_for_a_thousand_steps_and_returns(kind: dict[str, Any]) -> None:
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, **kind)
    for _ in range(20):
        balancer.backward(model.losses(X))
    known = balancer.multipliers["task1"]
    for _ in range(999):
        balancer.backward(model.losses(X) | {"task1": None})
    step = balancer.backward(model.losses(X) | {"task1": None})
    assert step.weights[1] == 0
    assert step.norms[1].isnan()
    model.zero_grad()
    back = balancer.backward(model.losses(X))
    assert float(back.multipliers[1]) == pytest.approx(known, rel=1e-6)
    assert_sound(balancer)


def test_a_checkpoint_cut_short_leaves_everything_as_it_was(tmp_path: Path) -> None:
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk)
    balancer.backward(model.losses(X))
    good, cut = tmp_path / "good.pt", tmp_path / "cut.pt"
    torch.save(balancer.state_dict(), good)
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    before = tensors(balancer)
    with pytest.raises(RuntimeError):
        balancer.load_state_dict(torch.load(cut, weights_only=True))
    assert_unchanged(before, balancer)
    partial = {k: v for k, v in balancer.state_dict().items() if "multipliers" not in k}
    with pytest.raises(RuntimeError, match="Missing key"):
        gaba.Balancer(model.names, model.trunk).load_state_dict(partial)
    again = gaba.Balancer(model.names, model.trunk)
    again.load_state_dict(torch.load(good, weights_only=True))
    assert_unchanged(before, again)


def test_another_number_of_tasks_is_refused_and_nothing_has_changed() -> None:
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk)
    balancer.backward(model.losses(X))
    before = tensors(balancer)
    other = gaba.Balancer([*model.names, "task3"], model.trunk)
    other.backward(model.losses(X))
    with pytest.raises((ValueError, RuntimeError), match=r"tasks|size mismatch"):
        balancer.load_state_dict(other.state_dict())
    assert_unchanged(before, balancer)
    assert balancer.backward(model.losses(X)).step == 1
