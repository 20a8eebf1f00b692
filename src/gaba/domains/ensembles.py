"""Ensembles of climate models: weights from each model's error on a reference period, with xarray.

The norm of a model is the root-mean-square of its error against the reference, in the unit of the
data. Chunked arrays stay lazy: only coordinates are read before ``compute``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np

from gaba.extras import needs
from gaba.rules import InverseNorm

with needs("ensembles need", "xarray", "xarray"):
    import xarray as xr

__all__ = ["Bias", "Ensemble", "weigh"]

Bias: TypeAlias = Literal["penalised", "removed", "ignored"]
BIASES: tuple[Bias, ...] = ("penalised", "removed", "ignored")


@final
@dataclass(frozen=True)
class Ensemble:
    """Models with their weights, as `weigh` found them.

    Attributes:
        weights: λ (model,), sum 1; lazy if the data were.
        errors: The error of each model (model,), in the unit of the data.
        bias: The mean of model minus reference (model,), in that unit.
        removed: Whether `combine` takes the bias off.

    Example:
        >>> import xarray as xr
        >>> days = {"time": [0, 1, 2, 3]}
        >>> truth = xr.DataArray([0.0, 0.0, 0.0, 0.0], days, ["time"])
        >>> models = xr.concat([truth + 1, truth - 3], xr.Variable("model", ["a", "b"]))
        >>> ensemble = weigh(models, truth)
        >>> ensemble.weights.values.tolist(), ensemble.combine(models).values.tolist()
        ([0.75, 0.25], [0.0, 0.0, 0.0, 0.0])
    """

    weights: xr.DataArray
    errors: xr.DataArray
    bias: xr.DataArray
    removed: bool

    def combine(self, models: xr.DataArray) -> xr.DataArray:
        """The weighted mean Σ_m λ_m x_m over the models, with coordinates and attributes kept.

        If a model is absent from ``models`` or has no value (NaN), the others share its weight.

        Raises:
            ValueError: A model has no weight, or a name comes twice.
        """
        dim = self.weights.dims[0]
        names = _names(models, dim, "combine: models")
        unknown = [str(name) for name in names if name not in _names(self.weights, dim, "weights")]
        if unknown:
            raise ValueError(
                f"combine: every model must have a weight, found none for {', '.join(unknown)}; "
                f"give weigh() the same models"
            )
        with xr.set_options(keep_attrs=True):
            values = models - self.bias.sel({dim: names}) if self.removed else models
            mean = values.weighted(self.weights.sel({dim: names})).mean([dim], keep_attrs=True)
        return mean.rename(models.name).assign_attrs(models.attrs)


def weigh(
    models: xr.DataArray,
    reference: xr.DataArray,
    *,
    power: float = 1.0,
    bias: Bias = "penalised",
    cells: xr.DataArray | None = None,
    model: Hashable = "model",
    time: Hashable = "time",
) -> Ensemble:
    """Weigh models by their errors where they overlap with the reference, λ_m ∝ e_m^(−power).

    e_m = √⟨(x_m − r)²⟩ is the root-mean-square error of model x_m against the reference r, and
    b_m = ⟨x_m − r⟩ its bias. ⟨·⟩ is the mean, with the weights ``cells``, over the times and places
    at which both have a value.

    Args:
        models: The hindcasts (model, time, …), NaN if there is none.
        reference: The observations (time, …), NaN if there is none.
        power: 1 makes λ_m e_m equal; 2 is inverse mean squared error.
        bias: "penalised": part of the error. "removed": ``combine`` subtracts it, and
            e_m = √⟨(x_m − b_m − r)²⟩. "ignored": the same e_m without subtraction, for comparison:
            a steady model that is always wrong gets the largest weight.
        cells: The weight of a place in the mean, such as the cosine of the latitude.
        model: The name of the models' dimension.
        time: The name of the time dimension; all other coordinates must agree.

    Raises:
        ValueError: There are no common times, other coordinates differ, a dimension is missing or
            a name comes twice; and, for lazy data in ``compute``, a model has no value in common
            with the reference, or an error of 0 or infinity.

    Example:
        >>> import xarray as xr
        >>> days = {"time": [0, 1, 2, 3]}
        >>> truth = xr.DataArray([0.0, 0.0, 0.0, 0.0], days, ["time"])
        >>> noisy, steady = truth + [2, -2, 2, -2], truth + [4, 4, 4, 5]
        >>> models = xr.concat([noisy, steady], xr.Variable("model", ["noisy", "steady"]))
        >>> weigh(models, truth, power=2).weights.values.round(2).tolist()
        [0.82, 0.18]
        >>> weigh(models, truth, power=2, bias="ignored").weights.values.round(2).tolist()
        [0.04, 0.96]
    """
    if bias not in BIASES:
        raise ValueError(f"bias: must be one of {', '.join(BIASES)}, found {bias!r}; choose one")
    rule = InverseNorm(power)
    names = [str(name) for name in _names(models, model, "models")]
    apart = _apart(models, reference, model, time)
    places = [dim for dim in apart.dims if dim != model]
    area = apart.weighted(_area(cells, apart, places))
    mean = area.mean(places)
    squares = apart**2 if bias == "penalised" else (apart - mean) ** 2
    errors = squares.weighted(area.weights).mean(places) ** 0.5
    weights = xr.apply_ufunc(
        lambda norms: rule(_judged(norms, names)),
        errors if errors.chunks is None else errors.chunk({model: -1}),
        input_core_dims=[[model]],
        output_core_dims=[[model]],
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    unit = {"units": models.attrs["units"]} if "units" in models.attrs else {}
    return Ensemble(
        weights.rename("weight"),
        errors.rename("error").assign_attrs(unit),
        mean.rename("bias").assign_attrs(unit),
        bias == "removed",
    )


def _names(data: xr.DataArray, dim: Hashable, what: str) -> list[Hashable]:
    """The models in ``data``, numbered if they have no names."""
    if dim not in data.dims:
        raise ValueError(
            f"{what} must have the dimension {dim!r}, found {', '.join(map(str, data.dims))}; "
            f"xarray.concat joins models along a new one"
        )
    names = data[dim].values.tolist()
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{what} must have one name each, found {', '.join(twice)} more than once; rename them"
        )
    return names


def _apart(
    models: xr.DataArray, reference: xr.DataArray, model: Hashable, time: Hashable
) -> xr.DataArray:
    """Models minus reference, in float64, at the times that both have."""
    dims = set(models.dims) - {model}
    if time not in dims or set(reference.dims) != dims:
        raise ValueError(
            f"reference must have the dimensions of the models but {model!r}, with {time!r} among "
            f"them, found {sorted(map(str, reference.dims))} and {sorted(map(str, models.dims))}; "
            f"select or rename them"
        )
    try:
        past, seen = xr.align(models, reference, join="inner", exclude=dims - {time} | {model})
        past, seen = xr.align(past, seen, join="exact", exclude={model})
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"models and reference must have the same coordinates but for {time!r}: {error}; bring "
            f"them to one grid, and to one calendar, first"
        ) from error
    if not past.sizes[time]:
        raise ValueError(
            f"models and reference must overlap in {time!r}, found {_span(models, time)} and "
            f"{_span(reference, time)}; choose another reference period"
        )
    return past.astype(np.float64) - seen.astype(np.float64)


def _span(data: xr.DataArray, time: Hashable) -> str:
    values = data[time].values
    return f"{values[0]} to {values[-1]}" if len(values) else "no times"


def _area(cells: xr.DataArray | None, apart: xr.DataArray, places: list[Hashable]) -> xr.DataArray:
    if cells is None:
        return xr.DataArray(1.0)
    if not set(cells.dims) <= set(places):
        raise ValueError(
            f"cells must have dimensions of the reference, found "
            f"{', '.join(map(str, cells.dims))}; give one weight a place"
        )
    if cells.chunks is None and not bool((cells >= 0).all()):
        raise ValueError(
            f"cells must be zero or more, found {float(cells.min()):g} or NaN; the cosine of a "
            f"latitude in radians is"
        )
    xr.align(cells, apart, join="exact")
    return cells


def _judged(errors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """``errors`` (model,), refused where the rule has nothing to say of one."""
    for wrong, why in (
        (np.isnan(errors), "no value in common with the reference"),
        (np.isinf(errors), "an infinite error"),
        (errors == 0, "an error of exactly 0, as the reference itself has"),
    ):
        if wrong.any():
            found = ", ".join(name for name, bad in zip(names, wrong, strict=True) if bad)
            raise ValueError(
                f"models must each have an error to go by, found {why}: {found}; leave it out"
            )
    return errors
