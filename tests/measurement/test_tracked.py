"""Effective norms from the update: against the per-task gradients, on every kind of trunk."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaba
from _tracked import NAMES, SCALES, K, Net, net_of, take, true_shares
from _trunks import TRUNKS, inputs
from gaba.measurement.cadence import CREDIT, Cadence
from gaba.measurement.tracked import effective


@pytest.mark.parametrize("how", ["backward", "scalar"])
@pytest.mark.parametrize("kind", TRUNKS)
def test_the_probe_finds_the_shares_of_every_kind_of_trunk(kind: str, how: str) -> None:
    """The difference has an error of order ε = 1e-5 here, and rounding of order 1e-16/ε."""
    net = net_of(kind)
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    for number in range(1, 4):
        step, truth = take(net, balancer, inputs(seed=number), how)
        assert step.engine == "probe"
        # spectral norm moves its buffers in each call, so a rerun is at slightly other features
        loose = 0.02 if kind == "spectral-norm" else 2e-4
        torch.testing.assert_close(step.shares, truth, rtol=0, atol=loose)
        assert bool(step.finite)


@pytest.mark.parametrize("kind", ["perceptron", "lstm", "convolutions"])
def test_a_rerun_leaves_no_trace(kind: str) -> None:
    """Parameters, buffers, gradients and random numbers are those of a step without a probe."""
    found = []
    for every in (1, 1000):
        net = net_of(kind)
        balancer = gaba.Balancer(NAMES, net.trunk, every=every, limit=1.0)  # multipliers stay 1
        for number in range(3):
            net.zero_grad()
            balancer.backward(net.losses(inputs(seed=number)))
        found.append(
            {
                **{n: p.grad for n, p in net.named_parameters()},
                **dict(net.state_dict()),
                "random": torch.rand(3),
            }
        )
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize("how", ["backward", "scalar"])
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("shared", ["parameters", "auto"])
def test_products_find_the_shares_where_there_is_no_boundary(shared: Any, k: int, how: str) -> None:
    torch.manual_seed(0)
    net = Net(TRUNKS["perceptron"](), k=k).double()
    given = list(net.trunk.parameters()) if shared == "parameters" else shared
    balancer = gaba.Balancer(NAMES[:k], given, every=1)
    balancer.backward(net.losses(inputs()))
    for number in range(1, 4):
        step, truth = take(net, balancer, inputs(seed=number), how)
        assert step.engine == "products"
        torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)


def test_two_tasks_are_measured_by_one_product() -> None:
    torch.manual_seed(0)
    net = Net(TRUNKS["perceptron"](), k=2).double()
    balancer = gaba.Balancer(NAMES[:2], net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    step, truth = take(net, balancer, inputs(seed=1), "backward")
    assert step.engine == "products"
    torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)
    forced = gaba.Balancer(NAMES[:2], net.trunk, gaba.methods.get("gaba", engine="probe"), every=1)
    forced.backward(net.losses(inputs()))
    step, truth = take(net, forced, inputs(seed=1), "backward")
    assert step.engine == "probe"
    torch.testing.assert_close(step.shares, truth, rtol=0, atol=1e-4)


def test_the_shares_become_equal() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    for _ in range(60):
        net.zero_grad()
        balancer.backward(net.losses(inputs()))
    step = balancer.history[-1]
    assert float(step.imbalance) < 1.02
    torch.testing.assert_close(step.shares, torch.full((K,), 1 / K).double(), rtol=0, atol=0.005)


def test_for_orthogonal_gradients_the_effective_norm_is_the_norm() -> None:
    theta = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    balancer = gaba.Balancer(list("abc"), [theta], every=1)
    for _ in range(3):
        theta.grad = None
        balancer.backward(
            {n: c * theta[i] for i, (n, c) in enumerate(zip("abc", (4, 1, 9), strict=True))}
        )
    np.testing.assert_allclose(balancer.history.norms[-1], [4.0, 1.0, 9.0])


def test_a_task_alone_has_its_norm_for_effective_norm() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    first = balancer.backward(net.losses(inputs()))
    net.zero_grad()
    alone = balancer.backward({"t1": net.losses(inputs())["t1"]})
    torch.testing.assert_close(alone.norms[1], first.norms[1], rtol=1e-9, atol=0)
    assert alone.shares.tolist() == [0, 1, 0, 0, 0]


# ---- the checks, each with what it guards ---------------------------------------------------


class NumpyMask(nn.Module):
    """A mask from NumPy's generator, which no rerun brings back, on some of the outputs."""

    def __init__(self, inner: nn.Module, masked: slice = slice(None)) -> None:
        super().__init__()
        self.inner, self.masked = inner, masked

    def forward(self, x: Tensor) -> Any:
        z = self.inner(x)
        mask = torch.ones_like(z)
        drawn = np.random.default_rng().random(mask[:, self.masked].shape) > 0.5
        mask[:, self.masked] = torch.from_numpy(drawn).to(z.dtype)
        return z * mask


