"""Six made-up climate models, one steady and 3 degrees too warm: which weights fall for it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.ensembles import Bias, weigh

WARM = 3.0
NOISE = {"A": 0.8, "B": 1.0, "C": 1.2, "D": 1.5, "E": 2.0, "warm": 0.3}


def climate() -> tuple[xr.DataArray, xr.DataArray]:
    """Monthly temperatures 1980 to 2039 on a coarse grid, in chunks: models and truth."""
    random = np.random.default_rng(0)
    time = np.arange("1980-01", "2040-01", dtype="datetime64[M]").astype("datetime64[ns]")
    lat = np.arange(-75.0, 90.0, 30.0)
    year = np.arange(len(time)) / 12
    warming = 0.03 * year + 2 * np.sin(2 * np.pi * year)
    values, coords = 288 + warming[:, None] - 0.005 * lat**2, {"time": time, "lat": lat}
    truth = xr.DataArray(values, coords, ["time", "lat"], "tas", {"units": "K"})
    runs = [
        truth + WARM * (name == "warm") + scale * random.normal(size=truth.shape)
        for name, scale in NOISE.items()
    ]
    models = xr.concat(runs, xr.Variable("model", list(NOISE)))
    return models.assign_attrs(truth.attrs).chunk({"time": 120}), truth.chunk({"time": 120})


def main(folder: Path) -> None:
    models, truth = climate()
    cells = truth["lat"].copy(data=np.cos(np.deg2rad(truth["lat"].values)))
    past, future = slice("1980", "2009"), slice("2010", None)
    kinds: dict[str, tuple[float, Bias]] = {
        "equal weights": (0, "penalised"),
        "inverse variance": (2, "ignored"),
        "inverse MSE": (2, "penalised"),
        "inverse RMSE": (1, "penalised"),
        "bias correction": (2, "removed"),
    }
    errors, warm = {}, {}
    figure, (left, right) = panels("Weight of each model", "Error on 2010 to 2039 (K)", width=5.6)
    for n, (name, (power, bias)) in enumerate(kinds.items()):
        ensemble = weigh(models.sel(time=past), truth, power=power, bias=bias, cells=cells)
        apart = ensemble.combine(models.sel(time=future)) - truth
        error = float((apart**2).weighted(cells).mean().compute()) ** 0.5
        weights = ensemble.weights.compute()
        errors[name], warm[name] = error, float(weights.sel(model="warm"))
        left.bar(np.arange(6) + 0.16 * (n - 2), weights, 0.16, color=COLOURS[n], label=name)
        right.barh(name, error, color=COLOURS[n])
    say.show("Six made-up climate models, weighted on 1980 to 2009, tested on 2010 to 2039.")
    say.show(*say.skill(errors, warm, WARM))
    left.set_xticks(range(6), list(NOISE))
    left.legend(fontsize=8)
    save(figure, folder / "ensembles.png")
