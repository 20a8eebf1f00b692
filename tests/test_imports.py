"""Which file may import which, and what `import gaba` brings with it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "gaba").rglob("*.py"))
SHARED_BY_ALL = {"_array", "_state", "measures"}
PARTS = {
    *("measurement", "weighting", "stabilisers", "combine", "record"),
    *("graph", "shared", "scale", "measures", "metric", "distributed"),
}
MAY_KNOW = {
    "measurement": {"graph", "shared", "distributed"},
    "combine": {"distributed"},
    "shared": {"graph"},
    "graph": {"shared", "metric", "distributed"},
}
APPLICATIONS = {"integrations", "domains", "turbofan", "bench", "web", "cli", "_cli", "demo"}
APPLICATIONS |= {"plots", "report", "methods"}
STANDS_ON = {"bench": {"turbofan"}}
"""Applications that use the public modules of another."""
BENEATH = {"gaba.extras", "gaba.folders"}
"""Private modules that applications have in common; they need the standard library alone."""
PUBLIC = {
    "",
    "weighting",
    "stabilisers",
    "measurement",
    "diagnosis",
    "integrations",
    "plots",
    "methods",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """Every module that the file imports anywhere in it, in full (`if TYPE_CHECKING` as well)."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module


def part(module: str) -> str:
    """`gaba.rules._gaba` is of the part `weighting`; `gaba` itself is ``""``."""
    return module.split(".")[1] if "." in module else ""


def own_imports(path: Path) -> set[str]:
    return {name for name in imported(path) if name == "gaba" or name.startswith("gaba.")}


def of_parts(parts: set[str]) -> list[Path]:
    return [path for path in FILES if part(module_name(path)) in parts]


def label(path: Path) -> str:
    return module_name(path)


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    assert {"gaba.rules", "gaba.stabilisers", "gaba.record.jsonl"} <= MODULES
    balancer = SRC / "gaba" / "balancer.py"
    assert {"torch", "gaba.record.jsonl"} <= set(imported(balancer)) | {
        f"gaba.{part(name)}" for name in own_imports(balancer)
    }


@pytest.mark.parametrize("path", of_parts(PARTS), ids=label)
def test_the_parts_know_nothing_of_each_other(path: Path) -> None:
    mine = part(module_name(path))
    allowed = {mine} | SHARED_BY_ALL | MAY_KNOW.get(mine, set())
    assert not {name for name in own_imports(path) if part(name) not in allowed}


@pytest.mark.parametrize("path", of_parts(APPLICATIONS), ids=label)
def test_applications_use_the_public_interface_only(path: Path) -> None:
    mine = part(module_name(path))
    for name in own_imports(path):
        if part(name) == mine or name in BENEATH:
            continue
        private = any(piece.startswith("_") for piece in name.split("."))
        assert not private or (mine == "cli" and part(name) == "_cli"), name
        below = APPLICATIONS if mine in {"cli", "_cli"} else STANDS_ON.get(mine, set())
        assert part(name) in PUBLIC | below, name


@pytest.mark.parametrize(
    "path", [path for path in FILES if part(module_name(path)) not in APPLICATIONS], ids=label
)
def test_the_core_stands_on_torch_and_numpy_alone(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops <= {"gaba", "torch", "numpy", "__future__", *sys.stdlib_module_names}
    assert not {name for name in own_imports(path) if part(name) in APPLICATIONS}


@pytest.mark.parametrize("name", sorted(BENEATH))
def test_what_applications_have_in_common_needs_the_standard_library_alone(name: str) -> None:
    (path,) = (path for path in FILES if module_name(path) == name)
    assert {found.partition(".")[0] for found in imported(path)} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=label)
def test_only_tests_import_the_reference(path: Path) -> None:
    if part(module_name(path)) != "reference":
        assert "gaba.reference" not in own_imports(path)


def test_the_balancer_is_known_to_the_package_and_the_applications_only() -> None:
    knowing = {module_name(path) for path in FILES if "gaba.balancer" in own_imports(path)}
    assert {part(name) for name in knowing} <= {"", *APPLICATIONS}


def top_level_modules(statement: str) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_import_gaba_pulls_in_torch_and_numpy_only() -> None:
    before = top_level_modules("import torch, numpy")
    added = top_level_modules("import torch, numpy, gaba") - before
    assert added - set(sys.stdlib_module_names) == {"gaba"}