class Queue(nn.Module):
    """Mixes in what it saw before, kept in an attribute that is no buffer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        mixed = z if self.last is None else z + 0.5 * self.last
        self.last = z.detach()
        return mixed


def steps_of(net: Net, n: int = 6) -> tuple[gaba.Balancer, list[str], list[Tensor]]:
    """n steps that are all measured: the engines, and how far their shares are from the truth."""
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    engines, apart = [], []
    for number in range(1, n):
        step, truth = take(net, balancer, inputs(seed=number), "backward")
        engines.append(step.engine)
        if step.engine:
            apart.append((step.shares - truth).abs().max())
        assert bool(step.finite)
    return balancer, engines, apart


@pytest.mark.parametrize("kind", [NumpyMask, Queue])
def test_a_module_that_does_not_repeat_is_found_and_measured_from_gradients(kind: Any) -> None:
    torch.manual_seed(0)
    net = Net(kind(TRUNKS["perceptron"]())).double()
    with pytest.warns(UserWarning, match="other features when it is called once more"):
        balancer, engines, apart = steps_of(net)
    assert engines == ["", *["products"] * 4]
    assert max(apart) < 1e-9
    assert "called once more" in balancer.history.about["probe"]


class Outputs(nn.Module):
    """Forty outputs, of which one has a NumPy mask; task t0 reads that one, the others the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TRUNKS["perceptron"]()
        self.last = nn.Linear(8, 80)
        self.mask = NumpyMask(nn.Identity())

    def forward(self, x: Tensor) -> list[Tensor]:
        parts = list(self.last(self.body(x)).tanh().split(2, dim=1))
        return [self.mask(parts[0]), *parts[1:]]


def test_one_of_forty_outputs_that_does_not_repeat_costs_its_task_only() -> None:
    torch.manual_seed(0)
    trunk = Outputs().double()
    heads = nn.ModuleList(nn.Linear(2, 1) for _ in range(40)).double()
    names = [f"t{k}" for k in range(40)]
    balancer = gaba.Balancer(names, trunk, every=1)

    def losses() -> dict[str, Tensor]:
        parts = zip(names, heads, trunk(inputs()), strict=True)
        return {n: (head(part) - 1).square().mean() for n, head, part in parts}

    balancer.backward(losses())
    with pytest.warns(UserWarning, match="shares of t0 are measured from gradients"):
        balancer.backward(losses())
    for _ in range(2):
        trunk.zero_grad()
        found = losses()
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        net = Net(trunk)
        truth = true_shares(net, found, multipliers)
        step = balancer.backward(found)
        assert step.engine == "probe"
        torch.testing.assert_close(step.shares, truth, rtol=0, atol=1e-5)


def test_parameters_lent_by_functional_call_are_measured_from_gradients() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    names = dict(net.trunk.named_parameters())
    for number in range(3):
        net.zero_grad()
        lent = {n: 1.5 * p for n, p in names.items()}
        z = torch.func.functional_call(net.trunk, lent, (inputs(seed=number),))
        losses = {
            n: s * head(z).square().mean()
            for n, s, head in zip(NAMES, SCALES, net.heads, strict=True)
        }
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, losses, multipliers)
        step = balancer.backward(losses)
        if number:
            assert step.engine == "products"
            torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)


