"""Where the data of the problems are looked for, what is read, and that no split sees another."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from gaba.bench import Metric, Problem, load
from gaba.bench._data import batches, find
from gaba.bench.problems import gas_turbine, multi_mnist, turbofan

CPU = torch.device("cpu")


def loaded(name: str) -> Problem:
    try:
        return load(name)
    except FileNotFoundError as error:
        pytest.skip(f"needs data: {error}")


def metric(problem: Problem, name: str) -> Metric:
    return next(metric for metric in problem.metrics if metric.name == name)


# -- where -------------------------------------------------------------------------------------


def test_data_are_found_by_argument_then_environment_then_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = "marker.txt"
    places = {name: tmp_path / name for name in ("argument", "environment", "data")}
    for place in places.values():
        (place / "things").mkdir(parents=True)
        (place / "things" / marker).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GABA_DATA", str(places["environment"]))
    assert find("things", marker, str(places["argument"])) == places["argument"] / "things"
    assert find("things", marker, str(places["argument"] / "things")).name == "things"
    assert find("things", marker) == places["environment"] / "things"
    monkeypatch.delenv("GABA_DATA")
    assert find("things", marker) == places["data"] / "things"
    (tmp_path / "below").mkdir()
    (tmp_path / "shared").mkdir()
    places["data"].rename(tmp_path / "shared" / "data")
    monkeypatch.chdir(tmp_path / "below")
    assert find("things", marker) == tmp_path / "shared" / "data" / "things"


@pytest.mark.parametrize("name", ["gas-turbine-time", "multi-mnist", "turbofan-fd001"])
def test_absent_data_are_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"in {tmp_path}") as caught:
        load(name, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


# -- order -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(10, 3), (12, 4), (5, 5), (4, 9)])
def test_a_pass_sees_no_row_twice(count: int, size: int) -> None:
    order, whole = batches(count, size, seed=0, device=CPU), max(1, count // size)
    passes = [torch.cat([next(order) for _ in range(whole)]).tolist() for _ in range(20)]
    assert all(len(set(rows)) == len(rows) == whole * min(size, count) for rows in passes)
    assert len({tuple(rows) for rows in passes}) > 10
    assert set().union(*passes) == set(range(count))


# -- gas turbine -------------------------------------------------------------------------------

ROWS = 700


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five years of a plant whose targets are linear in its sensors, as files."""
    folder, draw = tmp_path_factory.mktemp("plant") / "gas_turbine", np.random.default_rng(0)
    folder.mkdir()
    columns = ("AT", "AP", "AH", "AFDP", "GTEP", "TIT", "TAT", "TEY", "CDP", "CO", "NOX")
    for year in gas_turbine.YEARS:
        values = draw.normal(size=(ROWS, len(columns))) * 3 + 100
        values[:, columns.index("TEY")] = 5 * values[:, 0] - 10 * values[:, 8]
        lines = [",".join(columns), *(",".join(f"{v:.4f}" for v in row) for row in values)]
        with lzma.open(folder / f"gt_{year}.csv.xz", "wt", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("form", ["time", "random"])
def test_the_rows_of_the_plant_are_split_and_scaled(plant: Path, form: gas_turbine.Form) -> None:
    problem = gas_turbine.GasTurbine(form, str(plant.parent))
    index, rows = problem.data.index, problem.data.rows
    parts = [set(part.tolist()) for part in index.values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 5 * ROWS
    assert [len(rows[name].inputs) for name in index] == [len(part) for part in index.values()]
    train = rows["train"]
    assert train.inputs.mean(0).numpy() == pytest.approx(np.zeros(8), abs=1e-5)
    assert train.inputs.std(0, correction=0).numpy() == pytest.approx(np.ones(8), rel=1e-5)
    assert train.targets.mean(0).numpy() == pytest.approx(np.zeros(3), abs=1e-3)
    # TEY = 5 AT − 10 CDP + constant, in the order of INPUTS, whatever the order in the file
    x = torch.cat([train.inputs, torch.ones(len(train.inputs), 1)], dim=1).double()
    fit = torch.linalg.lstsq(x, train.targets[:, :1].double()).solution[:, 0]
    deviation = fit[[0, 7]] / torch.tensor([5.0, -10.0])
    assert fit[1:7].abs().max() < 1e-3
    assert deviation.numpy() == pytest.approx(3, rel=0.05)


def test_a_later_year_is_for_the_test_alone(plant: Path) -> None:
    index = gas_turbine.GasTurbine("time", str(plant)).data.index
    assert index["test"].min() == 3 * ROWS
    assert max(index["train"].max(), index["validation"].max()) < 3 * ROWS
    edges = np.diff(np.sort(index["validation"]))
    assert set(edges.tolist()) == {1, 401}


def test_saying_the_mean_has_a_quality_of_one(plant: Path) -> None:
    problem = gas_turbine.GasTurbine("random", str(plant))
    targets = problem.data.rows["train"].targets
    errors = targets.square().mean(0).sqrt()
    names = [f"rmse_{name}" for name in gas_turbine.TARGETS]
    assert problem.quality(dict(zip(names, errors.tolist(), strict=True))) == pytest.approx(1)


def test_the_real_plant_has_variances_fifty_times_apart() -> None:
    problem = loaded("gas-turbine-time")
    variances = [metric(problem, f"rmse_{name}").reference ** 2 for name in gas_turbine.TARGETS]
    assert variances == pytest.approx([257, 5.3, 122], rel=0.1)
    assert isinstance(problem, gas_turbine.GasTurbine)
    assert len(problem.data.rows["test"].inputs) == 7158 + 7384
    assert sum(len(part) for part in problem.data.index.values()) == 36733


# -- MultiMNIST --------------------------------------------------------------------------------


def idx(values: np.ndarray, magic: int) -> bytes:
    header = np.array([magic, *values.shape], ">i4").tobytes()
    return gzip.compress(header + values.astype(np.uint8).tobytes())


def test_the_idx_files_are_read_as_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(256, size=(7, 28, 28)), draw.integers(10, size=7)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(images, 2051))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(labels, 2049))
    found = multi_mnist.digits(tmp_path, "t10k")
    assert found[0].tolist() == images.tolist()
    assert found[1].tolist() == labels.tolist()
    for broken in (idx(images, 2049), idx(images[:, :5], 2051), idx(images, 2051)[:40]):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(broken)
        with pytest.raises((ValueError, EOFError)):
            multi_mnist.digits(tmp_path, "t10k")


