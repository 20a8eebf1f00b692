"""What the wheel and the sdist hold, and what the wheel does next to torch and NumPy alone."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import gaba
from _installs import ROOT, Built, closure, environment, run, succeed
from gaba import demo

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VENDORED = "gaba/web/static/vendor/"
SUFFIXES = {".py", ".typed", ".css", ".js", ".html"}
ELSEWHERE = {"dev", "docs", "flwr"}
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", "docs/results/benchmark.sqlite")
WITHOUT_EXTRAS = ("gaba.domains", "gaba.web.export", "gaba.web.follow")
"""Modules of applications whose doctests need torch and NumPy only."""

TRAIN = """
import sys
import torch
from torch.nn import functional
import gaba

torch.manual_seed(0)
trunk, heads = torch.nn.Linear(6, 8), torch.nn.ModuleList([torch.nn.Linear(8, 1) for _ in "ab"])
optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=0.01)
balancer = gaba.Balancer(["loud", "quiet"], trunk, "inverse")
inputs = torch.randn(64, 6)
wanted = inputs[:, :2].tanh()
steps = []
for _ in range(200):
    found = [head(trunk(inputs).tanh()).squeeze(-1) for head in heads]
    loud, quiet = (functional.mse_loss(found[k], wanted[:, k]) for k in range(2))
    steps.append(balancer.backward({"loud": 1000 * loud, "quiet": quiet}).asdict())
    optimizer.step()
    optimizer.zero_grad()
for task in ("loud", "quiet"):
    assert steps[-1]["losses"][task] < 0.5 * steps[0]["losses"][task]
assert [step for step in steps if step["measured"]][-1]["imbalance"] < 2
balancer.history.write("run.jsonl")
print(gaba.diagnose(gaba.History.read("run.jsonl")))
ours = {name.partition(".")[0] for name in sys.modules} & {"pandas", "tyro", "rich", "scipy"}
assert not ours, ours
assert gaba.__file__.startswith(sys.prefix), gaba.__file__
"""

COMMANDS = """
import contextlib, io, json, sys
from gaba.cli import main

said = {}
for line in json.loads(sys.argv[1]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(line.split())
    said[line] = status, out.getvalue(), error.getvalue()
print(json.dumps(said))
"""
NEEDS = {
    **dict.fromkeys(["train turbofan --subset simulated", "evaluate run"], "turbofan"),
    "predict run --file engines.csv": "turbofan",
    "export run": "turbofan",
    "data cmapss --dest data": "turbofan",
    "web": "web",
    "report run.jsonl -o run.html": "plots",
    "bench run toy.toml": "bench",
    "domains portfolio": "domains",
}
"""The extra that a command needs beside the command line's own."""
SMALLER = {"domains portfolio": "skfolio"}
"""The smaller extra that a command asks for once its arguments are known."""
NO_MORE = [
    "demo",
    "domains",
    "methods",
    "methods gaba",
    "bench problems",
    "explain run.jsonl",
    "watch run.jsonl --once",
    "web --export page.html",
]
"""The commands that need no other extra."""
TOY = """
[bench]
problems = ["conflict-toy"]
methods = ["uniform", "inverse"]
optimizers = ["sgd"]
store = "toy.sqlite"
"""


def statuses(python: Path, commands: list[str], folder: Path) -> dict[str, tuple[int, str, str]]:
    said = json.loads(succeed(python, "-c", COMMANDS, json.dumps(commands), cwd=folder))
    return {line: tuple(found) for line, found in said.items()}


def files(wheel: Path) -> set[str]:
    """What a wheel installs, without what describes it."""
    with ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_whole_package_and_nothing_else(made: Built) -> None:
    source = ROOT / "src"
    listed = [path for path in source.glob("gaba/**/*") if path.is_file()]
    kept = {path.relative_to(source).as_posix() for path in listed if path.suffix != ".pyc"}
    own = files(made.wheel)
    assert own == kept
    assert {"gaba/__init__.py", "gaba/__main__.py", "gaba/py.typed"} <= own
    for part in ("bench", "cli", "domains", "integrations", "turbofan", "web"):
        assert f"gaba/{part}/__init__.py" in own
    assert {f"gaba/web/static/{page}/index.html" for page in ("explorer", "live")} <= own
    assert {f"{VENDORED}uplot/{file}" for file in ("uPlot.iife.min.js", "LICENSE")} <= own


def test_the_wheel_holds_no_tests_no_data_and_no_evidence(made: Built) -> None:
    own = files(made.wheel)
    folders = r"/(tests?|data|results|benchmarks|docs|examples)/"
    assert not [name for name in own if re.search(rf"{folders}|/(test_|conftest)", name)]
    strange = {name for name in own if Path(name).suffix not in SUFFIXES}
    strange -= {name for name in strange if re.search(r"/templates/\w+\.md$", name)}
    assert all(name.startswith(VENDORED) for name in strange), strange


def test_the_sdist_holds_the_repository(made: Built) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: only git knows which files belong to the repository")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    with tarfile.open(made.sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    kept = {name for name in listed if (ROOT / name).is_file()}
    assert not {name for name in kept if not name.startswith(NOT_IN_SDIST)} - held
    unwanted = (".venv", "runs", "data/", "dist", *NOT_IN_SDIST[-1:])
    assert not {name for name in held if name.startswith(unwanted)}


def test_the_version_is_the_same_everywhere(made: Built) -> None:
    version = gaba.__version__
    assert metadata.version("gaba") == version
    assert made.wheel.name.startswith(f"gaba-{version}-")
    assert made.sdist.name == f"gaba-{version}.tar.gz"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version
    assert {"cff-version", "message", "title", "authors", "license", "date-released"} <= {*citation}
    assert f"version {version}" in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version}] - {citation['date-released']}" in changelog


