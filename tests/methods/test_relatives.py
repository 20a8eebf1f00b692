"""The presets of other fields against plain loops of their published formulas, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _made import made as made_on
from gaba import methods
from gaba.measurement import ElementNorms, OutputNorms

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)

Losses = dict[str, Tensor]


def assert_gradients(model: nn.Module, expected: dict[str, Tensor | None], largest: float) -> None:
    """Every ``.grad``, to the tolerance of its dtype times the largest entry that is added up."""
    for name, p in model.named_parameters():
        wanted = expected[name]
        if wanted is None:
            assert p.grad is None, name
            continue
        assert p.grad is not None, name
        apart = float((p.grad - wanted).abs().max()) / largest
        assert apart <= TOLERANCE[p.dtype], f"{name} is off by {apart:.2g}"


def taken(model: nn.Module) -> dict[str, Tensor | None]:
    """Every ``.grad``, which is then empty again."""
    found = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def follow(
    model: nn.Module,
    losses: Callable[[int], Losses],
    published: Callable[[int, Losses], None],
    balancer: gaba.Balancer,
    *,
    steps: int = 8,
    features: Callable[[], object] = lambda: None,
) -> list[gaba.Step]:
    """Train by ``published``, which fills ``.grad``; in each step the Balancer must do alike."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorded = []
    for step in range(steps):
        model.zero_grad()
        published(step, losses(step))
        expected = taken(model)
        recorded.append(balancer.backward(losses(step), features()))
        parts = zip(factors(recorded[-1]), losses(step).values(), strict=True)
        assert_gradients(model, expected, max(c * largest_entry(model, loss) for c, loss in parts))
        optimizer.step()
    return recorded


def factors(step: gaba.Step) -> list[float]:
    """m, what each gradient was multiplied by; 0 for a missing task."""
    return step.multipliers.nan_to_num(nan=0.0).tolist()


def largest_entry(model: nn.Module, loss: Tensor) -> float:
    """max|∇L| over all parameters."""
    found = torch.autograd.grad(loss, list(model.parameters()), None, True, allow_unused=True)
    return max(float(g.abs().max()) for g in found if g is not None)


# ---- vqgan ---------------------------------------------------------------------------------------


class Gan(nn.Module):
    """An autoencoder and a discriminator whose logits are scaled by ``loudness``."""

    def __init__(self, loudness: float, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.autoencoder = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))
        self.critic = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
        self.loudness = loudness
        self.to(dtype)
        self.x = torch.randn(9, 6).to(dtype)

    @property
    def last(self) -> nn.Parameter:
        return self.autoencoder.get_parameter("2.weight")

    def losses(self, step: int) -> Losses:
        x = self.x.roll(step, 1)
        y = self.autoencoder(x)
        return {"rec": (x - y).abs().mean(), "gan": -self.loudness * self.critic(y).mean()}


@both_dtypes
@pytest.mark.parametrize(
    ("loudness", "settings"),
    [
        (1.0, {}),
        (30.0, {"weight": 0.5, "start": 3}),
        (1e-9, {"weight": 0.8}),  # the quotient reaches its bound
        (1e-4, {"epsilon": 1e-2, "start": 1, "most": 7.0}),
        (0.0, {}),
    ],
)
def test_vqgan(dtype: torch.dtype, loudness: float, settings: dict[str, Any]) -> None:
    model = Gan(loudness, dtype)
    asked = {"weight": 1.0, "start": 0, "epsilon": 1e-4, "most": 1e4, **settings}
    used = []

    def published(step: int, losses: Losses) -> None:
        norms = {
            name: torch.autograd.grad(loss, model.last, retain_graph=True)[0].norm()
            for name, loss in losses.items()
        }
        adaptive = (norms["rec"] / (norms["gan"] + asked["epsilon"])).clamp(0.0, asked["most"])
        used.append(float(adaptive) * asked["weight"] * (step >= asked["start"]))
        (losses["rec"] + used[-1] * losses["gan"]).backward()

    balancer = made_on(
        "vqgan", ["rec", "gan"], model.autoencoder, last_layer=model.last, **settings
    )
    steps = follow(model, model.losses, published, balancer)
    for step, weight in zip(steps, used, strict=True):
        assert factors(step) == pytest.approx([1.0, weight], rel=TOLERANCE[dtype], abs=0)
    assert len(used) == 8
    assert [weight == 0 for weight in used] == [i < asked["start"] for i in range(8)]
    if loudness == 1e-9:
        assert used[0] == pytest.approx(0.8 * 9.99e3, rel=1)
    if "most" in settings:
        assert used[-1] == 7.0


