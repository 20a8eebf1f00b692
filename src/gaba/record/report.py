"""Reports of runs to send to people: one self-contained HTML page, or Markdown with pictures."""

from __future__ import annotations

import base64
import html as _html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

import gaba
from gaba.record import diagnosis, plots

__all__ = ["Run", "html", "markdown"]

Figure = Callable[..., plots.Picture]

PICTURES: tuple[tuple[str, Figure, str], ...] = (
    ("losses", plots.losses, "Losses"),
    ("norms", plots.norms, "Norms"),
    ("weights", plots.weights, "Weights"),
    ("contributions", plots.contributions, "Contributions"),
    ("imbalance", plots.imbalance, "Imbalance"),
    ("saturation", plots.saturation, "Saturation"),
    ("cosines", plots.cosines, "Cosines between the tasks' gradients"),
)

STYLE = """
:root { color-scheme: light dark; --bg: light-dark(#f7f6f2, #12151a);
  --surface: light-dark(#fff, #1a1e25); --line: light-dark(#dbd8ce, #303743);
  --ink: light-dark(#1c1f26, #eceef2); --quiet: light-dark(#565b66, #a9b1be); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 900px; padding: 24px 16px 64px; background: var(--bg);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 0.5em; }
h1 { margin-top: 0; }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 12px;
  padding: 4px clamp(14px, 3vw, 28px) 20px; margin-top: 24px; }
.quiet { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; }
th[scope=row] { color: var(--ink); font-weight: 500; }
td.number, th.number { text-align: right; }
figure { margin: 18px 0; }
figcaption { font-weight: 600; margin-bottom: 4px; }
picture { display: block; overflow-x: auto; }
img { display: block; width: 100%; min-width: 560px; height: auto; }
li { margin: 0.3em 0; }
@media print { body { background: #fff; } section { break-inside: auto; border: 0; padding: 0; } }
"""


