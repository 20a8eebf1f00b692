"""``gaba train turbofan --compare``: the runs are those of single trainings, bit for bit."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gaba
from _turbofan_runs import same, tiny_fleet
from gaba import cli, turbofan
from gaba.cli import compare
from gaba.cli.progress import Lines
from gaba.record.plots import overview
from gaba.record.plots.beside import side_by_side
from gaba.turbofan import checkpoint, data

METHODS = ("gaba", "paper", "uniform")
TINY = ["--steps", "4", "--steps-per-epoch", "2", "--batch-size", "8", "--seed", "3"]
RESULTS = {"comparison.json", "comparison.txt", "comparison.png"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny simulated fleet in the layout of NASA, in ``data``."""
    place = tmp_path_factory.mktemp("compare")
    data.write(replace(tiny_fleet(), subset="FD001"), place / "data")
    return place


@pytest.fixture(scope="module")
def words(place: Path) -> list[str]:
    return ["train", "turbofan", "--data-dir", str(place / "data"), *TINY]


@pytest.fixture(scope="module")
def three(place: Path, words: list[str]) -> Path:
    """A comparison of three methods that was stopped within the second, then resumed."""
    folder = place / "three runs"
    compared = ["--compare", ",".join(METHODS), "--run-dir", str(folder)]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        ended: list[int] = []
        on_epoch = Lines.on_epoch

        def stop(lines: Lines, epoch: turbofan.Epoch) -> None:
            on_epoch(lines, epoch)
            ended.append(epoch.step)
            if len(ended) == 3:  # two of the first method, one of the second
                signal.raise_signal(signal.SIGINT)

        patch.setattr(Lines, "on_epoch", stop)
        # A shell that runs the tests in the background has told its children to ignore Ctrl-C.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert cli.main([*words, *compared]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
    again = f"gaba train turbofan --resume {shlex.quote(str(folder))}"
    assert said.getvalue() == f"gaba: interrupted; to resume, run: {again}\n"
    assert {path.name for path in folder.iterdir()} == {"comparison.json", "gaba", "paper"}
    first = folder / "gaba" / checkpoint.CHECKPOINT
    made = first.stat().st_mtime_ns
    assert cli.main(shlex.split(again)[1:]) == 0
    assert first.stat().st_mtime_ns == made  # what was finished was kept
    return folder


def histories(three: Path) -> dict[str, gaba.History]:
    return {name: gaba.History.read(three / name / checkpoint.HISTORY) for name in METHODS}


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("method", METHODS)
def test_each_run_is_that_of_a_single_training(
    method: str, three: Path, place: Path, tmp_path: Path
) -> None:
    config = turbofan.TrainConfig(
        "FD001", method, seed=3, run_dir=tmp_path / "one", data_dir=place / "data",
        steps=4, steps_per_epoch=2, batch_size=8,
    )  # fmt: skip
    turbofan.train(config)
    run = three / method
    one, other = (checkpoint.load(at / checkpoint.CHECKPOINT) for at in (tmp_path / "one", run))
    assert same(one, other)
    for name in (checkpoint.METRICS, checkpoint.EPOCHS):
        assert (tmp_path / "one" / name).read_bytes() == (run / name).read_bytes()
    mine, its = (gaba.History.read(at / checkpoint.HISTORY) for at in (tmp_path / "one", run))
    np.testing.assert_array_equal(mine.multipliers, its.multipliers)
    np.testing.assert_array_equal(mine.losses, its.losses)
    assert (run / "pictures" / "lives.png").is_file()
    assert (run / "report.txt").read_text(encoding="utf-8").startswith(f"FD001 · {method}")


