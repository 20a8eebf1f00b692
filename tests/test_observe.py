"""Observing changes no bit of a training, and tells the norms, shares and cosines of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage, batch, task_gradients
from _trunks import TRUNKS, features_of, inputs

Train = Callable[[gaba.Balancer, dict[str, Tensor]], None]


class Model(nn.Module):
    """A trunk of any kind with heads of losses that are ten times as loud each."""

    def __init__(self, kind: str, n: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = TRUNKS[kind]()
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(n))
        self.names = [f"task{k}" for k in range(n)]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = features_of(self.trunk(x))
        heads = zip(self.names, self.heads, strict=True)
        return {name: 10.0**k * head(z).square().mean() for k, (name, head) in enumerate(heads)}


def by_backward(observer: gaba.Balancer, losses: dict[str, Tensor]) -> None:
    observer.backward(losses)


def beside_the_own_sum(observer: gaba.Balancer, losses: dict[str, Tensor]) -> None:
    observer(losses)
    sum(losses.values(), start=torch.zeros(())).backward()


def by_the_sum_that_is_returned(observer: gaba.Balancer, losses: dict[str, Tensor]) -> None:
    observer(losses).backward()


FORMS: list[Train] = [by_backward, beside_the_own_sum, by_the_sum_that_is_returned]


def plain(losses: dict[str, Tensor]) -> None:
    sum(losses.values(), start=torch.zeros(())).backward()


def twins(model: nn.Module) -> tuple[Any, Any]:
    return model, copy.deepcopy(model)


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    for (name, mine), theirs in pairs:
        assert torch.equal(mine, theirs), name


def steps(
    one: nn.Module, other: nn.Module, n: int, make: Any = torch.optim.AdamW
) -> Iterator[tuple[Any, Any]]:
    """Train both with the same random numbers."""
    optimizers = [make(m.parameters(), lr=1e-3) for m in (one, other)]
    for step in range(n):
        pair = []
        for model, optimizer in zip((one, other), optimizers, strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)
            pair.append(model(inputs(seed=step, dtype=torch.float32)))
        yield pair[0], pair[1]
        for optimizer in optimizers:
            optimizer.step()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", TRUNKS)
@pytest.mark.parametrize(
    ("n", "form"),
    [
        *((5, by_backward), (2, beside_the_own_sum), (5, by_the_sum_that_is_returned)),
        pytest.param(2, by_backward, marks=SLOW),
        pytest.param(5, beside_the_own_sum, marks=SLOW),
        pytest.param(2, by_the_sum_that_is_returned, marks=SLOW),
    ],
)
def test_training_is_that_of_the_plain_sum_bit_for_bit(kind: str, n: int, form: Train) -> None:
    mine, other = twins(Model(kind, n))
    observer = gaba.Observer(mine.names, mine.trunk, every=1)
    for losses, theirs in steps(mine, other, 12):
        form(observer, losses)
        plain(theirs)
    assert_same_bits(mine, other)
    engines = set(observer.history.engines)
    assert "norms" in engines
    assert observer.history.measured.all()


def test_a_thousand_steps_bit_for_bit() -> None:
    mine, other = twins(Model("convolutions", 5))
    observer = gaba.Balancer(mine.names, mine.trunk, "observe")
    for losses, theirs in steps(mine, other, 1000):
        observer.backward(losses)
        plain(theirs)
    assert_same_bits(mine, other)
    measured = observer.history.measured
    assert 10 < measured.sum() < 300
    assert set(observer.history.engines) == {"", "norms", "probe"}


def test_bit_for_bit_with_a_scaler_micro_batches_and_own_coefficients() -> None:
    mine, other = twins(Model("convolutions", 3))
    observer = gaba.Observer(
        mine.names[:2], mine.trunk, every=1, fixed={"task2": 0.3}, accumulate=2
    )
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in range(2)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=1e-4) for m in (mine, other)]
    for step in range(20):
        for half in range(2):
            x = inputs(seed=2 * step + half, dtype=torch.float32)
            torch.manual_seed(step)
            found = mine(x)
            observer.backward({n: 0.5 * v for n, v in found.items()}, scaler=scalers[0])
            torch.manual_seed(step)
            theirs = other(x)
            total = 0.5 * theirs["task0"] + 0.5 * theirs["task1"] + 0.3 * (0.5 * theirs["task2"])
            scalers[1].scale(total).backward()
        for scaler, optimizer in zip(scalers, optimizers, strict=True):
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert_same_bits(mine, other)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("form", FORMS)
def test_norms_are_those_of_the_losses_as_written(n: int, form: Train) -> None:
    model = TwoStage([3.0**k for k in range(n)], dtype=torch.float64)
    observer = gaba.Observer(model.names, model.trunk)
    x = batch(1, dtype=torch.float64)
    truth = torch.stack(task_gradients(model, x))
    losses: Any = model.losses(x)
    form(observer, losses)
    step = observer.history[-1]
    torch.testing.assert_close(step.norms, truth.norm(dim=1), rtol=1e-10, atol=0)
    assert step.multipliers.tolist() == [1.0] * n
    total = truth.sum(0)
    if n <= 16:  # above that the gradients are not held together
        torch.testing.assert_close(step.shares, truth @ total / (total @ total))
        assert step.cosines is not None
        unit = truth / truth.norm(dim=1, keepdim=True)
        torch.testing.assert_close(step.cosines, unit @ unit.T, rtol=0, atol=1e-10)


def test_probes_between_exact_steps_tell_the_shares() -> None:
    model = TwoStage([1.0, 2.0, 0.5, 4.0, 1.0], dtype=torch.float64)
    observer = gaba.Observer(model.names, model.trunk, every=1)
    engines = []
    for n in range(13):
        x = batch(n, dtype=torch.float64)
        truth = torch.stack(task_gradients(model, x))
        losses: Any = model.losses(x)
        step = observer.backward(losses)
        engines.append(step.engine)
        total = truth.sum(0)
        torch.testing.assert_close(
            step.shares, truth @ total / (total @ total), rtol=1e-3, atol=1e-4
        )
        if step.engine == "probe":
            assert step.norms.isnan().all()  # an effective norm is none of the loss as written
    assert engines == (["norms"] + 5 * ["probe"]) * 2 + ["norms"]


@pytest.mark.parametrize("shared", ["parameters", "auto"])
def test_without_a_boundary_every_measurement_is_exact(shared: str) -> None:
    model = TwoStage([1.0, 2.0, 0.5, 4.0, 1.0])
    what: Any = "auto" if shared == "auto" else list(model.trunk.parameters())
    observer = gaba.Observer(model.names, what, every=1)
    for n in range(8):
        model.zero_grad()
        losses: Any = model.losses(batch(n))
        assert observer.backward(losses).engine == "norms"


def test_a_run_that_is_observed_resumes_where_it_was() -> None:
    model = TwoStage([1.0, 2.0, 0.5, 4.0])
    whole = gaba.Observer(model.names, model.trunk)
    part = gaba.Observer(model.names, model.trunk)
    engines: dict[int, list[str]] = {0: [], 1: []}
    for n in range(120):
        if n == 50:
            resumed = gaba.Observer(model.names, model.trunk)
            resumed.load_state_dict(part.state_dict())
            part = resumed
        for i, observer in enumerate((whole, part)):
            losses: Any = model.losses(batch(n))
            engines[i].append(observer.backward(losses).engine)
    assert engines[0] == engines[1]
    assert {"", "norms", "probe"} == set(engines[0])


def test_the_budget_is_kept_in_counted_passes() -> None:
    for n, budget in ((2, 0.05), (8, 0.05), (8, 0.2)):
        model = TwoStage([1.0] * n)
        observer = gaba.Observer(model.names, model.trunk, budget=budget)
        for i in range(600):
            losses: Any = model.losses(batch(i))
            observer.backward(losses)
        spent = observer.get_extra_state()["cadence"]["spent"]
        assert spent <= 30 + budget * 600 + n  # a credit in the beginning, and one measurement
        assert spent > budget * 300


def test_a_task_that_is_missing_or_constant_is_so_in_the_record() -> None:
    model = TwoStage([1.0, 2.0, 3.0])
    observer = gaba.Observer(model.names, model.trunk, every=1)
    for n in range(6):
        losses: Any = model.losses(batch(n))
        if n == 3:
            del losses["task2"]
        if n == 4:
            losses["task2"] = torch.zeros(())
        step = observer.backward(losses)
        assert bool(step.norms[2].isnan()) == (n in (3, 4))
        assert not step.norms[:2].isnan().any()


class Parts(nn.Module):
    """Two children and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        early = self.gain * self.first(x).tanh()
        return early, self.second(early)