class Detaching(nn.Module):
    """Its backward pass is not the derivative of its forward pass: half of it is detached."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TRUNKS["perceptron"]()

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        return z - 0.7 * z.detach()


def orthogonal() -> nn.Module:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(8, 8))
    return nn.Sequential(nn.Flatten(), nn.Linear(15, 8), nn.Tanh(), layer)


@pytest.mark.parametrize("trunk", [Detaching, orthogonal])
def test_a_slope_that_is_not_the_gradient_is_never_believed(trunk: Any) -> None:
    """Σ m_k q_k must be ‖u‖²: whatever the probe says, shares that are recorded are right."""
    torch.manual_seed(0)
    net = Net(trunk()).double()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _, engines, apart = steps_of(net, 8)
    assert max(apart) < 0.05
    if trunk is Detaching:
        assert engines[:2] == ["", ""]
        assert set(engines[2:]) == {"products"}
        assert any("add up to" in str(w.message) for w in said)


def test_a_head_whose_gradient_changes_on_the_way_is_never_believed() -> None:
    """What the heads say must be what arrives at the features in the real backward pass."""
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    calls = iter(range(10**6))

    def uneven(gradient: Tensor) -> Tensor:  # one pass a task, then the real one: it is the last
        return gradient * (2.0 if next(calls) % (K + 1) == K else 1.0)

    net.zero_grad()
    z = net.trunk(inputs(seed=1))
    z.register_hook(uneven)
    target = torch.linspace(-1, 1, len(z), dtype=z.dtype)
    losses = {
        n: (head(z)[:, 0] - target).square().mean()
        for n, head in zip(NAMES, net.heads, strict=True)
    }
    calls = iter(range(10**6))
    before = balancer.state_dict()["_state.method_believe_log"]
    step = balancer.backward(losses)
    assert step.engine == ""
    assert "not those of the backward pass" in balancer._cadence.reason
    assert torch.equal(balancer.state_dict()["_state.method_believe_log"], before)


class LossesInside(nn.Module):
    """A shared module that returns its own losses: there are no features to see."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net_of("perceptron")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.net.losses(x)


def test_a_module_that_returns_its_losses_is_measured_from_gradients() -> None:
    model = LossesInside()
    balancer = gaba.Balancer(NAMES, model, every=1, limit=1000)
    for number in range(3):
        model.zero_grad()
        losses = model(inputs(seed=number))
        rows = [
            torch.autograd.grad(v, list(model.parameters()), retain_graph=True, allow_unused=True)
            for v in losses.values()
        ]
        flat = torch.stack(
            [
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).flatten()
                        for g, p in zip(row, model.parameters(), strict=True)
                    ]
                )
                for row in rows
            ]
        )
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        products = flat @ (multipliers @ flat)
        step = balancer.backward(losses)
        if number:
            assert step.engine == "products"
            truth = multipliers * products / (multipliers @ products)
            torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)


