"""What people get wrong at first, and the message that they read: argument, found, remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage, batch, grads, task_gradients
from gaba import methods
from gaba.measurement import ExactNorms
from gaba.spelling import nearest

TASKS = ["rul", "health"]


class Model(nn.Module):
    """A backbone with a head of each task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.rul = nn.Linear(8, 1)
        self.health = nn.Linear(8, 3)

    def errors(self, seed: int = 0) -> dict[str, Any]:
        z = self.backbone(batch(seed))
        return {"rul": self.rul(z).square(), "health": self.health(z).square()}

    def losses(self, seed: int = 0) -> dict[str, Any]:
        return {name: error.mean() for name, error in self.errors(seed).items()}

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


Code = Callable[[Model], object]


def balancer(model: Model, **settings: Any) -> gaba.Balancer:
    """A sound one, but for ``settings``."""
    return gaba.Balancer(**{"tasks": TASKS, "shared": model.backbone} | settings)


def setting(**settings: Any) -> Code:
    return lambda model: balancer(model, **settings)


def given(change: Callable[[dict[str, Any]], Any], **settings: Any) -> Code:
    """A step with the losses changed."""
    return lambda model: balancer(model, **settings).backward(change(model.losses()))


def misspelled(losses: dict[str, Any]) -> dict[str, Any]:
    return {"rul": losses["rul"], "helth": losses["health"]}


def one_more_backward_before(model: Model) -> None:
    losses = model.losses()
    total: Any = sum(losses.values())
    total.backward()
    balancer(model).backward(losses)


def backward_twice(model: Model) -> None:
    losses, one = model.losses(), balancer(model)
    one.backward(losses)
    one.backward(losses)


def everything_under_no_grad(model: Model) -> None:
    with torch.no_grad():
        balancer(model).backward(model.losses())


def a_generator_that_is_used_up(model: Model) -> None:
    parameters = model.backbone.parameters()
    torch.optim.SGD(parameters, lr=0.1)
    balancer(model, shared=parameters)


def a_frozen_backbone(model: Model, method: str = "gaba") -> None:
    model.backbone.requires_grad_(False)
    balancer(model, method=method).backward(model.losses())


def a_head(model: Model) -> None:
    balancer(model, shared=list(model.rul.parameters())).backward(model.losses())


def another_model(model: Model) -> None:
    balancer(model, shared=copy.deepcopy(model).backbone).backward(model.losses())


def the_layer_of_one_task(_: Model) -> None:
    """The last layer in the order of registration is a pooler that one task alone uses."""
    trunk = nn.ModuleDict({"body": nn.Linear(6, 8), "pooler": nn.Linear(8, 8)})
    measured = methods.get("inverse", measure=ExactNorms(layer="last"))
    h = trunk["body"](batch())
    losses = {"mlm": h.mean(), "nsp": trunk["pooler"](h).mean()}
    gaba.Balancer(["mlm", "nsp"], trunk, measured).backward(losses)


def state_of_other_tasks(model: Model) -> None:
    balancer(model, tasks=["a", "b"]).load_state_dict(balancer(model).state_dict())


def state_of_another_method(model: Model) -> None:
    balancer(model, method="paper").load_state_dict(balancer(model).state_dict())


def a_scaler_as_features(model: Model) -> None:
    scaler = torch.amp.GradScaler("cpu")
    balancer(model).backward(model.losses(), scaler)


