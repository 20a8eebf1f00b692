"""Averaged gradients of log-losses, and DB-MTL step by step against a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _engines import NAMES, WORLDS, balanced
from _models import TwoStage, batch, grads
from _streams import assert_same_state
from gaba import methods
from gaba.measurement import AveragedGradients, Measurement, SmoothedGradients

SCALES = (1.0, 30.0, 0.01)
DOUBLE = torch.float64


def db_mtl(model: TwoStage, **settings: Any) -> gaba.Balancer:
    """DB-MTL; ``settings`` of the method, or of the Balancer where it has such."""
    own = {name: settings.pop(name) for name in ("optimizer", "accumulate") if name in settings}
    method = methods.get("db-mtl", model.names, model.trunk, **settings)
    return gaba.Balancer(model.names, model.trunk, method, **own)


def state_of(balancer: gaba.Balancer) -> AveragedGradients:
    found = balancer.measurement_state
    assert isinstance(found, AveragedGradients)
    return found


class PlainLoop:
    """DB-MTL as one would write it down: K backward passes of log-losses, a buffer, a norm."""

    def __init__(self, model: TwoStage, decay: float, rate: float) -> None:
        self.model, self.decay, self.rate = model, decay, rate
        self.theta = list(model.trunk.parameters())
        size = sum(p.numel() for p in self.theta)
        self.buffer = torch.zeros(len(model.scales), size, dtype=DOUBLE)
        self.count = [0] * len(model.scales)

    def backward(self, losses: dict[str, Tensor | None]) -> None:
        """Fill ``.grad`` of everything."""
        there = [k for k, name in enumerate(self.model.names) if losses[name] is not None]
        for k in there:
            for p in self.theta:
                p.grad = None
            loss = losses[self.model.names[k]]
            assert loss is not None
            loss.log().backward(retain_graph=True)  # the heads keep what they get
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.theta]
            flat = torch.cat([g.double().flatten() for g in found])
            self.count[k] += 1
            beta = self.decay / self.count[k] ** self.rate
            self.buffer[k] = flat + beta * (self.buffer[k] - flat)
        lengths = self.buffer[there].norm(dim=1)
        total = (lengths.max() / lengths) @ self.buffer[there]
        start = 0
        for p in self.theta:
            p.grad = total[start : start + p.numel()].view_as(p).to(p.dtype)
            start += p.numel()


def some(model: TwoStage, seed: int, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Losses, of which every fourth step lacks one and every seventh two."""
    losses = model.losses(batch(seed, dtype=dtype))
    gone = {"task1": seed % 4 == 3, "task0": seed % 7 == 6, "task2": seed % 7 == 6}
    return {name: None if gone[name] else loss for name, loss in losses.items()}


@pytest.mark.parametrize(("decay", "rate"), [(0.9, 0.5), (0.5, 0.0), (0.0, 0.5), (0.8, 1.0)])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=str)
@pytest.mark.parametrize("missing", [False, True], ids=["all tasks", "some missing"])
def test_every_step_is_that_of_the_plain_loop(
    decay: float, rate: float, dtype: torch.dtype, missing: bool
) -> None:
    ours, theirs = TwoStage(SCALES, dtype=dtype), TwoStage(SCALES, dtype=dtype)
    balancer, plain = db_mtl(ours, decay=decay, rate=rate), PlainLoop(theirs, decay, rate)
    rtol = 1e-9 if dtype == DOUBLE else 1e-5
    optimizers = [torch.optim.SGD(m.parameters(), 0.01) for m in (ours, theirs)]
    for seed in range(12):
        for optimizer in optimizers:
            optimizer.zero_grad()
        take = some if missing else lambda m, s, d: m.losses(batch(s, dtype=d))
        balancer.backward(take(ours, seed, dtype))
        plain.backward(take(theirs, seed, dtype))
        wanted = grads(theirs)
        largest = max(float(g.abs().max()) for g in wanted.values())
        torch.testing.assert_close(grads(ours), wanted, rtol=0, atol=rtol * largest)
        for optimizer in optimizers:
            optimizer.step()
        if dtype != DOUBLE:  # from the same point again: float32 drifts apart
            theirs.load_state_dict(ours.state_dict())
    state = state_of(balancer)
    torch.testing.assert_close(
        state.mean, plain.buffer, rtol=0, atol=rtol * float(plain.buffer.abs().max())
    )
    assert state.count.tolist() == plain.count
    assert state.mean.dtype == torch.float64


