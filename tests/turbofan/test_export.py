"""An exported model gives the numbers of `predict`, whatever reads it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from _turbofan_runs import same, tiny_config, tiny_fleet
from gaba import turbofan
from gaba.turbofan import CMAPSS, Columns, Run, TurbofanNet
from gaba.turbofan.export import EXTRA
from gaba.turbofan.interval import Interval
from gaba.turbofan.normalise import Normaliser

FLEET = tiny_fleet()
LENGTHS = (1, 2, 4, 5, 6, 77)
"""Cycles of a record, around a window of 5; the time that an export takes grows with it."""


def run_of(columns: Columns, **settings: Any) -> Run:
    """A run with the normaliser of the fleet, and a network whose answers differ."""
    torch.manual_seed(0)
    config = tiny_config(Path("unused"), **{"columns": columns, "window": 5, **settings})
    model = TurbofanNet(inputs=len(columns.inputs), cap=config.rul_cap)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    normaliser = Normaliser.fit(FLEET.train, columns)
    return Run(config, model, normaliser, Interval(0.9, config.rul_cap, (10.0,) * 5, (9,) * 5))


def records(columns: Columns) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """Two engines at a time, of one length: as `predict` and as an exported model take them."""
    found = []
    for length in LENGTHS:
        kept = FLEET.train[FLEET.train["cycle"].le(length) & FLEET.train["unit"].le(2)]
        values = kept[list(columns.inputs)].to_numpy(np.float64)
        found.append((kept, values.reshape(2, length, -1)))
    return found


def assert_those_of_predict(run: Run, answers: Any) -> None:
    seen = []
    for frame, values in records(run.config.columns):
        expected = run.predict(frame)
        rul, health = answers(values)
        assert (rul.dtype, health.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(rul, expected["rul"], rtol=1e-4)
        probabilities = expected[["p_normal", "p_degrading", "p_critical"]]
        np.testing.assert_allclose(health, probabilities, rtol=1e-3, atol=1e-5)
        seen.append((*rul, *health[:, 0]))
    assert (np.std(seen, axis=0) > 0.01).all()  # other records, other answers


def from_onnx(path: Path) -> tuple[Any, dict[str, Any]]:
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[:2]) == (
        "records", "tensor(double)", ["batch", "cycles"],
    )  # fmt: skip
    assert [output.name for output in session.get_outputs()] == ["rul", "health"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["gaba"])
    return lambda values: session.run(None, {"records": values}), about


def from_torch(path: Path) -> tuple[Any, dict[str, Any]]:
    extra = {EXTRA: ""}
    program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra).module()

    def answers(values: np.ndarray) -> Any:
        with torch.no_grad():
            return [part.numpy() for part in program(torch.from_numpy(values))]

    return answers, json.loads(extra[EXTRA])


def test_onnxruntime_gives_the_numbers_of_predict(tmp_path: Path) -> None:
    run = run_of(CMAPSS, smoothing=0.1)
    assert len(run.normaliser.centres) == 2  # the choice of the condition is in the graph
    answers, about = from_onnx(run.export(tmp_path / "model.onnx"))
    assert about["features"] == list(CMAPSS.inputs)
    assert (about["health"], about["cap"]) == (list(turbofan.HEALTH), 125.0)
    assert (about["window"], about["smoothing"]) == (5, 0.1)
    assert_those_of_predict(run, answers)


OTHERS = [
    pytest.param(CMAPSS, {"smoothing": 0.1}, id="c-mapss"),
    pytest.param(
        Columns(sensors=("s2", "s11")), {"rul_cap": 60.0, "smoothing": 1.0}, id="without settings"
    ),
    pytest.param(
        Columns(sensors=("s2", "s3"), settings=("setting1",)), {"window": 7}, id="own columns"
    ),
]
WHOLE = pytest.param(CMAPSS, {"window": 30}, id="whole window")


@pytest.mark.parametrize(("columns", "settings"), OTHERS)
def test_an_exported_program_gives_the_numbers_of_predict(
    columns: Columns, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(columns, **settings)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.train()
    answers, about = from_torch(run.export(tmp_path / "folder" / "model.pt2"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["model.pt2"]
    assert run.model.training  # the model stays as it is
    assert same(run.model.state_dict(), before)
    assert about["features"] == list(columns.inputs)
    assert_those_of_predict(run, answers)


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "settings"), [*OTHERS[1:], WHOLE])
def test_onnxruntime_gives_the_numbers_of_predict_for_other_columns(
    columns: Columns, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(columns, **settings)
    assert_those_of_predict(run, from_onnx(run.export(tmp_path / "model.onnx"))[0])


def test_a_name_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    run = run_of(replace(CMAPSS))
    for name, format, expected in (
        ("model.pt", None, r"must end in \.onnx \(onnx\) or \.pt2 \(torch\), found .*model\.pt$"),
        ("model.onnx", "torch", r"must end in \.pt2 \(torch\), found .*model\.onnx$"),
        ("model.onnx", "tflite", r"format must be one of onnx, torch, found 'tflite'$"),
    ):
        with pytest.raises(ValueError, match=expected):
            run.export(tmp_path / name, format)  # pyright: ignore[reportArgumentType]
    assert not [*tmp_path.iterdir()]


def test_without_the_extra_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    with pytest.raises(
        ImportError, match=r"^exporting to ONNX needs onnxscript, .*: pip install .*\[onnx\]\"$"
    ):
        run_of(CMAPSS).export(tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]