LOSSES: dict[str, tuple[Code, type[Exception], tuple[str, ...]]] = {
    "a task is misspelled": (
        given(misspelled),
        ValueError,
        ("losses", "'helth'", "did you mean 'health'?", "the tasks are rul, health"),
    ),
    "a loss has no role": (
        given(lambda losses: losses | {"kl": losses["rul"]}),
        ValueError,
        ("losses", "'kl'", "fixed={'kl': 1.0}", "observed=['kl']"),
    ),
    "a list of losses": (
        given(lambda losses: list(losses.values())),
        TypeError,
        ("losses", "found list", "{'rul': ..., 'health': ...}"),
    ),
    "the sum of the losses": (
        given(lambda losses: sum(losses.values())),
        TypeError,
        ("losses", "found Tensor", "{'rul': ..., 'health': ...}", "not their sum"),
    ),
    "numbers": (
        given(lambda losses: {name: loss.item() for name, loss in losses.items()}),
        TypeError,
        ("losses['rul']", "found float", "no .item()"),
    ),
    "a loss with its parts": (
        given(lambda losses: losses | {"rul": (losses["rul"], {"mse": 0.1})}),
        TypeError,
        ("losses['rul']", "found tuple", "pass one tensor"),
    ),
    "a loss that is not reduced": (
        lambda model: balancer(model).backward(model.errors()),
        ValueError,
        ("losses['rul']", "found shape (16, 1)", "reduce it, for instance by .mean()"),
    ),
    "detached losses": (
        given(lambda losses: {name: loss.detach() for name, loss in losses.items()}),
        ValueError,
        ("losses['rul']", "detached", "fix the loss", "observed=[...]"),
    ),
    "no_grad around the step": (
        everything_under_no_grad,
        ValueError,
        ("losses['rul']", "no_grad (gradients are off here)", "fix the loss"),
    ),
    "no loss of a task": (
        given(lambda losses: {"Loss": losses["rul"].detach()}),
        ValueError,
        ("losses", "found Loss", "tasks rul, health", "under its name"),
    ),
    "loss.backward() as well": (
        one_more_backward_before,
        RuntimeError,
        ("losses", "an earlier pass has freed it", "in place of loss.backward(), not beside it"),
    ),
    "backward twice": (
        backward_twice,
        RuntimeError,
        ("losses", "an earlier pass has freed it", "compute the losses again", "retain_graph=True"),
    ),
    "a loss that is NaN": (
        given(lambda losses: losses | {"rul": losses["rul"] * torch.nan}, on_nonfinite="raise"),
        FloatingPointError,
        ("losses", "'rul': nan", "fix the loss", "on_nonfinite='skip'"),
    ),
    "the scaler in the place of features": (
        a_scaler_as_features,
        TypeError,
        ("features", "found a GradScaler", "scaler=scaler"),
    ),
}
"""Mistakes in what a step is given."""

SHARED: dict[str, tuple[Code, type[Exception], tuple[str, ...]]] = {
    "a name": (setting(shared="backbone"), ValueError, ("shared", "'backbone'", "model.backbone")),
    "auto in capitals": (setting(shared="Auto"), ValueError, ("shared", "'Auto'", "write 'auto'")),
    "a generator that is used up": (
        a_generator_that_is_used_up,
        ValueError,
        ("shared", "found none", "a generator that was already used up?", "pass the parameters"),
    ),
    "a list of modules": (
        lambda model: balancer(model, shared=[model.backbone, model.rul]),
        TypeError,
        ("shared", "found an element of type Sequential", "for m in modules"),
    ),
    "named_parameters": (
        lambda model: balancer(model, shared=model.backbone.named_parameters()),
        TypeError,
        ("shared", "found an element of type tuple", "pass module.parameters()"),
    ),
    "parameters without brackets": (
        lambda model: balancer(model, shared=model.backbone.parameters),
        TypeError,
        ("shared", "found method", "model.backbone.parameters()"),
    ),
    "one parameter": (
        lambda model: balancer(model, shared=model.rul.weight),
        TypeError,
        ("shared", "found Parameter", "[parameter]"),
    ),
    "frozen": (
        a_frozen_backbone,
        ValueError,
        ("shared", "found none that is trainable", "requires_grad_(True)", "sum(losses.values())"),
    ),
    "frozen, with an exact method": (
        lambda model: a_frozen_backbone(model, "inverse"),
        ValueError,
        ("shared", "found none that is trainable", "requires_grad_(True)", "sum(losses.values())"),
    ),
    "a head": (
        a_head,
        ValueError,
        ("losses['health'] reaches no shared parameter, but 'rul' does", "not a head"),
    ),
    "the backbone of another model": (
        another_model,
        ValueError,
        ("reaches no shared parameter, and no other loss does", "a copy, or one created again?"),
    ),
    "a layer that one task uses": (
        the_layer_of_one_task,
        ValueError,
        ("losses['mlm']", "does not reach the layer", "name a layer that every task reaches"),
    ),
}
"""Mistakes in the argument ``shared``."""