def test_without_the_average_the_direction_is_that_of_inverse_norm() -> None:
    for seed in range(5):
        model = TwoStage(SCALES, seed, dtype=DOUBLE)
        x, found = batch(seed, dtype=DOUBLE), []
        inverse = balanced(model.names, model.trunk, believe=gaba.stabilisers.Identity())
        for balancer in (db_mtl(model, decay=0.0), inverse):
            model.zero_grad()
            balancer.backward(model.losses(x))
            found.append(torch.cat([g.flatten() for g in grads(model.trunk).values()]))
        cosine = torch.nn.functional.cosine_similarity(*found, dim=0)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-12, atol=0)
        assert not torch.allclose(*found, rtol=0.1)  # the length is another


@pytest.mark.parametrize("kind", WORLDS)
def test_in_every_world_norms_and_gramian_are_those_of_log_losses(kind: str) -> None:
    world = WORLDS[kind]()
    engine = SmoothedGradients.like(world.trunk, decay=0.0)
    balancer = balanced(
        NAMES,
        world.trunk,
        measure=engine,
        rule=gaba.rules.EqualShare(),
        believe=gaba.stabilisers.Identity(),
        heads="plain",
    )
    own, values = world.own(), [v.detach() for v in world.losses().values() if v is not None]
    leaves, theta = world.trainable(), world.theta()
    rows = torch.stack(
        [
            torch.cat(
                [
                    (torch.zeros_like(leaves[i]) if (g := row[i]) is None else g / v).flatten()
                    for i in theta
                ]
            )
            for row, v in zip(own, values, strict=True)
        ]
    )
    step = balancer.backward(world.losses())
    torch.testing.assert_close(step.norms, rows.norm(dim=1), rtol=1e-6, atol=0)
    assert step.gramian is not None
    torch.testing.assert_close(step.gramian, rows @ rows.T, rtol=1e-6, atol=1e-9)
    for i, leaf in enumerate(leaves):
        logs = [
            None if (g := row[i]) is None else g / v for row, v in zip(own, values, strict=True)
        ]
        reached = [(k, g) for k, g in enumerate(logs) if g is not None]
        if not reached:
            continue
        factors = step.multipliers if len(reached) > 1 or i in theta else torch.ones(3)
        wanted = sum((factors[k] * g for k, g in reached), torch.zeros_like(leaf))
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, wanted.to(leaf.dtype), rtol=1e-6, atol=1e-10)


def test_without_the_logarithm_it_averages_the_gradients_themselves() -> None:
    model, beta, total = TwoStage(SCALES, dtype=DOUBLE), 0.7, None
    engine = SmoothedGradients.like(model.trunk, decay=beta, rate=0.0, log=False)
    balancer = db_mtl(model, measure=engine)
    for seed in range(4):
        losses = [v for v in model.losses(batch(seed, dtype=DOUBLE)).values() if v is not None]
        rows = torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(
                            v, list(model.trunk.parameters()), retain_graph=True
                        )
                    ]
                )
                for v in losses
            ]
        )
        total = (1 - beta) * rows + (0 if total is None else beta * total)
        balancer.backward(model.losses(batch(seed, dtype=DOUBLE)))
    torch.testing.assert_close(state_of(balancer).mean, total, rtol=1e-10, atol=1e-14)


