"""The configuration: what it may hold, and one line about what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gaba.bench import Config, _points
from gaba.bench.config import SWEEP, TUNED

GOOD = """
[bench]
problems = ["conflict-toy", "synthetic-40"]
methods = ["uniform", "gaba", "fixed:.05,.95", "fixed-tuned", "fixed-sweep"]
optimizers = ["sgd"]
seeds = [3, 4]
tuning_seeds = [7, 8]
steps = 50
data_dir = "data"
store = "runs/other.sqlite"
device = "cuda"
[budget]
trials = 2
[fixed]
points = 9
settings = 1
span = 100
[controls]
frozen = false
single_task = false
[steps]
conflict-toy = 20
[skip]
synthetic-40 = ["gaba"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bench.toml"


def test_every_key_is_read(file: Path) -> None:
    file.write_text(GOOD)
    assert Config.read(file) == Config(
        problems=("conflict-toy", "synthetic-40"),
        methods=("uniform", "gaba", "fixed:.05,.95", TUNED, SWEEP),
        optimizers=("sgd",),
        seeds=(3, 4),
        tuning_seeds=(7, 8),
        steps=50,
        steps_of={"conflict-toy": 20},
        data_dir="data",
        store="runs/other.sqlite",
        device="cuda",
        trials=2,
        points=9,
        settings=1,
        span=100.0,
        frozen=False,
        single_task=False,
        skip={"synthetic-40": ("gaba",)},
    )


def test_two_keys_are_enough(file: Path) -> None:
    file.write_text('[bench]\nproblems = ["conflict-toy"]\nmethods = ["gaba"]\n')
    assert Config.read(file) == Config(("conflict-toy",), ("gaba",))


def test_a_place_may_be_a_path() -> None:
    config = Config(("conflict-toy",), ("gaba",), data_dir=Path("d"), store=Path("s"))
    assert config == Config(("conflict-toy",), ("gaba",), data_dir="d", store="s")
    assert isinstance(config.store, str)  # it is written into the store


BOTH = '[bench]\nproblems = ["conflict-toy"]\nmethods = ["gaba"]\n'
WRONG = [
    ('methods = ["gaba"', "is not TOML: "),
    ("", "bench.problems: must be given, found none: gaba bench problems lists them"),
    ('[bench]\nproblems = ["conflict-toy"]', "bench.methods: must be given, found none: "),
    ("[bensh]", "bensh: must be one of the tables [bench], .*found 'bensh': did you mean 'bench'?"),
    (f"steps = 3\n{BOTH}", "steps: must be a table, found 3"),
    ("[bench]\nseed = [1]", "bench.seed: must be one of .*found 'seed': did you mean 'seeds'?"),
    (
        "[bench]\nproblems = ['conflict-toy']\nmethods = 'gaba'",
        "bench.methods: must be a list, found 'gaba'",
    ),
    ("[bench]\nproblems = []\nmethods = ['gaba']", "bench.problems: must not be empty, found []"),
    (f"{BOTH}seeds = [0, -1]", "bench.seeds: must be at least 0, found -1"),
    (f"{BOTH}seeds = [true]", "bench.seeds: must be a valid integer, found True"),
    (f"{BOTH}store = 3", "bench.store: must be a valid string, found 3"),
    (f"{BOTH}[budget]\ntrials = 0", "budget.trials: must be at least 1, found 0"),
    (f"{BOTH}[budget]\ntrials = 'six'", "budget.trials: must be a valid integer, found 'six'"),
    (f"{BOTH}[fixed]\nspan = 1", "fixed.span: must be above 1 and finite, found 1"),
    (f"{BOTH}[controls]\nfrozen = 1", "controls.frozen: must be a valid boolean, found 1"),
    (f"{BOTH}[steps]\ntoy = 1.5", "steps.toy: must be a valid integer.*, found 1.5"),
    (f"{BOTH}[steps]\nconflict-toy = 0", "steps.conflict-toy: must be at least 1, found 0"),
    (f"{BOTH}[skip]\ntoy = 'gaba'", "skip.toy: must be a list, found 'gaba'"),
]
PROBLEMS = '[bench]\nproblems = ["conflict-toy"]\n'
WRONG_TOGETHER = [
    ('methods = ["gabba"]', "found 'gabba': did you mean 'gaba'?"),
    ('methods = ["fixed-swep"]', "found 'fixed-swep': did you mean 'fixed-sweep'?"),
    ('methods = ["fixed"]', "method 'fixed' is written as fixed:ARGUMENT"),
    ('methods = ["gaba", "gaba"]', "bench.methods: must differ, found 'gaba' twice: drop one"),
    (
        'methods = ["gaba"]\noptimizers = ["lion"]',
        "bench.optimizers: must be 'adam' or 'sgd', found 'lion'",
    ),
    (
        'methods = ["gaba"]\nseeds = [0, 100]',
        "bench.tuning_seeds: must not be among bench.seeds, found 100 in both: what was tuned",
    ),
    (
        'methods = ["gaba"]\n[skip]\npinn = ["gaba"]',
        "skip: must name problems of bench.problems, found 'pinn': they are conflict-toy",
    ),
    (
        'methods = ["gaba"]\n[steps]\npinn = 3',
        "steps: must name problems of bench.problems, found 'pinn'",
    ),
]


@pytest.mark.parametrize(
    ("text", "expected"), WRONG + [(PROBLEMS + text, said) for text, said in WRONG_TOGETHER]
)
def test_what_is_wrong_is_one_line_with_key_value_and_remedy(
    text: str, expected: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=r"bench\.toml: ") as caught:
        Config.read(file)
    assert re.search(_literal(expected), str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def _literal(expected: str) -> str:
    return ".*".join(re.escape(part) for part in expected.split(".*"))


# ---- where tuning looks -------------------------------------------------------------------------


def test_a_budget_is_spent_from_the_middle_outwards() -> None:
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    order = [c.learning_rate for c in _points.settings(rates, [0.0])]
    assert order[0] == 1e-2
    assert set(order[:3]) == {1e-3, 1e-2, 1e-1}
    assert sorted(order) == rates
    whole = _points.settings(rates, [0.1, 0.0])
    assert [c.weight_decay for c in whole] == [0.1] * 5 + [0.0] * 5
    assert [c.learning_rate for c in whole] == order * 2


@pytest.mark.parametrize(("n_tasks", "points"), [(2, 21), (3, 25), (3, 49), (5, 30), (40, 10)])
def test_the_grid_lies_on_the_simplex_within_its_span(n_tasks: int, points: int) -> None:
    found = np.array(_points.grid(n_tasks, points, 1000.0))
    assert found.shape[1] == n_tasks
    assert len(np.unique(found, axis=0)) == len(found)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-4)
    most = 1000.0 if n_tasks != 3 else 1000.0**2  # log-ratios to the third, one to the other
    assert (found.max(1) / found.min(1)).max() <= most * 1.5
    assert points <= len(found) <= points + 9


def test_two_tasks_are_even_in_log_odds_and_have_the_deciles() -> None:
    found = _points.grid(2, 11, 1000.0)
    odds = sorted(np.log(w / v) for w, v in found[:11])
    np.testing.assert_allclose(np.diff(odds), np.log(1000) / 5, rtol=1e-2)
    assert {(i / 10, round(1 - i / 10, 6)) for i in range(1, 10)} <= set(found)


def test_the_joint_draws_are_many_settings_and_always_the_same() -> None:
    of = _points.settings([0.1, 0.01, 0.001], [0.0, 0.1])
    found = _points.joint("toy adam", 60, 3, 1000.0, of)
    assert found == _points.joint("toy adam", 60, 3, 1000.0, of)
    assert found[:5] == _points.joint("toy adam", 5, 3, 1000.0, of)
    assert found != _points.joint("toy sgd", 60, 3, 1000.0, of)
    assert {(c.learning_rate, c.weight_decay) for c in found} == {
        (c.learning_rate, c.weight_decay) for c in of
    }
    logs = np.log([c.weights or () for c in found])
    assert np.abs(logs.mean(0) - logs.mean()).max() < 0.6, "no task is preferred"
