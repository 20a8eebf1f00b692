"""``gaba train turbofan --compare``: several methods with one seed, one table, and one picture."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.text import Text

import gaba
from gaba import turbofan
from gaba.cli.pictures import draw
from gaba.cli.progress import progress
from gaba.cli.report import REPORT, show
from gaba.cli.runs import interrupted, title
from gaba.cli.screen import WIDTH, console, short, table
from gaba.turbofan import checkpoint, plots

COMPARISON = "comparison.json"
TABLE = "comparison.txt"
PICTURE = "comparison.png"


@final
@dataclass(frozen=True)
class Comparison:
    """The runs to compare, which differ in the method alone.

    Attributes:
        folder: Holds a run for each method, the table and the picture.
        methods: As they were named.
        shared: The settings; its method and its folder are not used.
    """

    folder: Path
    methods: tuple[str, ...]
    shared: turbofan.TrainConfig

    def config(self, method: str) -> turbofan.TrainConfig:
        """The settings of the run of one method.

        >>> two = Comparison(Path("runs/two"), ("gaba", "fixed:1,20"), turbofan.TrainConfig())
        >>> two.config("fixed:1,20").run_dir
        'runs/two/fixed_1_20'
        """
        name = re.sub(r"[^\w.-]+", "_", method)
        return replace(self.shared, method=method, run_dir=str(self.folder / name))

    def write(self) -> None:
        """Write what :meth:`read` needs."""
        settings = asdict(self.shared)
        for name in ("method", "run_dir"):
            settings.pop(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {"methods": self.methods, "settings": settings}
        checkpoint.write_json(self.folder / COMPARISON, values)

    @classmethod
    def read(cls, folder: Path) -> Comparison:
        """The comparison in ``folder``.

        Raises:
            ValueError: Its file does not hold one.
        """
        path = folder / COMPARISON
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(folder, tuple(values["methods"]), turbofan.TrainConfig(**values["settings"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold a comparison: {error}") from error


def names(text: str) -> tuple[str, ...]:
    """The methods in a list with commas; those between numbers belong to a method.

    Raises:
        ValueError: There are fewer than two, or one stands twice.

    >>> names("gaba, fixed:1,20,uniform")
    ('gaba', 'fixed:1,20', 'uniform')
    """
    found = tuple(part.strip() for part in re.split(r",(?!\s*[\d.])", text) if part.strip())
    if len(found) < 2:
        raise ValueError(f"--compare needs at least 2 methods, found {', '.join(found) or 'none'}")
    for name in found:
        if found.count(name) > 1:
            raise ValueError(f"--compare must name each method once, found {name} twice")
    return found


def is_one(folder: Path) -> bool:
    """Whether ``folder`` holds a comparison."""
    return (folder / COMPARISON).is_file()


def compare(asked: Comparison) -> None:
    """Train what is not finished, print the table, and draw the picture.

    Raises:
        FileExistsError: The folder holds other runs.
        KeyboardInterrupt: Ctrl-C; the message says how to resume.
    """
    configs = {method: asked.config(method) for method in asked.methods}
    backbone = turbofan.TurbofanNet(asked.shared.size).backbone
    for method in configs:  # before the first is trained for long
        gaba.methods.get(method, turbofan.TASKS, backbone)
    if not is_one(asked.folder):
        for path in (asked.folder, *(Path(config.run_dir) for config in configs.values())):
            if (path / checkpoint.CONFIG).exists():
                raise FileExistsError(f"{path} holds a run: name another --run-dir")
    if len({config.run_dir for config in configs.values()}) < len(configs):
        raise ValueError("two methods of --compare need the same folder: leave one out")
    asked.shared.usable_device()
    fleet = turbofan.load(asked.shared.subset, asked.shared.data_dir, asked.shared.columns)
    screen = console()
    for number, config in enumerate(configs.values(), start=1):
        heading = title({**vars(config), "simulated": fleet.simulated})
        screen.print(f"{number} of {len(configs)}: {heading}", markup=False)
        try:
            _finish(screen, asked, config, fleet)
        except KeyboardInterrupt:
            if not is_one(asked.folder):
                raise
            raise interrupted(asked.folder) from None
    _conclude(screen, asked, {method: Path(c.run_dir) for method, c in configs.items()})


def _finish(
    screen: Console, asked: Comparison, config: turbofan.TrainConfig, fleet: turbofan.Fleet
) -> None:
    """Train until the run is finished and reported; one that is already stays as it is."""
    folder = Path(config.run_dir)
    if (folder / REPORT).is_file() and checkpoint.read_metrics(folder)["finished"]:
        screen.print(f"finished before: {folder}", markup=False)
        return
    with progress(screen, config.steps) as bar:

        def on_step(step: gaba.Step) -> None:
            if not is_one(asked.folder):  # nothing is written before a first step went well
                asked.write()
            bar.on_step(step)

        result = turbofan.train(config, on_step, bar.on_epoch, resume=True, fleet=fleet)
    draw(folder, fleet=fleet)
    show(Console(file=io.StringIO()), folder, result.metrics)


def _conclude(screen: Console, asked: Comparison, folders: Mapping[str, Path]) -> None:
    histories = {
        method: gaba.History.read(folder / checkpoint.HISTORY) for method, folder in folders.items()
    }
    metrics = {method: checkpoint.read_metrics(folder) for method, folder in folders.items()}
    made = _report(metrics, histories)
    screen.print()
    screen.print(made)
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, force_terminal=False).print(made)
    (asked.folder / TABLE).write_text(text.getvalue(), encoding="utf-8")
    first = next(iter(metrics.values()))
    same = f"{first['size']} · seed {first['seed']}"
    caption = plots.Caption(first["subset"], same, simulated=first["simulated"])
    named = {f"{method}: imbalance {_imbalance(h)[0]}": h for method, h in histories.items()}
    picture = plots.save(plots.balances(named, caption), asked.folder / PICTURE)
    screen.print(
        f"\npicture: {picture}\nruns: {', '.join(map(str, folders.values()))}", markup=False
    )


def _report(
    metrics: Mapping[str, dict[str, Any]], histories: Mapping[str, gaba.History]
) -> RenderableType:
    """The table, and the verdict on each method."""
    first = next(iter(metrics.values()))
    heading = {**first, "method": " against ".join(metrics)}
    made = table(
        *("method", "validation RMSE", "test RMSE", "NASA score", "accuracy", "macro-F1"),
        *("imbalance, median", "at the end"),
    )
    for method, found in metrics.items():
        capped, health = found["test"]["capped"], found["test"]["health"]
        made.add_row(
            method,
            f"{found['validation']['rmse']:.2f}",
            f"{capped['rmse']:.2f}",
            "infinite" if capped["score"] is None else f"{capped['score']:,.1f}",
            f"{health['accuracy']:.1%}",
            f"{health['macro_f1']:.3f}",
            *_imbalance(histories[method]),
        )
    said = [f"{method}: {gaba.diagnose(history).verdict}" for method, history in histories.items()]
    return Group(
        Text(title(heading), style="bold"),
        Text(
            f"{first['test_engines']} test engines, RMSE in cycles with capped labels; each model "
            "was chosen by its validation RMSE"
        ),
        made,
        *(Text(line) for line in said),
        *(
            []
            if "uniform" not in metrics or np.isfinite(histories["uniform"].norms).any()
            else [Text("(uniform measures nothing; observe is the same sum, measured)")]
        ),
    )


def _imbalance(history: gaba.History) -> tuple[str, str]:
    """The median and the last."""
    known = history.imbalance[~np.isnan(history.imbalance)]
    if not known.size:
        return "not measured", "–"
    return f"{short(float(np.median(known)))}×", f"{short(float(known[-1]))}×"
