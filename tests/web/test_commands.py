"""`gaba web`, `gaba report` and `gaba watch`, as they are typed."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import gaba
from _web_records import append, read, step_lines, write
from gaba import cli
from gaba.cli.watch import curve, short, view, watch
from gaba.web.follow import Follower

# A shell that runs the tests in the background has told its children to ignore Ctrl-C.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gaba.cli import main; sys.exit(main())"
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write(tmp_path / "a run" / "history.jsonl", step_lines(80, ("a", "b")), seed=4).parent


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("gaba: error: ")
    assert error.count("\n") == 1
    return error


# --- web -----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="SIGINT cannot be sent to one process elsewhere")
@pytest.mark.parametrize("token", [(), ("--token", "new")])
def test_web_serves_until_ctrl_c(run_dir: Path, token: tuple[str, ...]) -> None:
    words = ["web", str(run_dir), "--port", "0", *token]
    with subprocess.Popen(
        [sys.executable, "-u", "-c", START, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        said = [serving.stdout.readline().split() for _ in range(4)]
        assert said[1][:2] == ["live", "runs"]
        address = said[1][2]
        assert address.startswith("http://127.0.0.1:")
        assert ("?token=" in address) == bool(token)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address) as answer:
            assert b"<h1>Live runs</h1>" in answer.read()
        root = address.partition("live")[0]
        with opener.open(f"{root}api/runs") as answer:
            assert b'["history.jsonl"]' in answer.read()
        with opener.open(f"{root}api/stream?run=history.jsonl") as stream:  # as an open page does
            assert stream.readline() == b"retry: 1000\n"
            serving.send_signal(signal.SIGINT)
            out, error = serving.communicate(timeout=60)
    assert (serving.returncode, error) == (0, "")
    assert out.strip() == "ended"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("web nowhere", "no run and no folder of runs: nowhere"),
        ("web --host 0.0.0.0 --port 0", "so a token is needed: give --token new"),
        ("web --token short --port 0", "at least 16 ASCII characters, found 5"),
        ("web --host no.such.host.invalid --port 0 --token new", "cannot listen on"),
        ("report nowhere -o out.html", "no record of a run in nowhere"),
        ("watch nowhere", "no record of a run in nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert expected in failed(words.split(), capsys)
    assert not list(tmp_path.iterdir())


# --- report --------------------------------------------------------------------------------------


def test_report_writes_one_page(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sent" / "report.html"
    assert cli.main(["report", str(run_dir), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"the report is in {out}\n"
    page = out.read_text(encoding="utf-8")
    assert '<h2 id="part-1">a run</h2>' in page
    assert re.search(r'<th scope="row">seed</th>\s*<td>4</td>', page)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_report_in_markdown_has_its_pictures_beside_it(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "b.jsonl", step_lines(30, ("x", "y", "z")), ("x", "y", "z"))
    out = tmp_path / "r.md"
    words = ["report", str(run_dir), str(other), "--out", str(out), "--format", "md"]
    assert cli.main(words) == 0
    assert f"its pictures are in {tmp_path / 'r-pictures'}" in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert page.startswith("# 2 runs\n")
    for path in (tmp_path / "r-pictures").iterdir():
        assert f"](r-pictures/{path.name})" in page


def test_report_of_a_malformed_record_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.jsonl", [*step_lines(3, ("a", "b")), "{oops}\n"])
    assert f"{path}, line 5: " in failed(["report", str(path), "-o", str(tmp_path / "r")], capsys)
    path = write(tmp_path / "young.jsonl", [])
    assert "young holds no steps yet" in failed(
        ["report", str(path), "-o", str(tmp_path / "r")], capsys
    )
    assert not (tmp_path / "r").exists()


# --- watch ---------------------------------------------------------------------------------------


def shown(follower: Follower, width: int = 120) -> str:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(view(follower, "mine", width))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_watch_shows_the_last_step_and_the_diagnosis(run_dir: Path, width: int) -> None:
    follower = Follower(run_dir / "history.jsonl")
    while follower.advance():
        pass
    follower.diagnose()
    history, text = read(run_dir / "history.jsonl"), shown(follower, width)
    assert "mine · following · 80 steps" in text
    for k in range(2):
        assert f"{history.weights[-1, k]:.4f}" in text
        assert short(history.multipliers[-1, k]) in text
        assert f"{history.saturated[:, k].mean():.1%}" in text
    assert "step time 0.25 s" in text
    assert f"{int((~history.finite).sum())} steps skipped" in text
    flat = " ".join(text.split())
    said = gaba.diagnose(history)
    for words in (said.verdict, said.code, *(finding.text for finding in said.evidence)):
        assert words in flat
    assert max(map(len, text.splitlines())) <= width


def test_watch_once_is_for_pipes_too(
    run_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["watch", str(run_dir)]) == 0  # there is no terminal here
    assert "a run · following · 80 steps" in capsys.readouterr().out
    path = write(tmp_path / "bad.jsonl", ["{oops}\n"])
    assert f"{path}, line 2: not a step" in failed(["watch", "--once", str(path)], capsys)


def test_watch_follows_a_run_until_ctrl_c(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, legacy_windows=False)
    path = run_dir / "history.jsonl"
    looks = 0

    def pause(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            append(path, step_lines(5, ("a", "b"), first=80))
        if "85 steps" in screen.getvalue() or looks > 300:
            raise KeyboardInterrupt

    monkeypatch.setattr("gaba.cli.watch.EVERY", 0.0)
    monkeypatch.setattr("gaba.cli.watch.time.sleep", pause)
    watch(run_dir, terminal, once=False)
    assert "80 steps" in screen.getvalue()
    assert "85 steps" in screen.getvalue()
    assert threading.active_count() == 1 or not any(
        thread.name == "gaba-web" for thread in threading.enumerate()
    )


def test_a_curve_has_a_bar_for_each_value() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = np.exp(rng.normal(0, 3, 20))
        for logarithmic in (False, True):
            bars = curve(values, logarithmic)
            assert len(bars) == 20
            assert bars[int(values.argmax())] == "█"
            assert bars[int(values.argmin())] == "▁"
    assert curve(np.array([np.nan, np.nan])) == ""
    assert curve(np.array([2.0, 2.0])) == "▁▁"
