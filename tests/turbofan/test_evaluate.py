from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from _turbofan_runs import tiny_config, tiny_fleet
from gaba.turbofan import TrainConfig, checkpoint, windows
from gaba.turbofan.data import write
from gaba.turbofan.evaluate import TRAJECTORIES, evaluate, predict
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.train import train

FLEET = tiny_fleet()
RAW = np.array([140, 20, 125, 60])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fleet = Fleet("simulated", FLEET.train, FLEET.test, RAW, simulated=True)
    train(tiny_config(folder, method="uniform", steps=30, steps_per_epoch=10), fleet=fleet)
    return folder


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / checkpoint.PREDICTIONS) as found:
        return dict(found)


def test_the_metrics_are_those_of_the_predictions(run: Path) -> None:
    found, metrics = arrays(run), json.loads((run / checkpoint.METRICS).read_text())
    for labels, name in ((np.minimum(RAW, 125), "capped"), (RAW, "raw")):
        d = found["rul_predicted"].astype(float) - labels
        score = sum(np.exp(-x / 13) - 1 if x < 0 else np.exp(x / 10) - 1 for x in d)
        assert metrics["test"][name]["rmse"] == pytest.approx(np.sqrt(np.mean(d**2)))
        assert metrics["test"][name]["score"] == pytest.approx(score)
    health = np.where(RAW > 80, 0, np.where(RAW > 30, 1, 2))
    np.testing.assert_array_equal(found["health"], health)
    given = found["health_probability"].argmax(axis=1)
    np.testing.assert_array_equal(found["health_predicted"], given)
    matrix = sklearn_metrics.confusion_matrix(health, given, labels=[0, 1, 2])
    assert metrics["test"]["health"]["confusion"] == matrix.tolist()
    assert metrics["test"]["health"]["accuracy"] == np.mean(health == given)


def test_the_predictions_are_of_the_last_window_of_each_test_engine(run: Path) -> None:
    found = arrays(run)
    last = FLEET.test.groupby("unit")["cycle"].max()
    np.testing.assert_array_equal(found["unit"], last.index.to_numpy())
    np.testing.assert_array_equal(found["cycle"], last.to_numpy())
    np.testing.assert_array_equal(found["rul_raw"], RAW)
    np.testing.assert_array_equal(found["rul"], np.minimum(RAW, 125))
    np.testing.assert_allclose(found["health_probability"].sum(axis=1), 1, rtol=1e-5)


def test_trajectories_end_in_the_predictions(run: Path) -> None:
    found = arrays(run)
    units = np.unique(found["trajectory_unit"])
    assert len(units) == min(TRAJECTORIES, len(RAW))
    for unit in units:
        rows = found["trajectory_unit"] == unit
        (at,) = np.flatnonzero(found["unit"] == unit)
        assert (np.diff(found["trajectory_cycle"][rows]) == 1).all()
        assert (np.diff(found["trajectory_rul_raw"][rows]) == -1).all()
        for name in ("cycle", "rul_raw", "health"):
            assert found[f"trajectory_{name}"][rows][-1] == found[name][at]
        assert found["trajectory_rul_predicted"][rows][-1] == pytest.approx(
            found["rul_predicted"][at], abs=1e-3
        )


def test_a_moved_run_is_evaluated_to_the_same_metrics(run: Path, tmp_path: Path) -> None:
    expected = json.loads((run / checkpoint.METRICS).read_text())
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    for name in (checkpoint.METRICS, checkpoint.PREDICTIONS):
        (moved / name).unlink()
    fleet = Fleet("simulated", FLEET.train, FLEET.test, RAW, simulated=True)
    found = evaluate(moved, fleet=fleet)
    assert found == expected == json.loads((moved / checkpoint.METRICS).read_text())
    for name, array in arrays(run).items():
        np.testing.assert_array_equal(array, arrays(moved)[name])


def test_the_model_and_the_normaliser_are_those_that_were_saved(run: Path, tmp_path: Path) -> None:
    """Other training engines at evaluation change nothing: nothing is fitted again."""
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    other = Fleet("simulated", tiny_fleet(seed=5).train, FLEET.test, RAW, simulated=True)
    assert evaluate(moved, fleet=other) == json.loads((run / checkpoint.METRICS).read_text())
    state = checkpoint.load(run / checkpoint.CHECKPOINT)
    fitted = windows.prepare(FLEET, seed=0).normaliser.to_arrays()
    for name, array in fitted.items():
        np.testing.assert_array_equal(state["normaliser"][name].numpy(), array)


def test_the_model_that_did_best_on_validation_is_evaluated(run: Path) -> None:
    state = checkpoint.load(run / checkpoint.CHECKPOINT)
    model = TurbofanNet("small")
    model.load_state_dict(state["best"]["model"])
    config = TrainConfig.read(run)
    validation = windows.prepare(
        FLEET, seed=0, smoothing=config.smoothing, capped_share=config.capped_share
    ).validation
    error = predict(model, validation.inputs).rul - validation.rul
    rmse = float(np.sqrt(np.mean(error.astype(float) ** 2)))
    lines = [json.loads(line) for line in (run / checkpoint.EPOCHS).read_text().splitlines()]
    assert rmse == pytest.approx(min(line["rmse"] for line in lines), rel=1e-5)


def test_the_data_of_a_run_are_found_again(tmp_path: Path) -> None:
    fleet = Fleet("FD001", FLEET.train, FLEET.test, FLEET.rul, simulated=False)
    write(fleet, tmp_path / "data")
    config = tiny_config(tmp_path / "run", subset="FD001", data_dir=str(tmp_path / "data"), steps=2)
    result = train(config)
    assert result.metrics["simulated"] is False
    assert evaluate(tmp_path / "run") == result.metrics
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert evaluate(tmp_path / "run", data_dir=tmp_path / "elsewhere") == result.metrics


def test_an_infinite_score_is_none(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    state = checkpoint.load(moved / checkpoint.CHECKPOINT)
    state["best"]["model"]["heads.rul.6.bias"] += 1e6
    checkpoint.save(moved / checkpoint.CHECKPOINT, state)
    metrics = evaluate(moved, fleet=FLEET)
    assert metrics["test"]["capped"]["score"] is None
    assert metrics["test"]["capped"]["rmse"] == pytest.approx(1e6, rel=1e-2)
    assert metrics == json.loads((moved / checkpoint.METRICS).read_text())


def test_predict_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = np.random.default_rng(0).normal(size=(7, 30, 17)).astype(np.float32)
    whole, parts = predict(model, inputs), predict(model, inputs, batch_size=3)
    np.testing.assert_allclose(whole.rul, parts.rul, rtol=1e-4)
    np.testing.assert_allclose(whole.health, parts.health, rtol=1e-3, atol=1e-5)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert predict(model, inputs[:0]).health.shape == (0, 3)


def test_a_folder_without_a_run_or_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run in"):
        evaluate(tmp_path, fleet=FLEET)
    tiny_config(tmp_path).write()
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        evaluate(tmp_path, fleet=FLEET)
