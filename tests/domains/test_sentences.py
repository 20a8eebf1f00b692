"""The sentences of the examples follow their figures: another figure, another verdict."""

from __future__ import annotations

import numpy as np
import pytest

from gaba.domains import _sentences as say


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0.0, "Weights equal it to 12 digits."),
        (2e-15, "Weights equal it to 12 digits."),
        (2e-7, "Weights equal it to 6 digits."),
        (2e-3, "Weights differ from it by up to 0.2%."),
        (0.4, "Weights differ from it by up to 40.0%."),
    ],
)
def test_weights_equal_or_differ(factor: float, said: str) -> None:
    theirs = np.array([0.2, 0.3, 0.5])
    assert say.agreement(theirs * [1, 1 + factor, 1], theirs, "it") == said


def test_risk_and_the_largest_difference() -> None:
    assert say.risk(np.full(4, 0.25)) == "Every stock carries 25.0% of the portfolio's variance."
    assert say.risk([0.1, 0.3]).startswith("A stock carries 10.0% to 30.0% of")
    assert say.gap(["A", "B", "C"], [0.2, 0.3, 0.5], [0.25, 0.5, 0.25]).endswith(
        "most for C: 50.00% by inverse volatility, 25.00% by equal risk contribution."
    )


def test_turnover_and_volatility_fall_rise_or_stay() -> None:
    assert "cuts monthly one-way turnover from 9.0% to 3.0% and leaves volatility at 16.5%" in (
        say.trading((0.09, 0.03), (0.1652, 0.1648))
    )
    assert "raises monthly one-way turnover from 3.0% to 9.0% and cuts volatility from 20.0%" in (
        say.trading((0.03, 0.09), (0.2, 0.1))
    )


def test_stems_at_the_level_or_off_it() -> None:
    before = {"a": -10.0, "b": -30.0, "mute": -np.inf}
    good = say.faders(before, {"a": -23.0, "b": -23.04}, -23.0)
    assert good[0].startswith("All 2 audible stems, recorded 20.0 LU apart, play at -23.0 LUFS")
    assert [" ".join(row.split()) for row in good[1:]] == [
        "a -10.0 LUFS, fader -13.0 dB",
        "b -30.0 LUFS, fader +7.0 dB",
        "mute silent (below -70 LUFS), fader left at 0 dB",
    ]
    off = say.faders(before, {"a": -23.0, "b": -25.5}, -23.0)
    assert off[0].endswith("miss -23.0 LUFS behind their faders by 2.5 LU.")


def test_the_sum_of_the_stems_and_its_peak() -> None:
    assert say.summed(-20.0, -30.0, 10, 0.0) == (
        "The mix has -20.00 LUFS, as 10 unrelated stems add up to: -30 + 10 log10(10) = "
        "-20.00 LUFS."
    )
    assert say.summed(-22.0, -30.0, 10, -2.0).endswith("log10(10) - 2.00 = -22.00 LUFS.")
    assert "2.00 LU off what 10 unrelated stems" in say.summed(-18.0, -30.0, 10, 0.0)
    assert say.headroom(-4.8, -1.0, 0.0).endswith("-1 dBTP: the mix was not turned down.")
    assert "turned down by 3.2 dB for the -1 dBTP limit" in say.headroom(-1.0, -1.0, -3.2)


def test_the_best_and_the_worst_weighting() -> None:
    weights = {"one": 0.2, "two": 0.7}
    said = say.skill({"one": 0.5, "two": 2.0}, weights, 3.0)
    assert said[0] == "One is best out of sample: RMSE 0.50 K."
    assert said[1].startswith("Two is worst, 2.00 K: it gives 70.0% of the weight")
    turned = say.skill({"one": 2.0, "two": 0.5}, weights, 3.0)
    assert turned[0].startswith("Two is best")
    assert turned[1].startswith("One is worst, 2.00 K: it gives 20.0%")
    assert turned[2].split()[0] == "two"


def test_doses_that_are_additive_and_not() -> None:
    alone = {"a": 2.0, "b": 40.0}
    even = say.doses({"a": 1.0, "b": 20.0}, alone, 0.5)
    assert even[0] == "Each drug is given at 50.0% of the dose that has the effect alone."
    assert even[1].endswith("an effect of 50.0%; Loewe's combination index is 1.000: additive.")
    less = say.doses({"a": 1.0, "b": 10.0}, alone, 0.4)
    assert "at 25.0% to 50.0% of" in less[0]
    assert less[1].endswith("40.0%; Loewe's combination index is 0.750: not additive.")
    assert say.unequal({"a": 1.0, "b": 3.0}).endswith("be due 75.0% to a and 25.0% to b.")


def test_clients_that_gain_and_that_do_not() -> None:
    gain, parts = say.clients((0.8, 0.9), (0.5, 0.1), 30)
    assert "reach 90.0% test accuracy, FedAvg 80.0%, in 30 rounds" in gain
    assert parts.startswith("Client 0 makes up 50.0% of all updates by length under FedAvg, 10.0%")
    assert "90.0% test accuracy, FedAvg the same" in say.clients((0.9, 0.9), (0.5, 0.1), 30)[0]


def test_gradients_that_come_closer_and_that_do_not() -> None:
    closer = say.pulls(["a", "b", "c"], "the backbone", "with fixed weights", (5.64, 3.0))
    assert closer == (
        "Balancing brings the weighted gradients of a, b and c on the backbone closer: the largest "
        "is 3.0 times the smallest, with fixed weights 5.6 times (median)."
    )
    assert "on x no closer: the largest is 4.0 times" in say.pulls(["a", "b"], "x", "y", (2, 4))


def test_agents_that_collect_the_same_and_that_do_not() -> None:
    names = ["treasure", "time"]
    assert say.collected(names, [0.7, -1], [0.7, -1]).endswith(
        "exploration: treasure 0.7, time -1.0."
    )
    other = say.collected(names, [0.7, -1], [8.2, -3])
    assert other.startswith("The agents differ")
    assert "treasure 8.2, time -3.0 balanced; treasure 0.7, time -1.0 unweighted" in other


def test_precision_is_in_percent() -> None:
    assert "on 50 new images: 3.0% balanced, 2.3% with" in say.precision(0.0234, 0.0302, 50, 40)


def test_lines_are_wrapped_and_keep_their_indent(capsys: pytest.CaptureFixture[str]) -> None:
    say.show("word " * 40, "  row")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= say.WIDTH
    assert lines[-1] == "  row"
    assert " ".join(lines[:-1]).split() == ["word"] * 40