def test_one_digit_lies_at_the_top_left_and_one_at_the_bottom_right() -> None:
    blank, full = torch.zeros(1, 28, 28), torch.full((1, 28, 28), 255)
    left, right = multi_mnist.overlaid(full, blank)[0, 0], multi_mnist.overlaid(blank, full)[0, 0]
    assert left[:20, :20].min() == 255
    assert right[-20:, -20:].min() == 255
    assert int(left[-4:].sum()) + int(left[:, -4:].sum()) == 0
    assert int(right[:4].sum()) + int(right[:, :4].sum()) == 0
    both = multi_mnist.overlaid(full, full)[0, 0]
    assert both.float().numpy() == pytest.approx(
        torch.maximum(left, right).float().numpy(), abs=140
    )
    assert both[10:18, 10:18].min() == 255  # 255 + 255 does not wrap


def test_the_labels_are_of_the_digits_that_were_drawn() -> None:
    digits = torch.arange(6)
    images = (40 * digits)[:, None, None].expand(6, 28, 28).to(torch.uint8)
    found = multi_mnist.compose(images, digits, count=50, seed=0)
    assert (found.pictures[:, 0, 2, 2] == 40 * found.left).all()
    assert (found.pictures[:, 0, -3, -3] == 40 * found.right).all()
    assert len(set(zip(found.left.tolist(), found.right.tolist(), strict=True))) > 15


def test_no_picture_is_in_two_splits() -> None:
    problem = loaded("multi-mnist")
    assert isinstance(problem, multi_mnist.MultiMnist)
    seen = {
        split: {bytes(picture) for picture in x.pictures.flatten(1).numpy()}
        for split, x in problem.data.items()
    }
    assert {split: len(x.left) for split, x in problem.data.items()} == multi_mnist.COUNTS
    assert not seen["train"] & seen["validation"]
    assert not (seen["train"] | seen["validation"]) & seen["test"]
    train = problem.data["train"].pictures.float() / 255
    error = (train - train.mean(0)).square().mean().sqrt()
    assert metric(problem, "rmse_reconstruction").reference == pytest.approx(float(error), rel=1e-4)


# -- turbofan ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_no_engine_is_in_training_and_validation(seed: int) -> None:
    data = turbofan.prepared("simulated", Path(), seed)
    assert not set(data.train.unit) & set(data.validation.unit)
    other = turbofan.prepared("simulated", Path(), seed + 1)
    assert set(data.validation.unit) != set(other.validation.unit)
    assert len(set(data.test.unit)) == len(data.test)


def test_the_references_are_those_of_constant_predictions() -> None:
    problem = turbofan.Turbofan("simulated")
    train = turbofan.prepared("simulated", Path(), 0).train
    error = np.sqrt(np.mean((train.rul - train.rul.mean()) ** 2))
    assert metric(problem, "rmse").reference == pytest.approx(error, rel=1e-5)
    commonest = max(np.mean(train.health == c) for c in range(3))
    f1 = 2 * commonest / (1 + commonest) / 3
    assert metric(problem, "macro_f1").reference == pytest.approx(f1, rel=1e-5)
