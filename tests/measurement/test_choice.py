"""The measurement that is chosen where nobody says: from K, the model and an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gaba
from _engines import balanced
from _models import TwoStage, batch
from gaba.measurement import Choice, ExactNorms, Measurement, SketchNorms, choose
from gaba.record.diagnosis import diagnose


@pytest.mark.parametrize(
    ("k", "expected", "every"),
    [
        (2, ExactNorms(), 10),
        (3, ExactNorms(), 20),
        (4, SketchNorms(decay=0.9802), 4),
        (40, SketchNorms(decay=0.9802), 4),
    ],
)
def test_few_tasks_are_measured_exactly_and_many_by_a_sketch(
    k: int, expected: Measurement, every: int
) -> None:
    found = choose(k, TwoStage([1.0] * k).trunk)
    assert found == Choice(expected, every, found.reason)
    assert str(k) in found.reason


def test_a_smaller_error_asks_for_a_longer_memory() -> None:
    trunk = nn.Linear(3, 4)
    for error in (0.02, 0.1, 0.3):
        found = choose(8, trunk, error=error).measurement
        assert isinstance(found, SketchNorms)
        d = found.decay
        assert ((1 - d) / (1 + d)) ** 0.5 == pytest.approx(error, rel=0.01)


def test_where_no_sketch_can_be_taken_the_reason_says_so() -> None:
    trunk = nn.Linear(3, 4)
    for found, why in (
        (choose(40, trunk.parameters()), "no module"),
        (choose(40, "auto"), "no module"),
        (choose(40, nn.Linear(3, 4, dtype=torch.bfloat16)), "bfloat16"),
        (choose(40, trunk, gramian=True), "Gramian"),
    ):
        assert (found.measurement, found.every) == (ExactNorms(), 50)
        assert why in found.reason
    found = choose(40, trunk, every_step=True)
    assert (found.measurement, found.every) == (ExactNorms(), 1)


def test_an_error_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="error must be above 0"):
        choose(4, nn.Linear(3, 4), error=0.0)


@pytest.mark.parametrize("k", [2, 5])
def test_the_record_and_the_diagnosis_say_what_was_chosen_and_why(k: int, tmp_path: Path) -> None:
    model = TwoStage([10.0**i for i in range(k)])
    balancer = balanced(model.names, model.trunk, "auto")
    path = tmp_path / "history.jsonl"
    with gaba.RunRecord(path, model.names) as record:
        for i in range(12):
            record.write(balancer.backward(model.losses(batch(i))))
    expected = choose(k, model.trunk)
    about = gaba.History.read(path).about
    assert about == balancer.history.about
    assert about["reason"] == expected.reason
    assert balancer.method.every == expected.every
    assert balancer.history.measured.tolist() == [i % expected.every == 0 for i in range(12)]
    assert about["measurement"] == repr(expected.measurement)
    assert expected.reason in " ".join(str(diagnose(balancer.history)).split())


def test_plain_heads_and_auto_go_together() -> None:
    model = TwoStage([1.0, 5.0])
    balancer = balanced(model.names, model.trunk, "auto", heads="plain")
    assert balancer.method.measure == ExactNorms()
    assert balancer.backward(model.losses(batch(0))).measured
