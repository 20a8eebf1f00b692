"""Several methods on one model: paired runs, the plain sum as it is, an honest table, a picture."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gaba
from gaba.bench.compare import Comparison, Run, compare
from gaba.record import History

METHODS = ["uniform", "gaba", "inverse", "dwa"]


class Lines(nn.Module):
    """A linear trunk and two linear heads; the loss of ``far`` is a hundred times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 3)
        self.near, self.far = nn.Linear(3, 1), nn.Linear(3, 1)

    def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        return {
            "near": (self.near(z) - y[:, :1]).square().mean(),
            "far": 100 * (self.far(z) - y[:, 1:]).square().mean(),
        }


def batches(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    xs = [torch.randn(16, 4, generator=draw) for _ in range(count)]
    return [(x, x[:, :2] + 0.1 * torch.randn(16, 2, generator=draw)) for x in xs]


DATA, HELD_OUT, TEST = batches(6, 1), batches(2, 2), batches(2, 3)


def trunk(model: Lines) -> nn.Module:
    return model.trunk


def found(methods: Any = METHODS, data: Any = DATA, **settings: Any) -> Comparison:
    base: dict[str, Any] = {"shared": trunk, "validation": HELD_OUT, "steps": 30, "quiet": True}
    return compare(Lines, data, methods, **{**base, **settings})


@pytest.fixture(scope="module")
def four() -> Comparison:
    return found()


def of(comparison: Comparison, method: str) -> list[Run]:
    return [run for run in comparison.runs if run.method == method]


# ---- the runs -----------------------------------------------------------------------------------


def test_every_method_begins_with_the_same_model_and_batch(four: Comparison) -> None:
    for seed in range(3):
        first = {tuple(run.history.losses[0]) for run in four.runs if run.seed == seed}
        assert len(first) == 1
    assert len({tuple(run.history.losses[0]) for run in four.runs}) == 3
    assert four.paired


@pytest.mark.parametrize("seed", [0, 1])
def test_uniform_is_the_plain_sum_bit_for_bit(four: Comparison, seed: int) -> None:
    torch.manual_seed(seed)
    model = Lines()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen: list[list[float]] = []
    for step in range(30):
        losses = model.losses(*DATA[step % len(DATA)])
        sum(losses.values(), torch.zeros(())).backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append([loss.item() for loss in losses.values()])
    run = of(four, "uniform")[seed]
    assert run.history.losses.tolist() == seen
    held_out = [model.losses(*batch) for batch in HELD_OUT]
    for task in ("near", "far"):
        assert run.figures[task] == sum(losses[task].item() for losses in held_out) / 2


def test_a_method_is_the_balancer_that_has_it(four: Comparison) -> None:
    torch.manual_seed(2)
    model = Lines()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    balancer = gaba.Balancer(["near", "far"], model.trunk, "inverse")
    for step in range(30):
        balancer.backward(model.losses(*DATA[step % len(DATA)]))
        optimizer.step()
        optimizer.zero_grad()
    run = of(four, "inverse")[2]
    assert run.history.losses.tolist() == balancer.history.losses.tolist()
    assert run.history.multipliers.tolist() == balancer.history.multipliers.tolist()


def test_the_same_call_gives_the_same_results(four: Comparison) -> None:
    torch.rand(5)
    again = found()
    assert again.runs == four.runs
    assert again.rows == four.rows
    for one, other in zip(again.runs, four.runs, strict=True):
        assert one.history.losses.tolist() == other.history.losses.tolist()


def draw() -> list[float]:
    return [torch.rand(1).item(), np.random.rand(), random.random()]  # noqa: NPY002


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def test_random_numbers_are_of_the_seed_and_those_of_others_go_on() -> None:
    drawn: list[list[float]] = []

    def data(seed: int) -> list[Any]:
        drawn.append(draw())
        return DATA

    seed_all(1)
    expected = draw()
    seed_all(1)
    found(["gaba"], data, steps=3, seeds=2)
    assert draw() == expected
    of_seed = [(seed_all(seed), draw())[1] for seed in (0, 1)]
    assert drawn[1:] == [of_seed[seed] for seed in (0, 0, 1, 1)]  # the first finds the tasks


@pytest.mark.parametrize("own", [True, False])
def test_shuffled_batches_are_the_same_for_every_method(own: bool) -> None:
    x, y = (torch.cat(parts) for parts in zip(*DATA, strict=True))
    generator = torch.Generator().manual_seed(5) if own else None
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, generator=generator)
    before = None if generator is None else generator.get_state()
    seen: list[Tensor] = []

    def losses(model: Lines, batch: Any) -> dict[str, Tensor]:
        seen.append(batch[0].clone())
        torch.rand(len(seen))  # a model that draws, in each run another number
        return model.losses(*batch)

    got = found(["rlw"], loader, losses=losses, validation=None, steps=13, seeds=2)
    assert [run.method for run in got.runs] == ["uniform", "rlw"] * 2
    runs = [seen[1 + 13 * i : 1 + 13 * (i + 1)] for i in range(4)]  # the first finds the tasks
    assert all(map(torch.equal, runs[0], runs[1]))
    assert all(map(torch.equal, runs[2], runs[3]))
    assert not all(map(torch.equal, runs[0], runs[2]))
    assert not all(map(torch.equal, runs[0][:6], runs[0][6:12]))  # each pass has its own order
    if generator is not None and before is not None:
        assert torch.equal(generator.get_state(), before)


