"""``gaba bench``: methods × problems × seeds, resumable, and the report of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, final

from tyro.conf import Positional, arg, subcommand

STORE = arg(metavar="FILE", help_behavior_hint="(default: the configuration's)")
DATA = arg(metavar="DIR", help_behavior_hint="(default: the configuration's)")


@final
@dataclass(frozen=True)
class Run:
    """Run what is missing of a benchmark. Safe to interrupt: run the same command to resume."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """The TOML file that says what to run."""
    jobs: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: the cores)")] = None
    """Trainings at a time, each with one thread."""
    backend: Literal["loky", "dask", "ray"] = "loky"
    """Where they run: processes of this machine, or a cluster of Dask or Ray."""
    scheduler: Annotated[
        str | None, arg(metavar="ADDRESS", help_behavior_hint="(default: one is started here)")
    ] = None
    """The cluster, as tcp://host:8786 for Dask."""
    limit_seconds: Annotated[
        float | None, arg(metavar="S", help_behavior_hint="(default: no limit)")
    ] = None
    """Start no further training after that long, and end when the running ones are done."""
    shard: Annotated[str, arg(metavar="I/N")] = "1/1"
    """Run only the I-th of N parts, each of them on its own machine with its own store."""
    retry_failed: bool = False
    """Run those again that raised an error."""
    store: Annotated[str | None, STORE] = None
    """Where the results are kept."""
    data_dir: Annotated[str | None, DATA] = None
    """The folder with the data."""

    def run(self) -> None:
        """Run it, and say how far it is."""
        from gaba.cli import sweep

        sweep.run(
            sweep.configured(self.config, store=self.store, data_dir=self.data_dir),
            self.config,
            self.jobs,
            backend=self.backend,
            scheduler=self.scheduler,
            limit_seconds=self.limit_seconds,
            shard=sweep.shard(self.shard),
            retry_failed=self.retry_failed,
        )


@final
@dataclass(frozen=True)
class Status:
    """Say how far a benchmark is, without running anything."""

    config: Annotated[Positional[Path], arg(metavar="CONFIG")]
    """The TOML file that says what to run."""
    store: Annotated[str | None, STORE] = None
    """Where the results are kept."""
    data_dir: Annotated[str | None, DATA] = None
    """The folder with the data."""

    def run(self) -> None:
        """Print it."""
        from gaba.cli import sweep

        config = sweep.configured(self.config, store=self.store, data_dir=self.data_dir)
        print(sweep.status(config, self.config))


@final
@dataclass(frozen=True)
class Summarise:
    """Write what a benchmark found: tables, intervals, tests, pictures, and what they mean."""

    store: Annotated[Positional[Path], arg(metavar="STORE")]
    """The SQLite file of the results."""
    out: Annotated[Path, arg(metavar="FILE", aliases=["-o"])]
    """The file to write: .html is one file with everything in it; .md has pictures beside it."""

    def run(self) -> None:
        """Write it, and say where."""
        from gaba.bench import report

        kinds: dict[str, Literal["html", "md"]] = {".html": "html", ".htm": "html", ".md": "md"}
        if self.out.suffix not in kinds:
            raise ValueError(f"--out must end in .html or .md, found {self.out}")
        print(f"the report is in {report.write(self.store, self.out, kinds[self.out.suffix])}")


@final
@dataclass(frozen=True)
class Merge:
    """Take the results of other stores over into one, which keeps its own where both have one."""

    stores: Annotated[Positional[tuple[Path, ...]], arg(metavar="STORE...", help_behavior_hint="")]
    """SQLite files: the first is written to, and made if it is absent; the others are only read."""

    def run(self) -> None:
        """Merge, and say how many came."""
        from gaba.cli import sweep

        print(sweep.merge(self.stores))


@final
@dataclass(frozen=True)
class Problems:
    """List the problems that come with the benchmark."""

    def run(self) -> None:
        """Print them."""
        from gaba.bench import CARDS

        for name, card in sorted(CARDS.items()):
            tasks = card.tasks
            shown = ", ".join(tasks) if len(tasks) <= 6 else f"{tasks[0]}, ..., {tasks[-1]}"
            print(f"{name}\n    {card.about}\n    {len(tasks)} tasks: {shown}; {card.steps} steps")
        print("\none of your own: FILE.py:NAME (see examples/own_problem.py)")


Action: TypeAlias = (
    Annotated[Run, subcommand("run", prefix_name=False)]
    | Annotated[Status, subcommand("status", prefix_name=False)]
    | Annotated[Summarise, subcommand("report", prefix_name=False)]
    | Annotated[Merge, subcommand("merge", prefix_name=False)]
    | Annotated[Problems, subcommand("problems", prefix_name=False)]
)


@final
@dataclass(frozen=True)
class Bench:
    """Compare methods honestly: all tuned alike, many seeds, on real problems."""

    action: Annotated[Action, arg(name="")]

    def run(self) -> None:
        """Do what was asked for."""
        self.action.run()