def test_vqgan_takes_a_layer_and_a_reference_of_ones_own() -> None:
    model = Gan(5.0, torch.float64)
    layer = model.autoencoder.get_submodule("2")
    balancer = made_on(
        "vqgan", ["gan", "rec"], model.autoencoder, last_layer=layer, reference="rec"
    )
    losses = model.losses(0)
    own = {
        name: torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, [*layer.parameters()], None, True)]
        ).norm()
        for name, loss in losses.items()
    }
    step = balancer.backward(losses)
    assert factors(step) == pytest.approx([float(own["rec"] / (own["gan"] + 1e-4)), 1.0], rel=1e-10)
    with pytest.raises(ValueError, match=r"reference .* one of \['gan', 'rec'\], found 'mse'"):
        made_on("vqgan", ["gan", "rec"], model.autoencoder, reference="mse")


# ---- encodec -------------------------------------------------------------------------------------


class Codec(nn.Module):
    """A linear codec of sound with a commitment loss, and a critic of what it puts out."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder, self.decoder = nn.Linear(16, 5), nn.Linear(5, 16)
        self.critic = nn.Linear(16, 1)
        self.to(dtype)
        self.x = torch.randn(7, 16).to(dtype)
        self.y: Any = None
        self.commitment: Any = None

    def losses(self, step: int) -> Losses:
        x = self.x.roll(step, 1)
        code = self.encoder(x)
        rounded = code + (code.round() - code).detach()
        self.commitment = (code - code.round().detach()).square().mean()
        self.y = y = self.decoder(rounded)
        spectra = (torch.fft.rfft(x).abs(), torch.fft.rfft(y).abs())
        return {
            "time": (x - y).abs().mean(),
            "spectral": 30 * (spectra[0] - spectra[1]).square().mean(),
            "adversarial": 0.01 * (1 - self.critic(y)).relu().mean(),
        }


@both_dtypes
@pytest.mark.parametrize("per_item", [True, False])
@pytest.mark.parametrize("settings", [{}, {"ratios": (0.1, 1.0, 3.0), "total_norm": 4.0}])
@pytest.mark.parametrize("decay", [0.999, 0.5])
def test_encodec(
    dtype: torch.dtype, per_item: bool, settings: dict[str, Any], decay: float
) -> None:
    """The sum at the output, with the critic left alone, and a commitment loss beside it."""
    model = Codec(dtype)
    sums, counts = dict.fromkeys(model.losses(0), 0.0), 0.0
    ratios = dict(zip(sums, settings.get("ratios", (1, 1, 1)), strict=True))
    total_norm = settings.get("total_norm", 1.0)

    def published(step: int, losses: Losses) -> None:
        nonlocal counts
        model.commitment.backward(retain_graph=True)
        counts = decay * counts + 1
        combined = torch.zeros_like(model.y)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, [model.y], retain_graph=True)
            norm = gradient.norm(dim=1).mean() if per_item else gradient.norm()
            sums[name] = decay * sums[name] + float(norm)
            part = total_norm * ratios[name] / sum(ratios.values())
            combined = combined + part * gradient / (sums[name] / counts + 1e-12)
        model.y.backward(combined)

    made = made_on(
        "encodec",
        list(sums),
        [*model.encoder.parameters(), *model.decoder.parameters()],
        decay=decay,
        per_item=per_item,
        above=False,
        **settings,
    )

    def features() -> Tensor:
        model.commitment.backward(retain_graph=True)
        return model.y

    follow(model, model.losses, published, made, features=features)


def test_encodec_trains_what_lies_above_the_output_by_the_same_weights() -> None:
    model = Codec(torch.float64)
    shared = nn.ModuleList([model.encoder, model.decoder])
    names = list(model.losses(0))
    balancer = made_on("encodec", names, shared)

    def published(step: int, losses: Losses) -> None:
        norms = {
            name: torch.autograd.grad(loss, model.y, retain_graph=True)[0].norm(dim=1).mean()
            for name, loss in losses.items()
        }
        assert step == 0  # the average of one number is that number
        parts = [loss / (norms[name] + 1e-12) / 3 for name, loss in losses.items()]
        torch.stack(parts).sum().backward()

    (step,) = follow(model, model.losses, published, balancer, steps=1, features=lambda: model.y)
    assert model.critic.weight.grad is not None
    contributions = step.contributions
    assert contributions.tolist() == pytest.approx([1 / 3] * 3, rel=1e-8)


def test_encodec_takes_its_ratios_by_name() -> None:
    shared = nn.Linear(2, 2)
    balancer = made_on("encodec", ["a", "b"], shared, ratios={"b": 3.0, "a": 1.0})
    y = shared(torch.ones(4, 2))
    step = balancer.backward({"a": y.sum(), "b": 50 * y.square().sum()})
    assert step.contributions.tolist() == pytest.approx([0.25, 0.75], rel=1e-6)
    with pytest.raises(ValueError, match=r"ratios .* must name the tasks \['a', 'b'\]"):
        made_on("encodec", ["a", "b"], shared, ratios={"a": 1.0})


# ---- pinn ----------------------------------------------------------------------------------------


class Heat(nn.Module):
    """u_t = u_xx: residual, boundary and initial loss of one network."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.out = nn.Linear(8, 1)  # whose bias the residual does not reach
        self.to(dtype)
        self.points = torch.rand(11, 2).to(dtype)

    def u(self, points: Tensor) -> Tensor:
        return self.out(self.net(points))[:, 0]

    def losses(self, step: int) -> Losses:
        points = (self.points + 0.1 * step).frac().requires_grad_()
        (du,) = torch.autograd.grad(self.u(points).sum(), points, create_graph=True)
        (ddu,) = torch.autograd.grad(du[:, 1].sum(), points, create_graph=True)
        start = points.detach() * points.new_tensor([0.0, 1.0])
        edge = points.detach() * points.new_tensor([1.0, 0.0])
        return {
            "residual": 20 * (du[:, 0] - ddu[:, 1]).square().mean(),
            "boundary": self.u(edge).square().mean(),
            "initial": (self.u(start) - (torch.pi * start[:, 1]).sin()).square().mean(),
        }

    def flat(self, loss: Tensor) -> Tensor:
        """The gradient with respect to all parameters, zeros where there is none."""
        parameters = list(self.parameters())
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def assert_averaged(
    name: str, dtype: torch.dtype, hat: Callable[[Heat, Losses, Any], Any], **settings: Any
) -> None:
    """λ ← .9 λ + .1 λ̂ in every third step, and the weighted sum of the losses in each."""
    model = Heat(dtype)
    weights = dict.fromkeys(model.losses(0), 1.0)
    used = []

    def published(step: int, losses: Losses) -> None:
        if step % 3 == 0:
            for task, asked in hat(model, losses, weights).items():
                weights[task] = 0.9 * weights[task] + 0.1 * float(asked)
        used.append(list(weights.values()))
        torch.stack([weights[task] * loss for task, loss in losses.items()]).sum().backward()

    balancer = made_on(name, list(weights), model, every=3, **settings)
    steps = follow(model, model.losses, published, balancer, steps=11)
    for step, expected in zip(steps, used, strict=True):
        assert factors(step) == pytest.approx(expected, rel=TOLERANCE[dtype], abs=0)
    assert used[0] != used[3] != used[6]
    assert [step.measured for step in steps] == [i % 3 == 0 for i in range(11)]


