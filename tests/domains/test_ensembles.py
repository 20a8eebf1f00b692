"""Ensembles: cases computed by hand, an ensemble with a biased model, chunks, gaps and labels."""

from __future__ import annotations

from typing import Any

import dask.config
import numpy as np
import pytest
import xarray as xr

from gaba.domains._examples.ensembles import climate
from gaba.domains.ensembles import BIASES, Bias, weigh

DAYS = np.arange("2000-01-01", "2000-01-05", dtype="datetime64[D]").astype("datetime64[ns]")


def line(*values: float, times: Any = DAYS) -> xr.DataArray:
    return xr.DataArray(list(values), {"time": times}, ["time"], "tas", {"units": "K"})


def joined(**runs: xr.DataArray) -> xr.DataArray:
    return xr.concat(list(runs.values()), xr.Variable("model", list(runs)), join="outer")


TRUTH = line(1, 2, 3, 4)
PAIR = joined(near=line(2, 1, 4, 3), far=line(6, 3, 8, 5))
"""Errors: root mean square 1 and √13, standard deviation 1 and 2, bias 0 and 3."""


def no_compute(*_: Any, **__: Any) -> Any:
    raise AssertionError("values were computed")


@pytest.mark.parametrize(
    ("power", "bias", "expected"),
    [
        (0, "penalised", 1 / 2),
        (1, "penalised", 13**0.5 / (1 + 13**0.5)),
        (2, "penalised", 13 / 14),
        (1, "removed", 2 / 3),
        (2, "removed", 4 / 5),
        (1, "ignored", 2 / 3),
        (2, "ignored", 4 / 5),
    ],
)
def test_weights_by_hand(power: float, bias: Bias, expected: float) -> None:
    ensemble = weigh(PAIR, TRUTH, power=power, bias=bias)
    assert ensemble.weights.values == pytest.approx([expected, 1 - expected])
    assert ensemble.bias.values == pytest.approx([0, 3])
    assert ensemble.errors.values == pytest.approx([1, 13**0.5 if bias == "penalised" else 2])
    assert ensemble.weights.model.values.tolist() == ["near", "far"]
    assert ensemble.errors.attrs == ensemble.bias.attrs == {"units": "K"}


@pytest.mark.parametrize("bias", BIASES)
def test_the_combination_by_hand(bias: Bias) -> None:
    ensemble = weigh(PAIR, TRUTH, power=2, bias=bias)
    first = float(ensemble.weights[0])
    far = PAIR.sel(model="far", drop=True) - (3 if bias == "removed" else 0)
    expected = first * PAIR.sel(model="near", drop=True) + (1 - first) * far
    xr.testing.assert_allclose(ensemble.combine(PAIR), expected)


def test_the_errors_times_the_weights_are_equal() -> None:
    models, truth = climate()
    ensemble = weigh(models, truth)
    pull = (ensemble.weights * ensemble.errors).compute()
    np.testing.assert_allclose(pull, pull[0], rtol=1e-12)
    assert float(ensemble.weights.sum()) == pytest.approx(1)


def test_inverse_variance_falls_for_a_steady_bias_and_inverse_mean_square_does_not() -> None:
    models, truth = climate()
    past, future = models.sel(time=slice("1980", "2009")), models.sel(time=slice("2010", None))
    error: dict[tuple[int, str], float] = {}
    cases: list[tuple[int, Bias]] = [(0, "penalised"), *((2, bias) for bias in BIASES)]
    for power, bias in cases:
        ensemble = weigh(past, truth, power=power, bias=bias)
        error[power, bias] = (
            float(((ensemble.combine(future) - truth) ** 2).mean().compute()) ** 0.5
        )
        if power == 2:
            warm = float(ensemble.weights.sel(model="warm"))
            assert warm < 0.05 if bias == "penalised" else warm > 0.7
    assert error[2, "ignored"] > 2 * error[0, "penalised"]
    assert error[2, "penalised"] < 0.8 * error[0, "penalised"]
    assert error[2, "removed"] < 0.3


