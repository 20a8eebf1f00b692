"""The zoo's frame: what a code may look like, how a line is changed, what each arm balances.

No public package is imported here; the codes are read as text.
"""

from __future__ import annotations

import ast
import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba

ZOO = Path(__file__).parents[2] / "benchmarks" / "zoo"
CODES = sorted((ZOO / "codes").glob("[a-z]*.py"))


def load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ZOO))
        return importlib.import_module(name)


ARMS, ENTRY, ONE, PAGE, RUN = (load(n) for n in ("arms", "entry", "one", "page", "run"))

# ---- the codes, as text -------------------------------------------------------------------------


def entry(source: str) -> Any:
    """The ENTRY of a code; what it says are literals."""
    (call,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ENTRY"
    )
    assert isinstance(call, ast.Call)
    assert not call.args
    return ENTRY.Entry(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})


def test_changes_are_counted() -> None:
    source = (
        "LINES = {'a': 'b', 'c': NEW}\n"
        "NEW = 'd\\ne'\n"
        "def train(arm):\n"
        "    balancer = arm.balancer(net)  # +\n"
        "    arm.change(f, LINES, balancer=balancer)\n"
        "    arm.change(g, {'x': 'y'})\n"
    )
    assert PAGE.lines_changed(source) == 1 + (1 + 2) + 1


@pytest.fixture(params=CODES, ids=lambda path: path.stem)
def code(request: pytest.FixtureRequest) -> str:
    return request.param.read_text(encoding="utf-8")


def test_a_code_is_short_and_changes_at_most_three_lines(code: str) -> None:
    assert len(code.splitlines()) <= 80
    assert 1 <= PAGE.lines_changed(code) <= 3


def test_a_code_trains_where_it_is_watched(code: str) -> None:
    functions = {n.name: n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)}
    train = functions["train"]
    assert [argument.arg for argument in train.args.args] == ["arm", "seed"]
    watched = [n for n in ast.walk(train) if isinstance(n, ast.With)]
    assert [ast.unparse(item) for n in watched for item in n.items].count("arm.training()") == 1


def test_an_entry_is_sound(code: str) -> None:
    found = entry(code)
    assert found.better in ("higher", "lower")
    assert found.title
    assert found.package
    assert found.metric
    assert len(found.terms) > 1
    assert len(set(found.terms)) == len(found.terms)
    assert bool(found.fixed) == bool(found.why_fixed)
    if found.fixed:
        assert found.why_fixed.endswith(".")
    weight = nn.Parameter(torch.ones(1))
    gaba.Balancer(found.terms, [weight])  # gaba takes the names


def test_no_two_codes_have_one_title() -> None:
    assert len(CODES) >= 14
    titles = [entry(path.read_text(encoding="utf-8")).title for path in CODES]
    assert len(set(titles)) == len(titles)


# ---- a changed line -----------------------------------------------------------------------------

FACTOR = 10


def reckon(width: int, height: int, *, scale: int = 2) -> tuple[int, int, int]:
    first = width * height
    if scale:
        first = first + 1
    second = FACTOR * first
    if scale:
        first = first + 1
    return first, second, scale


class Shape:
    def __init__(self, side: int) -> None:
        self.side = side

    def area(self) -> int:
        found = 0
        for _ in range(self.side):
            found += self.side
        return found


def test_only_the_named_line_changes() -> None:
    new = ENTRY.changed(reckon, {"first = width * height": "first = width + height"})
    assert reckon(3, 4) == (14, 130, 2)
    assert new(3, 4) == (9, 80, 2)
    assert new(3, 4, scale=0) == (7, 70, 0)


def test_new_lines_see_the_names_and_the_globals_of_the_module() -> None:
    lines = {"second = FACTOR * first": "second = told(FACTOR, first)"}
    new = ENTRY.changed(reckon, lines, told=lambda *found: sum(found))
    assert new(3, 4) == (14, 10 + 13, 2)


def test_a_method_keeps_the_indent_of_the_line() -> None:
    lines = {"found += self.side": "if self.side > 2:\n    found += 1"}
    new = ENTRY.changed(Shape.area, lines)
    assert new(Shape(3)) == 3
    assert new(Shape(2)) == 0
    assert Shape(3).area() == 9


@pytest.mark.parametrize(
    ("old", "times"), [("third = 1", 0), ("width * height", 0), ("first = first + 1", 2)]
)
def test_a_line_that_is_not_there_once_is_refused(old: str, times: int) -> None:
    with pytest.raises(ValueError, match=rf"reckon must have the line '.*' once, found it {times}"):
        ENTRY.changed(reckon, {old: "pass"})


# ---- the arms -----------------------------------------------------------------------------------


def made(tasks: tuple[str, ...] = ("a", "b"), fixed: tuple[str, ...] = ("kl",)) -> Any:
    return ENTRY.Entry("title", "package", "metric", "higher", tasks, fixed, "Why." * bool(fixed))


