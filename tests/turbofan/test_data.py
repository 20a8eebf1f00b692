from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gaba.cli.commands import Data
from gaba.turbofan.data import (
    DataFormatError,
    DataNotFoundError,
    find_data_dir,
    load,
    write,
)
from gaba.turbofan.fleet import COLUMNS, INPUTS, SETTINGS, SUBSETS, Fleet
from gaba.turbofan.simulate import simulate

# Train engines, train rows, test engines, test rows, as the description of the data counts them.
COUNTS = {
    "FD001": (100, 20631, 100, 13096),
    "FD002": (260, 53759, 259, 33991),
    "FD003": (100, 24720, 100, 16596),
    "FD004": (249, 61249, 248, 41214),
}


@pytest.fixture(scope="module")
def data_dir() -> Path:
    try:
        return find_data_dir().resolve()
    except DataNotFoundError as error:
        pytest.skip(f"needs the real data: {error}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small fleet, written as FD001: engines of known lengths in files of known lines."""
    fleet = simulate(train_engines=3, test_engines=3, seed=1)
    write(Fleet("FD001", fleet.train, fleet.test, fleet.rul, simulated=False), tmp_path)
    return tmp_path


def edit(path: Path, line: int, text: str | None) -> None:
    """Replaces the 1-based ``line`` of a file, or drops it."""
    lines = path.read_text().split("\n")
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines))


def words(path: Path, line: int) -> list[str]:
    return path.read_text().split("\n")[line - 1].split()


@pytest.mark.parametrize("subset", SUBSETS)
def test_real_data_have_the_published_counts(data_dir: Path, subset: str) -> None:
    fleet = load(subset, data_dir)
    train, test = fleet.train, fleet.test
    counts = (train["unit"].nunique(), len(train), test["unit"].nunique(), len(test))
    assert counts == COUNTS[subset]
    assert len(fleet.rul) == counts[2]
    assert not fleet.simulated
    assert tuple(train.columns) == tuple(test.columns) == COLUMNS
    assert (train.groupby("unit")["cycle"].max() == train.groupby("unit").size()).all()


@pytest.mark.parametrize("subset", ["FD001", "FD002"])
def test_writing_what_was_read_gives_the_same_bytes(
    data_dir: Path, subset: str, tmp_path: Path
) -> None:
    for path in write(load(subset, data_dir), tmp_path):
        plain, packed = data_dir / path.name, data_dir / f"{path.name}.xz"
        original = plain.read_bytes() if plain.exists() else lzma.decompress(packed.read_bytes())
        assert path.read_bytes() == original


@pytest.mark.parametrize("packed", [False, True])
def test_a_fleet_survives_writing_and_reading(tmp_path: Path, packed: bool) -> None:
    made = simulate(train_engines=4, test_engines=3, seed=5)
    exact = made.train.assign(s2=made.train["s2"] + 1 / 3)  # more decimals than the files have
    fleet = Fleet("FD004", exact, made.test, made.rul, simulated=False)
    for path in write(fleet, tmp_path):
        if packed:
            path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
            path.unlink()
    read = load("FD004", tmp_path)
    pd.testing.assert_frame_equal(read.train, fleet.train, check_exact=True)
    pd.testing.assert_frame_equal(read.test, fleet.test, check_exact=True)
    np.testing.assert_array_equal(read.rul, fleet.rul)


def test_inputs_are_the_settings_and_the_sensors_that_respond() -> None:
    assert len(COLUMNS) == 26
    assert len(INPUTS) == 17
    assert INPUTS[:3] == SETTINGS
    assert [int(name[1:]) for name in INPUTS[3:]] == [
        *(2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
    ]


LINE = 7
"""The line that is spoilt: cycle 7 of unit 1."""


@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w[:-1], "26 columns needed, found 25"),
        (lambda w: [*w, "1.0"], "26 columns needed, found 27"),
        (lambda w: [], "26 columns needed, found 0"),
        (lambda w: [*w[:9], "abc", *w[10:]], "column 10, found 'abc'"),
        (lambda w: [*w[:9], '"1"', *w[10:]], "column 10, found '\"1\"'"),
        (lambda w: [*w[:9], "nan", *w[10:]], "column 10, found 'nan'"),
        (lambda w: [*w[:9], "NA", *w[10:]], "column 10, found 'NA'"),
        (lambda w: [*w[:9], "1_0", *w[10:]], "column 10, found '1_0'"),
        (lambda w: [*w[:9], "#1", *w[10:]], "column 10, found '#1'"),
        (lambda w: [*w[:25], "inf"], "column 26, found 'inf'"),
        (lambda w: [w[0], "9", *w[2:]], "unit 1 needs cycle 7 here, found 9"),
        (lambda w: [w[0], "6", *w[2:]], "unit 1 needs cycle 7 here, found 6"),
        (lambda w: [w[0], "7.5", *w[2:]], "unit 1 needs cycle 7 here, found 7.5"),
        (lambda w: ["2", *w[1:]], "unit 2 needs cycle 1 here, found 7"),
        (lambda w: ["0", "1", *w[2:]], "found unit 0 after unit 1"),
        (lambda w: ["1.5", "1", *w[2:]], "found unit 1.5 after unit 1"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    folder: Path, kind: str, change: Callable[[list[str]], list[str]], says: str
) -> None:
    path = folder / f"{kind}_FD001.txt"
    edit(path, LINE, " ".join(change(words(path, LINE))))
    with pytest.raises(DataFormatError) as caught:
        load("FD001", folder)
    assert f"{path}, line {LINE}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dropped_row_is_a_gap_at_the_next(folder: Path) -> None:
    path = folder / "train_FD001.txt"
    edit(path, LINE, None)
    with pytest.raises(DataFormatError, match=rf"line {LINE}: .*needs cycle {LINE} here, found 8"):
        load("FD001", folder)


