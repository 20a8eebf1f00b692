"""Which file may import what: the layers, the underscore, no circles, and torch and NumPy only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import imports
import networkx
import pytest
from imports import LAYERS, ROOT, Tree, allowed, part, place, private

TREE = Tree(ROOT / "src")
MODULES = sorted(TREE.paths)
PUBLIC_FRONT = place("gaba")
"""Layers above this one are applications and integrations; those below are the core."""
STANDARD_ONLY = ("gaba.extras", "gaba.files", "gaba.folders", "gaba.spelling", "gaba.late")
module = pytest.mark.parametrize("name", MODULES)


# --- the rules: what each forbids, found in any tree ------------------------------------------


def out_of_place(tree: Tree, name: str) -> list[str]:
    """Imports that go up, sideways, or to a file in no layer."""
    return [
        f"line {one.line}: {one.module}"
        for one in tree.imports[name]
        if one.module in tree.paths and not allowed(part(name), part(one.module))
    ]


def not_ours(tree: Tree, name: str) -> list[str]:
    """Private modules and names of another folder."""
    found = []
    for one in tree.imports[name]:
        if not one.module.startswith("gaba"):
            continue
        words = one.module.split(".")
        owners = [".".join(words[:i]) for i in range(1, len(words)) if private(words[i])]
        if private(one.name):
            owners.append(tree.folder(one.module) if one.module in tree.paths else one.module)
        if any(name != owner and not name.startswith(f"{owner}.") for owner in owners):
            found.append(f"line {one.line}: {one.module} {one.name}".strip())
    return found


def not_public(tree: Tree, name: str) -> list[str]:
    """What an application takes from another part although no ``__all__`` offers it."""
    found = []
    for one in tree.imports[name]:
        elsewhere = one.module in tree.paths and part(one.module) != part(name)
        if not elsewhere or one.module in STANDARD_ONLY or not one.name:
            continue
        if one.name not in (tree.offered(one.module) or []) and not one.name.startswith("__"):
            found.append(f"line {one.line}: {one.module} {one.name}")
    return found


def foreign(tree: Tree, name: str, known: Iterable[str]) -> list[str]:
    """Libraries other than the standard one and those ``known``, not asked for by `needs`."""
    known = {"gaba", "__future__", *sys.stdlib_module_names, *known}
    return [
        f"line {one.line}: {one.module}"
        for one in tree.imports[name]
        if one.module.partition(".")[0] not in known and not one.optional
    ]


def circles(graph: networkx.DiGraph[str]) -> list[list[str]]:
    """Groups of modules or parts each of which imports all others of its group in the end."""
    groups = networkx.strongly_connected_components(graph)
    return sorted(sorted(group) for group in groups if len(group) > 1)


# --- the package keeps them -------------------------------------------------------------------


def test_every_part_has_exactly_one_layer() -> None:
    listed = [name for parts in LAYERS.values() for name in parts]
    assert len(listed) == len(set(listed))
    assert set(listed) == {part(name) for name in MODULES}


@module
def test_a_file_imports_from_its_part_and_lower_layers(name: str) -> None:
    assert place(part(name)) >= 0, f"{name} is in no layer of docs/imports.py"
    assert not out_of_place(TREE, name)


@module
def test_nobody_outside_the_folder_uses_what_begins_with_an_underscore(name: str) -> None:
    assert not not_ours(TREE, name)


@pytest.mark.parametrize("name", [name for name in MODULES if place(part(name)) < PUBLIC_FRONT])
def test_an_application_uses_public_names_only(name: str) -> None:
    assert not not_public(TREE, name)


@pytest.mark.parametrize("name", [name for name in MODULES if place(part(name)) >= PUBLIC_FRONT])
def test_the_core_stands_on_torch_and_numpy(name: str) -> None:
    assert not foreign(TREE, name, ["torch", "numpy"])


@pytest.mark.parametrize("name", STANDARD_ONLY)
def test_the_helpers_of_all_layers_need_the_standard_library_only(name: str) -> None:
    assert not foreign(TREE, name, [])


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circles(TREE.graph)


def test_no_parts_import_each_other_in_a_circle() -> None:
    assert not circles(TREE.parts)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_gaba_brings_torch_and_numpy_only() -> None:
    added = modules_after("import torch, numpy, gaba") - modules_after("import torch, numpy")
    tops = {name.partition(".")[0] for name in added}
    assert tops - set(sys.stdlib_module_names) - {"torch", "numpy"} == {"gaba"}
    ours = {name for name in added if name.partition(".")[0] == "gaba"}
    assert not {name for name in ours if place(part(name)) < PUBLIC_FRONT}


def test_the_picture_of_the_imports_is_up_to_date() -> None:
    written = imports.PICTURE.read_text(encoding="utf-8")
    assert written == imports.svg(TREE), "run: .venv/bin/python docs/imports.py"


# --- each rule catches what it forbids --------------------------------------------------------


def a_tree(folder: Path, **files: str) -> Tree:
    """A package of these files; ``rules__norms`` is gaba/rules/norms.py."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "gaba" / f"{name if name == '__init__' else name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in (folder / "gaba").iterdir():
        if path.is_dir():
            (path / "__init__.py").touch()
    return Tree(folder)


@pytest.mark.parametrize(
    "line",
    [
        "import gaba.methods",
        "import gaba.methods as m",
        "from gaba import methods",
        "from .. import methods",
        "from ..methods import get",
        "from gaba.methods import get",
        "def late():\n    from gaba.methods import get",
        "if TYPE_CHECKING:\n    from gaba.methods import get",
        'import importlib\nimportlib.import_module("gaba.methods")',
    ],
)
def test_an_import_in_any_form_is_seen(line: str, tmp_path: Path) -> None:
    tree = a_tree(tmp_path, rules__norms=line, methods="")
    (found,) = out_of_place(tree, "gaba.rules.norms")
    assert found.endswith("gaba.methods")


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("rules__norms", "stabilisers"),
        ("record__step", "measurement"),
        ("measurement__exact", "record__step"),
        ("autograd__graph", "measures"),
        ("autograd__graph", "ranks"),
        ("tensors", "state"),
        ("rules__norms", "unheard_of"),
        ("web__server", "domains"),
        ("integrations__torchjd", "bench"),
    ],
)
def test_a_wrong_direction_is_found(importer: str, imported: str, tmp_path: Path) -> None:
    dotted = imported.replace("__", ".")
    tree = a_tree(tmp_path, **{importer: f"from gaba.{dotted} import x", imported: "x = 1"})
    assert out_of_place(tree, f"gaba.{importer.replace('__', '.')}")


