"""Which parameters are shared, which leaves are reached, and where the features are."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage, batch
from gaba.autograd.graph import LossGraph
from gaba.autograd.marks import edge_of
from gaba.autograd.shared import Shared, as_shared
from gaba.autograd.walk import common_leaves, reachable_leaves
from gaba.measurement import ExactNorms, Request, Tracked


def graph_of(model: TwoStage, shared: Any, x: Tensor | None = None) -> LossGraph:
    losses = model.losses(batch() if x is None else x).values()
    return LossGraph([loss for loss in losses if loss is not None], as_shared(shared))


def test_leaves_are_those_that_a_backward_pass_fills() -> None:
    model, x = TwoStage([1.0, 2.0]), batch().requires_grad_()
    model.trunk[0].bias.requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    losses = [loss for loss in model.losses(x).values() if loss is not None]
    found = {id(leaf) for leaf in reachable_leaves(losses)}
    sum(losses).backward()  # type: ignore[union-attr]
    filled = {id(t) for t in (*model.parameters(), x, unused) if t.grad is not None}
    assert found == filled


def test_common_leaves_are_those_that_two_losses_fill() -> None:
    a, b, c, d = (nn.Parameter(torch.ones(2)) for _ in range(4))
    ab, bc = a * b, b * c
    losses = [ab.sum(), (ab + d).exp().sum(), bc.sum(), torch.ones(())]
    assert {id(p) for p in common_leaves(losses)} == {id(a), id(b)}
    assert common_leaves([ab.sum()]) == ()


class Nest(nn.Module):
    """Returns a nest of tensors, one of which no task uses, and something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"maps": [self.one(x), (self.two(x), self.two(x) + 1)], "size": 3}


def nested_losses(trunk: nn.Module, x: Tensor) -> list[Tensor]:
    maps = trunk(x)["maps"]
    return [maps[0].square().mean() + maps[1][0].mean(), maps[1][0].abs().mean()]


def test_features_are_found_in_any_nest_of_tensors() -> None:
    trunk = Nest()
    shared = as_shared(trunk)
    graph = LossGraph(nested_losses(trunk, batch()), shared)
    assert graph.features is not None
    assert len(graph.features) == 2  # the third is used by no task


def gradients_at(features: Any, losses: list[Tensor]) -> list[Any]:
    return [
        torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True) for loss in losses
    ]


def test_gradients_of_the_features_give_those_of_the_parameters() -> None:
    """∂L/∂θ = J_zᵀ ∂L/∂z, which holds only if the features really are the boundary."""
    trunk = Nest()
    shared = as_shared(trunk)
    losses = nested_losses(trunk, batch())
    graph = LossGraph(losses, shared)
    assert graph.features is not None
    for loss, at in zip(losses, gradients_at(graph.features, losses), strict=True):
        live = [(z, d) for z, d in zip(graph.features, at, strict=True) if d is not None]
        theta = list(trunk.parameters())
        found = torch.autograd.grad(
            [z for z, _ in live], theta, [d for _, d in live], retain_graph=True, allow_unused=True
        )
        expected = torch.autograd.grad(loss, theta, retain_graph=True, allow_unused=True)
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


def test_several_calls_a_step_and_passes_without_gradient() -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    with torch.no_grad():
        model.trunk(batch())
    model.trunk(batch(1))  # a call whose result nobody uses
    z = [model.trunk(batch(i)) for i in range(3)]
    losses = [z[0].mean() + z[1].square().mean(), z[2].abs().mean()]
    graph = LossGraph(losses, shared)
    assert graph.features is not None
    assert {(e.node, e.output_nr) for e in graph.features} == {edge_of(t) for t in z}


def test_work_in_place_on_the_features() -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    z = model.trunk(batch())
    z.relu_()
    assert LossGraph([z.mean(), z.square().mean()], shared).features is not None


def leaking(model: TwoStage) -> list[Tensor]:
    z = model.trunk(batch())
    return [z.mean(), z.square().mean() + model.trunk.get_parameter("0.weight").square().sum()]


def nested(model: TwoStage) -> list[Tensor]:
    z = model.trunk(batch())
    again = model.trunk(torch.cat([z, z[:, :1]], dim=1))
    return [z.mean(), again.square().mean()]


def beside(model: TwoStage) -> list[Tensor]:
    first: nn.Module = model.trunk.get_submodule("0")
    hidden = first(batch())
    return [hidden.mean(), hidden.square().mean()]


@pytest.mark.parametrize("case", [leaking, nested, beside])
def test_no_boundary_where_there_is_none(case: Callable[[TwoStage], list[Tensor]]) -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    assert LossGraph(case(model), shared).features is None