class Tied(nn.Module):
    """The shared table is used once more, in the head of the last task."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table((x[..., 0].abs() * 10).long() % 7).mean(1)).tanh()


@pytest.mark.parametrize("how", ["backward", "scalar"])
def test_a_loss_that_goes_around_the_features_is_measured_from_its_gradient(how: str) -> None:
    torch.manual_seed(0)
    trunk = Tied()
    net = Net(trunk).double()

    def losses(x: Tensor) -> dict[str, Tensor]:
        z = trunk(x)
        found = {
            n: s * head(z).square().mean()
            for n, s, head in zip(NAMES, SCALES, net.heads, strict=True)
        }
        return found | {"t4": (z @ trunk.table.weight.T).logsumexp(1).mean()}

    balancer = gaba.Balancer(NAMES, trunk, every=1)
    balancer.backward(losses(inputs()))
    for number in range(1, 4):
        net.zero_grad()
        found = losses(inputs(seed=number))
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, found, multipliers)
        if how == "backward":
            step = balancer.backward(found)
        else:
            balancer(found).backward()
            step = balancer.last_step
            assert step is not None
        assert step.engine == "probe"
        torch.testing.assert_close(step.shares, truth, rtol=0, atol=1e-4)


# ---- cadence --------------------------------------------------------------------------------


def test_the_cadence_follows_from_passes_and_keeps_to_its_budget() -> None:
    for cost, budget in ((0.6, 0.05), (0.8, 0.05), (31.0, 0.05), (0.6, 0.2)):
        cadence, spent, times = Cadence(), 0.0, []
        for step in range(10_000):
            if step >= cadence.due:
                cadence = cadence.moved(step, cost, budget)
                spent += cost
                times.append(step)
            assert spent <= max(CREDIT, cost) + budget * (step + 1) + 1e-9
        gaps = np.diff(times)
        assert cost > CREDIT or gaps[0] == 1
        steady = np.ceil(cost / budget)
        assert set(gaps[-6:]) <= {steady, steady + 1}
        assert cost > CREDIT or len(set(gaps[-6:])) == 2  # no beat that could miss every other step
        assert spent >= 0.8 * budget * 10_000


def test_an_unmeasured_step_is_one_plain_backward_pass() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=4)
    kinds = []
    for number in range(13):
        net.zero_grad()
        kinds.append(balancer.backward(net.losses(inputs(seed=number))).engine)
    assert kinds == ["norms", *(["", "", "", "probe"] * 3)]
    assert set(balancer.history.combined) == {"backward"}


def test_the_cadence_is_part_of_the_state() -> None:
    def made() -> tuple[Net, gaba.Balancer]:
        net = net_of("perceptron")
        return net, gaba.Balancer(NAMES, net.trunk, budget=0.3)

    def go(net: Net, balancer: gaba.Balancer, numbers: range) -> None:
        for number in numbers:
            net.zero_grad()
            balancer.backward(net.losses(inputs(seed=number)))

    net, whole = made()
    go(net, whole, range(40))
    net, first = made()
    go(net, first, range(17))
    net, second = made()
    second.load_state_dict(first.state_dict())
    go(net, second, range(17, 40))
    assert second.history.engines.tolist() == whole.history.engines[17:].tolist()
    np.testing.assert_array_equal(second.history.multipliers, whole.history.multipliers[17:])
    np.testing.assert_array_equal(second.history.shares, whole.history.shares[17:])


def test_effective_norms_have_the_sign_of_the_product() -> None:
    found = effective(torch.tensor([4.0, -9.0, 0.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert found.tolist() == [2.0, -3.0, 0.0]


def test_a_backward_pass_that_never_comes_leaves_nothing_behind() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    abandoned = balancer(net.losses(inputs(seed=1)))
    net.zero_grad()
    balancer(net.losses(inputs(seed=2))).backward()
    assert balancer.history.engines.tolist() == ["norms", "", "probe"]
    shares = balancer.history.shares[-1].copy()
    abandoned.backward()  # too late: another step has come since
    np.testing.assert_array_equal(balancer.history.shares[-1], shares)


# ---- along the real update ------------------------------------------------------------------


class Lion(torch.optim.Optimizer):
    """An optimizer that torch does not have: the sign of a momentum (Chen et al. 2023)."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_(group["lr"] * (0.9 * m + 0.1 * p.grad).sign())
                m.mul_(0.99).add_(p.grad, alpha=0.01)


def optimizers_of(name: str, net: Net) -> list[torch.optim.Optimizer]:
    all_of_it = list(net.parameters())
    if name == "two":
        first, *rest = net.trunk.parameters()
        mine = [torch.optim.SGD([first], lr=1e-3), torch.optim.AdamW(rest, lr=1e-3)]
        return [*mine, torch.optim.SGD(net.heads.parameters(), lr=1e-3)]
    kinds: dict[str, Any] = {
        "AdamW": lambda: torch.optim.AdamW(all_of_it, lr=1e-3, weight_decay=0.1),
        "SGD": lambda: torch.optim.SGD(all_of_it, lr=1e-3, momentum=0.9),
        "Adafactor": lambda: torch.optim.Adafactor(all_of_it, lr=1e-3),
        "Lion": lambda: Lion(all_of_it),
    }
    return [kinds[name]()]


