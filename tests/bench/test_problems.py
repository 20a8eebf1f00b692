"""What holds for every problem of the benchmark: order, halves, figures, features; and `load`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gaba.bench import CARDS, PROBLEMS, Metric, Problem, Session, Split, load
from gaba.bench.problems.turbofan import Turbofan

CPU = torch.device("cpu")
QUICK = [*(name for name in PROBLEMS if not name.startswith("turbofan")), "turbofan-simulated"]
SLOW = [name for name in PROBLEMS if name.startswith("turbofan")]
"""The real fleets differ from the simulated one in nothing but their size and their files."""
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(params=NAMES)
def problem(request: pytest.FixtureRequest) -> Problem:
    return loaded(request.param)


def loaded(name: str) -> Problem:
    if name == "turbofan-simulated":
        return Turbofan("simulated")
    try:
        return load(name)
    except FileNotFoundError as error:
        pytest.skip(f"needs data: {error}")


def test_a_list_says_what_the_problem_has(problem: Problem) -> None:
    card = CARDS.get(problem.name)
    if card is None:
        assert problem.name == "turbofan-simulated"
    else:
        assert (card.tasks, card.steps) == (tuple(problem.tasks), problem.steps)


def floats(losses: dict[str, Tensor]) -> dict[str, float]:
    return {task: float(loss.detach()) for task, loss in losses.items()}


def parameters(session: Session) -> list[Tensor]:
    return [p.detach().clone() for p in session.model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def disturb(session: Session, weight: float) -> None:
    """What a method may do between two batches: train, draw numbers of its own, evaluate."""
    losses = session.losses()
    total = sum((weight**k * loss for k, loss in enumerate(losses.values())), torch.zeros(()))
    total.backward()
    torch.optim.SGD(session.model.parameters(), 1e-4).step()
    session.model.zero_grad()
    torch.rand(7)
    session.evaluate("validation")


def test_a_problem_is_sound(problem: Problem) -> None:
    assert {metric.task for metric in problem.metrics} == set(problem.tasks)
    assert problem.steps >= 500
    assert all(len(problem.learning_rates[name]) >= 3 for name in ("adam", "sgd"))
    references = {m.name: m.reference for m in problem.metrics}
    assert problem.quality(references) == pytest.approx(1)
    assert problem.quality(references | {problem.metrics[0].name: math.nan}) == math.inf


def test_the_seed_decides_and_the_method_does_not(problem: Problem) -> None:
    one, two, other = (problem.start(seed, CPU) for seed in (1, 1, 2))
    assert same(parameters(one), parameters(two))
    assert not same(parameters(one), parameters(other))
    start = copy.deepcopy(one.model.state_dict())
    before = torch.get_rng_state()
    first, others = floats(one.losses()), floats(other.losses())
    assert torch.equal(before, torch.get_rng_state())
    assert set(first) == set(problem.tasks)
    assert first != others
    disturb(one, weight=0.1)
    torch.manual_seed(3)
    assert floats(two.losses()) == first
    disturb(two, weight=2.0)
    for session in (one, two):
        session.model.load_state_dict(start)
    assert floats(one.losses()) == floats(two.losses())


def test_a_batch_is_not_drawn_twice(problem: Problem) -> None:
    session = problem.start(0, CPU)
    session.model.load_state_dict(start := copy.deepcopy(session.model.state_dict()))
    seen = [floats(session.losses())]
    session.model.load_state_dict(start)
    seen.append(floats(session.losses()))
    assert (seen[0] == seen[1]) == (problem.name == "conflict-toy")  # it has no batches


def test_the_halves_are_of_the_same_batch(problem: Problem) -> None:
    if problem.name == "conflict-toy":
        with pytest.raises(
            NotImplementedError,
            match=r"no losses by halves of the batch from gaba\.bench\.problems",
        ):
            problem.start(0, CPU).losses_of_halves()
        return
    whole = floats(problem.start(0, CPU).losses())
    halves = problem.start(0, CPU).losses_of_halves()
    assert set(halves) == set(whole)
    for task, both in halves.items():
        assert both.shape == (2,)
        assert not torch.equal(both[0], both[1])
        assert float(both.detach().mean()) == pytest.approx(whole[task], rel=1e-4)


def test_an_evaluation_leaves_everything_as_it_was(problem: Problem) -> None:
    session = problem.start(0, CPU)
    state = copy.deepcopy(session.model.state_dict())
    random = torch.get_rng_state()
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        figures = session.evaluate(split)
        assert {metric.name for metric in problem.metrics} <= set(figures)
        assert all(isinstance(v, float) and math.isfinite(v) for v in figures.values())
        assert figures == session.evaluate(split)
    assert session.model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(state[k], v) for k, v in session.model.state_dict().items())
    assert all(p.grad is None for p in session.model.parameters())


def test_the_features_are_where_the_shared_part_ends(problem: Problem) -> None:
    session = problem.start(0, CPU)
    losses = session.losses()
    shared = session.shared
    assert isinstance(shared, nn.Module)
    theta = list(shared.parameters())
    if session.features is None:
        return
    for loss in losses.values():
        (at,) = torch.autograd.grad(loss, session.features, retain_graph=True)
        through = torch.autograd.grad(
            session.features, theta, at, retain_graph=True, allow_unused=True
        )
        direct = torch.autograd.grad(loss, theta, retain_graph=True, allow_unused=True)
        for a, b in zip(through, direct, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b)
    last = session.last_layer
    assert last is not None
    assert {id(p) for p in last.parameters()} <= {id(p) for p in theta}


STEPS: dict[str, tuple[int, float]] = {
    "conflict-toy": (100, 0.03),
    "synthetic-40": (150, 1e-2),
    "turbofan-simulated": (12, 2e-3),
    **dict.fromkeys(SLOW, (60, 3e-3)),
    "multi-mnist": (60, 3e-3),
    "multi-mnist-auxiliary": (60, 3e-3),
    "pinn-burgers": (150, 3e-3),
    "pinn-helmholtz": (100, 1e-2),
    "pinn-poisson": (200, 3e-3),
    "synthetic-rare": (150, 1e-2),
}
WEIGHTS: dict[str, dict[str, float]] = {"pinn-helmholtz": {"boundary": 300.0}}
"""Where the plain sum needs thousands of steps, as the residual drowns the boundary in it."""


def test_training_makes_it_better(problem: Problem) -> None:
    steps, rate = STEPS.get(problem.name, (150, 3e-3))
    weights = WEIGHTS.get(problem.name, {})
    session = problem.start(0, CPU)
    optimizer = torch.optim.Adam(session.model.parameters(), rate)
    before = problem.quality(session.evaluate("validation"))
    for _ in range(steps):
        optimizer.zero_grad()
        weighted = (weights.get(task, 1.0) * loss for task, loss in session.losses().items())
        torch.stack(list(weighted)).sum().backward()
        optimizer.step()
    assert problem.quality(session.evaluate("validation")) < 0.95 * before


OWN = """
from gaba.bench import Metric, Problem, Session
from torch import nn
import torch


