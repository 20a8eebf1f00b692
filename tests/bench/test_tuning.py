"""A search in share space: what it tries, what it keeps, and that it can go on."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gaba
from gaba.bench import Trial, run_trial
from gaba.bench._share_trial import trained
from gaba.bench.problem import load
from gaba.bench.tuned import Moment, Tuned
from gaba.cli import main
from gaba.extras import install

pytest.importorskip("optuna")

TASKS = ("a", "b", "c")
GOAL = {"a": 0.6, "b": 0.3, "c": 0.1}
UNTESTED = '''
import torch
from gaba.bench.problems.conflict_toy import ConflictToy

class Untested(ConflictToy):
    """The toy, whose test data nobody may read."""
    name = "untested"

    def start(self, seed, device):
        session = super().start(seed, device)
        evaluate = session.evaluate

        def validation_only(split):
            assert split == "validation"
            return evaluate(split)

        session.evaluate = validation_only
        return session
'''


def far(targets: dict[str, float]) -> float:
    """The Kullback-Leibler divergence of the goal from the targets: 0 at the goal."""
    return sum(GOAL[task] * math.log(GOAL[task] / t) for task, t in targets.items())


def tuned(trials: int, **settings: Any) -> Tuned:
    return gaba.tune(far, trials, tasks=TASKS, quiet=True, **settings)


def test_it_begins_at_equal_targets_and_comes_nearer_to_the_best() -> None:
    found = tuned(25)
    assert found.trials[0].targets == pytest.approx(dict.fromkeys(TASKS, 1 / 3))
    assert len(found.trials) == 25
    assert found.equal is found.trials[0]
    assert found.value == min(map(far, (dict(t.targets) for t in found.trials)))
    assert found.value < 0.25 * found.trials[0].value


def test_targets_are_shares_and_no_task_is_preferred() -> None:
    found = tuned(12, seed=3)
    for trial in found.trials:
        assert math.fsum(trial.targets.values()) == pytest.approx(1.0)
        assert max(trial.targets.values()) <= 100 * (1 + 1e-9) * min(trial.targets.values())
    two = gaba.tune(lambda t: abs(t["a"] - 0.1), 30, tasks=("a", "b"), quiet=True)
    turned = gaba.tune(lambda t: abs(t["b"] - 0.1), 30, tasks=("a", "b"), quiet=True)
    assert two.targets["a"] == pytest.approx(0.1, abs=0.02)
    assert turned.targets["b"] == pytest.approx(0.1, abs=0.02)


def test_a_study_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = tuned(6)
    tuned(2, storage=tmp_path / "parts.sqlite")
    parts = tuned(6, storage=tmp_path / "parts.sqlite")
    assert [t.targets for t in parts.trials] == [t.targets for t in whole.trials]
    moments: list[Moment] = []
    again = tuned(6, storage=tmp_path / "parts.sqlite", watcher=moments.append)
    assert again == parts
    assert not moments  # nothing was run
    with pytest.raises(ValueError, match=r"must be of the same settings.*give another name"):
        gaba.tune(far, 6, tasks=("a", "b"), storage=tmp_path / "parts.sqlite", study="far")


def test_several_work_on_one_study(tmp_path: Path) -> None:
    store, errors = tmp_path / "study.sqlite", list[BaseException]()
    tuned(1, storage=store)

    def work() -> None:
        try:
            tuned(8, storage=store)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    found = tuned(8, storage=store).trials
    assert 8 <= len(found) <= 9  # both may be in the last one
    assert [t.number for t in found] == list(range(len(found)))
    assert len({tuple(t.targets.values()) for t in found}) == len(found)


def test_a_study_that_lost_its_first_trial_makes_it_again(tmp_path: Path) -> None:
    def interrupted(targets: dict[str, float]) -> float:
        raise KeyboardInterrupt

    settings: dict[str, Any] = {"tasks": TASKS, "storage": tmp_path / "s.sqlite", "quiet": True}
    interrupted.__name__ = far.__name__
    with pytest.raises(KeyboardInterrupt):
        gaba.tune(interrupted, 3, **settings)
    found = gaba.tune(far, 3, **settings)
    assert [t.state for t in found.trials] == ["failed", *["finished"] * 3]
    assert found.trials[1].targets == pytest.approx(dict.fromkeys(TASKS, 1 / 3))


def test_what_is_far_behind_is_stopped_early_and_never_counts() -> None:
    steps: list[int] = []

    def training(targets: dict[str, float]) -> Iterator[float]:
        steps.append(0)
        for step in range(10):
            steps[-1] += 1
            yield far(targets) + 1 / (step + 1)

    found = gaba.tune(training, 16, tasks=TASKS, quiet=True)
    early = [t for t in found.trials if t.state == "stopped early"]
    assert early
    assert all(steps[t.number] < 10 for t in early)
    assert all(steps[t.number] == 10 for t in found.trials if t.state == "finished")
    assert found.best.state == "finished"
    assert found.value == pytest.approx(far(found.targets) + 0.1)  # its last figure
    assert [len(t.curve) for t in found.trials] == steps


def test_equal_targets_of_a_problem_are_the_default_method() -> None:
    """The same figure as the benchmark's own training, which knows no targets."""
    found = gaba.tune("conflict-toy", 1, steps=30, seed=2, quiet=True)
    toy = load("conflict-toy")
    rate = toy.learning_rates["adam"][len(toy.learning_rates["adam"]) // 2]
    trial = Trial(toy.name, "gaba", "adam", rate, toy.weight_decays[0], seed=2, steps=30)
    assert found.value == pytest.approx(run_trial(trial)["quality"], rel=1e-9)
    *_, (step, unequal) = trained(trial, toy, {"f1": 50.0, "f2": 1.0})
    assert step == 30
    assert unequal != pytest.approx(found.value, rel=1e-5)


def test_a_training_that_diverges_is_the_worst_and_no_random_number_is_used_up() -> None:
    toy = load("conflict-toy")
    trial = Trial(toy.name, "gaba", "sgd", 1e12, 0.0, seed=0, steps=40)
    before = torch.get_rng_state()
    assert list(trained(trial, toy, {"f1": 0.5, "f2": 0.5}))[-1] == (40, math.inf)
    calm = list(trained(replace(trial, learning_rate=0.01), toy, {"f1": 0.5, "f2": 0.5}))
    assert torch.equal(torch.get_rng_state(), before)
    qualities = [quality for _, quality in calm]
    assert qualities == sorted(qualities, reverse=True)  # the best so far


def test_test_data_are_never_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(UNTESTED, encoding="utf-8")
    found = gaba.tune(f"{file}:Untested", 2, steps=20, quiet=True)
    assert math.isfinite(found.value)


def test_the_code_line_makes_the_balancer_of_the_best_trial() -> None:
    found = tuned(6)
    shared = torch.nn.Linear(2, 2)
    balancer = eval(found.code, {"gaba": gaba, "shared": shared})
    assert balancer.tasks == TASKS
    ratios = torch.tensor(balancer.method.rule.ratios) ** 2
    wanted = torch.tensor([found.targets[task] for task in TASKS])
    torch.testing.assert_close(ratios / ratios.sum(), wanted, rtol=1e-2, atol=1e-3)
    other = replace(found, method="equal-share")
    assert "'equal-share', share_targets=" in other.code
    assert eval(other.code, {"gaba": gaba, "shared": shared}).method.rule.rule == (
        gaba.rules.EqualShare()
    )


def test_a_table_and_a_picture_of_what_was_tried(tmp_path: Path) -> None:
    found = tuned(5)
    frame = found.to_pandas()
    assert frame["value"].tolist() == [t.value for t in found.trials]
    assert frame[[f"target/{task}" for task in TASKS]].sum(axis=1).tolist() == pytest.approx(
        [1] * 5
    )
    picture = found.plot(tmp_path / "tried.png")
    assert (tmp_path / "tried.png").stat().st_size > 1000
    assert [tick.get_text() for tick in picture.axes[1].get_yticklabels()] == list(TASKS)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gaba.tune(far, 0, tasks=TASKS), "trials must be a whole number of at least 1"),
        (lambda: gaba.tune(far), "tasks must name two or more different losses"),
        (lambda: gaba.tune(far, tasks=["a", "a"]), "tasks must name two or more different"),
        (lambda: gaba.tune("conflict-toy", tasks=["a", "b"]), "leave tasks out"),
        (lambda: gaba.tune("titanic"), "problem: must be one of"),
        (lambda: gaba.tune("conflict-toy", method="uniform"), "share_targets must go with a rule"),
        (lambda: gaba.tune("conflict-toy", method="inverse-half"), "needs losses by halves"),
        (lambda: gaba.tune("conflict-toy", optimizer="lion"), "optimizer must be one that"),
        (lambda: gaba.tune("conflict-toy", steps=0), "steps must be at least 1"),
        (lambda: gaba.tune(lambda t: math.nan, tasks=TASKS), "the figure must be a number"),
    ],
)
def test_what_means_nothing_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_what_is_no_problem_is_refused() -> None:
    with pytest.raises(TypeError, match="problem must be a name"):
        gaba.tune(7, tasks=TASKS)
    with pytest.raises(ValueError, match="trials must hold one that finished"):
        _ = Tuned(TASKS, ()).best


def test_without_optuna_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"gaba\.tune needs optuna") as caught:
        gaba.tune(far, tasks=TASKS)
    assert str(caught.value).endswith(install("tune"))


def test_the_command_resumes_and_prints_the_line_to_paste(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", "conflict-toy", "--trials", "3", "--steps", "20"]
    words += ["--storage", f"{tmp_path}/study.sqlite", "--plot", f"{tmp_path}/tried.svg"]
    assert main(words) == 0
    first = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in first[:3]] == [f"trial {n} of 3" for n in (1, 2, 3)]
    assert first[4].startswith("gaba.Balancer(['f1', 'f2'], shared, share_targets={'f1': ")
    assert (tmp_path / "tried.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == first[3:]
    assert main(["tune", "titanic"]) == 1
    assert "must be one of conflict-toy" in capsys.readouterr().err
