"""Records of runs as files, made without training anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gaba


def header(tasks: Sequence[str], **meta: Any) -> str:
    return json.dumps({"gaba": "0", "tasks": list(tasks), "meta": meta}) + "\n"


def step_lines(
    count: int, tasks: Sequence[str], *, first: int = 0, seed: int = 0, cosines: bool = False
) -> list[str]:
    """Steps as `RunRecord` writes them, with now and then a missing task or a norm that is lost."""
    rng = np.random.default_rng((seed, first))
    k = len(tasks)
    norms = np.exp(rng.normal(np.linspace(2, -2, k), 0.5, (count, k)))
    weights = (1 / norms) / (1 / norms).sum(axis=1, keepdims=True)
    losses = np.exp(rng.normal(0, 1, (count, k)))
    kinds = rng.random(count)
    lines = []
    for i in range(count):
        norm, weight, loss = norms[i].tolist(), weights[i].tolist(), losses[i].tolist()
        measured, finite = bool(kinds[i] > 0.05), bool(kinds[i] < 0.97)
        if not measured:
            norm = [None] * k
        if not finite:
            loss[0] = None
        if 0.5 < kinds[i] < 0.52:
            norm[-1] = loss[-1] = None
            weight = [*(np.array(weight[:-1]) / sum(weight[:-1])).tolist(), 0.0]
        multiplier = [1.5 * w for w in weight[:-1]] + [1.5 * weight[-1] or None]
        pulls = [m and g and m * g for m, g in zip(multiplier, norm, strict=True)]
        known = [c for c in pulls if c is not None]
        line = {
            "step": first + i,
            "measured": measured,
            "combined": "by-hand",
            "finite": finite,
            "losses": dict(zip(tasks, loss, strict=True)),
            "norms": dict(zip(tasks, norm, strict=True)),
            "multipliers": dict(zip(tasks, multiplier, strict=True)),
            "weights": dict(zip(tasks, weight, strict=True)),
            "contributions": dict(zip(tasks, pulls, strict=True)),
            "saturated": {task: bool(kinds[i] > 0.8) for task in tasks},
            "imbalance": max(known) / min(known) if len(known) > 1 else None,
        }
        if cosines and measured:
            half = np.triu(rng.uniform(-1, 1, (k, k)), 1)
            away = np.array([g is None for g in norm])
            whole = np.where(away[:, None] | away, np.nan, half + half.T + np.eye(k))
            line["cosines"] = [[None if np.isnan(c) else c for c in row] for row in whole.tolist()]
        lines.append(json.dumps({**line, "time": 1000 + 0.25 * (first + i)}) + "\n")
    return lines


def as_of_0_1(lines: Sequence[str], gain: float) -> list[str]:
    """These steps as version 0.1.0 wrote them: weights and a gain, no multipliers."""
    found = []
    for text in lines:
        line = json.loads(text)
        del line["multipliers"]
        found.append(json.dumps({**line, "gain": gain}) + "\n")
    return found


def write(path: Path, lines: Sequence[str], tasks: Sequence[str] = ("a", "b"), **meta: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header(tasks, **meta) + "".join(lines), encoding="utf-8")
    return path


def append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def read(path: Path) -> gaba.History:
    return gaba.History.read(path)