def test_a_right_direction_is_not_a_finding(tmp_path: Path) -> None:
    lines = "from gaba.tensors import x\nfrom gaba.rules.other import x\nimport torch"
    tree = a_tree(tmp_path, rules__norms=lines, rules__other="", tensors="x = 1")
    assert out_of_place(tree, "gaba.rules.norms") == []


@pytest.mark.parametrize(
    "line",
    [
        "from gaba.rules._norms import x",
        "from gaba.rules import _norms",
        "import gaba.rules._norms",
        "from gaba.rules.norms import _x",
        "from gaba import tensors\ntensors._x()",
        "import gaba.tensors as t\nt._x()",
        "import gaba\ngaba.tensors._x()",
        "from gaba.tensors import _x",
    ],
)
def test_private_things_of_another_folder_are_found(line: str, tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path, methods__table=line, rules___norms="x = 1", rules__norms="_x = 1", tensors=""
    )
    assert not_ours(tree, "gaba.methods.table")


def test_private_things_of_the_own_folder_are_free(tmp_path: Path) -> None:
    lines = "from gaba.rules._norms import x, _y\nfrom gaba.rules import _norms\n_norms._y\n"
    tree = a_tree(tmp_path, rules__all=f"{lines}from gaba import __version__", rules___norms="")
    assert not_ours(tree, "gaba.rules.all") == []


def test_a_name_that_no_all_offers_is_found(tmp_path: Path) -> None:
    files = {"record__step": '__all__ = ["Step"]', "tensors": "", "folders": ""}
    lines = "from gaba.record.step import Step\nfrom gaba.folders import find\n"
    tree = a_tree(tmp_path, web__server=lines, **files)
    assert not_public(tree, "gaba.web.server") == []
    lines = "from gaba.record.step import other\nfrom gaba.tensors import as_work\n"
    assert len(not_public(a_tree(tmp_path, web__server=lines, **files), "gaba.web.server")) == 2


def test_a_library_that_is_not_asked_for_is_found(tmp_path: Path) -> None:
    lines = 'import torch.nn\nwith needs("it needs", "plots", "scipy"):\n    import scipy\n'
    tree = a_tree(tmp_path, rules__norms=lines)
    assert foreign(tree, "gaba.rules.norms", ["torch"]) == []
    tree = a_tree(tmp_path, rules__norms=f"{lines}def late():\n    import pandas")
    assert foreign(tree, "gaba.rules.norms", ["torch"]) == ["line 5: pandas"]


def test_circles_are_found(tmp_path: Path) -> None:
    tree = a_tree(
        tmp_path,
        rules__one="from gaba.rules.two import x",
        rules__two="if TYPE_CHECKING:\n    from gaba.rules.one import x",
        record__step="import gaba.state",
        state="from gaba.record import other",
    )
    assert circles(tree.graph) == [["gaba.rules.one", "gaba.rules.two"]]
    assert circles(tree.parts) == [["record", "state"]]