def test_a_missing_task_keeps_its_row() -> None:
    model = TwoStage(SCALES)
    balancer = db_mtl(model)
    balancer.backward(model.losses(batch(0)))
    before = state_of(balancer)
    balancer.backward({**model.losses(batch(1)), "task1": None})
    after = state_of(balancer)
    assert torch.equal(after.mean[1], before.mean[1])
    assert after.count.tolist() == [2, 1, 2]
    assert not torch.equal(after.mean[0], before.mean[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bad_loss_leaves_the_state_untouched(value: float) -> None:
    model = TwoStage(SCALES)
    balancer = db_mtl(model)
    balancer.backward(model.losses(batch(0)))
    before = balancer._state.get()
    losses = model.losses(batch(1))
    assert losses["task1"] is not None
    step = balancer.backward({**losses, "task1": losses["task1"] * value})
    assert not bool(step.finite)
    assert_same_state(balancer._state.get(), before)
    assert bool(balancer.backward(model.losses(batch(2))).finite)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_loss_without_logarithm_is_refused_by_name(value: float) -> None:
    model = TwoStage(SCALES)
    balancer = db_mtl(model)
    balancer.backward(model.losses(batch(0)))
    before = balancer._state.get()
    losses = model.losses(batch(1))
    assert losses["task1"] is not None
    with pytest.raises(ValueError, match=r"losses\['task1'\] must be above 0"):
        balancer.backward({**losses, "task1": losses["task1"] * value})
    assert_same_state(balancer._state.get(), before)
    assert bool(balancer.backward(model.losses(batch(2))).finite)


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    ends = []
    for stop in (None, 5):
        model = TwoStage(SCALES)
        balancer, optimizer = db_mtl(model), torch.optim.SGD(model.parameters(), 0.01)
        for seed in range(10):
            if seed == stop:
                saved = balancer.state_dict()
                balancer = db_mtl(model)
                balancer.load_state_dict(saved)
            optimizer.zero_grad()
            balancer.backward(some(model, seed, torch.float32))
            optimizer.step()
        ends.append((balancer._state.get(), [p.detach().clone() for p in model.parameters()]))
    assert_same_state(ends[0][0], ends[1][0])
    assert all(torch.equal(p, q) for p, q in zip(ends[0][1], ends[1][1], strict=True))


@pytest.mark.parametrize("log", [True, False])
def test_under_a_loss_scale_grad_is_scaled_and_the_state_is_not(log: bool) -> None:
    factor, found = 1024.0, []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=factor)):
        model = TwoStage(SCALES)
        balancer = db_mtl(model, log=log)
        for seed in range(2):
            balancer.backward(model.losses(batch(seed)), scaler=scaler)
        model.zero_grad()
        step = balancer.backward(model.losses(batch(2)), scaler=scaler)
        found.append((step.norms, state_of(balancer).mean, grads(model)))
    (norms, mean, plain), (scaled_norms, scaled_mean, scaled) = found
    torch.testing.assert_close(scaled_norms, norms, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled_mean, mean, rtol=1e-4, atol=1e-6)
    for name, gradient in plain.items():
        torch.testing.assert_close(scaled[name] / factor, gradient, rtol=1e-4, atol=1e-6)


def test_an_overflow_is_not_learnt_from() -> None:
    model = TwoStage(SCALES)
    balancer = db_mtl(model)
    balancer.backward(model.losses(batch(0)))
    before = balancer._state.get()
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    step = balancer.backward(model.losses(batch(1)), scaler=scaler)
    assert not bool(step.finite)
    assert_same_state(balancer._state.get(), before)


def test_norms_in_the_metric_of_the_optimizer() -> None:
    model = TwoStage(SCALES, dtype=DOUBLE)
    optimizer = torch.optim.Adagrad(model.parameters(), eps=0.0)
    model.losses(batch(9, dtype=DOUBLE))["task1"].backward()  # pyright: ignore[reportOptionalMemberAccess]
    optimizer.step()
    optimizer.zero_grad()
    p = torch.cat(
        [1 / optimizer.state[w]["sum"].sqrt().flatten() for w in model.trunk.parameters()]
    )
    balancer = db_mtl(model, metric="optimizer", optimizer=optimizer)
    balancer.backward(model.losses(batch(0, dtype=DOUBLE)))
    step = balancer.backward(model.losses(batch(1, dtype=DOUBLE)))
    torch.testing.assert_close(
        step.norms, (state_of(balancer).mean * p).norm(dim=1), rtol=1e-6, atol=0
    )