def test_one_table_has_the_figures_and_the_verdict_of_each(three: Path) -> None:
    assert {path.name for path in three.iterdir()} == RESULTS | {*METHODS}
    lines = (three / "comparison.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "FD001 · gaba against paper against uniform · small · seed 3"
    for method, history in histories(three).items():
        metrics = json.loads((three / method / checkpoint.METRICS).read_text())
        row = next(line for line in lines if line.startswith(f" {method} ")).split()
        assert row[1] == f"{metrics['validation']['rmse']:.2f}"
        assert row[2] == f"{metrics['test']['capped']['rmse']:.2f}"
        assert row[4] == f"{100 * metrics['test']['health']['accuracy']:.1f}%"
        known = history.imbalance[~np.isnan(history.imbalance)]
        if known.size:
            assert float(row[6].rstrip("×")) == pytest.approx(np.median(known), rel=5e-3)
        else:
            assert row[6:] == ["not", "measured", "–"]
        verdict = f"{method}: {gaba.diagnose(history).verdict}"
        assert verdict in " ".join(line.strip() for line in lines)


def test_the_plots_are_those_of_each_run_on_common_axes(three: Path) -> None:
    found = histories(three)
    figure = side_by_side(found)
    rows = np.array(figure.axes).reshape(4, 3)
    assert [axes.get_title("left") for axes in rows[0]] == list(METHODS)
    for column, history in zip(rows.T, found.values(), strict=True):
        for axes, alone in zip(column, overview(history).axes, strict=True):
            assert axes.get_ylabel() == alone.get_ylabel()
            if "not measured" in [text.get_text() for text in axes.texts]:
                assert [text.get_text() for text in alone.texts] == ["not measured"]
                continue
            for line, single in zip(axes.lines, alone.lines, strict=True):
                np.testing.assert_array_equal(line.get_ydata(), single.get_ydata())
    for row in rows:
        drawn = [axes for axes in row if len(axes.get_yticks())]
        assert len(drawn) >= 2
        assert len({(axes.get_ylim(), axes.get_yscale(), axes.get_xlim()) for axes in drawn}) == 1
    assert {axes.get_xlabel() for axes in rows[-1]} == {"step"}
    assert (three / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_a_finished_comparison_resumes_to_the_same_table(
    three: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (three / "comparison.txt").read_text(encoding="utf-8")
    again = ["train", "turbofan", "--resume", str(three)]
    assert cli.main([*again, "--compare", "gaba,paper,uniform", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before:") == 3
    assert (three / "comparison.txt").read_text(encoding="utf-8") == before
    assert "--seed 4 differs from the 3 of the run" in failed([*again, "--seed", "4"], capsys)
    error = failed([*again, "--compare", "gaba,paper"], capsys)
    assert "--compare gaba,paper differs from the gaba,paper,uniform of" in error
    error = failed([*words, "--compare", "gaba,paper", "--run-dir", str(three)], capsys)
    assert f"holds a comparison: continue it with --resume {three}" in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--compare gaba", "--compare needs at least 2 methods, found gaba"),
        ("--compare gaba,uniform,gaba", "must name each method once, found gaba twice"),
        ("--compare gaba,unifrom", "uniform"),
        ("--compare gaba,fixed:1,20,3", "fixed"),
        ("--compare gaba,uniform --method paper", "--method cannot be given with --compare"),
        ("--compare gaba,uniform --run-dir used", "used/uniform holds a run"),
        ("--compare gaba,uniform --resume used", "no comparison in used"),
    ],
)
def test_wrong_use_is_said_before_anything_is_trained(
    options: str, expected: str, three: Path, words: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(three / "uniform", Path("used", "uniform"))
    assert expected in failed([*words, *options.split()], capsys)
    assert not Path("runs").exists()
    assert not Path("used", "gaba").exists()


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    shared = turbofan.TrainConfig("FD001", seed=3)
    asked = compare.Comparison(tmp_path, ("gaba", "fixed:1,20"), shared)
    asked.write()
    assert compare.Comparison.read(tmp_path).config("gaba") == asked.config("gaba")
    assert asked.config("fixed:1,20").run_dir == str(tmp_path / "fixed_1_20")
    assert asked.config("gaba").differences(asked.config("fixed:1,20")) == ("method",)


def test_a_damaged_comparison_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "comparison.json").write_text("[]")
    error = failed(["train", "turbofan", "--resume", str(tmp_path)], capsys)
    assert "comparison.json does not hold a comparison" in error


def test_nothing_side_by_side_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 run, found 0"):
        side_by_side({})