class Two(Session):
    def __init__(self):
        self.model = self.shared = nn.Linear(1, 2)

    def losses(self):
        a, b = self.model(torch.ones(1)).square()
        return {"a": a, "b": b}

    def evaluate(self, split):
        return {"a": 1.0, "b": 1.0}


class Mine(Problem):
    name, tasks = "mine", ("a", "b")
    metrics = (Metric("a", task="a"), Metric("b", task="b"))

    def start(self, seed, device):
        return Two()


class Lacking(Mine):
    metrics = (Metric("a", task="a"),)


class Strange(Mine):
    metrics = (*Mine.metrics, Metric("c", task="c"))


class Twice(Mine):
    tasks = ("a", "a")


class Nameless(Mine):
    name = ""


class Short(Mine):
    steps = 0


def with_data(data_dir=None):
    mine = Mine()
    mine.name = f"mine of {data_dir}"
    return mine


instance = Mine()
number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], str]:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return lambda name: f"{path}:{name}"


def test_a_problem_of_your_own(own: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(own("Mine")).start(0, CPU).evaluate("test") == {"a": 1.0, "b": 1.0}
    assert load(own("instance")).tasks == ("a", "b")
    assert load(own("with_data"), data_dir="here").name == "mine of here"
    assert type(load(own("Mine"))) is type(load(own("Mine")))
    monkeypatch.syspath_prepend(str(Path(own("x").rpartition(":")[0]).parent))
    assert load("own:Mine").name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Absent", "has no 'Absent'"),
        ("number", r"must give a gaba\.bench\.Problem, found int"),
        ("Lacking", "metrics: Lacking needs one for each task; none for 'b'"),
        ("Strange", "metrics: of Strange must judge its tasks, found 'c'"),
        ("Twice", "tasks: of Twice must differ, found a, a"),
        ("Nameless", "name: Nameless must have it"),
        ("Short", "steps: of Short must be at least 1, found 0"),
    ],
)
def test_an_unsound_problem_is_refused(own: Callable[[str], str], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(own(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["titanic", "no/such.py:Mine", "gaba.no_such:Mine", "", ":", "x:"])
def test_what_is_not_there_is_refused_in_one_line(spec: str) -> None:
    with pytest.raises(ValueError, match=r"^problem: .*") as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_module_that_lacks_another_says_which(tmp_path: Path) -> None:
    path = tmp_path / "lacking.py"
    path.write_text("import no_such_package_at_all\n", encoding="utf-8")
    for _ in range(2):  # a failed import is not taken for a loaded module
        with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
            load(f"{path}:Mine")


@pytest.mark.parametrize("reference", [0.0, -1.0, math.nan, math.inf])
def test_a_metric_needs_a_reference_above_zero(reference: float) -> None:
    with pytest.raises(ValueError, match=r"reference: of 'x' must be positive and finite"):
        Metric("x", task="a", reference=reference)
    with pytest.raises(ValueError, match=r"must lie between 0 and 1, found"):
        Metric("x", task="a", higher_is_better=True, reference=reference)
