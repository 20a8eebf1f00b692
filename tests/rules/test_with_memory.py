"""What all rules with a memory have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from _asserts import NoCheckedLinearAlgebra, NoHostSync
from _streams import Stream, assert_same_state, both, led, parts, stream, streams, taken, without
from gaba import state as states
from gaba.rules import (
    DWA,
    FAMO,
    PINN,
    RLW,
    VQGAN,
    GradNorm,
    InitialTargets,
    InverseDeviation,
    InverseInitial,
    Rule,
    Seen,
    SmoothTchebycheff,
    Uncertainty,
    asked,
)

RULES: dict[str, Rule] = {
    "gradnorm": GradNorm(),
    "gradnorm by sgd": GradNorm(alpha=0.5, learning_rate=1e-3, descent="sgd"),
    "uncertainty": Uncertainty(learning_rate=0.1),
    "dwa": DWA(temperature=0.7, window=3),
    "rlw": RLW(seed=3),
    "famo": FAMO(learning_rate=0.1),
    "smooth tchebycheff": SmoothTchebycheff(mu=0.5, warm_up=2, window=2),
    "inverse initial": InverseInitial(steps=3),
    "initial targets": InitialTargets(),
    "slaw": InverseDeviation(decay=0.8),
    "pinn": PINN(),
    "vqgan": VQGAN(start=2),
}
STREAMS = streams()
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
not_by_position = pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if not isinstance(rule, RLW | VQGAN)], ids=repr
)
every_stream = pytest.mark.parametrize("along", STREAMS.values(), ids=STREAMS)
SOME = torch.tensor([True, False, True])


@every_rule
@every_stream
def test_multipliers_are_finite_with_a_positive_sum(rule: Rule, along: Stream) -> None:
    raw, _ = led(rule, along)
    assert raw.dtype == torch.float64
    assert raw.isfinite().all()
    assert (raw >= 0).all()
    assert (raw.sum(1) > 0).all()


@every_rule
def test_states_are_float64_and_an_update_writes_into_none(rule: Rule) -> None:
    along = stream(3)
    _, state = led(rule, along[:6])
    before = {name: tensor.clone() for name, tensor in states.flatten(state).items()}
    assert {t.dtype for t in before.values()} <= {torch.float64, torch.int64, torch.bool}
    assert torch.float64 in {t.dtype for t in before.values()} or isinstance(rule, RLW)
    for seen in along[6:]:
        rule.update(seen, state)
    assert all(torch.equal(before[name], t) for name, t in states.flatten(state).items())


@every_rule
@pytest.mark.parametrize("present", [torch.ones(3).bool(), SOME], ids=["all", "some"])
def test_nothing_waits_for_the_device(rule: Rule, present: Tensor) -> None:
    along = stream(3)
    _, state = led(rule, along[:5])
    seen = without(along[5], present)
    with NoHostSync(), NoCheckedLinearAlgebra():
        raw, _ = asked(rule, seen, state)
    meta = torch.device("meta")  # without values: what looks at one fails
    state = states.unflatten(state, {n: t.to(meta) for n, t in states.flatten(state).items()})
    shape, _ = asked(rule, Seen(seen.losses.to(meta), seen.norms.to(meta)), state)
    assert shape.device == meta
    assert shape.shape == raw.shape


@not_by_position
def test_the_order_of_the_tasks_does_not_matter(rule: Rule) -> None:
    along, order = stream(5), [3, 0, 4, 1, 2]
    raw, _ = led(rule, along)
    again, _ = led(rule, [taken(seen, order) for seen in along])
    torch.testing.assert_close(again, raw[:, order], rtol=1e-10, atol=1e-300)


@every_rule
@pytest.mark.parametrize("believed", [False, True], ids=["unknown", "believed"])
def test_a_task_that_is_missing_keeps_its_part_of_the_state(rule: Rule, believed: bool) -> None:
    along = stream(3)
    _, state = led(rule, along[:5])
    raw, after = rule.update(without(along[5], SOME, believed=believed), state)
    assert raw[SOME].isfinite().all()
    kept = dict(parts(after, 3))
    assert all(torch.equal(kept[name][1], old[1]) for name, old in parts(state, 3))
    assert all(tensor.isfinite().all() for tensor in kept.values())


@every_rule
def test_a_task_that_never_comes_is_as_if_there_were_none(rule: Rule) -> None:
    along, gone = stream(4), torch.tensor([True, True, True, False])
    raw, _ = led(rule, along, [gone] * len(along))
    fewer, _ = led(rule, [taken(seen, [0, 1, 2]) for seen in along])
    torch.testing.assert_close(raw[:, :3], fewer, rtol=1e-12, atol=0)


@every_rule
def test_tasks_that_come_and_go_are_weighed_all_the_same(rule: Rule) -> None:
    along = stream(3, steps=40)
    flags = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    flags[:, 0] |= ~flags.any(1)
    raw, state = led(rule, along, list(flags))
    assert raw[flags].isfinite().all()
    assert (torch.where(flags, raw, 0.0).sum(1) > 0).all()
    assert all(t.isfinite().all() for t in states.flatten(state).values())


@every_rule
def test_at_the_edge_a_rule_answers_as_in_its_first_step(rule: Rule) -> None:
    told = stream(3)[0]
    measured = told.losses if rule.needs == "losses" else told.norms
    losses = torch.ones(3).double() if isinstance(rule, InitialTargets) else told.losses
    first, _ = asked(rule, Seen(losses, told.norms), rule.init(3))  # it is asked of norms alone
    torch.testing.assert_close(rule.raw(measured), first, rtol=1e-15, atol=0)
    torch.testing.assert_close(rule(measured), first / first.sum(), rtol=1e-12, atol=0)


# ---- one bad step -------------------------------------------------------------------------------


def driven(rule: Rule, along: Sequence[Seen]) -> tuple[Tensor, Any]:
    """The last multipliers and state, where a step is dropped if one of them is not finite."""
    state = rule.init(len(along[0].losses))
    multipliers = torch.ones(len(along[0].losses), dtype=torch.float64)
    for seen in along:
        raw, new = asked(rule, seen, state)
        if bool(states.all_finite(new)) and bool(raw.isfinite().all()):
            multipliers, state = raw, new
    return multipliers, state


NORMAL = stream(3, steps=30)


@every_rule
@pytest.mark.parametrize("huge", [0.0, 1e200, 1e308, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [0, 7])
def test_the_state_is_finite_after_huge_steps_and_moves_on(
    rule: Rule, huge: float, at: int
) -> None:
    values = torch.tensor([1.0, huge, 2.0], dtype=torch.float64)
    along = [*NORMAL[:at], *[Seen(values, values.abs())] * 2, *NORMAL[at:]]
    raw, state = driven(rule, along)
    assert states.all_finite(state)
    assert raw.isfinite().all()
    if isinstance(rule, InitialTargets | InverseInitial | SmoothTchebycheff):
        return  # they come to rest by design
    before = states.flatten(driven(rule, along[:-1])[1])
    assert any(not torch.equal(before[k], t) for k, t in states.flatten(state).items())


@pytest.mark.parametrize(
    ("name", "huge"),
    [
        ("uncertainty", 1e200),
        ("uncertainty", torch.inf),
        ("gradnorm", 1e200),
        ("famo", torch.inf),
        ("inverse initial", torch.inf),
        ("dwa", torch.inf),
    ],
)
def test_a_step_that_overflows_the_state_is_as_if_it_had_not_been(name: str, huge: float) -> None:
    rule, bad = RULES[name], both([1.0, huge, 2.0], [1.0, huge, 2.0])
    _, before = led(rule, NORMAL[:1])
    assert not states.all_finite(rule.update(bad, before)[1])
    raw, state = driven(rule, [*NORMAL[:1], bad, *NORMAL[1:]])
    expected, clean = driven(rule, NORMAL)
    assert torch.equal(raw, expected)
    assert_same_state(state, clean)


@pytest.mark.parametrize("loss", [1e200, 1e-200, -1e200])
def test_dwa_forgets_a_huge_loss_once_its_windows_are_over(loss: float) -> None:
    rule = DWA(temperature=0.01, window=3)
    raw, state = driven(rule, [*NORMAL[:12], *[both([1.0, loss, 2.0])] * 3, *NORMAL[12:]])
    expected, clean = driven(rule, NORMAL)
    torch.testing.assert_close(raw, expected, rtol=1e-12, atol=0)
    for name in ("last", "before", "total"):
        assert torch.equal(getattr(state, name), getattr(clean, name))


def test_uncertainty_stays_finite_on_losses_that_are_negative_for_ever() -> None:
    rule = Uncertainty(learning_rate=5.0)
    raw, state = driven(rule, [both([-1.0, 1.0, 2.0])] * 300)
    assert states.all_finite(state)
    assert raw.isfinite().all()
    assert state.s[0] == -80
    after, _ = led(rule, [both([1.0, 1.0, 2.0])] * 100, state=state)
    assert after[-1, 0] < raw[0] / 1e4
