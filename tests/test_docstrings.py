"""Every public name has a docstring, and a doctest or an example shows it."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import gaba

ROOT = Path(__file__).parents[1]


def public_modules() -> list[str]:
    found = pkgutil.walk_packages(gaba.__path__, "gaba.")
    names = [module.name for module in found]
    return ["gaba", *(name for name in names if "._" not in name)]


def public_names() -> Iterator[tuple[str, object]]:
    """Each name of each `__all__` once, under the first module that offers it."""
    seen: set[int] = set()
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if isinstance(thing, ModuleType) or id(thing) in seen:
                continue
            if inspect.isclass(thing) or inspect.isroutine(thing):
                seen.add(id(thing))
                yield f"{module_name}.{name}", thing


def public_members() -> Iterator[tuple[str, object]]:
    """The methods and properties that a public class defines, without those it overrides."""
    for owner_name, owner in public_names():
        if inspect.isclass(owner) and owner.__module__.startswith("gaba"):
            for name, member in vars(owner).items():
                inner = getattr(member, "__func__", member)
                is_member = inspect.isfunction(inner) or isinstance(member, property)
                overrides = any(hasattr(base, name) for base in owner.__bases__)
                if is_member and not name.startswith("_") and not overrides:
                    yield f"{owner_name}.{name}", getattr(owner, name)


NAMES = dict(public_names())
MEMBERS = dict(public_members())
METHODS = {
    name: member
    for name, member in MEMBERS.items()
    if not isinstance(member, property) and not getattr(member, "__isabstractmethod__", False)
}


def identifiers(code: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names.add(node.name.rpartition(".")[2])
    return names


def shown(docstring: str) -> set[str]:
    """The names in the code of a docstring's doctests, and those of the objects that it prints."""
    examples = doctest.DocTestParser().get_examples(docstring)
    printed = {name for example in examples for name in re.findall(r"\b(\w+)\(", example.want)}
    return identifiers("".join(example.source for example in examples)) | printed


@cache
def names_in_use() -> frozenset[str]:
    """Every identifier in an example file or in a doctest of the package."""
    names: set[str] = set()
    for path in (ROOT / "examples").glob("*.py"):
        names |= identifiers(path.read_text(encoding="utf-8"))
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                names |= shown(ast.get_docstring(node) or "")
    return frozenset(names)


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_says_what_it_is(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", sorted(NAMES | MEMBERS))
def test_every_public_name_has_a_docstring_of_a_sentence(name: str) -> None:
    text = inspect.getdoc((NAMES | MEMBERS)[name]) or ""
    assert text.strip(), f"{name} has no docstring"
    assert not text.startswith(f"{name.rpartition('.')[2]}("), f"{name} has only a generated one"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_class_and_function_is_shown_in_use(name: str) -> None:
    text = inspect.getdoc(NAMES[name]) or ""
    short = name.rpartition(".")[2]
    assert ">>>" in text or short in names_in_use(), f"{name}: no doctest, and in no example"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_public_method_is_shown_in_use(name: str) -> None:
    text = inspect.getdoc(METHODS[name]) or ""
    short = name.rpartition(".")[2]
    assert ">>>" in text or short in names_in_use(), f"{name}: no doctest, and in no example"


def test_every_name_in_all_exists_and_all_is_sorted() -> None:
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        offered = list(getattr(module, "__all__", ()))
        assert all(hasattr(module, name) for name in offered)
        assert len(offered) == len(set(offered))
    assert "Balancer" in gaba.__all__