def test_data_may_be_made_of_the_seed() -> None:
    asked: list[int] = []

    def data(seed: int) -> Iterator[Any]:
        asked.append(seed)
        return iter(batches(4, seed))

    got = found(["gaba"], data, steps=6, seeds=2)
    assert asked == [0, *(0, 0) * 2, *(1, 1) * 2]  # six steps are two passes
    torch.manual_seed(1)
    first = Lines().losses(*batches(4, 1)[0])
    for run in got.runs[2:]:
        assert run.history.losses[0].tolist() == [loss.item() for loss in first.values()]


def test_runs_that_are_not_paired_are_told_of() -> None:
    draw = torch.Generator().manual_seed(0)

    def losses(model: Lines, batch: Any) -> dict[str, Tensor]:
        return model.losses(torch.randn(16, 4, generator=draw), batch[1])

    got = found(["inverse"], losses=losses, steps=3, seeds=1)
    assert not got.paired
    assert "The runs are not paired" in str(got)


# ---- the figures --------------------------------------------------------------------------------


def test_the_change_is_the_mean_relative_change_against_equal_weights(four: Comparison) -> None:
    base = of(four, "uniform")
    for method in METHODS:
        changes = np.array(
            [
                [(run.figures[t] - b.figures[t]) / b.figures[t] for t in ("near", "far")]
                for run, b in zip(of(four, method), base, strict=True)
            ]
        )
        row, per_seed = four[method], 100 * changes.mean(axis=1)
        assert row.change.estimate == pytest.approx(per_seed.mean(), abs=1e-12)
        for k, task in enumerate(("near", "far")):
            mean = 100 * changes[:, k].mean()
            assert row.changes[task].estimate == pytest.approx(mean, abs=1e-12)
            figures = [run.figures[task] for run in of(four, method)]
            assert row.figures[task].estimate == pytest.approx(np.mean(figures))
        if method != "uniform":
            reach = scipy_stats.t.ppf(0.975, 2) * per_seed.std(ddof=1) / math.sqrt(3)
            assert row.change.high - row.change.low == pytest.approx(2 * reach)


def test_the_table_is_best_first_and_its_intervals_hold_the_means(four: Comparison) -> None:
    changes = [row.change.estimate for row in four.rows]
    assert changes == sorted(changes)
    assert changes[0] < changes[-1]
    assert {row.method for row in four.rows} == set(METHODS)
    for row in four.rows:
        for at in (row.change, *row.changes.values(), *row.figures.values()):
            assert at.estimate in at
    shown = [line.split()[0] for line in four.table().splitlines()[3 : 3 + len(METHODS)]]
    assert shown == [row.method for row in four.rows]


def made(figures: dict[str, list[dict[str, float]]], **settings: Any) -> Comparison:
    runs = [
        Run(method, seed, None, one, {}, None if one else "loss 'a' is nan in step 3", 0, EMPTY, 1)
        for method, each in figures.items()
        for seed, one in enumerate(each)
    ]
    seeds = len(next(iter(figures.values())))
    return Comparison(tuple(runs), **{"seeds": seeds, "steps": 9, "source": "test", **settings})


EMPTY = History(["a", "b"])


def test_a_negative_loss_that_falls_is_better() -> None:
    got = made({"uniform": [{"a": -2.0, "b": 1.0}], "gaba": [{"a": -3.0, "b": 1.0}]})
    assert got["gaba"].changes["a"].estimate == -50
    assert got["gaba"].change.estimate == -25
    assert [row.method for row in got.rows] == ["gaba", "uniform"]


