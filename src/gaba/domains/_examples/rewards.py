"""Deep-sea-treasure: what each reward component pulls on the trunk, and what the agent collects."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gaba
from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.rewards import Settings, train

STEPS, WINDOW = 800, 25
PREFERENCE = {"treasure": 0.5, "time": 0.5}


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of each ``WINDOW`` values in a row."""
    width = min(WINDOW, len(values))
    return np.convolve(values, np.ones(width) / width, mode="valid")


def main(folder: Path) -> None:
    import mo_gymnasium

    with warnings.catch_warnings():  # the environment warns of the precision of its own bounds
        warnings.simplefilter("ignore")
        env = mo_gymnasium.make("deep-sea-treasure-v0")  # pyright: ignore[reportPrivateImportUsage]
    titles = ("Returns while learning", "Contributions on the trunk")
    figure, (left, right) = panels(*titles)
    plain = gaba.Method(gaba.rules.InverseNorm(power=0))  # multiplies by 1, and measures
    methods: dict[str, gaba.Method | str] = {"uniform": plain, "balanced": "gaba"}
    apart, greedy = [], []
    for (name, method), style in zip(methods.items(), (":", "-"), strict=True):
        run = train(env, PREFERENCE, settings=Settings(steps=STEPS), method=method)
        history = run.history
        apart.append(float(np.nanmedian(history.imbalance)))
        greedy.append(run.greedy)
        for c, part in enumerate(run.components):
            look = {"linestyle": style, "color": COLOURS[c], "label": f"{part}, {name}"}
            left.plot(_means(run.returns[:, c]), **look)
            pulls = history.contributions[:, c]
            known = np.flatnonzero(pulls > 0)  # not measured in every update
            right.plot(known[-len(_means(known)) :], np.exp(_means(np.log(pulls[known]))), **look)
    say.show(f"Deep-sea-treasure, one run of {STEPS} steps each; the reward time is -1 a step.")
    told = "with unweighted losses", (apart[0], apart[1])
    say.show(say.pulls([*PREFERENCE], "the shared layers", *told))
    say.show(say.collected([*PREFERENCE], *greedy))
    left.set(xlabel="episode", ylabel=f"return, mean of {WINDOW} episodes")
    right.set(xlabel="update", ylabel="contribution, smoothed", yscale="log")
    right.legend(frameon=False, fontsize=8)
    save(figure, folder / "rewards.png")