class ReturnsLosses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b = (nn.Linear(*n) for n in ((6, 4), (4, 1), (4, 1)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        return {"a": self.a(z).square().mean(), "b": self.b(z).square().mean()}


def test_losses_that_the_shared_module_returns_are_no_features() -> None:
    model = ReturnsLosses()
    shared = as_shared(model)
    assert LossGraph(list(model(batch()).values()), shared).features is None


def test_auto_learns_what_two_heads_share_above_the_features() -> None:
    """A layer after the named features that two tasks use belongs to θ: z is no boundary then."""
    trunk, joint, heads = nn.Linear(6, 4), nn.Linear(4, 4), [nn.Linear(4, 1) for _ in "ab"]
    shared = as_shared("auto")
    for _ in range(2):
        z = trunk(batch())
        graph = LossGraph([head(joint(z)).square().mean() for head in heads], shared, z)
        assert set(graph.theta) == {*trunk.parameters(), *joint.parameters()}
        assert graph.features is None


@pytest.mark.parametrize("spec", ["auto", "parameters"])
def test_features_can_be_named(spec: str) -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared("auto" if spec == "auto" else list(model.trunk.parameters()))
    z = model.trunk(batch())
    losses = [z.mean(), z.square().mean()]
    assert LossGraph(losses, shared).features is None
    found = LossGraph(losses, shared, {"z": z}).features
    assert found is not None
    assert [(e.node, e.output_nr) for e in found] == [edge_of(z)]


def features_of(model: TwoStage, shared: Shared) -> Any:
    """The features that a new step of ``model`` has for ``shared``."""
    return LossGraph([v for v in model.losses(batch()).values() if v is not None], shared).features


def test_the_hooks_are_gone_with_their_owner() -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    assert features_of(model, shared) is not None
    assert (len(model.trunk._forward_hooks), len(model.trunk._forward_pre_hooks)) == (1, 1)
    del shared
    gc.collect()
    assert (len(model.trunk._forward_hooks), len(model.trunk._forward_pre_hooks)) == (0, 0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_model_copied_with_its_owner_is_watched_by_the_copy_alone(copied: Any) -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    shared.keep_calls(True)
    twin, own = copied((model, shared))
    assert own.key != shared.key
    assert own.hook.keeps_calls
    assert features_of(twin, own) is not None
    assert features_of(twin, shared) is None
    assert features_of(model, own) is None
    assert features_of(model, shared) is not None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_without_its_owner_is_watched_by_nobody(copied: Any) -> None:
    """As of an average of the weights, or of a teacher: it holds nothing and marks nothing."""
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    shared.keep_calls(True)
    x = batch()
    model.losses(x)
    twin = copied(model)
    z = twin.trunk(x)
    assert LossGraph([z.sum(), z.square().sum()], shared).features is None
    assert not [key for key in z.grad_fn.metadata if str(key).startswith("gaba")]
    own = as_shared(twin.trunk)
    assert features_of(twin, own) is not None
    assert features_of(twin, shared) is None


TRACKED = gaba.methods.get("gaba", measure=Tracked(every=1, engine="probe"))


class Trained(TwoStage):
    """A network that holds its Balancer."""

    def __init__(self) -> None:
        super().__init__([1.0, 300.0])
        self.balancer = gaba.Balancer(self.names, self.trunk, TRACKED)


def test_a_network_that_holds_its_balancer_can_be_copied() -> None:
    model = Trained()
    model.balancer.backward(model.losses(batch()))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        expected = model.balancer.state_dict()
        step = twin.balancer.backward(twin.losses(batch(1)))
        assert step.engine == "probe"  # the calls of its own trunk were found
        assert twin.trunk[0].weight.grad is not model.trunk[0].weight.grad
        for name, value in model.balancer.state_dict().items():
            assert not isinstance(value, Tensor) or torch.equal(value, expected[name])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_watched_module_can_be_scripted_and_traced() -> None:
    model = TwoStage([1.0, 300.0])
    balancer = gaba.Balancer(model.names, model.trunk, TRACKED)
    balancer.backward(model.losses(batch()))
    x = batch(1)
    expected = model.trunk(x)
    scripted: Any = torch.jit.script(model.trunk)
    traced: Any = torch.jit.trace(model.trunk, x)
    whole: Any = torch.jit.script(nn.Sequential(model.trunk, nn.ReLU()))
    for found in (scripted(x), traced(x)):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(whole(x), expected.relu())
    again = pickle.loads(pickle.dumps(model.trunk))
    torch.testing.assert_close(torch.jit.script(again)(x), expected)
    assert balancer.backward(model.losses(x)).engine == "probe"


def test_hooks_of_others_stay_where_they_are() -> None:
    """Also those of a module inside one that ``torch.compile`` returned."""
    inner, seen = nn.Linear(6, 3), []
    inner.register_forward_hook(lambda *_: seen.append("inner"))
    outer: Any = torch.compile(inner, backend="eager")
    first = as_shared(outer)
    handle = inner.register_forward_pre_hook(lambda *_: seen.append("before"))
    second = as_shared(inner)
    inner(batch())
    assert seen == ["before", "inner"]
    handle.remove()
    del first, second
    gc.collect()
    inner(batch())
    assert seen == ["before", "inner", "inner"]
    assert len(inner._forward_hooks) == 1


def test_auto_leaves_out_what_another_optimizer_moves() -> None:
    """A discriminator that two losses of the generator pass through is none of its parameters."""
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(generator.parameters())
    x = torch.randn(16, 4)

    def norms(shared: Shared) -> Tensor:
        fake = generator(x)
        losses = [
            (fake - x).square().mean(),
            10 * (critic[0](fake) - critic[0](x)).abs().mean(),
            -critic(fake).mean(),
        ]
        return ExactNorms().update(Request(LossGraph(losses, shared)), ())[0].norms

    auto = as_shared("auto", [optimizer])
    found = norms(auto)
    assert {id(p) for p in auto.parameters()} == {id(p) for p in generator.parameters()}
    torch.testing.assert_close(found, norms(as_shared(generator)))
    assert (norms(as_shared("auto"))[1:] > 1.01 * found[1:]).all()
    balancer = gaba.Balancer(["a", "b"], "auto", "inverse", optimizer=optimizer)
    fake = generator(x)
    step = balancer.backward({"a": 10 * critic(fake).mean(), "b": -critic(fake).mean()})
    torch.testing.assert_close(step.norms[1], found[2])


def test_freezing_takes_effect_at_once() -> None:
    model = TwoStage([1.0, 2.0])
    shared = as_shared(model.trunk)
    assert len(shared.parameters()) == 4
    model.trunk[0].requires_grad_(False)
    assert len(shared.parameters()) == 2
