"""The store: whole rows, filters, merges, and one owner."""

from __future__ import annotations

import json
import math
import pickle
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gaba.bench import Store, Trial
from gaba.bench.store import versions

TRIAL = Trial("toy", "gaba", "adam", 0.01, 0.0, seed=0, steps=5, spec="/home/me/toy.py:Toy")


def result(quality: float = 0.5, error: str | None = None) -> dict[str, Any]:
    return {
        "quality": quality,
        "error": error,
        "test": {"rmse": 2.0},
        "weights_mean": {"a": 0.25, "b": 0.75},
        "curve": [[1, quality]],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "runs.sqlite"


def test_a_row_comes_back_whole(path: Path) -> None:
    held = replace(TRIAL, multipliers=(0.5, 1.5), method="frozen:gaba")
    with Store(path) as store:
        store.put(held, result(math.inf) | {"imbalance_median": math.nan})
    with Store(path, read_only=True) as store:
        row = store.get(held.key)
    assert row is not None
    assert (row.problem, row.method, row.optimizer) == ("toy", "frozen:gaba", "adam")
    assert (row.learning_rate, row.weight_decay, row.seed, row.steps) == (0.01, 0.0, 0, 5)
    assert row.config["multipliers"] == [0.5, 1.5]
    assert row.result["quality"] == math.inf
    assert math.isnan(row.result["imbalance_median"])
    assert row.versions == versions()
    assert row.finished_at.endswith("+00:00")


def test_the_columns_are_plain_sql(path: Path) -> None:
    with Store(path) as store:
        store.put(TRIAL, result())
    database = sqlite3.connect(path)
    found = database.execute("SELECT key, method, stage, result FROM runs").fetchall()
    database.close()
    assert [row[:3] for row in found] == [(TRIAL.key, "gaba", "final")]
    assert json.loads(found[0][3])["quality"] == 0.5


def test_it_says_nothing_of_who_and_where(path: Path) -> None:
    with Store(path) as store:
        store.put(replace(TRIAL, data_dir="/home/me/data"), result())
    database = sqlite3.connect(path)
    text = str(database.execute("SELECT * FROM runs").fetchall())
    database.close()
    assert "/home" not in text
    assert set(versions()) == {"gaba", "torch", "numpy", "python", "processor"}


def test_a_row_is_there_as_soon_as_it_is_put(path: Path) -> None:
    with Store(path) as store:
        store.put(TRIAL, result())
        with Store(path, read_only=True) as reader:
            assert TRIAL.key in reader
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing beside the file"


def test_rows_are_filtered_by_column(path: Path) -> None:
    trials = [
        replace(TRIAL, method=method, seed=seed)
        for method in ("gaba", "uniform")
        for seed in (2, 1)
    ]
    with Store(path) as store:
        for trial in trials:
            store.put(trial, result())
        assert [row.seed for row in store.rows(method="uniform")] == [1, 2]
        assert len(store.rows(method="gaba", seed=2)) == 1
        assert store.rows(method="none") == []
        assert {row.key for row in store.rows()} == {trial.key for trial in trials}
        with pytest.raises(ValueError, match=r"columns: must be among .*, found 'methods'"):
            store.rows(methods="gaba")


def test_a_second_result_takes_the_place_of_the_first(path: Path) -> None:
    with Store(path) as store:
        store.put(TRIAL, result(0.5, "ValueError: no"))
        store.put(TRIAL, result(0.25))
        assert len(store) == 1
        found = store.get(TRIAL.key)
        assert found is not None
        assert not found.failed
        assert found.result["quality"] == 0.25
        assert store.get("0" * 64) is None


def test_merging_keeps_what_did_not_fail(tmp_path: Path) -> None:
    trials = [replace(TRIAL, seed=seed) for seed in range(4)]
    with Store(tmp_path / "a") as store:
        store.put(trials[0], result(1.0))
        store.put(trials[1], result(1.0, "ValueError: no"))
        store.put(trials[2], result(1.0))
    with Store(tmp_path / "b") as store:
        for trial in trials:
            error = "ValueError: no" if trial.seed == 2 else None
            store.put(trial, result(2.0, error))
    with Store(tmp_path / "a") as store:
        assert store.merge(tmp_path / "b") == 2
        assert store.merge(tmp_path / "b") == 0
        rows = sorted(store.rows(), key=lambda row: row.seed)
        assert [row.result["quality"] for row in rows] == [1.0, 2.0, 1.0, 2.0]
        assert not any(row.failed for row in rows)


def test_a_table_has_a_column_for_each_figure(path: Path) -> None:
    with Store(path) as store:
        store.put(TRIAL, result())
        table = store.to_pandas()
    assert table.loc[0, "test/rmse"] == 2.0
    assert table.loc[0, "weights_mean/b"] == 0.75
    assert table.loc[0, "quality"] == 0.5
    assert "curve" not in table


def test_it_stays_in_the_process_that_opened_it(path: Path) -> None:
    with (
        Store(path) as store,
        pytest.raises(TypeError, match="belongs to the process that opened it"),
    ):
        pickle.dumps(store)


def test_another_file_is_no_store(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be looked at " * 20)
    with pytest.raises(ValueError, match="text is not a store of results"):
        Store(text)
    other = tmp_path / "other"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE runs (a TEXT)")
    database.close()
    with pytest.raises(ValueError, match="its table has the columns a: give another file"):
        Store(other, read_only=True)
    with pytest.raises(FileNotFoundError, match=r"no store of results at .*none"):
        Store(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


# ---- a store of 0.1.0 ---------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of 0.1.0: the same table without an edition, weights and gain in the settings."""
    path = tmp_path / "old.sqlite"
    with Store(path) as store:
        store.put(TRIAL, result())
        store.put(replace(TRIAL, method="frozen:gaba"), result())
        store.put(replace(TRIAL, method="single:gaba"), result())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 0")
        for key, config in database.execute("SELECT key, config FROM runs").fetchall():
            then = json.loads(config) | {"weights": [0.25, 0.75], "gain": 4.0}
            del then["multipliers"]
            database.execute("UPDATE runs SET config = ? WHERE key = ?", (json.dumps(then), key))
    database.close()
    return path


def test_a_store_of_0_1_0_is_read_in_the_names_of_today(old: Path) -> None:
    with Store(old, read_only=True) as store:
        assert store.edition == 0
        assert {row.method for row in store.rows()} == {"paper", "frozen:paper", "single:gaba"}
        assert store.rows(method="gaba") == []
        (row,) = store.rows(method="paper")
        assert row.key == TRIAL.key
        assert row.config["multipliers"] == [1.0, 3.0]


def test_a_store_of_0_1_0_is_never_written_to(old: Path, path: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(ValueError, match=r"old.sqlite was written by gaba 0.1.0, whose losses"):
        Store(old)
    with Store(path) as store, pytest.raises(ValueError, match="merge stores of one version"):
        store.merge(old)
    assert old.read_bytes() == before


def test_rows_of_a_method_that_was_removed_are_read_and_kept(path: Path, tmp_path: Path) -> None:
    """A store outlives the catalogue: such a method cannot be trained, but its rows can be read."""
    gone = replace(TRIAL, method="inverse-sketch")
    with Store(path) as store:
        store.put(gone, result())
        store.put(replace(gone, method="frozen:inverse-sketch"), result())
        assert [row.method for row in store.rows()] == ["frozen:inverse-sketch", "inverse-sketch"]
        assert store.get(gone.key) == store.rows(method="inverse-sketch")[0]
        assert list(store.to_pandas()["method"]) == ["frozen:inverse-sketch", "inverse-sketch"]
    with Store(tmp_path / "other.sqlite") as other:
        assert other.merge(path) == 2
        assert gone.key in other


def test_the_evidence_of_0_1_0_is_whole() -> None:
    evidence = Path(__file__).parents[2] / "docs/results/benchmark.sqlite"
    with Store(evidence, read_only=True) as store:
        rows = store.rows()
        assert len(rows) == len(store) == 2291
    assert sum(row.method == "paper" for row in rows) == 89
    assert sum(row.method == "frozen:paper" for row in rows) == 15
    assert not any(row.method.endswith("gaba") for row in rows)
