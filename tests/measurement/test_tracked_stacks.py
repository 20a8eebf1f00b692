"""The default method under mixed precision, compilation, checkpoints and hooks."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gaba
from _tracked import NAMES, SCALES, Net, assert_probed, net_of, take, theta_of, true_shares
from _trunks import TRUNKS, inputs


def wide(dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Flatten(), nn.Linear(15, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8)
    )
    return Net(trunk).to(dtype)


def log_error(shares: Tensor, truth: Tensor) -> float:
    """The root mean square of log s_k − log of the truth, over tasks with K s_k > 0.01."""
    loud = truth > 0.01 / len(truth)
    return float((shares[loud] / truth[loud]).log().square().mean().sqrt())


@pytest.mark.parametrize("how", ["backward", "scalar"])
@pytest.mark.parametrize(
    ("autocast", "bound"), [(None, 0.05), (torch.bfloat16, 0.1), (torch.float16, 0.1)]
)
def test_near_balance_the_shares_are_right_in_every_precision(
    autocast: torch.dtype | None, bound: float, how: str
) -> None:
    """Against exact products in the same precision, on the same batch."""
    net = wide()
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    errors = []
    for number in range(12):
        x = inputs(64, seed=number, dtype=torch.float32)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            if number == 0:
                balancer.backward(net.losses(x))
                net.zero_grad()
                continue
            step, truth = take(net, balancer, x, how)
        assert step.engine == "probe"
        errors.append(log_error(step.shares, truth))
    assert sum(e**2 for e in errors) ** 0.5 / len(errors) ** 0.5 < bound


def test_a_deep_trunk_under_autocast_is_moved_in_float32() -> None:
    """A difference of two features in bfloat16 is mostly rounding: that is off by 0.02 here."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(15, 64), nn.ReLU()]
    layers += [part for _ in range(12) for part in (nn.Linear(64, 64), nn.ReLU())]
    net = Net(nn.Sequential(*layers, nn.Linear(64, 8)))
    seen: set[torch.dtype] = set()
    net.trunk.register_forward_hook(lambda _m, _i, z: seen.add(z.dtype))
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    errors: list[float] = []
    for number in range(8):
        x = inputs(64, seed=number, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            step, truth = take(net, balancer, x, "backward")
        if number:
            assert step.engine == "probe"
            errors.append(log_error(step.shares, truth))
    rms = (sum(e**2 for e in errors) / len(errors)) ** 0.5
    assert rms < 3 * torch.finfo(torch.bfloat16).eps / 2  # of the heads, which stay in bfloat16
    assert seen == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("how", ["backward", "scalar"])
def test_tiny_losses_in_float16_are_measured_on_the_scale_of_the_scaler(how: str) -> None:
    net = wide()
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    for number in range(4):
        optimizer.zero_grad()
        x = inputs(64, seed=number, dtype=torch.float32)
        with torch.autocast("cpu", torch.float16):
            losses = {n: 1e-4 * v for n, v in net.losses(x).items()}
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, {n: 512 * v for n, v in losses.items()}, multipliers)
        if how == "backward":
            step = balancer.backward(losses, scaler=scaler)
        else:
            scaler.scale(balancer(losses, scaler=scaler)).backward()
            assert balancer.last_step is not None
            step = balancer.last_step
        scaler.step(optimizer)
        scaler.update()
        if number:
            assert step.engine == "probe"
            assert log_error(step.shares, truth) < 0.2
            assert (
                float(step.norms.max()) < 1
            )  # of the losses as they were, not as they were scaled


def test_a_step_that_overflows_teaches_nothing() -> None:
    net = wide()
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs(dtype=torch.float32)), scaler=scaler)
    before = {n: v for n, v in balancer.state_dict().items() if isinstance(v, Tensor)}
    net.zero_grad()
    losses = net.losses(inputs(dtype=torch.float32))
    huge = torch.amp.GradScaler("cpu", init_scale=1e38)
    step = balancer.backward({n: 100 * v for n, v in losses.items()}, scaler=huge)
    assert not step.finite
    for name, value in before.items():
        assert torch.equal(balancer.state_dict()[name], value), name


def test_pure_bfloat16_parameters_are_measured_from_gradients() -> None:
    net = wide(torch.bfloat16)
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    for number in range(3):
        net.zero_grad()
        balancer.backward(net.losses(inputs(64, seed=number, dtype=torch.bfloat16)))
    assert balancer.history.engines[-1] == "products"
    assert balancer.history.shares[-1].sum() == pytest.approx(1)


