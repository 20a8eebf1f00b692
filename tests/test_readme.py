"""Every command and every snippet of the README is executed here, and its output compared.

A command that takes minutes is executed in a reduced way that is written beside it in `COMMANDS`;
in full it runs under the `slow` mark. A command that is in the README and not in the table, or in
the table and not in the README, fails a test.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest

import gaba
from _python import POLICY, run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(README)]
PRINTS = ("python", "text")
"""The kinds of a block and the next one, which is the beginning of what it prints."""
TINY = ["--subset", "simulated", "--steps", "2", "--steps-per-epoch", "2"]


def commands() -> list[str]:
    lines = "".join(text for kind, text in BLOCKS if kind == "sh").splitlines()
    return [line.removeprefix(".venv/bin/") for line in lines if line]


def printed_after(command: str) -> str:
    """The `text` block that follows the block of this command."""
    for (kind, text), (next_kind, output) in pairwise(BLOCKS):
        if kind == "sh" and command in text:
            assert next_kind == "text"
            return output
    raise AssertionError(f"no output after {command}")


def execute(arguments: list[str], folder: Path, policy: str | None = None) -> str:
    """Run `gaba` or `python` with this interpreter, away from the repository."""
    program, *rest = arguments
    start = {
        "python": [],
        "gaba": ["-c", "import sys; from gaba.cli import main; sys.exit(main())"],
    }[program]
    done = run(
        [*start, *rest],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        timeout=580,
        policy=policy,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dry_run(target: str) -> str:
    """What `make TARGET` would do on a fresh clone."""
    done = subprocess.run(
        ["make", "--always-make", "--dry-run", target],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return done.stdout


def installs(*extras: str) -> Callable[[Path], None]:
    """It installs the package from the clone, resolved without a download, and the extra exists."""

    def run(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
        options = ["--dry-run", "--no-deps", "--no-build-isolation", "--ignore-installed"]
        done = subprocess.run(
            [*pip, *options, "."], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert f"Would install gaba-{gaba.__version__}" in done.stdout
        assert {*extras} <= {*(metadata.metadata("gaba").get_all("Provides-Extra") or [])}

    return run


def installs_first(recipe: str, job: str) -> None:
    steps = ["-m venv .venv", "requirements/pins.txt torch", '-e ".[dev]"', job]
    places = [recipe.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


# --- the commands -----------------------------------------------------------------------------


def make_train(_: Path) -> None:
    installs_first(dry_run("train"), "gaba train turbofan --subset")


def make_test(_: Path) -> None:
    recipe = dry_run("test")
    for job in ("ruff check .", "ruff format --check .", "basedpyright", "--doctest-modules src"):
        installs_first(recipe, job)


def words(text: str) -> list[str]:
    """Everything but the layout: the length of a line and the width of a column are free."""
    return re.sub(r"-{3,}", "", text).split()


def prints_what_it_says(command: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        program, *rest = shlex.split(command)
        rest = [str(ROOT / word) if (ROOT / word).is_file() else word for word in rest]
        assert words(execute([program, *rest], folder)) == words(printed_after(command))

    return run


def after_training(*arguments: str) -> Callable[[Path], None]:
    """Two steps on a simulated fleet stand for the training; what follows is run as it is."""

    def run(folder: Path) -> None:
        made = folder / "runs" / "gaba"
        if not made.exists():
            command = next(line for line in commands() if line.startswith("gaba train"))
            execute([*shlex.split(command), *TINY], folder)
        metrics = json.loads((made / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["simulated"] is True
        assert (metrics["method"], metrics["steps"]) == ("gaba", 2)
        assert list(made.rglob("*.png"))
        for argument in arguments:
            output = execute(["gaba", argument, "runs/gaba"], folder)
            assert {"evaluate": "RMSE", "explain": "2 steps of 2 tasks"}[argument] in output

    return run


def downloads_nothing_here(folder: Path) -> None:
    """There may be no network: that the command exists and takes these words; see its own tests."""
    assert "--dest" in execute(["gaba", "data", "cmapss", "--help"], folder)


def opens_the_explorer(folder: Path) -> None:
    program = str(Path(sys.executable).with_name("gaba"))
    with subprocess.Popen(
        [program, "web", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        address, page = running.stdout.readline().split()[-1], ""
        for _ in range(100):
            try:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    page = answer.read().decode()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert "Equal contribution" in page
        assert running.wait(timeout=60) == 0


def writes_the_explorer(folder: Path) -> None:
    execute(["gaba", "web", "--export", "explorer.html"], folder)
    assert "Equal contribution" in (folder / "explorer.html").read_text(encoding="utf-8")


TOY = "benchmarks/evidence/conflict-toy.toml"


def lists_the_methods(folder: Path) -> None:
    assert "inverse-optimizer" in execute(["gaba", "methods"], folder)


def runs_a_small_benchmark(folder: Path) -> None:
    """The sweep of the README in short: three methods, twenty steps, the same store."""
    text = (ROOT / TOY).read_text(encoding="utf-8")
    text = re.sub(
        r"^methods = .*", 'methods = ["uniform", "inverse", "fixed-sweep"]', text, flags=re.M
    )
    for name, value in (("steps", 20), ("trials", 1), ("points", 3), ("settings", 1)):
        text = re.sub(rf"^{name} = .*", f"{name} = {value}", text, flags=re.M)
    config = folder / "toy.toml"
    config.write_text(text, encoding="utf-8")
    execute(["gaba", "bench", "run", str(config), "--jobs", "1"], folder)
    assert (folder / STORE).is_file()


def reports_the_benchmark(folder: Path) -> None:
    if not (folder / STORE).is_file():
        runs_a_small_benchmark(folder)
    execute(["gaba", "bench", "report", STORE, "--out", "report.html"], folder)
    assert "What may not be concluded" in (folder / "report.html").read_text(encoding="utf-8")


STORE = "runs/evidence/conflict-toy.sqlite"

COMMANDS: dict[str, Callable[[Path], None]] = {
    "pip install .": installs(),
    'pip install ".[cli]"': installs("cli"),
    "make train": make_train,
    "make test": make_test,
    "gaba demo": prints_what_it_says("gaba demo"),
    "python examples/saturated_floor.py": prints_what_it_says("python examples/saturated_floor.py"),
    "gaba train turbofan --subset FD001 --method gaba --run-dir runs/gaba": after_training(),
    "gaba evaluate runs/gaba": after_training("evaluate"),
    "gaba explain runs/gaba": after_training("explain"),
    "gaba data cmapss": downloads_nothing_here,
    "gaba methods": lists_the_methods,
    f"gaba bench run {TOY}": runs_a_small_benchmark,
    f"gaba bench report {STORE} --out report.html": reports_the_benchmark,
    "gaba web": opens_the_explorer,
    "gaba web --export explorer.html": writes_the_explorer,
}


def test_the_table_holds_exactly_the_commands_of_the_readme() -> None:
    assert sorted(commands()) == sorted(COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_readme_says(command: str, folder: Path) -> None:
    COMMANDS[command](folder)


@pytest.mark.slow
def test_make_train_in_full(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        ["make", "train", f"RUN={folder}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["finished"] is True
    assert metrics["test"]["capped"]["rmse"] < 20


# --- the rest of the page ---------------------------------------------------------------------


def test_the_python_snippets_run_one_after_the_other(tmp_path: Path) -> None:
    code = "\n".join(text for kind, text in BLOCKS if kind == "python")
    path = tmp_path / "readme.py"
    path.write_text(
        code + "\nassert diagnosis.find('balanced') is not None and diagnosis.code == ''\n",
        encoding="utf-8",
    )
    output = execute(["python", str(path)], tmp_path, POLICY)
    pulls = "pulls by effective norms, from the update."
    assert f"100 steps of 2 tasks (rul, health), {pulls}" in output
    said = [text for (before, _), (kind, text) in pairwise(BLOCKS) if (before, kind) == PRINTS]
    assert len(said) == 1
    assert output.startswith(said[0])


def test_the_first_line_after_install_works_on_a_clone() -> None:
    assert "## Install\n\n```sh\npip install .\n```\n" in README


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "text"}
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    pages = sorted((ROOT / page).glob("*.md")) if (ROOT / page).is_dir() else [ROOT / page]
    assert pages
    for path in pages:
        prose = BLOCK.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)\)", prose):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_contributing_names_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", text)):
        assert dry_run(target)


def test_results_have_their_marked_place() -> None:
    assert README.count("<!-- results:start -->") == README.count("<!-- results:end -->") == 1
    assert README.index("<!-- results:start -->") < README.index("<!-- results:end -->")
