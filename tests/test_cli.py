"""The command line as a user meets it: processes, exit statuses, files, and one-line errors."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from rich.console import Console

import gaba
import gaba.bench
import gaba.methods
from _python import PYTHON, run
from _turbofan_runs import tiny_fleet
from gaba import cli, demo, methods
from gaba.cli import commands, pictures
from gaba.cli.progress import Bar, Download, Lines, progress
from gaba.cli.report import quality
from gaba.extras import install
from gaba.turbofan import Epoch, TrainConfig, data, fleet, plots

PICTURES = {
    *("predictions.png", "trajectory.png", "errors.png", "confusion.png", "balance.png"),
    "lives.png",
}
FILES = {
    *("config.json", "history.jsonl", "epochs.jsonl", "checkpoint.pt", "metrics.json"),
    *("predictions.npz", "pictures", "report.txt"),
}
SCORES = ("RMSE", "NASA")
TINY = ["--steps", "12", "--steps-per-epoch", "2", "--batch-size", "8"]
SIMULATED = ["train", "turbofan", "--subset", "simulated", *TINY]
# A shell that runs the tests in the background has told its children to ignore Ctrl-C.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gaba.cli import main; sys.exit(main())"
)


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GABA_")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"} | changes


def gaba_command(*words: str, cwd: Path, **env: str) -> Any:
    return run(["-c", START, *words], cwd=cwd, env=environment(**env))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def trained(place: Path) -> Any:
    """A finished tiny run on the simulated fleet, in its default folder."""
    return gaba_command(*SIMULATED, cwd=place)


@pytest.fixture
def run_dir(place: Path, trained: Any) -> Path:
    assert trained.returncode == 0, trained.stderr
    return place / "runs" / "simulated-gaba-small-seed0"


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A folder that holds a tiny FD001 in NASA's format."""
    folder = tmp_path / "data"
    data.write(replace(tiny_fleet(), subset="FD001"), folder)
    return folder


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The status and the one line of an error, which has no traceback."""
    status = cli.main(words)
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("gaba: error: ")
    return status, captured.err


# --- demo ----------------------------------------------------------------------------------------


def test_the_console_script_prints_the_demo() -> None:
    script = Path(sys.executable).with_name("gaba")
    done = subprocess.run(
        [script, "demo"], env=environment(), capture_output=True, check=True, encoding="utf-8"
    )
    assert done.stdout.strip() == demo.text()
    assert done.stderr == ""


# --- train ---------------------------------------------------------------------------------------


def test_training_fills_the_run_folder(run_dir: Path, trained: Any) -> None:
    assert {path.name for path in run_dir.iterdir()} == FILES
    assert {path.name for path in (run_dir / "pictures").iterdir()} == PICTURES
    for name in PICTURES:
        assert (run_dir / "pictures" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(gaba.History.read(run_dir / "history.jsonl")) == 12
    assert trained.stderr == ""


def test_the_report_says_what_was_measured(run_dir: Path, trained: Any) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    history = gaba.History.read(run_dir / "history.jsonl")
    report = (run_dir / "report.txt").read_text(encoding="utf-8")
    assert report.strip() in trained.stdout
    for labels in ("capped", "raw"):
        assert f"{metrics['test'][labels]['rmse']:,.2f}" in report
        assert f"{metrics['test'][labels]['score']:,.2f}" in report
    assert f"{metrics['test']['health']['accuracy']:.1%}" in report
    assert f"{metrics['test']['health']['macro_f1']:.3f}" in report
    for k in range(2):
        assert f"{history.multipliers[-1, k]:.4g}" in report
        assert f"{history.weights[-1, k]:.4f}" in report
        assert f"{history.saturated[:, k].mean():.1%} of steps" in report
        assert f"{np.nanmedian(history.shares[:, k]):.4g}" in report
    assert f"{np.nanmedian(history.imbalance):.4g}× in the median step" in report
    assert str(gaba.diagnose(history)) in report


def test_a_score_too_large_for_a_number_is_called_infinite(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["test"]["raw"]["score"] = None  # as written where the NASA score is infinite
    text = io.StringIO()
    Console(file=text, width=100).print(quality(metrics))
    cells = [line.split() for line in text.getvalue().splitlines()]
    rmse, score = (row for row in cells if row and row[0] in SCORES)
    assert score[-2:] == [f"{metrics['test']['capped']['score']:,.2f}", "infinite"]
    assert rmse[-1] == f"{metrics['test']['raw']['rmse']:,.2f}"


def test_simulated_data_are_labelled_everywhere(run_dir: Path, trained: Any) -> None:
    assert "simulated data" in trained.stdout.splitlines()[0]
    assert "simulated data" in (run_dir / "report.txt").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads((run_dir / "metrics.json").read_text())["simulated"] is True


def test_without_a_terminal_the_progress_is_rare_plain_lines(trained: Any) -> None:
    lines = [line for line in trained.stdout.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == [f"{step}/12" for step in range(2, 13, 2)]
    assert all("validation RMSE" in line and "imbalance" in line for line in lines)
    assert "\x1b" not in trained.stdout
    assert "\r" not in trained.stdout


def test_a_run_on_files_whose_default_folder_is_taken_gets_its_own(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name = "FD001-fixed_1_20-samples-small-seed0"
    Path("runs", name).mkdir(parents=True)
    words = ["train", "turbofan", "--data-dir", str(tiny_data), "--method", "fixed:1,20"]
    words += ["--sample-weights", "--steps", "1", "--steps-per-epoch", "1", "--batch-size", "8"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("FD001 · fixed:1,20 with sample weights · small · seed 0\n")
    assert f"run folder: {Path('runs', name)}-2\n" in out
    assert "simulated" not in out
    assert "not measured" in out
    assert "0.0476" in out
    assert {path.name for path in Path("runs", f"{name}-2").iterdir()} == FILES
    assert not list(Path("runs", name).iterdir())


# --- evaluate and explain ------------------------------------------------------------------------


def test_evaluate_finds_the_same_figures_again(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_dir / "metrics.json").read_text()
    report = (run_dir / "report.txt").read_text(encoding="utf-8")
    (run_dir / "metrics.json").unlink()
    (run_dir / "pictures" / "errors.png").unlink()
    assert cli.main(["evaluate", str(run_dir)]) == 0
    assert report.strip() in capsys.readouterr().out
    assert (run_dir / "metrics.json").read_text() == before
    assert (run_dir / "pictures" / "errors.png").is_file()


@pytest.mark.parametrize("name", ["", "history.jsonl"])
def test_explain_prints_the_diagnosis(
    name: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", str(run_dir / name)]) == 0
    heading, _, rest = capsys.readouterr().out.partition("\n")
    assert heading.startswith("simulated data")
    assert "gaba · small · seed 0" in heading
    assert rest.strip() == str(gaba.diagnose(gaba.History.read(run_dir / "history.jsonl")))


def test_explain_reads_the_record_of_any_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jsonl"
    with gaba.RunRecord(path, ["a", "b"]):
        pass
    assert failed(["explain", str(path)], capsys)[1].endswith("let the run go on for a while\n")
    path.write_text('{"gaba": "0", "tasks": ["a", "b"]}\n{"step": \n')
    assert "line 2" in failed(["explain", str(path)], capsys)[1]


def test_every_picture_of_a_simulated_run_is_labelled(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    save = plots.save

    def remember(figure: Any, path: Path) -> Path:
        drawn.append("\n".join(text.get_text() for text in figure.findobj(Text)))
        return save(figure, path)

    monkeypatch.setattr(plots, "save", remember)
    assert {path.name for path in pictures.draw(run_dir)} == PICTURES
    assert len(drawn) == len(PICTURES)
    assert all("simulated data · gaba · test RMSE" in text for text in drawn)


# --- Ctrl-C and resume ---------------------------------------------------------------------------


def what_happened(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's record without the times, which no two runs have alike."""
    lines = (run_dir / "history.jsonl").read_text().splitlines()[1:]
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