@both_dtypes
@pytest.mark.parametrize("total", ["sum", "mean"])
def test_pinn(dtype: torch.dtype, total: str) -> None:
    def hat(model: Heat, losses: Losses, weights: Any) -> dict[str, Tensor]:
        norms = {task: model.flat(loss).norm() for task, loss in losses.items()}
        length = torch.stack(list(norms.values())).sum() / (1 if total == "sum" else len(norms))
        return {task: length / norm for task, norm in norms.items()}

    assert_averaged("pinn", dtype, hat, total=total)


@both_dtypes
@pytest.mark.parametrize("weighted", [False, True])
def test_pinn_annealing(dtype: torch.dtype, weighted: bool) -> None:
    def hat(model: Heat, losses: Losses, weights: dict[str, float]) -> dict[str, Tensor]:
        flat = {task: model.flat(loss).abs() for task, loss in losses.items()}
        largest = flat.pop("residual").max()
        return {
            task: largest / ((weights[task] if weighted else 1) * entries.mean())
            for task, entries in flat.items()
        }

    assert_averaged("pinn-annealing", dtype, hat, weighted=weighted)


def test_annealing_needs_its_measurement_and_its_reference() -> None:
    model = Heat(torch.float64)
    names = list(model.losses(0))
    balancer = made_on("pinn-annealing", names, model, measure="exact")
    with pytest.raises(ValueError, match="max and mean of each gradient"):
        balancer.backward(model.losses(0))
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="reference"):
        made_on("pinn-annealing", names, model, reference="pde")
    balancer = made_on("pinn-annealing", names, model, reference="initial")
    assert factors(balancer.backward(model.losses(0)))[2] == pytest.approx(1.0)


# ---- all of them ---------------------------------------------------------------------------------