@final
@dataclass(frozen=True)
class Run:
    """A run to report on.

    Attributes:
        name: what to call it.
        history: its steps, at least one.
        meta: its configuration, as the record's header holds it.

    Example:
        >>> run = Run("a run", _example().history, {"simulated": True, "seed": 0})
        >>> run.heading, run.summary()[:3]
        ('simulated data · seed 0', ['a run', '1', '1'])
        >>> run.tasks()[0][-2:], sorted(run.pictures(dark=True))[:2]
        (['0.7500', '0.0 %'], ['contributions', 'imbalance'])
    """

    name: str
    history: gaba.History
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The data, method, size and seed, where the configuration has them.

        A run on simulated data is called so.
        """
        meta = dict(self.meta)
        if meta.get("simulated"):
            meta["subset"] = "simulated data"
        parts = [str(meta[name]) for name in ("subset", "method", "size") if name in meta]
        return " · ".join(parts + ([f"seed {meta['seed']}"] if "seed" in meta else []))

    def tasks(self) -> list[list[str]]:
        """A line a task: name, medians of loss, norm and contribution, last weight, saturation."""
        at = self.history
        columns = (at.losses, at.norms, at.contributions)
        return [
            [
                task,
                *(_median(column[:, k]) for column in columns),
                f"{at.weights[-1, k]:.4f}",
                f"{100 * at.saturated[:, k].mean():.1f} %",
            ]
            for k, task in enumerate(at.tasks)
        ]

    def summary(self) -> list[str]:
        """Name, steps, median imbalance, share of saturated steps, skipped steps, step time."""
        at = self.history
        seconds = np.diff(at.times)
        typical = _median(seconds[seconds >= 0])
        return [
            self.name,
            f"{len(at):,}",
            _median(at.imbalance),
            f"{100 * at.saturated.any(axis=1).mean():.1f} %",
            f"{int((~at.finite).sum()):,}",
            "–" if typical == "–" else f"{typical} s",
        ]

    def pictures(self, dark: bool) -> dict[str, plots.Picture]:
        """The figures that this history has something for, by name."""
        triangle = np.triu_indices(len(self.history.tasks), 1)
        has = {
            "cosines": np.isfinite(self.history.cosines[:, triangle[0], triangle[1]]).any(),
            "saturation": self.history.saturated.any(),
        }
        return {
            name: draw(self.history, dark=dark) for name, draw, _ in PICTURES if has.get(name, True)
        }


SUMMARY = ("run", "steps", "imbalance, median", "saturated steps", "skipped steps", "step time")
TASKS = ("task", "loss", "norm", "contribution", "last weight", "saturated")


def html(runs: Sequence[Run]) -> str:
    """One page with everything in it: it needs no other file, no script and no network.

    Args:
        runs: at least one; with more, a table compares them.

    Raises:
        ValueError: there is no run, or one without steps.

    Example:
        >>> balancer = _example()
        >>> page = html([Run("a run", balancer.history, {"method": "inverse"})])
        >>> page.count("<figure>"), "http" in page.replace("http-equiv", "")
        (5, False)
    """
    _check(runs)
    title = _title(runs)
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="quiet">{_text(_made())}</p>']
    if len(runs) > 1:
        rows = [run.summary() for run in runs]
        parts.append(f"<section><h2>Runs</h2>{_table(SUMMARY, rows)}</section>")
    parts += [_section(run) for run in runs]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def markdown(runs: Sequence[Run], folder: Path) -> str:
    """A Markdown page; its pictures are written into ``folder``, beside which it belongs.

    Args:
        runs: at least one; with more, a table compares them.
        folder: where the pictures go; the page names them by the last part of this path.

    Raises:
        ValueError: there is no run, or one without steps.

    Example:
        >>> import tempfile
        >>> balancer = _example()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     page = markdown([Run("a run", balancer.history)], Path(place, "pictures"))
        ...     len(list(Path(place, "pictures").iterdir()))
        5
        >>> page.splitlines()[0], page.count("](pictures/")
        ('# a run', 5)
    """
    _check(runs)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {_plain(_title(runs))}", _made()]
    if len(runs) > 1:
        parts += ["## Runs", _markdown_table(SUMMARY, [run.summary() for run in runs])]
    for i, run in enumerate(runs, start=1):
        if len(runs) > 1:
            parts.append(f"## {_plain(run.name)}")
        parts += [_plain(part) for part in _intro(run)]
        parts.append(_markdown_table(TASKS, run.tasks()))
        parts += ["**Diagnosis**", _markdown_list(diagnosis.diagnose(run.history))]
        for name, picture in run.pictures(dark=False).items():
            file = f"{i}-{name}.png" if len(runs) > 1 else f"{name}.png"
            picture.savefig(folder / file, dpi=110)
            parts.append(f"![{_plain(_caption(name))} of {_plain(run.name)}]({folder.name}/{file})")
        if run.meta:
            parts += ["**Configuration**", _markdown_table(("setting", "value"), _settings(run))]
    return "\n\n".join(parts) + "\n"


# --- the parts of both ---------------------------------------------------------------------------


def _check(runs: Sequence[Run]) -> None:
    if not runs:
        raise ValueError("runs must be at least one, found none: name a run to report on")
    for run in runs:
        if not len(run.history):
            raise ValueError(f"{run.name} holds no steps yet: let the run go on for a while")


def _title(runs: Sequence[Run]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs"


def _made() -> str:
    from importlib import metadata

    return f"A report by gaba {metadata.version('gaba')}."


def _intro(run: Run) -> list[str]:
    at = run.history
    last = f", the last of them step {int(at.steps[-1]):,}"
    said = f"{len(at):,} steps of {len(at.tasks)} tasks ({', '.join(at.tasks)}){last}."
    middle, end = _median(at.imbalance), _figure(float(at.imbalance[-1]))
    balance = f"Imbalance: {middle} in the median step, {end} in the last; 1 is balanced."
    about = [f"{name}: {value}" for name, value in at.about.items()]
    return [*filter(None, [run.heading]), said, balance, *filter(None, [" · ".join(about)])]


def _settings(run: Run) -> list[list[str]]:
    return [[str(name), str(value)] for name, value in run.meta.items()]


def _caption(name: str) -> str:
    return next(caption for known, _, caption in PICTURES if known == name)


def _median(values: Any) -> str:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return _figure(float(np.median(known))) if known.size else "–"


def _figure(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" if math.isfinite(value) else "infinite"


def _text(text: str) -> str:
    return _html.escape(text, quote=True)


def _section(run: Run) -> str:
    intro = "".join(f"<p>{_text(part)}</p>" for part in _intro(run))
    found = "".join(f"<li>{_text(f.text)}</li>" for f in diagnosis.diagnose(run.history).findings)
    light, dark = run.pictures(dark=False), run.pictures(dark=True)
    drawn = "".join(_drawn(run, name, light[name], dark[name]) for name in light)
    settings = ""
    if run.meta:
        settings = f"<h3>Configuration</h3>{_table(('setting', 'value'), _settings(run), 2)}"
    return (
        f"<section><h2>{_text(run.name)}</h2>{intro}<h3>Tasks</h3>"
        f'<p class="quiet">Medians over all steps.</p>{_table(TASKS, run.tasks())}'
        f"<h3>Diagnosis</h3><ul>{found}</ul><h3>Figures</h3>{drawn}{settings}</section>"
    )


def _drawn(run: Run, name: str, light: plots.Picture, dark: plots.Picture) -> str:
    caption = _caption(name)
    return (
        f"<figure><figcaption>{_text(caption)}</figcaption><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img alt="{_text(caption)} of {_text(run.name)} over its steps" src="{_data(light)}">'
        "</picture></figure>"
    )


def _data(picture: plots.Picture) -> str:
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first ``words`` columns are words, the others numbers."""
    kind = ["" if i < words else ' class="number"' for i in range(len(head))]
    cells = "".join(
        f'<th scope="col"{k}>{_text(name)}</th>' for name, k in zip(head, kind, strict=True)
    )
    lines = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td{k}>{_text(v)}</td>" for v, k in zip(row[1:], kind[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _plain(text: str) -> str:
    """``text`` in Markdown: its marks stand for themselves."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _markdown_list(found: diagnosis.Diagnosis) -> str:
    return "\n".join(f"- {_plain(finding.text)}" for finding in found.findings)


def _example() -> gaba.Balancer:
    """A step of two tasks, for the examples above."""
    import torch

    w = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["a", "b"], shared=[w])
    balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
    return balancer