def test_a_dropped_first_row_is_a_start_other_than_1(folder: Path) -> None:
    path = folder / "test_FD001.txt"
    edit(path, 1, None)
    with pytest.raises(DataFormatError, match=r"line 1: .*unit 1 needs cycle 1 here, found 2"):
        load("FD001", folder)


def test_a_unit_that_comes_back_is_refused(folder: Path) -> None:
    path = folder / "train_FD001.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "1 1" + lines[0][3:]]))
    with pytest.raises(DataFormatError, match=f"line {len(lines) + 1}: .*unit 1 after unit 3"):
        load("FD001", folder)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("5 \n6 \n", 3, "found 2 lines for 3 units"),
        ("5 \n6 \n7 \n8 \n", 4, "found 4 lines for 3 units"),
        ("5 \n6 7 \n8 \n", 2, "1 columns needed, found 2"),
        ("5 \nsix \n8 \n", 2, "found 'six'"),
        ("5 \n6 \n-1 \n", 3, "found -1"),
        ("5 \n6.5 \n1 \n", 2, "found 6.5"),
        ("", 1, "empty"),
    ],
)
def test_a_bad_rul_file_is_named_by_line(folder: Path, text: str, line: int, says: str) -> None:
    path = folder / "RUL_FD001.txt"
    path.write_text(text)
    with pytest.raises(DataFormatError) as caught:
        load("FD001", folder)
    assert f"{path}, line {line}: " in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_no_text_or_no_xz_is_refused(folder: Path) -> None:
    path = folder / "train_FD001.txt"
    content = path.read_bytes()
    path.write_bytes(content[:500] + b"\xff" + content[500:])
    line = content[:500].count(b"\n") + 1
    with pytest.raises(DataFormatError, match=f"line {line}: not plain text"):
        load("FD001", folder)
    path.unlink()
    path.with_name("train_FD001.txt.xz").write_bytes(lzma.compress(content)[:-50])
    with pytest.raises(DataFormatError, match="line 1: not readable as xz"):
        load("FD001", folder)


def test_the_folder_itself_or_the_one_above_will_do(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path_factory.mktemp("above")
    (above / "cmapss").symlink_to(folder)
    assert find_data_dir(folder) == folder
    assert find_data_dir(str(above)) == above / "cmapss"
    monkeypatch.setenv("GABA_DATA", str(above))
    assert find_data_dir() == above / "cmapss"
    assert find_data_dir(folder) == folder


def test_here_is_looked_at_before_the_shared_folder_beside_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("root")
    places = [root / "here" / "data", root / "shared" / "data" / "cmapss"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder)
    monkeypatch.delenv("GABA_DATA", raising=False)
    monkeypatch.chdir(root / "here")
    for place in places:
        found = find_data_dir()
        assert found.samefile(folder)
        assert (found.parent.resolve() / found.name) == place
        place.unlink()


@pytest.mark.parametrize("named", [False, True])
def test_data_are_found_where_the_command_puts_them(
    *, named: bool, folder: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    monkeypatch.delenv("GABA_DATA", raising=False)
    if named:
        monkeypatch.setenv("GABA_DATA", str(tmp_path_factory.mktemp("elsewhere")))
    destination = Data().folder
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.symlink_to(folder)
    assert find_data_dir() == destination


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_named_place_without_data_is_an_error(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GABA_DATA", str(tmp_path))
    with pytest.raises(DataNotFoundError) as caught:
        find_data_dir(tmp_path if by == "argument" else None)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "`gaba data cmapss`" in message
    assert "--subset simulated" in message
    assert "\n" not in message


def test_a_missing_file_and_an_unknown_subset_are_named(folder: Path) -> None:
    (folder / "RUL_FD001.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"no RUL_FD001\.txt .*--subset simulated"):
        load("FD001", folder)
    with pytest.raises(ValueError, match="FD001, FD002, FD003, FD004, simulated, found 'FD007'"):
        load("FD007", folder)