def test_places_have_the_weight_of_their_cells() -> None:
    lat = xr.DataArray([0.0, 60.0], dims="lat", coords={"lat": [0.0, 60.0]})
    truth = TRUTH * xr.ones_like(lat)
    off = xr.DataArray([3.0, 6.0], dims="lat", coords={"lat": lat})
    models = joined(a=truth + off, b=truth + 1)
    cells: Any = np.cos(np.deg2rad(lat))
    errors = weigh(models, truth, cells=cells).errors
    assert errors.values == pytest.approx([((9 + 0.5 * 36) / 1.5) ** 0.5, 1])


# --- conventions of xarray -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks", [{"time": 100}, {"model": 1}, {"model": 2, "time": 50, "lat": 3}]
)
@pytest.mark.parametrize("bias", BIASES)
def test_chunked_arrays_stay_lazy_and_give_the_same(chunks: dict[str, int], bias: Bias) -> None:
    models, truth = (data[..., :99, :].compute() for data in climate())
    plain = weigh(models, truth, bias=bias)
    with dask.config.set(scheduler=no_compute):
        lazy = weigh(models.chunk(chunks), truth.chunk({"time": 50}), bias=bias)
        combined = lazy.combine(models.chunk(chunks))
    assert combined.chunks is not None
    assert lazy.weights.chunks is not None
    assert plain.weights.chunks is None
    xr.testing.assert_allclose(lazy.weights.compute(), plain.weights)
    xr.testing.assert_allclose(combined.compute(), plain.combine(models))


def test_coordinates_attributes_and_the_name_are_kept() -> None:
    models, truth = climate()
    models = models.assign_coords(zone=("lat", list("snnnns")), height=2.0)
    models.attrs["standard_name"] = "air_temperature"
    models["lat"].attrs["units"] = "degrees_north"
    found = weigh(models, truth, bias="removed").combine(models)
    assert found.name == "tas"
    assert found.attrs == {"units": "K", "standard_name": "air_temperature"}
    assert set(found.coords) == {"time", "lat", "zone", "height"}
    assert found.lat.attrs == {"units": "degrees_north"}
    assert found.dims == ("time", "lat")


def test_other_names_of_the_dimensions() -> None:
    renamed = PAIR.rename(model="member", time="year")
    ensemble = weigh(renamed, TRUTH.rename(time="year"), model="member", time="year")
    np.testing.assert_array_equal(ensemble.weights, weigh(PAIR, TRUTH).weights)
    assert ensemble.combine(renamed).dims == ("year",)


def test_whole_numbers_and_models_without_names() -> None:
    bare = xr.DataArray([[2, 1, 4, 3], [3, 4, 5, 6]], dims=["model", "time"])
    ensemble = weigh(bare, xr.DataArray([1, 2, 3, 4], dims="time"))
    assert ensemble.errors.values == pytest.approx([1, 2])


def test_one_model_has_all_the_weight() -> None:
    ensemble = weigh(PAIR.isel(model=[1]), TRUTH)
    assert ensemble.weights.values.tolist() == [1]


# --- missing data --------------------------------------------------------------------------------


def test_only_common_times_and_values_count() -> None:
    more = np.arange("2000-01-03", "2000-01-09", dtype="datetime64[D]").astype("datetime64[ns]")
    a = line(4, 2, 99, 99, 99, 99, times=more)  # off by 1 and -2 on the two common days
    b = TRUTH + line(50, 50, 4, np.nan)
    late = joined(a=a, b=b)
    ensemble = weigh(late.sel(time=more), TRUTH)
    assert ensemble.errors.values == pytest.approx([2.5**0.5, 4])
    assert ensemble.bias.values == pytest.approx([-0.5, 4])
    gap = TRUTH.copy(data=[np.nan, 2, 3, 4])
    assert weigh(joined(a=TRUTH + 1, b=b), gap).errors.values[1] == pytest.approx(
        ((50**2 + 16) / 2) ** 0.5
    )