def test_where_equal_weights_reach_zero_there_is_no_change() -> None:
    got = made({"uniform": [{"a": 0.0, "b": 1.0}], "gaba": [{"a": 1.0, "b": 0.5}]})
    assert math.isnan(got["gaba"].change.estimate)
    assert got["gaba"].changes["b"].estimate == -50
    assert "'a' is 0 with equal weights" in str(got)


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ([1.0, 0.9], "gaba comes first: 50.0 % below equal weights (95 % interval"),
        ([2.5, 1.2], "No method is clearly better than equal weights: the change of the first, g"),
        ([3.0, 2.8], "No method is better than equal weights."),
        ([1.0], "gaba comes first, 50.0 % below equal weights, at the one seed."),
    ],
)
def test_the_verdict(figures: list[float], verdict: str) -> None:
    base = [2.0, 1.8][: len(figures)]
    got = made({"uniform": [{"a": b} for b in base], "gaba": [{"a": f} for f in figures]})
    assert got.table().startswith(verdict)


def test_test_data_are_shown_and_validation_data_choose() -> None:
    got = found(["inverse"], test=TEST, learning_rates=[1e-4, 1e-2, 1e-3], seeds=2)
    assert len(got.runs) == 2 * 3 * 2
    for method in ("uniform", "inverse"):
        tried = {
            rate: [run for run in of(got, method) if run.learning_rate == rate]
            for rate in (1e-4, 1e-2, 1e-3)
        }
        lower = {
            rate: all(
                run.figures[t] < other.figures[t]
                for others in tried.values()
                if others is not runs
                for run, other in zip(runs, others, strict=True)
                for t in ("near", "far")
            )
            for rate, runs in tried.items()
        }
        assert [rate for rate, best in lower.items() if best] == [1e-2]
        row = got[method]
        assert row.learning_rate == 1e-2
        shown = np.mean([run.test["near"] for run in tried[1e-2]])
        assert row.figures["near"].estimate == pytest.approx(shown)
        assert tried[1e-2][0].test != tried[1e-2][0].figures
    assert "learning rate" in str(got)
    assert "decided nothing" not in str(got)
    assert "decided nothing" in str(found(["inverse"], learning_rates=[1e-2], seeds=2))


def test_groups_of_an_optimizer_keep_their_proportions() -> None:
    used: list[torch.optim.Optimizer] = []

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": parameters[:2], "lr": 0.2}, {"params": parameters[2:], "lr": 0.1}]
        used.append(torch.optim.SGD(groups))
        return used[-1]

    found(["dwa"], optimizer=optimizer, learning_rates=[0.02], steps=2, seeds=1)
    rates = [[group["lr"] for group in one.param_groups] for one in used[-2:]]
    assert rates == [pytest.approx([0.02, 0.01])] * 2


def test_a_metric_takes_the_place_of_the_losses() -> None:
    def metric(model: Lines, batches: Any) -> dict[str, float]:
        assert not model.training
        errors = [(model.near(model.trunk(x)) - y[:, :1]).abs().max().item() for x, y in batches]
        return {"worst": max(errors)}

    got = found(["inverse"], metric=metric, seeds=2)
    assert got.names == ("worst",)
    assert list(got["inverse"].figures) == ["worst"]


def test_without_validation_data_the_end_of_the_training_counts() -> None:
    got = found(["inverse"], validation=None, seeds=2)
    for run in got.runs:
        late = run.history.losses[-3:].mean(axis=0)
        assert list(run.figures.values()) == pytest.approx(late.tolist())
    assert "training losses of the last 3 steps" in str(got)


def test_a_method_that_only_warms_up_is_marked() -> None:
    got = found(["paper"], seeds=2)
    row = got["paper"]
    assert row.only_warms_up
    assert row.change.estimate == pytest.approx(0, abs=1e-3)
    assert "paper (warm-up only)" in str(got)
    assert "its warm-up is as long as the run" in str(got)
    long = gaba.methods.get("paper").warm_up + 1
    assert not found(["paper"], steps=long, seeds=1)["paper"].only_warms_up


# ---- what goes wrong ----------------------------------------------------------------------------