def test_the_version_is_written_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    found = [re.findall(rf'= "{gaba.__version__}"$', text, re.MULTILINE) for text in texts]
    assert sum(map(len, found)) == 1


def test_issue_templates_ask_for_something() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(templates) >= 3
    for path in templates:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= {*found}, path.name
            fields = [field["attributes"] for field in found["body"] if field["type"] != "markdown"]
            assert fields
            assert all(field["label"] for field in fields)


def listed_in(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {need.name: str(next(iter(need.specifier)).version) for need in map(Requirement, lines)}


def declared() -> dict[str, set[str]]:
    """The lower bounds of pyproject.toml, by package."""
    listed = [*PROJECT["dependencies"]]
    for name, lines in PROJECT["optional-dependencies"].items():
        listed += lines if name not in ELSEWHERE else []
    found: dict[str, set[str]] = {}
    for need in map(Requirement, listed):
        if need.name != "gaba" and need.marker is None:
            found.setdefault(need.name, set()).update(part.version for part in need.specifier)
    return found


def test_the_declared_oldest_versions_are_those_that_were_tried() -> None:
    bounds, tried = declared(), listed_in("oldest.txt")
    assert set(bounds) == set(tried)
    together = listed_in("oldest-together.txt")
    assert set(together) == set(tried)
    assert all(Version(together[name]) >= Version(tried[name]) for name in tried)
    for name, versions in bounds.items():
        assert len(versions) == 1, f"{name} has more than one lower bound: {versions}"
        # the first release of its series
        assert Version(tried[name]) in SpecifierSet(f"=={versions.pop()}.*"), name


def test_the_pins_name_all_that_the_tests_run_with() -> None:
    pins = {canonicalize_name(name): version for name, version in listed_in("pins.txt").items()}
    if Version(metadata.version("torch")).public != pins[canonicalize_name("torch")]:
        pytest.skip("this environment is not that of the pins")
    others = [found for found in closure("gaba[dev]") if found.name != "gaba"]
    used = {canonicalize_name(found.name): Version(found.version).public for found in others}
    assert used == {name: pins.get(name) for name in used}


def test_the_makefile_names_tests_that_exist() -> None:
    for target in ("test-oldest", "test-flwr"):
        done = run("make", "--always-make", "--dry-run", target, cwd=ROOT)
        named = re.findall(r"(?:tests|src|benchmarks)(?:/[\w./]+)?", done.stdout)
        assert done.returncode == 0
        assert len(named) >= 3
        assert all((ROOT / name).exists() for name in named), named


def test_it_trains_where_torch_and_numpy_are_alone(made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made)
    doctests = f"import _extra_uses; _extra_uses.doctests(*{WITHOUT_EXTRAS})"
    succeed(python, "-c", doctests, cwd=tmp_path, PYTHONPATH=str(ROOT / "tests"))
    assert demo.text() in succeed(python, "-m", "gaba", "demo", cwd=tmp_path)
    assert run(python, "-m", "gaba", "demo", "more", cwd=tmp_path).returncode != 0
    assert "200 steps of 2 tasks (loud, quiet)" in succeed(python, "-c", TRAIN, cwd=tmp_path)
    assert demo.text() in succeed(python.with_name("gaba"), "demo", cwd=tmp_path)
    for line, (status, out, error) in statuses(python, [*NEEDS, *NO_MORE], tmp_path).items():
        if line == "demo":
            assert (status, out, error) == (0, f"{demo.text()}\n", "")
            continue
        assert (status, out, error.count("\n")) == (1, "", 1), line
        extras = f"[{','.join(['cli', NEEDS[line]])}]" if line in NEEDS else "[cli"
        assert error.startswith("gaba: error: the command line needs tyro"), line
        assert f'pip install "gaba{extras}' in error, line


def test_a_command_names_the_extra_that_it_needs(made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made, "cli")
    (tmp_path / "toy.toml").write_text(TOY, encoding="utf-8")
    succeed(python, "-c", TRAIN.rpartition("ours =")[0], cwd=tmp_path)
    found = statuses(python, [*NEEDS, *NO_MORE], tmp_path)
    for line, extra in NEEDS.items():
        status, _, error = found[line]
        assert (status, error.count("\n")) == (1, 1), (line, error)
        assert f'pip install "gaba[{SMALLER.get(line, extra)}]"' in error, (line, error)
    for line in NO_MORE:
        status, out, error = found[line]
        assert (status, error) == (0, ""), (line, error)
        assert out, line
