"""The examples of the fields that learn: what they say follows from the runs, and they draw."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mo_gymnasium
import numpy as np
import pytest
import torch

import gaba
from _domain_sentences import federated_sentences
from gaba.domains import detection, find
from gaba.domains.rewards import Run, train


def printed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    picture = find(name).run(folder)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.iterdir()] == [f"{name}.png"]
    return capsys.readouterr().out


def apart(history: gaba.History) -> float:
    """The median over the steps measured of the largest weighted gradient over the smallest."""
    pulls = (history.multipliers * history.norms)[history.measured]
    with np.errstate(divide="ignore"):  # a component may have no gradient in a step: infinity
        return float(np.median(pulls.max(1) / pulls.min(1)))


def found_apart(said: str) -> tuple[str, ...]:
    """The figures of the balanced training, and of the unbalanced one."""
    pattern = r"closer: the largest is (\S+) times the smallest, with .*? (\S+) times \(median\)"
    found = re.search(pattern, " ".join(said.split()))
    assert found is not None
    return found.groups()


def test_federated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed("federated", tmp_path, capsys)
    assert federated_sentences() == tuple(said.splitlines()[1:3])
    found = re.search(r"reach ([\d.]+)% test accuracy, FedAvg ([\d.]+)%, in 30 rounds", said)
    assert found is not None
    assert float(found[1]) > float(found[2]) + 2


def test_rewards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="precision lowered"):
        env: Any = mo_gymnasium.make("deep-sea-treasure-v0")  # pyright: ignore[reportPrivateImportUsage]
    shallow = float(env.unwrapped.sea_map[1, 0])  # the treasure one step down
    runs: list[Run] = []

    def kept(*given: Any, **settings: Any) -> Run:
        runs.append(train(*given, **settings))
        return runs[-1]

    monkeypatch.setattr("gaba.domains._examples.rewards.train", kept)
    said = " ".join(printed("rewards", tmp_path, capsys).split())
    plain, balanced = (apart(run.history) for run in runs)
    assert found_apart(said) == (f"{balanced:.1f}", f"{plain:.1f}")
    assert balanced < 0.7 * plain
    assert f"exploration: treasure {shallow:.1f}, time -1.0." in said


def test_detection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    trainer = detection.DetectionTrainer

    def kept(model: Any, *given: Any, **settings: Any) -> Any:
        trained.append((model, settings["balancer"], settings["train_dataset"]))
        return trainer(model, *given, **settings)

    monkeypatch.setattr(detection, "DetectionTrainer", kept)
    said = " ".join(printed("detection", tmp_path, capsys).split())
    plain, balanced = (apart(balancer.history) for _, balancer, _ in trained)
    assert found_apart(said) == (f"{balanced:.1f}", f"{plain:.1f}")
    assert balanced < 0.7 * plain
    unseen = detection.shapes(50, most=2, seed=1)
    for images in (images for *_, images in trained):
        assert not any(
            torch.equal(new["pixel_values"], old["pixel_values"])
            for new in unseen
            for old in images
        )
    found = [
        f"{100 * detection.average_precision(model, unseen)['mAP50']:.1f}%" for model, *_ in trained
    ]
    assert f"50 new images: {found[1]} balanced, {found[0]} with the model's own" in said
    assert "{'train_runtime'" not in said