class Breaks(Lines):
    """The loss of ``far`` is NaN in step 4 of the seeds that begin with a positive weight."""

    def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        losses = super().losses(x, y)
        if self.training and x is DATA[4][0] and float(self.first) > 0:
            losses["far"] = losses["far"] * torch.nan
        return losses

    def __init__(self) -> None:
        super().__init__()
        self.first = self.trunk.weight[0, 0].detach().clone()


def test_a_loss_that_is_not_finite_is_a_failure_in_the_table() -> None:
    signs = []
    for seed in range(4):
        torch.manual_seed(seed)
        signs.append(float(Breaks().first) > 0)
    broken = [seed for seed, positive in enumerate(signs) if positive]
    assert 0 < len(broken) < 4
    got = compare(
        Breaks, DATA, ["gaba"], shared=trunk, validation=HELD_OUT, steps=9, seeds=4, quiet=True
    )
    for run in got.runs:
        failed = run.seed in broken
        assert (run.failure is not None) == failed
        assert len(run.history) == (4 if failed else 9)
        assert bool(run.figures) != failed
    assert f"failed at {len(broken)} of 4" in str(got)
    assert f"gaba failed at seed {broken[0]}: loss 'far' is nan in step 4." in str(got)
    assert str(got).startswith("Every method failed at least once.")
    assert math.isfinite(got["gaba"].change.estimate)  # of the seeds that are left


def test_a_model_that_diverges_at_the_last_step_is_a_failure() -> None:
    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e30)

    got = found(["dwa"], optimizer=optimizer, steps=1, seeds=1)
    assert all("on validation data" in str(run.failure) for run in got.runs)


def test_a_failed_method_is_last_however_good_it_was() -> None:
    base = {"a": 2.0, "b": 2.0}
    good, bad = {"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 3.0}
    got = made({"gaba": [good, {}], "uniform": [base, base], "dwa": [bad, bad]})
    assert [row.method for row in got.rows] == ["uniform", "dwa", "gaba"]
    assert got["gaba"].change.estimate == -50
    got = made({"uniform": [{}, {}], "gaba": [good, good]})
    assert [row.method for row in got.rows] == ["gaba", "uniform"]
    assert "equal weights failed" in got.verdict


def a_tensor(model: Lines, batch: Any) -> Any:
    return sum(model.losses(*batch).values())


def of_floats(model: Lines, batch: Any) -> Any:
    return {name: loss.item() for name, loss in model.losses(*batch).items()}


def not_reduced(model: Lines, batch: Any) -> Any:
    return {name: loss * torch.ones(3) for name, loss in model.losses(*batch).items()}


def one_alone(model: Lines, batch: Any) -> Any:
    return {"near": model.losses(*batch)["near"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["gaba", "uniforn"]}, "Did you mean 'uniform'?"),
        ({"methods": ["fixed"]}, "fixed:ARGUMENT"),
        ({"methods": "gaba"}, r"methods must be several, found 'gaba': pass \['gaba'\]"),
        ({"methods": ["gaba", "gaba"]}, "must have names that differ, found 'gaba' twice"),
        ({"methods": {"uniform": "gaba"}}, "must call equal weights alone 'uniform'"),
        ({"methods": [3]}, "methods must be names or gaba.Method, found int"),
        ({"methods": ["inverse-half"]}, "must need one loss a batch, found 'inverse-half'"),
        ({"losses": a_tensor}, "losses must be a dict of scalar tensors by name, found Tensor"),
        ({"losses": of_floats}, r"found \{near: float, far: float\}"),
        ({"losses": not_reduced}, r"near: tensor of shape \(3,\)"),
        ({"losses": one_alone}, "at least 2 scalar tensors"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, found 0"),
        ({"seeds": 2.0}, r"seeds must be a whole number of at least 1, found 2\.0"),
        ({"steps": -1}, "steps must be a whole number of at least 1, found -1"),
        ({"data": iter(DATA)}, "data must be batches that every run can go through again"),
        ({"data": []}, "data must hold at least one batch"),
        ({"validation": (b for b in HELD_OUT)}, "validation must be batches that every run"),
        ({"learning_rates": [1e-3], "validation": None}, "training losses must not choose"),
        ({"learning_rates": [0.0]}, "learning_rates must be positive"),
        ({"learning_rates": []}, "learning_rates must be positive"),
        ({"test": TEST, "validation": None}, "validation must be given with metric or test"),
        ({"optimizer": lambda parameters: 0.1}, "optimizer must make a torch.optim.Optimizer"),
    ],
)
def test_a_mistake_is_said_before_the_first_training(
    settings: dict[str, Any], message: str
) -> None:
    steps = {"steps": 10**9} if "steps" not in settings else {}  # a training would not end
    with pytest.raises((ValueError, TypeError), match=message):
        found(**{**steps, **settings})


