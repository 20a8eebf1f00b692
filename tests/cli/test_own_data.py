"""Your own table from the command line: train, resume, evaluate, explain, predict, export."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from gaba import cli, turbofan
from gaba.turbofan.simulate import simulate

SHORT = ["--steps", "2", "--steps-per-epoch", "1", "--batch-size", "8", "--window", "20"]
OWN = ["--unit", "engine", "--cycle", "flight", "--sensors", "T24, Ps30", "--settings", "altitude"]
PICTURES = {
    *("predictions.png", "trajectory.png", "errors.png", "confusion.png", "balance.png"),
    "lives.png",
}


def table() -> pd.DataFrame:
    """The ends of simulated engines, under other names."""
    frame = simulate(6, 1, seed=1, conditions=2).train.groupby("unit").tail(90)
    named = {"s2": "T24", "s11": "Ps30", "setting1": "altitude", "unit": "engine"}
    frame = frame.rename(columns={**named, "cycle": "flight"})
    frame["engine"] = "ESN-" + frame["engine"].astype(str)
    return frame[["engine", "flight", "altitude", "T24", "Ps30"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file ``fleet.csv`` and the run ``run`` of it."""
    place = tmp_path_factory.mktemp("own")
    table().to_csv(place / "fleet.csv", index=False)
    words = ["train", "--csv", str(place / "fleet.csv"), *OWN, "--cap", "70", *SHORT]
    assert cli.main([*words, "--run-dir", str(place / "run")]) == 0
    return place


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("gaba: error: ")
    return error


def test_training_on_a_file_fills_the_run_folder(place: Path) -> None:
    run = place / "run"
    config = json.loads((run / "config.json").read_text())
    assert config["columns"]["sensors"] == ["T24", "Ps30"]
    assert config["columns"]["settings"] == ["altitude"]
    assert (config["columns"]["unit"], config["columns"]["cycle"]) == ("engine", "flight")
    assert (config["subset"], config["rul_cap"], config["window"]) == ("fleet.csv", 70.0, 20)
    assert {path.name for path in (run / "pictures").iterdir()} == PICTURES
    report = (run / "report.txt").read_text(encoding="utf-8")
    assert report.startswith("fleet.csv · gaba · small · seed 0")
    assert "1 test engines" in report


def test_evaluate_and_explain_name_the_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = (place / "run" / "report.txt").read_text(encoding="utf-8")
    assert cli.main(["evaluate", str(place / "run")]) == 0
    assert report.strip() in capsys.readouterr().out
    assert cli.main(["explain", str(place / "run")]) == 0
    assert capsys.readouterr().out.startswith("fleet.csv · gaba · small · seed 0 (")


@pytest.mark.parametrize("every", [False, True])
def test_predict_reads_new_files_of_the_same_kind(place: Path, every: bool, tmp_path: Path) -> None:
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    records = table()
    records = records[records["engine"].isin(["ESN-2", "ESN-5"])].assign(remark="none")
    records.to_csv(new, index=False)
    words = ["predict", str(place / "run"), "--file", str(new), "--out", str(out)]
    assert cli.main([*words, *["--every-cycle"][: int(every)]]) == 0
    found = pd.read_csv(out)
    count = 90 - 19 if every else 1
    assert found["unit"].tolist() == ["ESN-2"] * count + ["ESN-5"] * count
    last = records.groupby("engine")["flight"].max()
    assert found.groupby("unit")["cycle"].max().to_dict() == last.to_dict()
    run = turbofan.open_run(place / "run")
    expected = run.predict(records, every_cycle=every)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)
    assert found["rul_high"].max() <= 70


def test_what_a_new_file_lacks_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.csv"
    predict = ["predict", str(place / "run"), "--file", str(new)]
    table().rename(columns={"Ps30": "ps_30"}).to_csv(new, index=False)
    error = failed(predict, capsys)
    assert error.startswith(f"gaba: error: {new}: missing columns Ps30 (needed: engine, flight, ")
    assert error.endswith(": did you mean 'ps_30' for Ps30?\n")
    table().assign(altitude=-40.0).to_csv(new, index=False)
    assert "unknown operating condition, altitude must be near" in failed(predict, capsys)


def test_a_run_resumes_with_its_own_columns(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["train", "turbofan", "--resume", str(place / "run")]
    error = failed([*resume, "--sensors", "T24"], capsys)
    assert "columns unit, cycle, T24 differ from the engine, flight, altitude, T24, Ps30" in error
    assert "--cap 60.0 differs from the 70.0 of the run" in failed([*resume, "--cap", "60"], capsys)
    before = (place / "run" / "metrics.json").read_text()
    assert cli.main([*resume, "--csv", str(place / "fleet.csv"), *OWN, "--cap", "70"]) == 0
    assert (place / "run" / "metrics.json").read_text() == before


def test_the_default_folder_has_the_name_of_the_file(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my fleet.csv").write_text((place / "fleet.csv").read_text())
    words = ["train", "turbofan", "--csv", "my fleet.csv", *OWN, *SHORT, "--conditions", "1"]
    assert cli.main([*words, "--method", "uniform", "--steps", "1"]) == 0
    run = Path("runs", "my_fleet-uniform-small-seed0")
    config = json.loads((run / "config.json").read_text())
    assert (config["subset"], config["conditions"]) == ("my fleet.csv", 1)


def test_an_export_says_what_goes_in_and_what_comes_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(place / "run"), "--format", "torch"]) == 0
    out = capsys.readouterr().out
    path = place / "run" / "model.pt2"
    assert out.startswith(f"{path}: ")
    assert "float64 (batch, cycles, 3)" in out
    assert "altitude, T24, Ps30" in out
    program = torch.export.load(path).module()
    records = table()
    one = records[records["engine"] == "ESN-3"]
    rul, _ = program(torch.tensor(one[["altitude", "T24", "Ps30"]].to_numpy()[None]))
    expected = turbofan.open_run(place / "run").predict(one)["rul"]
    assert rul.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--csv fleet.csv --subset FD002", "--csv cannot be given with --subset"),
        ("--csv fleet.xlsx --sensors a", "--csv must be a file that ends in .csv"),
        ("--csv fleet.csv --settings x", "--settings needs --sensors"),
        ("--csv fleet.csv --sensors ,", "sensors must name at least one column, found none"),
        ("--csv fleet.csv --sensors T24 --conditions 6", "conditions must be 1 or 'auto' without"),
        ("--csv fleet.csv --sensors T24 --cap 0", "rul_cap must be above 0, found 0.0"),
        ("--csv fleet.csv --sensors T25 --unit engine", "did you mean 'T24' for T25?"),
        ("--csv fleet.csv --sensors T24 --unit engine --cycle flight --window 500", "at most 90"),
        ("--csv gone.csv --sensors T24", "gone.csv: No such file or directory"),
        ("--subset simulated --sensors s2,s50", "missing columns s50 (needed: unit, cycle, s2"),
    ],
)
def test_wrong_use_is_said_in_one_line(
    words: str, expected: str, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    assert expected in failed(["train", "turbofan", *words.split()], capsys)
    assert not Path("runs").exists()
