"""The sweep: stages, equal budgets, honest selection, and the same store whatever happens to it."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import _bench_toys as toys
import gaba.methods
from gaba.bench import Config, Row, Store, Summary, run, status
from gaba.bench.plan import Outcome, Plan
from gaba.bench.progress import Pace

METHODS = ("uniform", "inverse", "fixed-tuned", "fixed-sweep")
ADAPTIVE = ("inverse",)


def config(folder: Path, problem: str = "Toy", **changes: Any) -> Config:
    base = Config(
        problems=(toys.spec(problem),),
        methods=METHODS,
        optimizers=("adam",),
        seeds=(0, 1),
        tuning_seeds=(50, 51),
        trials=2,
        points=3,
        settings=1,
        store=str(folder / "runs.sqlite"),
    )
    return replace(base, **changes)


def rows(asked: Config) -> list[Row]:
    with Store(asked.store, read_only=True) as store:
        return store.rows()


def figures(asked: Config) -> dict[str, Any]:
    """Of every row by its key, without what time and place decide."""
    found = {}
    for row in rows(asked):
        kept: dict[str, Any] = {
            k: v for k, v in row.result.items() if "seconds" not in k and k != "peak_memory_bytes"
        }
        for split in ("validation", "test"):
            kept[split] = {k: v for k, v in kept[split].items() if k != "process"}
        found[row.key] = (row.method, row.stage, kept)
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Summary]:
    asked = config(tmp_path_factory.mktemp("swept"))
    return asked, run(asked)


# ---- the protocol -------------------------------------------------------------------------------


def test_every_stage_is_run_to_its_end(swept: tuple[Config, Summary]) -> None:
    asked, summary = swept
    found = {stage.name: stage for stage in summary.stages}
    listed = len(METHODS) + 2  # and each task alone
    assert {name: stage.total for name, stage in found.items()} == {
        "tune": (listed - 1) * 2 * 2,
        "grid": (3 + 8) * 2,  # three in log-odds, and the deciles, .5 being among both
        "final": listed * 2,
        "frozen": len(ADAPTIVE) * 2,
    }
    assert all(stage.done == stage.total for stage in found.values())
    assert summary.ran == sum(stage.total for stage in found.values()) == len(rows(asked))
    assert summary.left == summary.failed == 0
    assert run(asked).ran == 0


def test_every_method_has_the_same_number_of_trials(swept: tuple[Config, Summary]) -> None:
    tuned = [row for row in rows(swept[0]) if row.stage == "tune"]
    by_method = Counter(row.method for row in tuned)
    assert set(by_method) == {*METHODS, "single:a", "single:b"} - {"fixed-sweep"}
    assert set(by_method.values()) == {2 * 2}
    settings = {
        method: {(r.learning_rate, r.weight_decay, r.seed) for r in tuned if r.method == method}
        for method in by_method
    }
    own = settings.pop("fixed-tuned")
    assert all(found == settings["uniform"] for found in settings.values()), "the same grid"
    assert len({seed for *_, seed in own}) == 2
    drawn = {tuple(r.config["multipliers"]) for r in tuned if r.method == "fixed-tuned"}
    assert len(drawn) == 2
    assert all(sum(multipliers) == pytest.approx(2) for multipliers in drawn)


def test_tuning_and_reported_seeds_are_apart(swept: tuple[Config, Summary]) -> None:
    for row in rows(swept[0]):
        assert row.seed in ((50, 51) if row.stage in ("tune", "grid") else (0, 1))


def test_what_is_reported_has_the_setting_with_the_best_validation(
    swept: tuple[Config, Summary],
) -> None:
    found = rows(swept[0])
    for method in (*METHODS, "single:a", "single:b"):
        assert _chosen(found, method) == _best(found, method, lambda row: row.result["quality"])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_test_figures_choose_nothing(tmp_path: Path, optimizer: Any) -> None:
    """The worse the validation here, the more attractive the test."""
    asked = config(
        tmp_path,
        "Poisoned",
        methods=("uniform", "fixed-sweep"),
        optimizers=(optimizer,),
        tuning_seeds=(50,),
        trials=4,
    )
    run(replace(asked, single_task=False, steps=20))
    found = rows(asked)
    for method in ("uniform", "fixed-sweep"):
        by_validation = _best(found, method, lambda row: row.result["quality"])
        by_test = _best(found, method, lambda row: _on_test(row))
        assert _chosen(found, method) == by_validation != by_test


def _on_test(row: Row) -> float:
    return sum(row.result["test"][metric.name] / metric.reference for metric in toys.Toy.metrics)


def _setting(row: Row) -> tuple[Any, ...]:
    return (row.learning_rate, row.weight_decay, tuple(row.config["multipliers"] or ()))


def _chosen(found: list[Row], method: str) -> tuple[Any, ...]:
    chosen = {_setting(row) for row in found if row.method == method and row.stage == "final"}
    assert len(chosen) == 1, "one setting for all seeds"
    return chosen.pop()


def _best(found: list[Row], method: str, judge: Any) -> tuple[Any, ...]:
    tried: dict[tuple[Any, ...], list[float]] = {}
    for row in found:
        if row.method == method and row.stage in ("tune", "grid"):
            tried.setdefault(_setting(row), []).append(judge(row))
    return min(tried, key=lambda setting: statistics.fmean(tried[setting]))


def test_the_frozen_control_holds_the_weights_of_its_own_run(
    swept: tuple[Config, Summary],
) -> None:
    found = {(row.method, row.seed): row for row in rows(swept[0]) if row.stage == "final"}
    held = [key for key in found if key[0].startswith("frozen:")]
    assert {method for method, _ in held} == {f"frozen:{method}" for method in ADAPTIVE}
    for method, seed in held:
        control, own = found[method, seed], found[method.partition(":")[2], seed]
        assert control.config["multipliers"] == list(own.result["multipliers"].values())
        assert control.learning_rate == own.learning_rate
        assert control.result["multipliers"] == pytest.approx(own.result["multipliers"])
        assert max(control.result["weights_std"].values()) < 1e-12


def test_only_what_adapts_is_frozen(tmp_path: Path) -> None:
    names = [name for name, m in gaba.methods.METHODS.items() if not m.argument]
    plan = Plan.of(config(tmp_path, methods=(*names, "fixed:1,1", "fixed-tuned", "fixed-sweep")))
    frozen = {unit.base.method for unit in plan.units if unit.frozen}
    assert frozen == {n for n in names if gaba.methods.METHODS[n].group != "control"}


def test_skipped_and_unfit_methods_are_left_out(tmp_path: Path) -> None:
    asked = config(
        tmp_path,
        methods=("gaba", "uniform", "fixed:1,2,3", "single:c"),
        skip={toys.spec("Toy"): ("gaba", "single:a")},
    )
    found = {unit.base.method for unit in Plan.of(asked).units}
    assert found == {"uniform", "single:b"}


def test_steps_are_the_problems_unless_given(tmp_path: Path) -> None:
    def steps(**changes: Any) -> set[int]:
        return {unit.base.steps for unit in Plan.of(config(tmp_path, **changes)).units}

    assert steps() == {toys.Toy.steps}
    assert steps(steps=9) == {9}
    assert steps(steps=9, steps_of={toys.spec("Toy"): 4}) == {4}


# ---- what goes wrong ----------------------------------------------------------------------------


def test_a_failing_training_is_a_row_and_is_run_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = config(tmp_path, "Broken", methods=("gaba",), single_task=False)
    (tmp_path / "broken").touch()
    broken = run(asked)
    assert broken.failed == broken.ran == 4
    assert broken.left == 0
    assert [stage.lost for stage in broken.stages] == [0, 2, 2]
    assert dict(broken.errors) == {"broken, gaba: ArithmeticError: broken by broken": 4}
    assert all(row.failed and not row.result["diverged"] for row in rows(asked))
    (tmp_path / "broken").unlink()
    assert run(asked).ran == 0, "not run again by itself"
    mended = run(asked, retry_failed=True)
    assert (mended.ran, mended.failed, mended.left) == (8, 0, 0)
    assert not any(row.failed for row in rows(asked))


def test_divergence_counts_as_the_worst_and_not_as_failure(tmp_path: Path) -> None:
    asked = config(tmp_path, "Exploding", methods=("gaba",), seeds=(2, 3), tuning_seeds=(50,))
    summary = run(replace(asked, single_task=False))
    assert {s.name: (s.done, s.diverged, s.lost) for s in summary.stages} == {
        "tune": (2, 0, 0),
        "final": (2, 1, 0),
        "frozen": (1, 0, 1),  # of the diverged run there are no weights to hold
    }
    assert summary.failed == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"jobs": 0}, "jobs: must be at least 1, found 0"),
        ({"shard": (3, 2)}, "shard: must be I/N with 1 <= I <= N, found 3/2"),
        ({"backend": "mpi"}, "backend: must be loky, dask or ray, found 'mpi'"),
        ({"scheduler": "tcp://a:1"}, "scheduler: is for the backends dask and ray"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        run(config(tmp_path), **settings)


# ---- stopped, divided, spread -------------------------------------------------------------------


def test_a_time_limit_ends_it_and_the_next_call_goes_on(
    swept: tuple[Config, Summary], tmp_path: Path
) -> None:
    asked = config(tmp_path)
    nothing = run(asked, limit_seconds=0)
    assert nothing.ran == 0
    assert nothing.left == swept[1].ran
    some = run(asked, limit_seconds=1e-9 + 0.3)
    assert some.left == swept[1].ran - some.ran
    assert status(asked).left == some.left
    assert run(asked).left == 0
    assert figures(asked) == figures(swept[0])


def test_shards_together_are_the_whole(swept: tuple[Config, Summary], tmp_path: Path) -> None:
    asked = config(tmp_path)
    parts = [replace(asked, store=str(tmp_path / f"{i}.sqlite")) for i in (1, 2, 3)]
    ran = [run(part, shard=(i, 3)).ran for i, part in enumerate(parts, 1)]
    assert sum(ran) == swept[1].ran
    assert min(ran) > 0
    with Store(asked.store) as store:
        assert [store.merge(part.store) for part in parts] == ran
    assert figures(asked) == figures(swept[0])
    assert run(asked).ran == 0


def test_the_longest_come_first(swept: tuple[Config, Summary]) -> None:
    plan = Plan.of(swept[0])
    trials = plan.ready()
    assert Pace(plan).seconds_left() is None
    took = {"inverse": 9.0, "uniform": 1.0, "fixed-tuned": 2.0}
    for row in rows(swept[0]):
        if row.stage == "tune" and row.method in took:
            outcome = Outcome.of(row, row.result)
            plan.known[row.key] = replace(outcome, seconds=took[row.method])
    pace = Pace(plan)
    assert pace.seconds("toy", "inverse") == 9.0
    assert pace.seconds("toy", "single:a") == 2.0, "the median of the problem"
    order = [trial.method for trial in pace.ordered(trials)]
    assert order[:4] == ["inverse"] * 4
    assert order[-4:] == ["uniform"] * 4
    left = plan.left()
    assert left["toy", "inverse"] == 2
    assert left["toy", "fixed-sweep"] == 11 * 2 + 2
    expected = sum(n * (pace.seconds(*label) or 0) for label, n in left.items())
    assert pace.seconds_left() == pytest.approx(expected)


SCRIPT = """
import sys
from gaba.cli import main
sys.exit(main(["bench", "run", *sys.argv[1:]]))
"""
TOML = """
[bench]
problems = ["{problem}"]
methods = ["uniform", "inverse", "fixed-tuned", "fixed-sweep"]
optimizers = ["adam"]
seeds = [0, 1]
tuning_seeds = [50, 51]
store = "{store}"
[budget]
trials = 2
[fixed]
points = 3
settings = 1
"""


def start(asked: Config, folder: Path, *words: str, pause: float) -> subprocess.Popen[str]:
    file = folder / "bench.toml"
    file.write_text(TOML.format(problem=asked.problems[0], store=asked.store))
    # A shell that runs the tests in the background has told its children to ignore Ctrl-C.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler){SCRIPT}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(file), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", toys.PAUSE: str(pause)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_rows(asked: Config, process: subprocess.Popen[str], count: int) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        if Path(asked.store).exists():
            try:
                if len(rows(asked)) >= count:
                    return
            except (ValueError, sqlite3.Error):
                pass  # the table is being made
        time.sleep(0.01)
    raise AssertionError(f"never came to {count} rows: {process.communicate()}")


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL elsewhere")
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(
    swept: tuple[Config, Summary], tmp_path: Path
) -> None:
    asked = config(tmp_path)
    for count in (7, 40):
        process = start(asked, tmp_path, "--jobs", "1", pause=0.005)
        wait_for_rows(asked, process, count)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    kept = len(rows(asked))
    assert 40 <= kept < swept[1].ran
    assert run(asked).ran == swept[1].ran - kept, "nothing is run twice"
    assert figures(asked) == figures(swept[0])


@pytest.mark.skipif(os.name != "posix", reason="SIGINT cannot be sent to one process elsewhere")
@pytest.mark.parametrize(
    "jobs", ["1", pytest.param("2", marks=pytest.mark.slow)], ids=lambda jobs: f"jobs={jobs}"
)
def test_ctrl_c_ends_it_cleanly(swept: tuple[Config, Summary], jobs: str, tmp_path: Path) -> None:
    asked = config(tmp_path)
    process = start(asked, tmp_path, "--jobs", jobs, pause=0.01)
    wait_for_rows(asked, process, 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == (
        f"gaba: interrupted: finished trainings are in {asked.store}; "
        "run the same command to resume\n"
    )
    kept = len(rows(asked))
    assert 5 <= kept < swept[1].ran
    assert run(asked).left == 0
    assert figures(asked) == figures(swept[0])


@pytest.mark.slow
def test_two_processes_find_the_same_and_one_writes(
    swept: tuple[Config, Summary], tmp_path: Path
) -> None:
    """The workers are other processes; what they return is all in the store of this one."""
    asked = config(tmp_path)
    run(asked, jobs=2)
    assert figures(asked) == figures(swept[0])
    processes = {row.result["validation"]["process"] for row in rows(asked)}
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_of_two_workers_finds_the_same(
    swept: tuple[Config, Summary], tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    asked = config(tmp_path)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    ) as cluster:
        run(asked, backend="dask", scheduler=cluster.scheduler_address)
    assert figures(asked) == figures(swept[0])
    processes = {row.result["validation"]["process"] for row in rows(asked)}
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_finds_the_same(swept: tuple[Config, Summary], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    asked = config(tmp_path)
    run(asked, jobs=2, backend="ray")
    assert figures(asked) == figures(swept[0])
    assert os.getpid() not in {row.result["validation"]["process"] for row in rows(asked)}