class Odd(nn.Module):
    """A sparse embedding, complex numbers and a part that no task uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(6, 3, sparse=True)
        self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.table(x) * self.phase).abs().square() + 0.1


def test_sparse_and_complex_and_idle_parameters() -> None:
    trunk, words = Odd(), torch.tensor([1, 4, 4])
    names = ["a", "b"]
    balancer = gaba.Balancer(names, trunk, methods.get("db-mtl", names, trunk, decay=0.0))
    z = trunk(words)
    step = balancer.backward({"a": z.mean(), "b": 9 * z.square().mean()})
    z = trunk(words)
    used = [trunk.table.weight, trunk.phase]
    rows = [
        [g.to_dense() for g in torch.autograd.grad(loss.log(), used, retain_graph=True)]
        for loss in (z.mean(), 9 * z.square().mean())
    ]
    lengths = torch.stack(
        [
            torch.cat(
                [torch.view_as_real(g).flatten() if g.is_complex() else g.flatten() for g in row]
            ).norm()
            for row in rows
        ]
    )
    torch.testing.assert_close(step.norms.float(), lengths)
    for parameter, one, two in zip(used, *rows, strict=True):
        wanted = (one / lengths[0] + two / lengths[1]) * lengths.max()
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.to_dense(), wanted)
    assert trunk.idle.grad is not None
    assert not trunk.idle.grad.any()


# ---- what it refuses ----------------------------------------------------------------------------


def refused(balancer: gaba.Balancer, model: TwoStage, word: str) -> None:
    before = balancer._state.get()
    with pytest.raises(ValueError, match=word):
        balancer.backward(model.losses(batch()))
    assert_same_state(balancer._state.get(), before)
    assert not grads(model)


def test_it_combines_by_hand_only() -> None:
    model = TwoStage(SCALES)
    engine = SmoothedGradients.like(model.trunk)
    next(model.trunk.parameters()).register_hook(lambda g: g)
    refused(balanced(model.names, model.trunk, engine), model, "by hand")
    refused(db_mtl(model), model, "by hand")
    with pytest.raises(ValueError, match="by hand"):
        balanced(model.names, model.trunk, engine)(model.losses(batch()))


def test_what_is_shared_must_be_known_and_stay_as_long() -> None:
    model = TwoStage(SCALES)
    with pytest.raises(TypeError, match="'auto'"):
        SmoothedGradients.like("auto")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'auto'"):
        methods.get("db-mtl", model.names, "auto")
    engine = SmoothedGradients(7)
    refused(balanced(model.names, "auto", engine), model, "'auto'")
    refused(balanced(model.names, model.trunk, engine), model, "found 7")
    balancer = db_mtl(model)
    next(model.trunk.parameters()).requires_grad_(False)
    refused(balancer, model, "freeze")


@pytest.mark.parametrize("settings", [{"every": 2}, {"accumulate": 2}])
def test_every_step_must_be_measured(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        db_mtl(TwoStage(SCALES), **settings)


def test_a_task_that_reaches_nothing_is_named() -> None:
    model = TwoStage(SCALES)
    balancer = db_mtl(model)
    lonely = model.heads[0](torch.ones(1, 5)).square().sum()
    with pytest.raises(ValueError, match=r"task0.*reaches no shared parameter"):
        balancer.backward({**model.losses(batch()), "task0": lonely})


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"size": 0}, "size"), ({"decay": 1.0}, "decay"), ({"rate": -1.0}, "rate")],
)
def test_settings_out_of_range(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SmoothedGradients(**{"size": 3, **settings})


def test_it_is_sized_by_what_is_trainable() -> None:
    trunk = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert SmoothedGradients.like(trunk).size == 26
    assert SmoothedGradients.like(trunk.parameters()).size == 26
    trunk[0].requires_grad_(False)
    assert SmoothedGradients.like(trunk, decay=0.5) == SmoothedGradients(10, decay=0.5)
    assert isinstance(SmoothedGradients(3), Measurement)