NAMES: dict[str, tuple[Code, type[Exception], tuple[str, ...]]] = {
    "shared comes first": (
        lambda model: gaba.Balancer(model.backbone, TASKS),  # pyright: ignore[reportArgumentType]
        TypeError,
        ("tasks", "Linear", "the names come first"),
    ),
    "one name": (setting(tasks="rul"), TypeError, ("tasks", "'rul'", "['a', 'b']")),
    "a dict": (
        setting(tasks={"rul": 1.0, "health": 2.0}),
        TypeError,
        ("tasks", "{'rul': 1.0, 'health': 2.0}", "['rul', 'health']", "into the loss"),
    ),
    "a set": (setting(tasks={"a", "b"}), TypeError, ("tasks", "a set", "['a', 'b']")),
    "one task": (setting(tasks=["rul"]), ValueError, ("tasks", "['rul']", "needs no balancing")),
    "a task twice": (
        setting(tasks=["rul", "rul"]),
        ValueError,
        ("tasks", "'rul' twice", "a name of its own"),
    ),
    "a method is misspelled": (
        setting(method="invrse"),
        ValueError,
        ("method", "'invrse'", "Did you mean 'inverse'?", "gaba methods"),
    ),
    "a method is called otherwise": (
        setting(method="equal_weights"),
        ValueError,
        ("method", "'equal_weights'", "Did you mean 'uniform'?"),
    ),
    "a rule in the place of a method": (
        setting(method=gaba.rules.InverseNorm()),
        TypeError,
        ("method", "found InverseNorm", "gaba.Method(rule)"),
    ),
    "the class of a rule": (
        setting(method=gaba.rules.InverseNorm),
        TypeError,
        ("method", "found the class InverseNorm", "gaba.Method(rule)"),
    ),
    "an argument is misspelled": (
        setting(limits=32),
        TypeError,
        ("Balancer", "'limits'", "did you mean 'limit'?"),
    ),
    "weights": (
        setting(weights={"rul": 2}),
        TypeError,
        ("'weights'", "share_targets={'a': 2, 'b': 1}", "fixed={'kl': 0.1}", "method='fixed:2,1'"),
    ),
    "a slot of a method": (
        setting(measure="exact"),
        TypeError,
        ("'measure'", "method=gaba.methods.get('gaba', measure=...)"),
    ),
    "a setting of a rule": (
        setting(method="gradnorm", alpha=1.5),
        TypeError,
        ("'alpha'", "gaba.methods.get('inverse', alpha=...)"),
    ),
    "a setting of a rule is misspelled": (
        lambda _: methods.get("dwa", windw=50),
        TypeError,
        ("'windw'", "did you mean 'window'?", "DWA takes temperature, window"),
    ),
    "an observer with a limit": (
        lambda model: gaba.Observer(TASKS, model.backbone, limit=32),  # pyright: ignore[reportCallIssue]
        TypeError,
        ("Observer", "'limit'", "use gaba.Balancer"),
    ),
}
"""Mistakes in names."""

VALUES: dict[str, tuple[Code, type[Exception], tuple[str, ...]]] = {
    "a negative coefficient": (
        setting(fixed={"kl": -0.1}),
        ValueError,
        ("fixed['kl']", "-0.1", "observed=['kl']", "put the sign into the loss"),
    ),
    "a coefficient that changes": (
        setting(fixed={"kl": lambda step: 0.1 * step}),
        TypeError,
        ("fixed['kl']", "<function", "losses['kl'] = beta * loss"),
    ),
    "a name in two roles": (
        setting(fixed={"rul": 0.1}),
        ValueError,
        ("one role", "'rul'", "name it in tasks, in fixed or in observed"),
    ),
    "no micro-batch": (
        setting(accumulate=0),
        ValueError,
        ("accumulate", "found 0", "optimizer.step()"),
    ),
    "half a micro-batch": (
        setting(accumulate=2.5),
        ValueError,
        ("accumulate", "found 2.5", "a whole number"),
    ),
    "measure never": (setting(every=0), ValueError, ("every", "found 0", "method='uniform'")),
    "a budget in percent": (
        setting(budget=5),
        ValueError,
        ("budget", "found 5", "0.05 is 5 %"),
    ),
    "no limit, in words": (setting(limit="none"), ValueError, ("limit", "'none'", "None for none")),
    "targets lack a task": (
        setting(share_targets={"rul": 0.7}),
        ValueError,
        ("share_targets", "none for 'health'", "only proportions matter"),
    ),
    "targets misspell a task": (
        setting(share_targets={"rul": 0.7, "helth": 0.3}),
        ValueError,
        ("share_targets", "'helth'", "did you mean 'health'?"),
    ),
    "targets by position": (
        setting(share_targets=[0.7, 0.3]),
        TypeError,
        ("share_targets", "[0.7, 0.3]", "pass {'rul': 1, 'health': 1}"),
    ),
    "a target below 0": (
        setting(share_targets={"rul": 1, "health": -1}),
        ValueError,
        ("share_targets['health']", "-1", "observed=['health']"),
    ),
    "targets of a rule without any": (
        setting(method="uniform", share_targets={"rul": 1, "health": 2}),
        ValueError,
        ("share_targets", "found Uniform", "method='gaba' or 'equal-share'"),
    ),
    "an anchor is misspelled": (
        setting(anchor="helth"),
        ValueError,
        ("anchor", "'helth'", "did you mean 'health'?"),
    ),
    "the metric of no optimizer": (
        setting(metric="optimizer"),
        ValueError,
        ("metric='optimizer'", "optimizer=None", "give both, or neither"),
    ),
    "parameters in the place of an optimizer": (
        lambda model: balancer(model, metric="optimizer", optimizer=model.parameters()),
        TypeError,
        ("optimizer", "found Parameter", "that you call step() on"),
    ),
    "a state of other tasks": (
        state_of_other_tasks,
        ValueError,
        ("state_dict", "('rul', 'health')", "('a', 'b')", "the tasks that were saved"),
    ),
    "a state of another method": (
        state_of_another_method,
        RuntimeError,
        ("Missing key(s)", "with the same method and settings", "as it was when it was saved"),
    ),
}
"""Mistakes in values."""