@pytest.mark.skipif(os.name != "posix", reason="SIGINT cannot be sent to one process elsewhere")
def test_ctrl_c_leaves_a_run_that_resume_finishes_exactly(run_dir: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "a run"
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", START, *SIMULATED, "--run-dir", str(stopped)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("step 4/12"):
            running.send_signal(signal.SIGINT)
            break
    _, error = running.communicate(timeout=300)
    assert running.returncode == 130, error
    assert error.count("\n") == 1
    assert error.startswith("gaba: interrupted; to resume, run: gaba train turbofan --resume ")
    assert not (stopped / "metrics.json").exists()

    words = shlex.split(error.partition("run: gaba ")[2])
    done = gaba_command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "epochs.jsonl"):
        assert (stopped / name).read_text() == (run_dir / name).read_text()
    assert what_happened(run_dir) == what_happened(stopped)
    assert {path.name for path in stopped.iterdir()} == FILES


def test_ctrl_c_before_there_is_a_run_names_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gaba.turbofan.load", interrupted)
    assert cli.main(SIMULATED) == 130
    assert capsys.readouterr().err == "gaba: interrupted\n"
    assert not Path("runs").exists()


def test_a_resumed_run_keeps_its_settings(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_dir / "config.json").read_text()
    resume = ["train", "turbofan", "--resume", str(run_dir)]
    status, line = failed([*resume, "--seed", "2"], capsys)
    assert status == 1
    assert "--seed 2 differs from the 0 of the run" in line
    assert "--subset FD002 differs" in failed([*resume, "--subset", "FD002"], capsys)[1]
    assert "--batch-size 9 differs" in failed([*resume, "--batch-size", "9"], capsys)[1]
    assert "--run-dir cannot be given" in failed([*resume, "--run-dir", "elsewhere"], capsys)[1]
    assert (run_dir / "config.json").read_text() == before


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train turbofan --subset FD001 --data-dir nowhere", "`gaba data cmapss`"),
        ("train turbofan --subset FD001 --data-dir nowhere", "`--subset simulated`"),
        ("train turbofan --subset simulated --method foo", "found 'foo'"),
        ("train turbofan --method grace", "now called --method paper --sample-weights"),
        ("train turbofan --subset simulated --steps 0", "steps must be above 0, found 0"),
        ("train turbofan --subset simulated --device foo", "device 'foo' cannot be used"),
        ("train turbofan --method from-run:nowhere", "nowhere: No such file or directory"),
        ("train turbofan --resume nowhere", "no run in nowhere"),
        ("evaluate nowhere", "no run in nowhere"),
        ("predict nowhere --file engines.csv", "no run in nowhere"),
        ("explain nowhere", "no record of a run in nowhere"),
        ("data cmapss --dest here --url file:///no/such.zip", "cannot be reached"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    words: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, line = failed(words.split(), capsys)
    assert status == 1
    assert expected in line
    assert not list(tmp_path.iterdir())


WRONG_USAGE = [
    ("trian", "Unrecognized options: trian: did you mean gaba train?"),
    ("domains run portfolio", "did you mean gaba domains portfolio?"),
    ("foo", "Unrecognized options: foo (see gaba --help)"),
    ("train turbofan --sed 3", "Unrecognized options: --sed, 3 (see gaba train --help)"),
    ("train turbofan --steps x", "--steps: no type matching INT could be instantiated from ['x']"),
    ("train turbofan --subset FD009", "invalid choice 'FD009' for argument '--subset'"),
    ("bench", "Expected one of {run, status, report, merge, problems} (see gaba bench --help)"),
    ("predict run", "Missing from gaba predict: --file FILE"),
    ("bench run", "Missing from gaba bench run: CONFIG"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(("words", "expected"), WRONG_USAGE)
def test_wrong_usage_is_one_line_with_status_2(
    words: str, expected: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    error = io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    assert cli.main(words.split()) == 2
    assert error.getvalue().startswith("gaba: error: ")
    assert error.getvalue().count("\n") == 1
    assert expected in error.getvalue()
    assert not set(error.getvalue()) & set("─│╭╰")


def test_a_run_is_never_overwritten(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run_dir / "history.jsonl").read_bytes()
    status, line = failed([*SIMULATED, "--run-dir", str(run_dir)], capsys)
    assert status == 1
    assert f"--resume {run_dir}" in line
    assert (run_dir / "history.jsonl").read_bytes() == before


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GABA_DEBUG", "1")
    assert cli.main(["evaluate", "nowhere"]) == 1
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.splitlines()[-1].startswith("gaba: error: no run in nowhere")


def test_an_unforeseen_error_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise KeyError("a\nb")

    monkeypatch.setattr(demo, "text", broken)
    monkeypatch.delenv("GABA_DEBUG", raising=False)
    status, line = failed(["demo"], capsys)
    assert status == 1
    assert "KeyError" in line
    assert "GABA_DEBUG=1" in line


ABSENT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {absent!r}
        return None if absent else super().find_spec(name, path, target)
sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from gaba.cli import main
for words in {commands!r}: print("status", main(words), flush=True)
"""


def elsewhere(*extras: str) -> str:
    """The command that installs these extras from a folder that is not the clone."""
    with contextlib.chdir(tempfile.gettempdir()):
        return install(*extras)


def without(absent: list[str], *commands: list[str], cwd: Path) -> tuple[str, list[str]]:
    code = ABSENT.format(absent=absent, commands=commands)
    done = run(["-c", code], cwd=cwd, env=environment(), fresh=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()


def test_without_tyro_the_demo_works_and_the_rest_names_the_extra(place: Path) -> None:
    out, errors = without(["tyro", "rich"], ["demo"], ["train", "turbofan"], ["--help"], cwd=place)
    assert out == f"{demo.text()}\nstatus 0\nstatus 1\nstatus 1\n"
    assert len(errors) == 2
    said = "gaba: error: the command line needs tyro, which is not installed: {}"
    assert errors[0] == said.format(elsewhere("cli", "turbofan"))
    assert errors[1] == said.format(elsewhere("cli"))


@pytest.mark.parametrize(
    ("absent", "extras"),
    [("rich", ["cli", "turbofan"]), ("pandas", ["turbofan"]), ("torchmetrics", ["turbofan"])],
)
def test_any_other_absent_extra_is_one_line_that_names_it(
    absent: str, extras: list[str], place: Path
) -> None:
    out, errors = without([absent], SIMULATED, cwd=place)
    assert out == "status 1\n"
    assert len(errors) == 1
    assert absent in errors[0]
    assert errors[0].endswith(f", which is not installed: {elsewhere(*extras)}")


def test_without_pooch_a_download_names_the_extra(place: Path) -> None:
    out, errors = without(["pooch"], ["data", "cmapss", "--dest", "here"], cwd=place)
    assert out == "status 1\n"
    assert errors == [
        f"gaba: error: gaba.turbofan needs pooch, which is not installed: {elsewhere('turbofan')}"
    ]


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise elsewhere")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", START, "demo"],
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


# --- methods and bench ---------------------------------------------------------------------------


def test_methods_lists_every_method_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    out = capsys.readouterr().out
    said = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line[:2] == "  "]
    start = [words[0] for words in said[:5]]
    assert start == ["gaba", "observe", "paper", "inverse", "equal-share"]
    shown = [word.partition(":")[0] for words in said[5:] for word in words]
    assert sorted([*start, *shown]) == sorted(gaba.methods.METHODS)
    assert out.startswith("start here\n")
    assert len(out.splitlines()) <= 40, "one screen"
    headings = [line for line in out.splitlines() if line in gaba.methods.listed()]
    assert headings == list(gaba.methods.listed())
    assert "gaba methods NAME" in out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inverse-optimizer", 'method="inverse-optimizer", optimizer=optimizer)'),
        ("fixed", 'model.backbone, method="fixed:1,20")'),
        ("single:health", 'model.backbone, method="single:health")'),
        ("Equal_Share", 'model.backbone, method="equal-share")'),
    ],
)
def test_a_method_is_shown_in_use(
    name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed is code that makes the Balancer."""
    assert cli.main(["methods", name]) == 0
    out = capsys.readouterr().out
    method = gaba.methods.METHODS[name.partition(":")[0].lower().replace("_", "-")]
    assert " ".join(method.formula.split()) in " ".join(out.split())
    assert expected in out
    snippet = textwrap.dedent("  import gaba" + out.partition("  import gaba")[2])
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2)})
    z = model["backbone"](torch.ones(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model.backbone = model["backbone"]
    exec(
        snippet,
        {
            "model": model,
            "optimizer": optimizer,
            "losses": {"rul": z[:, 0].square().mean(), "health": z[:, 1].square().mean()},
        },
    )
    assert all(p.grad is not None for p in model.parameters())


START_AT_ONCE = (
    [],
    ["--help"],
    ["version"],
    ["methods"],
    ["methods", "paper"],
    ["bench", "problems"],
    ["data", "--help"],
    ["train", "--help"],
    ["predict", "--help"],
)


@pytest.mark.parametrize("words", START_AT_ONCE, ids=" ".join)
def test_what_only_lists_loads_neither_torch_nor_numpy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from gaba import cli\n"
        f"status = cli.main({words!r})\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "print(status, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"
    assert done.stdout


def test_a_download_needs_no_pandas(tmp_path: Path) -> None:
    words = ["data", "--dest", str(tmp_path / "cmapss"), "--url", "file:///no/such.zip"]
    code = (
        "import sys\n"
        "from gaba import cli\n"
        f"status = cli.main({words!r})\n"
        "print(status, sorted({'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "1 []\n"
    assert "file:///no/such.zip" in done.stderr


def test_a_bare_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    bare = capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert bare == capsys.readouterr().out


def test_an_unknown_method_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, line = failed(["methods", "gabba"], capsys)
    assert status == 1
    assert line.endswith("found 'gabba'. Did you mean 'gaba'?\n")


def test_methods_works_without_torchjd(place: Path) -> None:
    out, errors = without(["torchjd"], ["methods"], ["methods", "pcgrad"], cwd=place)
    assert not errors
    assert out.count("status 0") == 2
    flat = " ".join(out.split())
    assert f"The methods of TorchJD need torchjd: {elsewhere('bench')}" in flat
    assert f"note: needs torchjd, which is not installed: {elsewhere('bench')}" in flat


BENCH = """
[bench]
problems = ["conflict-toy"]
methods = ["uniform", "inverse"]
optimizers = ["adam"]
seeds = [0, 1]
steps = 4
store = "runs.sqlite"
[budget]
trials = 1
"""


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a tiny benchmark, in the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bench.toml"
    file.write_text(BENCH)
    return file


def test_a_benchmark_runs_says_how_far_it_is_and_reports(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "status", "bench.toml"]) == 0
    assert capsys.readouterr().out == (
        "tune 0/4 · final 0/8 · frozen 0/2 · unknown time left\n"
        "14 trainings are left: gaba bench run bench.toml\n"
    )
    assert cli.main(["bench", "run", "bench.toml", "--jobs", "1", "--limit-seconds", "0"]) == 0
    assert "0 trainings were run" in capsys.readouterr().out
    assert cli.main(["bench", "run", "bench.toml", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(
        "14 trainings were run; they are in runs.sqlite\n"
        "finished, 14 trainings: gaba bench report runs.sqlite -o report.html\n"
    )
    assert cli.main(["bench", "report", "runs.sqlite", "-o", "report.html"]) == 0
    assert capsys.readouterr().out == "the report is in report.html\n"
    assert "conflict-toy" in Path("report.html").read_text(encoding="utf-8")


def test_parts_of_a_benchmark_are_merged(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in "12":
        words = ["bench", "run", "bench.toml", "--jobs", "1", "--shard", f"{i}/2"]
        assert cli.main([*words, "--store", f"{i}.sqlite"]) == 0
    capsys.readouterr()
    assert cli.main(["bench", "merge", "all.sqlite", "1.sqlite", "2.sqlite"]) == 0
    out = capsys.readouterr().out
    assert "14 trainings are in all.sqlite" in out
    assert cli.main(["bench", "status", "bench.toml", "--store", "all.sqlite"]) == 0
    assert capsys.readouterr().out.startswith("finished, 14 trainings: ")


@pytest.mark.parametrize("words", [["status"], ["run", "--jobs", "1"]], ids=lambda w: w[0])
def test_the_data_of_a_benchmark_are_where_the_command_line_says(
    words: list[str], benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.write_text(BENCH.replace("conflict-toy", "gas-turbine-time"))
    assert cli.main(["bench", *words, "bench.toml", "--data-dir", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gaba: error: no gas_turbine/gt_2011.csv.xz in nowhere: ")
    assert said.count("\n") == 1


def test_failures_are_shown_with_the_remedy(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = BENCH.replace('"inverse"', '"inverse-half"') + "[controls]\nsingle_task = false\n"
    benchmark.write_text(text)
    assert cli.main(["bench", "run", "bench.toml", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "1 raised an error; once fixed: gaba bench run bench.toml --retry-failed" in out
    assert "1 × conflict-toy, inverse-half: NotImplementedError: " in out
    assert "4 cannot run: what they follow from failed or diverged" in out


def test_the_problems_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "problems"]) == 0
    out = capsys.readouterr().out
    for name in gaba.bench.PROBLEMS:
        assert f"\n{name}\n" in f"\n{out}"
    assert "2 tasks: f1, f2; 2000 steps" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "none.toml"], "none.toml: No such file or directory"),
        (["status", "none.toml"], "none.toml: No such file or directory"),
        (["run", "bench.toml", "--shard", "2"], "--shard must be I/N, as 1/4, found '2'"),
        (["run", "bench.toml", "--scheduler", "tcp://a:1"], "scheduler: is for the backends dask"),
        (["report", "none.sqlite", "-o", "a.html"], "no store of results at none.sqlite"),
        (["report", "none.sqlite", "-o", "a.pdf"], "--out must end in .html or .md, found a.pdf"),
        (["merge", "a.sqlite"], "merge needs two stores at least, found 1"),
        (["merge", "a.sqlite", "b.sqlite"], "no store of results at b.sqlite"),
    ],
)
def test_what_a_benchmark_cannot_do_is_one_line(
    words: list[str], expected: str, benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = failed(["bench", *words], capsys)
    assert status == 1
    assert expected in line
    assert {path.name for path in benchmark.parent.iterdir()} == {"bench.toml"}


def test_without_joblib_a_benchmark_names_the_extra(benchmark: Path) -> None:
    words = ["bench", "run", "bench.toml", "--jobs", "1"]
    out, errors = without(["joblib"], words, cwd=benchmark.parent)
    assert out == "status 1\n"
    assert errors == [
        f"gaba: error: the benchmark needs joblib, which is not installed: {elsewhere('bench')}"
    ]


# --- help ----------------------------------------------------------------------------------------


BENCH_COMMANDS = [f"bench {word}" for word in ("run", "status", "report", "merge", "problems")]


@pytest.mark.parametrize("command", ["", *commands.COMMANDS, *BENCH_COMMANDS])
def test_help_describes_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"usage: gaba {command}".strip() in captured.out
    if not command:
        assert all(f" {name} " in captured.out for name in commands.COMMANDS)


def test_the_help_names_methods_and_every_subset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(method in text for method in ("gaba", "paper", "uniform", "fixed:M,M"))
    assert "`gaba methods`" in text
    assert all(subset in text for subset in (*fleet.SUBSETS, fleet.SIMULATED))


def test_the_defaults_are_those_of_the_library() -> None:
    parsed = commands.parse(["train", "turbofan"])
    assert isinstance(parsed, commands.Train)
    config = TrainConfig()
    for name in ("subset", "method", "sample_weights", "size", "seed"):
        assert getattr(parsed, name) == getattr(config, name)
    assert config.method == "gaba"


def test_python_m_gaba_is_the_command() -> None:
    words = [sys.executable, "-m", "gaba", "train", "turbofan", "--method", "foo"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("gaba: error: method must be one of gaba, paper, ")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"gaba {gaba.__version__}\n"


# --- progress ------------------------------------------------------------------------------------


def a_step(run_dir: Path) -> gaba.Step:
    history = gaba.History.read(run_dir / "history.jsonl")
    return history[np.isfinite(history.imbalance).nonzero()[0][-1].item()]


def test_a_terminal_gets_a_bar_with_losses_weights_and_imbalance(run_dir: Path) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    bar = progress(terminal, 12)
    assert isinstance(bar, Bar)
    step = a_step(run_dir)
    with bar:
        bar.on_step(step)
        bar.on_epoch(Epoch(1, 12, 1e-3, 12.345, 0.5, 0.5, True))
    text = screen.getvalue()
    found = step.asdict()
    assert f"{step.step + 1}/12" in text
    assert f"rul {found['losses']['rul']:.0f}" in text
    rul, health = found["weights"].values()
    assert f"weight rul {rul:.3f}, health {health:.3f}" in text
    assert f"imbalance {found['imbalance']:.3g}×" in text
    assert "validation RMSE 12.35 cycles" in text or "validation RMSE 12.34 cycles" in text


@pytest.mark.parametrize("epochs", [10, 1000])
def test_plain_lines_stay_rare(
    epochs: int, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = progress(Console(file=io.StringIO()), epochs)
    assert isinstance(lines, Lines)
    step = a_step(run_dir)
    with lines:
        for number in range(1, epochs + 1):
            lines.on_step(step)
            lines.on_epoch(Epoch(number, number, 1e-3, 12.0, 0.5, 0.5, True))
    assert min(epochs, 10) <= len(capsys.readouterr().out.splitlines()) <= 21


def test_every_ten_seconds_a_line_tells_how_far_the_training_is(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand steps of 0.1 s, resumed at step 100; the clock is ours, nothing waits."""
    seconds = iter(range(10**6))
    monkeypatch.setattr("gaba.cli.progress.time.monotonic", lambda: next(seconds) / 20)
    lines, step = Lines(1000), a_step(run_dir)
    with lines:
        for number in range(100, 1000):
            lines.on_step(replace(step, step=number))
    told = capsys.readouterr().out.splitlines()
    form = r"step (\d+)/1000 · at most 0:(\d\d):(\d\d) left · loss rul"
    found = [list(map(int, *re.findall(form, line))) for line in told]
    gaps = np.diff([number for number, *_ in found])
    assert len(told) >= 4
    assert gaps.max() - gaps.min() <= 1, "evenly, every ten seconds"
    number, minutes, rest = found[1]
    a_step_takes = 10 / gaps[0]
    assert 60 * minutes + rest == pytest.approx((1000 - number) * a_step_takes, abs=2)


# --- data ----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "wrong.zip").write_bytes(b"PK but no archive")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_data_fetches_what_it_was_told_and_verifies_it(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "dest"
    for name, expected in (("wrong.zip", "not a readable zip"), ("absent.zip", "404")):
        words = ["data", "cmapss", "--dest", str(dest), "--url", f"{server}/{name}"]
        status, line = failed(words, capsys)
        assert status == 1
        assert expected in line
        assert f"{server}/{name}" in line
    assert not dest.exists()


def test_a_download_has_a_bar_on_a_terminal_only() -> None:
    for terminal in (True, False):
        screen = io.StringIO()
        bar = Download(Console(file=screen, force_terminal=terminal, width=100))
        bar.total = 3_000_000
        for _ in range(3):
            bar.update(1_000_000)
        bar.close()
        assert ("3.0/3.0 MB" in screen.getvalue()) == terminal
        assert bool(screen.getvalue()) == terminal


def test_the_multipliers_of_another_run_are_kept_without_that_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = methods.settled(gaba.History.read(run_dir / "history.jsonl"))
    folder = tmp_path / "fixed"
    assert cli.main([*SIMULATED, "--method", f"from-run:{run_dir}", "--run-dir", str(folder)]) == 0
    multipliers = gaba.History.read(folder / "history.jsonl").multipliers
    assert multipliers[-1] == pytest.approx(list(found.values()), rel=1e-5)
    assert TrainConfig.read(folder).method.startswith("fixed:")