@pytest.mark.parametrize("method", ["gaba", "paper", "uncertainty", "observe"])
def test_an_arm_leaves_out_what_is_fixed(method: str) -> None:
    shared = nn.Linear(2, 2)
    balancer = ARMS.Arm(method, made()).balancer(shared)
    right = gaba.Balancer(["a", "b"], shared, method, fixed={"kl": 1.0})
    assert balancer.tasks == ("a", "b")
    assert dict(balancer.roles.fixed) == {"kl": 1.0}
    assert repr(balancer.method) == repr(right.method)


def test_the_naive_arm_balances_everything_with_the_default() -> None:
    shared = nn.Linear(2, 2)
    balancer = ARMS.Arm("naive", made()).balancer(shared)
    assert balancer.tasks == ("a", "b", "kl")
    assert not balancer.roles.fixed
    assert repr(balancer.method) == repr(gaba.Balancer(["a", "b", "kl"], shared).method)


def test_one_task_is_observed_with_the_fixed_ones() -> None:
    balancer = ARMS.Arm("observe", made(("a",))).balancer(nn.Linear(2, 2))
    assert balancer.tasks == ("a", "kl")
    assert balancer.method.observes


def test_the_own_arm_changes_nothing() -> None:
    arm = ARMS.Arm("own", made())
    assert arm.change(reckon, {"first = width * height": "first = 0"}) is reckon
    assert isinstance(arm.balancer(nn.Linear(2, 2)), ARMS.PlainSum)
    assert arm.seen() == {}
    other = ARMS.Arm("gaba", made()).change(reckon, {"first = width * height": "first = 0"})
    assert other(3, 4) == (2, 10, 2)


@pytest.mark.parametrize(
    ("tasks", "fixed", "right"),
    [
        (("a", "b"), (), {"own", "observe", "gaba", "paper", "uncertainty"}),
        (("a", "b"), ("kl",), {"own", "observe", "gaba", "paper", "uncertainty", "naive"}),
        (("a",), ("kl",), {"own", "observe", "naive"}),
    ],
)
def test_which_arms_a_code_can_run(
    tasks: tuple[str, ...], fixed: tuple[str, ...], right: set[str]
) -> None:
    given = made(tasks, fixed)
    assert {name for name in ARMS.NAMES if ARMS.Arm.possible(name, given)} == right


def terms(net: nn.Module, inputs: Tensor) -> dict[str, Tensor | None]:
    out = net(inputs)
    return {"a": out[:, 0].square().mean(), "b": None, "kl": 1e4 * (out[:, 1] - 1).square().mean()}