@pytest.mark.parametrize("engine", ["probe", "products"])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adafactor", "Lion", "two"])
def test_along_the_update_of_any_optimizer(name: str, engine: str) -> None:
    """s_k ∝ m_k ⟨∇L_k(next batch), d⟩, d = θ_before − θ_after without the weight decay."""
    net = net_of("perceptron")
    optimizers = optimizers_of(name, net)
    method = gaba.methods.get("gaba", engine=engine)
    balancer = gaba.Balancer(
        NAMES, net.trunk, method, every=1, metric="optimizer", optimizer=optimizers
    )
    theta = list(net.trunk.parameters())
    d: list[Tensor] = []
    for number in range(4):
        net.zero_grad()
        losses = net.losses(inputs(seed=number))
        rows = [torch.autograd.grad(v, theta, retain_graph=True) for v in losses.values()]
        step = balancer.backward(losses)
        if d:
            flat = torch.cat([part.flatten() for part in d])
            products = torch.stack([torch.cat([g.flatten() for g in row]) @ flat for row in rows])
            pulls = products * step.multipliers
            assert step.engine == engine
            if pulls.sum() > 0:
                torch.testing.assert_close(step.shares, pulls / pulls.sum(), rtol=1e-3, atol=1e-4)
            else:
                assert step.shares.isnan().all()
        before = [p.detach().clone() for p in theta]
        for optimizer in optimizers:
            optimizer.step()
        decay = 1e-4 if name == "AdamW" else 0.0
        decays = [0.0, *[1e-5] * 9] if name == "two" else [decay] * 10
        d = [b * (1 - w) - p.detach() for b, p, w in zip(before, theta, decays, strict=False)]


def test_along_noise_nothing_is_learnt() -> None:
    """At a stationary point the sum of the products has no sign, and the belief stays as it is."""
    theta = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=1e-9)
    balancer = gaba.Balancer(list("abc"), [theta], every=1, metric="optimizer", optimizer=optimizer)
    draw = torch.Generator().manual_seed(0)
    believed = []
    for _ in range(200):
        noise = torch.randn(3, 50, generator=draw, dtype=torch.float64)
        theta.grad = None
        balancer.backward({n: noise[i] @ theta for i, n in enumerate("abc")})
        optimizer.step()
        believed.append(balancer.state_dict()["_state.method_believe_log"].clone())
    first, last = believed[0].exp(), believed[-1].exp()
    assert float((last / last.max()).min()) > 0.5 * float((first / first.max()).min())


def test_an_optimizer_inside_the_backward_pass_gives_the_direction_too() -> None:
    net = net_of("perceptron")
    own = {p: torch.optim.SGD([p], lr=1e-3) for p in net.parameters()}

    def step_now(p: Tensor) -> None:
        own[p].step()  # type: ignore[index]
        own[p].zero_grad()  # type: ignore[index]

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    balancer = gaba.Balancer(
        NAMES, net.trunk, every=1, metric="optimizer", optimizer=list(own.values())
    )
    theta, d, measured = list(net.trunk.parameters()), None, 0
    for number in range(7):
        losses = net.losses(inputs(seed=number))
        rows = [torch.autograd.grad(v, theta, retain_graph=True) for v in losses.values()]
        before = [p.detach().clone() for p in theta]
        step = balancer.backward(losses)
        if step.engine == "products":  # along what the step before moved
            assert d is not None
            measured += 1
            products = torch.stack(
                [torch.stack([(g * e).sum() for g, e in zip(row, d, strict=True)]) for row in rows]
            ).sum(1)
            pulls = products * step.multipliers
            torch.testing.assert_close(step.shares, pulls / pulls.sum(), rtol=1e-6, atol=1e-9)
        d = [b - p.detach() for b, p in zip(before, theta, strict=True)]
    assert measured >= 2


def test_share_targets_are_reached() -> None:
    net = net_of("perceptron")
    wanted = dict(zip(NAMES, (3.0, 1.0, 1.0, 2.0, 1.0), strict=True))
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000, share_targets=wanted)
    for _ in range(80):
        net.zero_grad()
        balancer.backward(net.losses(inputs()))
    step = balancer.history[-1]
    truth = torch.tensor(list(wanted.values()), dtype=torch.float64)
    torch.testing.assert_close(step.shares, truth / truth.sum(), rtol=0.03, atol=0)
    exact = gaba.Balancer(NAMES, net.trunk, "equal-share", share_targets=wanted, limit=None)
    net.zero_grad()
    step = exact.backward(net.losses(inputs()))
    torch.testing.assert_close(step.shares, truth / truth.sum(), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="share_targets must give a number for each"):
        gaba.Balancer(NAMES, net.trunk, share_targets={"t0": 1.0})