def test_to_whom_each_part_belongs(tmp_path: Any) -> None:
    trunk = Parts()
    observer = gaba.Observer(["early", "late"], trunk, groups="module", every=2)
    truth: dict[str, list[float]] = {}
    with gaba.RunRecord(tmp_path / "run.jsonl", observer.tasks) as record:
        for n in range(3):
            early, late = trunk(batch(n, dtype=torch.float64))
            losses = {"early": 3 * early.square().mean(), "late": late.square().mean()}
            truth = {}
            parts = {"first": trunk.first, "second": trunk.second}
            for name, inputs in {
                **{name: list(part.parameters()) for name, part in parts.items()},
                "(own)": [trunk.gain],
            }.items():
                rows = [
                    torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
                    for loss in losses.values()
                ]
                norms = [sum(float(g.square().sum()) for g in r if g is not None) for r in rows]
                truth[name] = [square**0.5 for square in norms]
            step = observer.backward(losses)
            record.write(step)
            assert set(step.groups) == (set(truth) if n != 1 else set())
            for name, norms in step.groups.items():
                assert norms.tolist() == pytest.approx(truth[name])
    for history in (observer.history, gaba.History.read(tmp_path / "run.jsonl")):
        assert set(history.groups) == {"first", "second", "(own)"}
        assert history.groups["first"].shape == (3, 2)
        assert history.groups["second"][2].tolist() == pytest.approx(truth["second"])
        assert history.groups["second"][0, 0] == 0
        assert history[1:].groups["first"].shape == (2, 2)
        assert bool(torch.tensor(history.groups["first"][1]).isnan().all())
        assert history[-1].asdict()["groups"]["first"]["late"] == pytest.approx(truth["first"][1])


def test_groups_belong_to_observing() -> None:
    model = TwoStage([1.0, 2.0])
    with pytest.raises(ValueError, match="groups must go with method='observe'"):
        gaba.Balancer(model.names, model.trunk, groups="module")