def grown(arm: Any) -> list[Tensor]:
    """The parameters after some steps of the same training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    balancer = arm.balancer(net)
    for step in range(6):
        optimizer.zero_grad()
        losses = terms(net, torch.randn(5, 3))
        if step % 2:
            balancer.backward(losses)
        else:
            balancer(losses).backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


def test_observing_is_the_own_training_bit_for_bit() -> None:
    own = grown(ARMS.Arm("own", made()))
    seen = grown(ARMS.Arm("observe", made()))
    assert all(torch.equal(a, b) for a, b in zip(own, seen, strict=True))


def test_the_plain_sum_is_the_sum_from_left_to_right() -> None:
    parts = dict(zip("abcd", torch.tensor([1e8, 1.0, -1e8, 0.1]), strict=True))
    ordered: dict[str, Tensor | None] = {"a": parts["a"], "x": None, **parts}
    assert ARMS.PlainSum()(ordered).equal(parts["a"] + parts["b"] + parts["c"] + parts["d"])
    assert not ARMS.PlainSum()(ordered).equal(parts["a"] + parts["c"] + parts["b"] + parts["d"])


def test_the_plain_sum_has_the_gradient_of_the_sum_bit_for_bit() -> None:
    def gradient(*, summed: bool) -> Tensor:
        torch.manual_seed(0)
        net = nn.Linear(7, 3)
        a, b, c = (net(torch.randn(50, 7)).tanh().exp().mean(0) / 3).unbind()
        if summed:
            (a + b + c).backward()
        else:
            ARMS.PlainSum().backward({"a": a, "none": None, "b": b, "c": c})
        assert net.weight.grad is not None
        return net.weight.grad

    assert gradient(summed=False).equal(gradient(summed=True))


def test_what_an_arm_has_seen_is_what_happened() -> None:
    arm = ARMS.Arm("observe", made(fixed=()))
    weight = nn.Parameter(torch.ones(2))
    balancer = arm.balancer([weight])
    for _ in range(12):
        balancer.backward({"a": 5 * weight[0], "b": weight[1]})
    seen = json.loads(json.dumps(arm.seen()))
    assert seen["imbalance"] == pytest.approx(5.0, rel=1e-5)
    assert seen["multipliers"] == {"a": 1.0, "b": 1.0}
    assert seen["largest"] == {"a": 1.0, "b": 1.0}
    assert seen["verdict"]


def test_only_warnings_of_gaba_are_kept() -> None:
    arm = ARMS.Arm("gaba", made())
    with arm.training():
        warnings.warn("of another package", UserWarning, stacklevel=1)
        warnings.warn("gaba says something", UserWarning, stacklevel=1)
    assert arm.warned == ["gaba says something"]


# ---- the runs -----------------------------------------------------------------------------------


def row(code: str, arm: str, seed: int) -> dict[str, Any]:
    return {"code": code, "arm": arm, "seed": seed, "figure": 0.5}


def test_a_line_that_was_cut_short_is_run_again(tmp_path: Path) -> None:
    store = tmp_path / "zoo.jsonl"
    assert RUN.stored(store) == []
    done = [row("x", "own", 0), row("y", "gaba", 1)]
    cut = json.dumps(row("y", "own", 0))[:-9]
    store.write_text("".join(json.dumps(one) + "\n" for one in done) + cut)
    rows = RUN.stored(store)
    assert rows == done
    left = [run[:3] for run in RUN.missing(["x", "y"], ["own", "gaba"], 2, rows)]
    assert left == [
        *[("x", "gaba", 0), ("y", "own", 0), ("y", "gaba", 0)],
        *[("x", "own", 1), ("x", "gaba", 1), ("y", "own", 1)],
    ]


def test_the_digest_tells_the_last_bit_of_a_parameter() -> None:
    def net() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    moved = net()
    with torch.no_grad():
        moved.bias[1] = torch.nextafter(moved.bias[1], torch.tensor(9.0))
    assert ONE.digest(net()) == ONE.digest(net())
    assert ONE.digest(net()) != ONE.digest(moved)


# ---- the page -----------------------------------------------------------------------------------


def rows(figures: Mapping[str, Sequence[float]], **other: Any) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, "figure": figure, "seconds": 1.0, **other}
        for arm, found in figures.items()
        for seed, figure in enumerate(found)
    ]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_change_is_paired_and_its_interval_is_that_of_t(better: str) -> None:
    found = PAGE.change(rows({"own": [10, 20, 30], "gaba": [11, 23, 31]}), "gaba", better)
    percent = torch.tensor([1.0, 3.0, 1.0]).double() * 100 / 20 * (1 if better == "higher" else -1)
    mean, half = float(percent.mean()), 4.302652730 * float(percent.std()) / 3**0.5  # t(0.975, 2)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))


def test_the_verdict_counts_harm_gain_and_crashes() -> None:
    known = {
        code: ENTRY.Entry(code, "p", "m", "higher", ("a", "b"), ("kl",))
        for code in ("good", "bad", "broken")
    }
    found = {
        "good": rows({"own": [10, 10.1] * 3, "gaba": [12, 12.1] * 3, "naive": [10] * 6}),
        "bad": rows({"own": [10, 10.1] * 3, "gaba": [9, 9.1] * 3, "naive": [5] * 6}),
        "broken": [*rows({"own": [1.0] * 6}), {"arm": "gaba", "seed": 0, "error": "x"}],
    }
    for code in found:
        found[code] = [{"code": code, **row} for row in found[code]]
    said = " ".join(PAGE.judged(found, known))
    assert (
        "more than 2 % on 1 of 2 codes by the mean: bad; on 1 by the whole interval: bad." in said
    )
    assert "It is better on 1 by the mean, on 1 by the whole interval: good." in said
    assert "more than 10 % on 1 of 2 codes by the mean: bad" in said
    assert "1 of 3 codes had a run that ended in an error: broken." in said
    assert "seeds are there" not in said
    few = {code: [row for row in r if row["seed"] == 0] for code, r in found.items()}
    assert "Only 1 of 5 seeds are there" in PAGE.judged(few, known)[0]


def test_bits_are_compared_seed_by_seed() -> None:
    same = rows({"own": [1], "observe": [1]}, digest="abc")
    assert PAGE.same_bits(same) is True
    assert PAGE.same_bits([*same[:1], same[1] | {"digest": "abd"}]) is False
    assert PAGE.same_bits(same[:1]) is None


def test_other_settings_are_compared_on_the_seeds_that_have_them() -> None:
    known = {c: ENTRY.Entry(c, "p", "m", "higher", ("a", "b"), ()) for c in ("one", "two", "three")}
    of: dict[str, Sequence[float]] = {"own": [10, 10], "gaba": [12, 90]}
    found: dict[str, Any] = {
        "one": rows(of | {"gaba@limit=32": [11], "gaba@limit=1000": [12.1]}),
        "two": rows(of | {"gaba@limit=32": [13], "gaba@limit=1000": [11]}),
        "three": rows(of | {"gaba@limit=32": [1]}),  # not complete yet
    }
    said = PAGE.settings(found, known)
    assert "points of 2 codes: `limit=1000` on 1; `limit=32` on 1." in said[2]
    assert said[4:7] == [
        "| code | the default | `limit=1000` | `limit=32` |",
        "| --- | --- | --- | --- |",
        "| one | +20.0 (1) | +21.0 (1) | +10.0 (1) |",
    ]
    assert PAGE.settings({"one": rows(of)}, known) == []