def test_a_model_in_place_of_its_maker() -> None:
    model: Any = Lines()
    with pytest.raises(TypeError, match="must be a function that makes"):
        compare(model, DATA, quiet=True)
    with pytest.raises(ValueError, match="must make a new model in each call"):
        compare(lambda: model, DATA, quiet=True)
    nothing: Any = lambda: None  # noqa: E731
    with pytest.raises(TypeError, match="found NoneType"):
        compare(nothing, DATA, quiet=True)


def test_a_task_that_the_first_batch_lacks_is_named() -> None:
    def losses(model: Lines, batch: Any) -> dict[str, Tensor]:
        every = model.losses(*batch)
        return every if batch[0] is not DATA[0][0] else {"near": every["near"]}

    got = found(["gaba"], losses=losses, tasks=["near", "far"], seeds=1)
    assert got["gaba"].failures == ()
    assert np.isnan(got.runs[0].history.losses[[0, 6, 12], 1]).all()


# ---- what comes out -----------------------------------------------------------------------------


def test_it_prints_the_table_unless_it_is_to_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    got = found({"mine": gaba.methods.get("dwa", window=2)}, steps=3, seeds=1, quiet=False)
    out, error = capsys.readouterr()
    assert out == f"{got}\n"
    assert not error
    assert "mine" in out
    found(["dwa"], steps=3, seeds=1)
    assert capsys.readouterr() == ("", "")


def test_a_frame_has_the_figures_of_the_table(four: Comparison) -> None:
    frame = four.to_pandas()
    assert list(frame.index) == [row.method for row in four.rows]
    assert frame.loc["inverse", "change"] == four["inverse"].change.estimate
    assert frame.loc["inverse", "change/far_high"] == four["inverse"].changes["far"].high
    assert frame.loc["gaba", "figure/near_low"] == four["gaba"].figures["near"].low
    assert set(frame["failed"]) == {0}
    assert (frame["time"] > 0).all()


def test_a_picture_is_a_png_file_with_a_line_a_method(four: Comparison, tmp_path: Path) -> None:
    picture = four.plot(tmp_path / "methods.png")
    data = (tmp_path / "methods.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1200, round(150 * (1.6 + 0.34 * 4)))
    (axes,) = picture.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [row.method for row in four.rows]
    spans = [sorted(line.get_xdata()) for line in axes.lines]
    for row in four.rows:
        assert [row.change.low, row.change.high] in spans


def test_a_failed_method_is_in_the_picture() -> None:
    good = {"a": 1.0, "b": 1.0}
    picture = made({"uniform": [good, good], "gaba": [{}, good]}).plot()
    assert [text.get_text() for text in picture.axes[0].texts] == ["failed at 1 of 2 seeds"]


def test_a_method_that_was_not_compared(four: Comparison) -> None:
    with pytest.raises(KeyError, match="'pcgrad' was not compared"):
        four["pcgrad"]


# ---- the way in ---------------------------------------------------------------------------------


def after(statement: str) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_gaba_does_not_import_the_benchmark() -> None:
    assert not {name for name in after("import gaba") if name.startswith("gaba.bench")}
    assert "gaba.bench.compare" in after("import gaba; gaba.compare")
    assert not {"scipy", "pandas", "matplotlib"} & after("import gaba; gaba.compare")


def test_it_is_a_name_of_gaba() -> None:
    assert gaba.compare is compare
    assert "compare" in dir(gaba)
    assert "compare" in gaba.__all__
    with pytest.raises(AttributeError, match="has no attribute 'compar'"):
        gaba.compar  # noqa: B018


def test_an_absent_scipy_is_said_before_the_first_training() -> None:
    code = (
        "import importlib.util, sys; from importlib.util import find_spec as find\n"
        "sys.modules['scipy'] = sys.modules['scipy.stats'] = None\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'scipy' else find(n, *a)\n"
        "import torch, gaba\n"
        "gaba.compare(lambda: torch.nn.Linear(1, 1), [1], steps=10**9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: the statistics of the benchmark need scipy" in done.stderr
    assert "pip install" in done.stderr
    assert '[bench]"' in done.stderr
