"""Runs a case on several ranks: each case in processes and a process group of its own.

    python tests/_ranks.py MODULE WORLD [NAME ...]

imports torch once, then forks for every case, which takes a tenth of a second, and prints what
came of each as JSON. A case is a function of one argument, the :class:`World`, whose name starts
with ``case_``.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from _python import PYTHON

TESTS = Path(__file__).parent
WAIT = 40.0
"""Seconds after which a case counts as hanging."""


@dataclass(frozen=True)
class World:
    """What a case is told: how many ranks there are, which of them it is, a folder for files."""

    size: int
    rank: int
    folder: Path

    @property
    def place(self) -> Path:
        """Where this rank says what came of the case: nothing, if all went well."""
        return self.folder / f"said{self.rank}"

    def leave(self) -> NoReturn:
        """End this rank at once, as planned, without a word to the others."""
        self.place.write_text("")
        os._exit(0)

    @contextmanager
    def group(self, seconds: float = 30, name: str = "store") -> Iterator[None]:
        """The process group of all ranks, over gloo."""
        import torch.distributed as dist

        dist.init_process_group(
            "gloo",
            init_method=f"file://{self.folder / name}",
            rank=self.rank,
            world_size=self.size,
            timeout=timedelta(seconds=seconds),
        )
        yield
        dist.barrier()  # then the process ends, and its group with it


def cases(module: str) -> dict[str, Callable[..., None]]:
    """The cases of a module by name."""
    found = vars(importlib.import_module(module))
    return {name: case for name, case in found.items() if name.startswith("case_")}


def launch(module: str, world: int, names: list[str] | None = None) -> dict[str, str]:
    """What came of each case: ``""`` if all went well, else the traceback of a rank."""
    done = subprocess.run(
        [*PYTHON, str(TESTS / "_ranks.py"), module, str(world)] + (names or []),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        timeout=570,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _run(case: Callable[[World], None], world: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        worlds = [World(world, rank, Path(folder)) for rank in range(world)]
        left: dict[int, World] = {}
        for one in worlds:
            child = os.fork()
            if child == 0:
                _child(case, one)
            left[child] = one
        began = time.monotonic()
        while left and time.monotonic() - began < WAIT:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            left.pop(pid, None)
            time.sleep(0.01 if pid == 0 else 0)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        said = [(one.rank, _said(one)) for one in worlds]
        return "\n".join(f"rank {rank}: {words}" for rank, words in said if words)


def _said(world: World) -> str:
    if world.place.exists():
        return world.place.read_text()
    where = world.place.with_suffix(".where")
    return "hangs or was killed\n" + (where.read_text() if where.exists() else "")


def _child(case: Callable[[World], None], world: World) -> NoReturn:
    said = ""
    with world.place.with_suffix(".where").open("w") as where:
        faulthandler.dump_traceback_later(WAIT - 5, file=where)
        try:
            case(world)
        except BaseException:
            said = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
    world.place.write_text(said)
    os._exit(0)


def main() -> None:
    """As the text at the top says."""
    module, world, *names = sys.argv[1:]
    import torch
    import torch._dynamo
    import torch.distributed.tensor

    torch.set_num_threads(1)
    chosen = cases(module)
    chosen = {name: chosen[name] for name in names} if names else chosen
    came = {}
    sys.stdout.flush()
    for name, case in chosen.items():
        came[name] = _run(case, int(world))
    print(json.dumps(came))


def split(module: ModuleType, slow: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The cases of a module whose names hold none of ``slow``, and the others."""
    names = [name for name in vars(module) if name.startswith("case_")]
    late = [name for name in names if any(part in name for part in slow)]
    return [name for name in names if name not in late], late


def ranked(module: str, world: int, names: list[str], *marks: Any) -> Callable[[str], None]:
    """The test of a test file that all went well in each of these cases, which are run together."""
    import pytest

    came = cache(lambda: launch(module, world, names))

    @pytest.mark.parametrize("name", names)
    def test(name: str) -> None:
        said = came()[name]
        assert not said, said

    for mark in marks:
        test = mark(test)
    return test


if __name__ == "__main__":
    main()
