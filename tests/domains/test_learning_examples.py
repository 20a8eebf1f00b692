"""The examples of the fields that learn: what they print, and that they draw."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gaba.domains import find


def printed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    picture = find(name).run(folder)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.iterdir()] == [f"{name}.png"]
    return capsys.readouterr().out


def test_federated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed("federated", tmp_path, capsys)
    found = dict(re.findall(r"(by examples|equal pulls): accuracy ([\d.]+)%", said))
    assert float(found["equal pulls"]) > float(found["by examples"]) + 2


def test_rewards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed("rewards", tmp_path, capsys)
    pattern = r"(\w+): treasure (\S+), time (\S+) in .* contributions (\S+) times apart"
    found = {name: [float(x) for x in rest] for name, *rest in re.findall(pattern, said)}
    assert found.keys() == {"uniform", "balanced"}
    assert all(time <= -1 and treasure >= 0 for treasure, time, _ in found.values())
    assert found["balanced"][2] < 0.7 * found["uniform"][2]


def test_detection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed("detection", tmp_path, capsys)
    found = {k: float(v) for k, v in re.findall(r"(own \w+|balanced): .*imbalance (\S+)", said)}
    assert found.keys() == {"own coefficients", "balanced"}
    assert found["balanced"] < 0.7 * found["own coefficients"]