def make(name: str) -> tuple[Callable[[int], Losses], Callable[[], gaba.Balancer]]:
    """Losses by step and a maker of the preset, on its own ground, in float64."""
    if name == "vqgan":
        gan = Gan(3.0, torch.float64)
        return gan.losses, lambda: made_on(
            name, ["rec", "gan"], gan.autoencoder, last_layer=gan.last, start=2
        )
    if name == "encodec":
        codec = Codec(torch.float64)
        shared = nn.Sequential(codec.encoder, codec.decoder)

        class Whole(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = shared

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(x)

        whole = Whole()

        def losses(step: int) -> Losses:
            x = codec.x.roll(step, 1)
            y = whole(x)
            return {"time": (x - y).abs().mean(), "other": codec.critic(y).square().mean()}

        return losses, lambda: made_on(name, ["time", "other"], whole, decay=0.9)
    heat = Heat(torch.float64)
    tasks = list(heat.losses(0))
    return heat.losses, lambda: made_on(name, tasks, heat, every=2)


NAMES = ("vqgan", "encodec", "pinn", "pinn-annealing")


@pytest.mark.parametrize("name", NAMES)
def test_resume_goes_on_bit_for_bit(name: str) -> None:
    losses, balancer = make(name)
    whole, first, second = balancer(), balancer(), balancer()
    for step in range(3):
        whole.backward(losses(step))
        first.backward(losses(step))
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        a, b = whole.backward(losses(step)), second.backward(losses(step))
        assert torch.equal(a.multipliers, b.multipliers)
    second.reset()
    again, fresh = second.backward(losses(0)), balancer().backward(losses(0))
    assert torch.equal(again.multipliers, fresh.multipliers)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_task_keeps_its_weight_and_the_others_go_on(name: str) -> None:
    losses, balancer = make(name)
    made = balancer()
    before = [factors(made.backward(losses(step))) for step in range(3)][-1]
    late = list(losses(0))[-1]
    for step in range(4, 6):
        without = {task: loss for task, loss in losses(step).items() if task != late}
        seen = made.backward(without)
        assert float(seen.weights[-1]) == 0
        assert bool(seen.finite)
    held = made.state_dict()
    key = next((key for key in held if "method_rule" in key and "weights" in key), None)
    if key is not None:
        assert float(held[key][-1]) == pytest.approx(before[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_not_finite_teaches_nothing(name: str) -> None:
    losses, balancer = make(name)
    made = balancer()
    made.backward(losses(0))
    made.backward(losses(1))
    before = {key: value.clone() for key, value in tensors(made).items()}
    bad = {task: loss * torch.nan for task, loss in losses(2).items()}
    assert not bool(made.backward(bad).finite)
    after = tensors(made)
    assert before.keys() == after.keys()
    assert before
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


def tensors(balancer: gaba.Balancer) -> dict[str, Tensor]:
    return {k: v for k, v in balancer.state_dict().items() if isinstance(v, Tensor)}


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_where_it_comes_from_and_settings_of_the_balancer_win(name: str) -> None:
    row = methods.METHODS[name]
    assert row.group == "relative"
    assert all((row.formula, row.source, row.needs, row.cost))
    _, balancer = make(name)
    made = balancer()
    assert made.method.scale == "rule"
    ema = gaba.stabilisers.EMA(debias=True)
    other = made_on(name, ["a", "b"], nn.Linear(2, 2), scale="sum", believe=ema)
    assert other.method.scale == "sum"
    assert other.method.believe == ema


@pytest.mark.parametrize("name", NAMES)
def test_any_two_tasks_of_a_trunk_train_by_it(name: str) -> None:
    """With heads above what is shared, every one fills all ``.grad`` with the weighted sum."""
    torch.manual_seed(0)
    trunk = nn.Linear(3, 4)
    heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in "abc"})
    model = nn.ModuleList([trunk, heads])
    balancer = made_on(name, list("abc"), trunk)
    x = torch.randn(5, 3)

    def losses() -> Losses:
        z = trunk(x)
        return {task: 10**k * heads[task](z).square().mean() for k, task in enumerate("abc")}

    for _ in range(2):
        model.zero_grad()
        step = balancer.backward(losses())
        found = taken(model)
        terms = zip(factors(step), losses().values(), strict=True)
        torch.stack([weight * loss for weight, loss in terms]).sum().backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(p.grad, found[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", [OutputNorms(), ElementNorms()], ids=repr)
def test_the_measurements_hold_no_graph_and_write_no_gradient(engine: Any) -> None:
    trunk = nn.Linear(3, 4)
    method = methods.get("inverse", measure=engine)
    seen_by = gaba.Balancer(["a", "b"], trunk, method)
    z = trunk(torch.ones(2, 3))
    seen_by({"a": z.sum(), "b": z.square().sum()}).detach()
    assert all(p.grad is None for p in trunk.parameters())
    assert all(not value.requires_grad for value in tensors(seen_by).values())
