from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import torch

import gaba
from _turbofan_runs import same, tiny_config, tiny_fleet
from gaba.turbofan import checkpoint
from gaba.turbofan.train import TrainResult, train

FLEET = tiny_fleet()
STEPS = 12

SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _turbofan_runs import tiny_config, tiny_fleet
from gaba.turbofan.train import train
torch.set_num_threads(1)
config = tiny_config(Path(sys.argv[2]), method=sys.argv[3], steps=int(sys.argv[4]))
train(config, on_step=lambda step: print(step.step, flush=True), fleet=tiny_fleet(), resume=True)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums come out the same to the last bit only with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_times(record: Path) -> list[str]:
    """The lines of a record as they are but for the times, which no two runs have alike."""
    return [re.sub(r', "time": [0-9.]+', "", line) for line in record.read_text().splitlines()]


def assert_same_run(a: Path, b: Path) -> None:
    states = [checkpoint.load(folder / checkpoint.CHECKPOINT) for folder in (a, b)]
    assert states[0]["finished"]
    assert same(*states)
    for name in (checkpoint.METRICS, checkpoint.EPOCHS, checkpoint.PREDICTIONS):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    lines = [without_times(folder / checkpoint.HISTORY) for folder in (a, b)]
    assert lines[0][1:] == lines[1][1:]  # the first line names the folder
    assert len(lines[0]) == 3 + STEPS  # the second line says how it was measured, the last its end


def whole(folder: Path, method: str) -> TrainResult:
    return train(tiny_config(folder, method=method, steps=STEPS), fleet=FLEET)


def start(folder: Path, method: str) -> subprocess.Popen[str]:
    tests = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", SCRIPT, tests, str(folder), method, str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(stream: IO[str], wanted: str) -> None:
    for line in stream:
        if line.strip() == wanted:
            return
    raise AssertionError(f"the run ended before {wanted}")


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize("method", ["gaba"])
def test_a_killed_run_goes_on_as_if_it_had_never_been_killed(tmp_path: Path, method: str) -> None:
    killed = tmp_path / "killed"
    for step in ("4", "9"):  # in the third epoch, then, resumed, in the fifth
        with start(killed, method) as process:
            assert process.stdout is not None
            read_until(process.stdout, step)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    config = tiny_config(killed, method=method, steps=STEPS)
    assert train(config, fleet=FLEET, resume=True).resumed_at in (8, 10)
    whole(tmp_path / "whole", method)
    assert_same_run(killed, tmp_path / "whole")


@pytest.mark.parametrize(("method", "stop"), [("inverse", 0), ("paper", 5), ("fixed:1,20", 6)])
def test_an_interrupted_run_goes_on(tmp_path: Path, method: str, stop: int) -> None:
    config = tiny_config(tmp_path / "stopped", method=method, steps=STEPS)

    def interrupt(step: gaba.Step) -> None:
        if step.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=interrupt, fleet=FLEET)
    torch.manual_seed(stop)  # whatever happens in between
    result = train(config, fleet=FLEET, resume=True)
    assert result.resumed_at == stop // 2 * 2
    assert whole(tmp_path / "whole", method).best == result.best
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("name", [checkpoint.EPOCHS, checkpoint.CHECKPOINT, checkpoint.METRICS])
def test_a_run_that_ends_while_it_writes_goes_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed just before ``name`` is written for the second time (metrics: the first)."""
    config = tiny_config(tmp_path / "stopped", steps=STEPS)
    calls = 1 if name == checkpoint.METRICS else 0
    writer = {
        checkpoint.EPOCHS: "append_line",
        checkpoint.CHECKPOINT: "save",
        checkpoint.METRICS: "write_json",
    }[name]
    original = getattr(checkpoint, writer)

    def write(path: Path, value: object) -> None:
        nonlocal calls
        if Path(path).name == name:
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
        original(path, value)

    monkeypatch.setattr(checkpoint, writer, write)
    with pytest.raises(KeyboardInterrupt):
        train(config, fleet=FLEET)
    monkeypatch.undo()
    train(config, fleet=FLEET, resume=True)
    whole(tmp_path / "whole", "gaba")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    first = whole(tmp_path, "uniform")
    before = checkpoint.load(tmp_path / checkpoint.CHECKPOINT)
    steps: list[gaba.Step] = []
    again = train(first.config, on_step=steps.append, fleet=FLEET, resume=True)
    assert steps == []
    assert again.resumed_at == STEPS
    assert (again.metrics, again.best) == (first.metrics, first.best)
    assert same(checkpoint.load(tmp_path / checkpoint.CHECKPOINT), before)


def test_a_run_is_not_overwritten_and_not_mixed_with_another(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    train(config, fleet=FLEET)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="resume it"):
        train(config, fleet=FLEET)
    with pytest.raises(ValueError, match="another seed, steps"):
        train(tiny_config(tmp_path, steps=4, seed=1), fleet=FLEET, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_checkpoint_is_one_line_that_names_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    train(config, fleet=FLEET)
    path = tmp_path / checkpoint.CHECKPOINT
    content = path.read_bytes()
    held = io.BytesIO()
    torch.save([1, 2, 3], held)
    for damaged in (b"", b"no checkpoint", content[: len(content) // 2], held.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint") as caught:
            train(config, fleet=FLEET, resume=True)
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_with_the_file_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path, lines = tmp_path / checkpoint.CHECKPOINT, tmp_path / checkpoint.EPOCHS
    checkpoint.save(path, {"step": 3})
    checkpoint.append_line(lines, {"epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (lines.stat().st_size, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"'{path}'")):
            checkpoint.save(path, {"weights": torch.zeros(1000)})
        with pytest.raises(OSError, match=re.escape(f"'{lines}'")):
            checkpoint.append_line(lines, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.load(path) == {"step": 3}
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([path.name, lines.name])


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    checkpoint.write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_after_a_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for number in range(4):
        checkpoint.append_line(path, {"n": number})
    with path.open("a") as file:
        file.write('{"n": 4')
    checkpoint.keep_lines(path, 3)
    assert path.read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    with pytest.raises(ValueError, match="must have 4 lines"):
        checkpoint.keep_lines(path, 4)