def test_a_model_that_has_no_value_leaves_its_weight_to_the_others() -> None:
    ensemble = weigh(PAIR, TRUTH)
    values = PAIR.copy(data=[[1, np.nan, np.nan, 4], [5, 6, np.nan, 8]])
    found = ensemble.combine(values).values
    first = float(ensemble.weights[0])
    assert found[:2] == pytest.approx([first + (1 - first) * 5, 6])
    assert np.isnan(found).tolist() == [False, False, True, False]
    assert ensemble.combine(PAIR.sel(model=["far"])).values == pytest.approx(PAIR[1].values)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan] * 4, r"no value in common with the reference: odd"),
        ([1, np.inf, 3, 4], r"an infinite error: odd"),
        ([1, 2, 3, 4], r"an error of exactly 0, as the reference itself has: odd"),
    ],
)
def test_a_model_without_an_error_to_go_by_is_named(
    values: list[float], message: str, lazy: bool
) -> None:
    models = joined(fine=TRUTH + line(1, 2, 1, 1), odd=line(*values))
    if lazy:
        ensemble = weigh(models.chunk({"time": 2}), TRUTH.chunk())
        with pytest.raises(ValueError, match=message):
            ensemble.combine(models).compute()
    else:
        with pytest.raises(ValueError, match=message):
            weigh(models, TRUTH)


def test_models_with_no_overlap_in_time_are_refused() -> None:
    later = TRUTH.assign_coords(time=DAYS + np.timedelta64(400, "D"))
    with pytest.raises(ValueError, match=r"overlap in 'time', found 2000-01-01.* and 2001-02-04"):
        weigh(PAIR, later)
    one = joined(now=TRUTH + line(1, 2, 1, 2), later=later)
    with pytest.raises(ValueError, match=r"no value in common with the reference: later"):
        weigh(one, TRUTH)


# --- bad input -----------------------------------------------------------------------------------


def test_two_grids_are_refused() -> None:
    models, truth = climate()
    for other in (truth.assign_coords(lat=truth.lat + 0.01), truth.isel(lat=slice(3))):
        with pytest.raises(ValueError, match=r"same coordinates but for 'time'.*to one grid"):
            weigh(models, other)


def test_two_calendars_are_refused() -> None:
    with pytest.raises(ValueError, match=r"calendar|overlap in 'time'"):
        weigh(PAIR, TRUTH.assign_coords(time=[20000101, 20000102, 20000103, 20000104]))


def test_dimensions_have_to_fit() -> None:
    with pytest.raises(ValueError, match=r"models must have the dimension 'model', found time"):
        weigh(TRUTH, TRUTH)
    with pytest.raises(ValueError, match=r"reference must have the dimensions of the models"):
        weigh(PAIR, PAIR)
    with pytest.raises(ValueError, match=r"with 'year' among them"):
        weigh(PAIR, TRUTH, time="year")


def test_names_and_settings_have_to_fit() -> None:
    with pytest.raises(ValueError, match=r"one name each, found near more than once"):
        weigh(PAIR.isel(model=[0, 1, 0]), TRUTH)
    other = PAIR.assign_coords(model=["near", "new"])
    with pytest.raises(ValueError, match=r"every model must have a weight, found none for new"):
        weigh(PAIR, TRUTH).combine(other)
    unknown: Any = "kept"
    with pytest.raises(ValueError, match=r"bias: must be one of penalised, .* found 'kept'"):
        weigh(PAIR, TRUTH, bias=unknown)
    with pytest.raises(ValueError, match=r"power must be finite and zero or more, found -1"):
        weigh(PAIR, TRUTH, power=-1)
    with pytest.raises(ValueError, match=r"cells must have dimensions of the reference, found lat"):
        weigh(PAIR, TRUTH, cells=xr.DataArray([1.0], dims="lat"))
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match=r"cells must be zero or more"):
            weigh(PAIR, TRUTH, cells=line(1, 1, 1, wrong))