DIAGNOSED: dict[str, tuple[Code, type[Exception], tuple[str, ...]]] = {
    "before any training": (
        lambda model: balancer(model).diagnose(),
        ValueError,
        ("history", "found 0", "call balancer.backward(losses)"),
    ),
    "in eval()": (
        lambda model: gaba.diagnose(evaluated(model).history),
        ValueError,
        ("history", "found 0", "in eval() or under no_grad nothing is recorded"),
    ),
    "a step": (
        lambda model: gaba.diagnose(balancer(model).backward(model.losses())),  # pyright: ignore[reportArgumentType]
        TypeError,
        ("history", "found Step", "pass balancer.history"),
    ),
    "the path of a run": (
        lambda _: gaba.diagnose("runs/first"),  # pyright: ignore[reportArgumentType]
        TypeError,
        ("history", "found str", "gaba.History.read(path)"),
    ),
}
"""Mistakes in what is diagnosed."""


def evaluated(model: Model) -> gaba.Balancer:
    one = balancer(model).eval()
    one(model.losses()).backward()
    return one


MISTAKES = {
    f"{what}: {name}": mistake
    for what, table in {
        "losses": LOSSES,
        "shared": SHARED,
        "name": NAMES,
        "value": VALUES,
        "diagnose": DIAGNOSED,
    }.items()
    for name, mistake in table.items()
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_what_was_found_and_what_to_do(name: str) -> None:
    code, kind, pieces = MISTAKES[name]
    with pytest.raises(kind) as caught:
        code(Model())
    assert caught.type is kind
    message = str(caught.value)
    for piece in pieces:
        assert piece in message


@pytest.mark.parametrize("name", [name for name in LOSSES if "backward" not in name])
def test_a_step_that_is_refused_leaves_no_gradient(name: str) -> None:
    model = Model()
    with pytest.raises(LOSSES[name][1]):
        LOSSES[name][0](model)
    assert not grads(model)


# --- what looks like a mistake and works ----------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("PCGrad", "pcgrad"),
        ("GradNorm", "gradnorm"),
        ("nash_mtl", "nash-mtl"),
        ("NashMTL", "nash-mtl"),
        ("IMTL-G", "imtl-g"),
        ("Equal Share", "equal-share"),
        ("GABA", "gaba"),
        ("Fixed:1,20", "fixed:1,20"),
        ("from_run:Runs/A_b", "from-run:Runs/A_b"),
    ],
)
def test_case_dashes_and_underscores_of_a_method_do_not_count(written: str, meant: str) -> None:
    assert methods.spelled(written) == meant
    assert methods.find(written) == methods.find(meant)


def test_the_record_has_the_name_of_the_catalogue() -> None:
    model = Model()
    one = balancer(model, method="Equal_Share")
    one.backward(model.losses())
    assert one.history.about["method"] == "equal-share"
    assert one.method == methods.get("equal-share")


def test_no_two_methods_are_the_same_without_dashes() -> None:
    for name in methods.METHODS:
        for written in (name, name.upper(), name.replace("-", "_"), name.replace("-", "")):
            whole = f"{written}:x" if methods.METHODS[name].argument else written
            assert methods.find(whole)[0].name == name


