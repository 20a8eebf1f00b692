"""The built wheel, and fresh environments to install it into."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def run(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a process with one thread that sees nothing of this repository."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GABA_", "PYTHON", "COV"))}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONUTF8": "1", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=580,
        check=False,
    )


def succeed(*words: str | Path, cwd: Path, **env: str) -> str:
    """Run a process that must succeed, and return what it printed."""
    done = run(*words, cwd=cwd, **env)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class Built(NamedTuple):
    """What `make dist` builds."""

    wheel: Path
    sdist: Path


def built(folder: Path) -> Built:
    """Build the wheel and the sdist of this tree as `make dist` does."""
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    succeed(*build, folder, ROOT, cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def applies(requirement: Requirement, extras: set[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})


def closure(*wanted: str) -> Iterator[Distribution]:
    """The installed distributions that these requirements need, directly or not."""
    todo, seen = [Requirement(line) for line in wanted], set[tuple[str, frozenset[str]]]()
    while todo:
        requirement = todo.pop()
        key = (requirement.name.lower().replace("_", "-"), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), str(requirement)
        yield found
        needs = map(Requirement, found.requires or [])
        todo += [need for need in needs if applies(need, requirement.extras)]


def required(wheel: Path, extra: str = "") -> list[str]:
    """The requirements of the wheel with this extra; its other extras are resolved."""
    with ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(file.read(name)).get_all("Requires-Dist") or []
    found, todo, seen = dict[str, None](), [""], set[str]()
    todo += [extra] * bool(extra)
    while todo:
        seen.add(part := todo.pop())
        for need in map(Requirement, lines):
            if not applies(need, {part}):
                continue
            if need.name == "gaba":
                todo += [other for other in need.extras if other not in seen]
            else:
                need.marker = None
                found[str(need)] = None
    return list(found)


def environment(folder: Path, made: Built, extra: str = "") -> Path:
    """Make an environment with ``gaba[extra]`` and its needs only, and return its interpreter.

    The needs are links to the packages that the tests run with. So nothing is downloaded, the
    versions are those of `requirements/pins.txt`, and nobody waits for a copy of torch.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    links = folder / "linked"
    links.mkdir()
    for found in closure(*required(made.wheel, extra)):
        for top in {Path(file).parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            target = Path(str(found.locate_file(top)))
            if target.exists() and not (links / top).exists():
                (links / top).symlink_to(target)
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "linked.pth").write_text(f"{links}\n", encoding="utf-8")
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    succeed(*pip, "install", "--quiet", "--no-index", "--no-deps", made.wheel, cwd=folder)
    return python