def compiled(module: nn.Module) -> Any:
    torch._dynamo.reset()
    return torch.compile(module, backend="aot_eager", dynamic=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at it
@pytest.mark.parametrize("how", ["backward", "scalar"])
@pytest.mark.parametrize(
    "part",
    ["both", *(pytest.param(part, marks=pytest.mark.slow) for part in ("trunk", "heads"))],
)
def test_compiled_parts_keep_their_gradients_whatever_is_measured_when(part: str, how: str) -> None:
    """A graph compiled in a step without a probe may be kept in one with a probe, and is right."""
    net, plain = wide(torch.float64), wide(torch.float64)
    if part != "heads":
        net.trunk = compiled(net.trunk)
    if part != "trunk":
        net.heads = nn.ModuleList(compiled(head) for head in net.heads)
    balancer = gaba.Balancer(NAMES, net.trunk, every=2)
    sizes = [8, 8, 16, 16, 8, 16, 8]  # each new size is compiled, in either kind of step
    for number, size in enumerate(sizes):
        x = inputs(size, seed=number)
        only = ["t1"] if number == 0 else NAMES  # the first step has one task only
        net.zero_grad()
        plain.zero_grad()
        losses = {n: v for n, v in net.losses(x).items() if n in only}
        if how == "backward":
            step = balancer.backward(losses)
        else:
            balancer(losses).backward()
            assert balancer.last_step is not None
            step = balancer.last_step
        pairs = zip(step.multipliers.tolist(), plain.losses(x).items(), strict=True)
        sum(m * v for m, (n, v) in pairs if n in only).backward()  # type: ignore[union-attr]
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            if q.grad is not None and q.grad.any():
                torch.testing.assert_close(p.grad, q.grad)
    assert "probe" in balancer.history.engines
    assert not balancer._cadence.reason


def test_a_model_that_is_compiled_as_a_whole_is_measured_from_gradients() -> None:
    net = wide(torch.float64)
    forward = compiled(net)
    torch._dynamo.reset()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return self.net.losses(x)

    forward = torch.compile(Whole(), backend="aot_eager")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1, limit=1000)
    for number in range(4):
        net.zero_grad()
        losses = forward(inputs(seed=number))
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, losses, multipliers)
        step = balancer.backward(losses)
        if number:
            assert step.engine == "products"
            torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [2, 5])
def test_an_optimizer_inside_the_backward_pass_is_measured_from_gradients(k: int) -> None:
    """``.grad`` is gone when the pass is over, and so are the parameters that it belongs to."""
    torch.manual_seed(0)
    net = Net(TRUNKS["perceptron"](), k=k).double()
    optimizers = {p: torch.optim.SGD([p], lr=1e-3) for p in net.parameters()}

    def step_now(p: Tensor) -> None:
        optimizers[p].step()  # type: ignore[index]
        optimizers[p].zero_grad()  # type: ignore[index]

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    balancer = gaba.Balancer(NAMES[:k], net.trunk, every=1, limit=1000)
    balancer.backward(net.losses(inputs()))
    for number in range(1, 4):
        losses = net.losses(inputs(seed=number))
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, losses, multipliers)
        step = balancer.backward(losses)
        assert step.engine == "products"
        torch.testing.assert_close(step.shares, truth, rtol=1e-9, atol=1e-12)


def test_a_hook_that_changes_a_gradient_of_the_shared_part_is_seen() -> None:
    """The update is what the optimizer gets; the shares are of that."""
    net = net_of("perceptron")
    theta_of(net.trunk)[0].register_hook(lambda g: 3 * g)
    balancer = gaba.Balancer(NAMES, net.trunk, gaba.methods.get("gaba", engine="products"), every=1)
    balancer.backward(net.losses(inputs()))
    net.zero_grad()
    losses = net.losses(inputs(seed=1))
    theta = theta_of(net.trunk)
    rows = [torch.autograd.grad(v, theta, retain_graph=True) for v in losses.values()]
    step = balancer.backward(losses)
    update = torch.cat([p.grad.flatten() for p in theta if p.grad is not None])
    products = torch.stack([torch.cat([g.flatten() for g in row]) @ update for row in rows])
    pulls = products * step.multipliers
    torch.testing.assert_close(step.shares, pulls / pulls.sum(), rtol=1e-9, atol=1e-12)


def test_a_checkpoint_that_is_not_reentrant_is_probed_and_a_reentrant_one_is_named() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.inner, self.reentrant = TRUNKS["perceptron"](), reentrant

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=self.reentrant)

    torch.manual_seed(0)
    net = Net(Checkpointed(False)).double()
    assert_probed(net)
    net = Net(Checkpointed(True)).double()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        gaba.Balancer(NAMES, net.trunk).backward(net.losses(inputs().requires_grad_()))


class ScalarParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = TRUNKS["perceptron"](), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.scale


def test_a_parameter_without_dimensions_and_a_tied_one_are_moved_as_the_others() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(ScalarParameter(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    trunk[3].weight = trunk[1].weight
    net = Net(trunk).double()
    assert_probed(net)


def test_copies_and_pickles_go_on_measuring() -> None:
    net = net_of("perceptron")
    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(net.losses(inputs()))
    for make in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        again, copied = make((net, balancer))
        step, truth = take(again, copied, inputs(seed=1), "backward")
        assert step.engine == "probe"
        torch.testing.assert_close(step.shares, truth, rtol=0, atol=1e-4)


def test_several_calls_of_the_shared_part_in_one_step() -> None:
    net = net_of("convolutions")

    def losses(number: int) -> dict[str, Tensor]:
        z = [net.trunk(inputs(seed=10 * number + i)) for i in range(3)]
        found = [head(z[k % 3] + z[0]).square().mean() for k, head in enumerate(net.heads)]
        return {n: s * v for n, s, v in zip(NAMES, SCALES, found, strict=True)}

    balancer = gaba.Balancer(NAMES, net.trunk, every=1)
    balancer.backward(losses(0))
    for number in (1, 2):
        net.zero_grad()
        found = losses(number)
        multipliers = torch.tensor(list(balancer.multipliers.values()), dtype=torch.float64)
        truth = true_shares(net, found, multipliers)
        step = balancer.backward(found)
        assert step.engine == "probe"
        torch.testing.assert_close(step.shares, truth, rtol=0, atol=1e-4)


def test_frozen_parts_are_not_moved() -> None:
    net = net_of("perceptron")
    next(net.trunk.parameters()).requires_grad_(False)
    assert_probed(net)