def test_the_nearest_name() -> None:
    tasks = ["rul", "health", "box_loss"]
    assert nearest("RUL", tasks) == "rul"
    assert nearest("loss/rul", tasks) == "rul"
    assert nearest("BoxLoss", tasks) == "box_loss"
    assert nearest("Helth", tasks) == "health"
    assert nearest("lr", tasks) is None
    assert nearest("", tasks) is None


@pytest.mark.parametrize("form", [gaba.diagnose, gaba.Balancer.diagnose])
def test_a_balancer_is_diagnosed_as_its_history_is(form: Any) -> None:
    model = Model()
    one = balancer(model, method="inverse")
    for seed in range(5):
        one.backward(model.losses(seed))
    assert str(form(one)) == str(gaba.diagnose(one.history))


def test_the_sum_that_an_observer_returns_can_be_multiplied() -> None:
    """As frameworks do it that divide by the number of micro-batches."""
    model = TwoStage([1.0, 5.0], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    truth = torch.stack(task_gradients(model, x))
    losses: Any = model.losses(x)
    observer = gaba.Observer(model.names, model.trunk)
    (0.25 * observer(losses)).backward()
    found = torch.cat([p.grad.flatten() for p in model.trunk.parameters() if p.grad is not None])
    torch.testing.assert_close(found, 0.25 * truth.sum(0))
    assert observer.last_step is not None
    torch.testing.assert_close(observer.last_step.norms, truth.norm(dim=1))


def test_the_whole_model_as_shared_is_named_in_the_diagnosis() -> None:
    model = Model()
    one = balancer(model, shared=model)
    for seed in range(5):
        one.backward(model.losses(seed))
    said = " ".join(str(one.diagnose()).split())
    assert "'rul' alone reaches 2 of 6 shared parameters" in said
    assert 'shared="auto"' in said


# --- a balancer inside a model --------------------------------------------------------------------


class Balanced(nn.Module):
    def __init__(self, method: str = "gaba") -> None:
        super().__init__()
        self.model = Model()
        self.balancer = balancer(self.model, method=method)


def trained(steps: int) -> Balanced:
    made = Balanced()
    for seed in range(steps):
        made.balancer.backward(made.model.losses(seed))
    return made


def without_balancer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("balancer")}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_checkpoint_from_before_the_balancer_loads_and_leaves_it(
    steps: int, strict: bool
) -> None:
    made, twin = trained(steps), trained(steps)
    old = {name: value + 1 for name, value in without_balancer(made.state_dict()).items()}
    found = made.load_state_dict(old, strict=strict)
    assert not found.missing_keys
    assert not found.unexpected_keys
    for name, value in old.items():
        assert torch.equal(made.state_dict()[name], value)
    twin.load_state_dict(old | {k: v for k, v in twin.state_dict().items() if k not in old})
    steps_after = [
        one.balancer.backward(one.model.losses(seed)).asdict()
        for one in (made, twin)
        for seed in range(3)
    ]
    for mine, other in zip(steps_after[:3], steps_after[3:], strict=True):
        assert mine["step"] == other["step"]
        assert mine["multipliers"] == other["multipliers"]


def test_deep_inside_wrappers_too() -> None:
    wrapped = nn.Sequential(nn.ModuleDict({"net": trained(3)}))
    state = wrapped.state_dict()
    old = {name: value for name, value in state.items() if "balancer" not in name}
    assert len(old) < len(state)
    wrapped.load_state_dict(old)
    net: Any = wrapped[0]
    assert net["net"].balancer.get_extra_state()["step"] == 3


def test_a_checkpoint_with_the_balancer_brings_it_back() -> None:
    saved, made = trained(5), Balanced()
    made.load_state_dict(saved.state_dict())
    assert made.balancer.multipliers == saved.balancer.multipliers
    assert made.balancer.get_extra_state() == saved.balancer.get_extra_state()


@pytest.mark.parametrize("part", ["window", "multipliers", "believe"])
def test_half_of_a_state_is_still_an_error_and_nothing_of_it_is_taken(part: str) -> None:
    made = trained(3)
    half = {name: value for name, value in trained(9).state_dict().items() if part not in name}
    before = made.balancer.multipliers
    with pytest.raises(RuntimeError, match="Missing key"):
        made.load_state_dict(half)
    assert made.balancer.multipliers == before


def test_a_state_without_its_tasks_is_an_error() -> None:
    made = trained(3)
    half = {name: value for name, value in made.state_dict().items() if "extra" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key.*balancer\._extra_state"):
        made.load_state_dict(half)


def test_a_balancer_alone_needs_its_state() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        balancer(Model()).load_state_dict({})
