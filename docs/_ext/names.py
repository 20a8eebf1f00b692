"""Leads from names to the reference.

Code in a sentence that is a public name, such as `InverseNorm(power=.5)` or `gaba.History.read`,
becomes a link to its description, without any markup. References in docstrings are found under
the public name of what they mean; names of other packages are left as they are, and a name of ours
that does not exist is a warning.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import reference
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject  # pyright: ignore[reportPrivateImportUsage]
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.nodes import make_refnode

CALL = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:\(.*\))?$", re.DOTALL)
ALSO = {"balancer": "gaba.Balancer", "step": "gaba.Step"}
"""What pages call an object of a class, so that `balancer.backward(losses)` is found."""


@cache
def by_short_name() -> dict[str, str]:
    """Full name by short name, of what has a capital letter and means one thing only."""
    found: dict[str, set[str]] = {}
    for name in reference.names():
        if reference.promises(importlib.import_module(name.home)) and name.home == name.module:
            found.setdefault(name.short, set()).add(name.full)
    return {
        short: next(iter(full))
        for short, full in found.items()
        if len(full) == 1 and short[0].isupper()
    }


def public(target: str) -> str | None:
    """The public name of a thing given by where it really is, or by its short name."""
    if target in by_short_name():
        return by_short_name()[target]
    module, _, rest = target.rpartition(".")
    members: list[str] = []
    while module:
        found = sys.modules.get(module)
        if found is not None:
            name = reference.homes().get(id(getattr(found, rest, None)))
            return ".".join([name.full, *members]) if name is not None else None
        module, _, last = module.rpartition(".")
        members, rest = [rest, *members], last
    return None


def candidates(target: str, context: str | None) -> Iterator[str]:
    """What a reference may mean that stands on the page of the module ``context``."""
    clear = target not in imported()
    yield from filter(None, [target, public(target) if clear else None])
    module = context or ""
    while module:
        yield from filter(None, [f"{module}.{target}", public(f"{module}.{target}")])
        module = module.rpartition(".")[0]
    yield from only(target) if clear else ()
    owner, _, attribute = target.rpartition(".")
    for full in filter(None, [public(owner), *only(owner), f"{context}.{owner}"]):
        if owner and attribute in fields(full):
            yield full


def only(short: str) -> list[str]:
    """The full name of what is described under a short name, if it is but one thing."""
    found = {n.full for n in reference.names() if n.home == n.module and n.short == short}
    return list(found) if len(found) == 1 else []


def fields(name: str) -> set[str]:
    """The attributes that a class declares."""
    module, _, short = name.rpartition(".")
    owner = getattr(sys.modules.get(module), short, None)
    found: set[str] = set()
    for base in getattr(owner, "__mro__", ()):
        found |= {*getattr(base, "__annotations__", ())}
        if base.__module__.startswith("gaba"):
            found |= set(re.findall(r"\bself\.(\w+) = ", inspect.getsource(base)))
    return found


def exists(target: str) -> bool:
    """Whether there is such a thing in gaba that is not described."""
    module, _, rest = target.rpartition(".")
    return hasattr(sys.modules.get(module), rest)


def anywhere(target: str) -> bool:
    """Whether a module of gaba knows something by this short name."""
    return any(
        hasattr(module, target)
        for name, module in list(sys.modules.items())
        if name == "gaba" or name.startswith("gaba.")
    )


def foreign(target: str) -> bool:
    """Whether a name is that of another package, or of a thing that is never described."""
    first = target.partition(".")[0]
    if first == "gaba":
        return "._" in target or exists(target)
    if "." in target:
        return first in sys.modules or first in used()
    return first in used() or anywhere(target) or target.endswith("Error")


@cache
def trees() -> tuple[ast.Module, ...]:
    """Every file of the package."""
    paths = Path(__file__).parents[2].glob("src/gaba/**/*.py")
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in paths)


@cache
def imported() -> frozenset[str]:
    """Names that files of ours have from other packages."""
    found: set[str] = set()
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.Import) or (
            isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("gaba")
        ):
            found |= {alias.asname or alias.name for alias in node.names}
    return frozenset(found)


@cache
def used() -> frozenset[str]:
    """Names that files of ours use and that are not described: others', Python's, our aliases."""
    found = {*imported(), *dir(builtins), *dir(typing)}
    for node in (node for tree in trees() for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and "._" in f".{node.module}":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.add(node.targets[0].id)
        elif isinstance(node, ast.keyword) and node.arg == "metavar":
            values = (c.value for c in ast.walk(node) if isinstance(c, ast.Constant))
            found |= {value for value in values if isinstance(value, str)}
    return frozenset(found)


def missing(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """What a reference leads to that Sphinx did not find by itself."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    for name in candidates(node["reftarget"], node.get("py:module")):
        if name in objects:
            entry = objects[name]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, content, name
            )
    if foreign(node["reftarget"]) or foreign(f"{node.get('py:module')}.{node['reftarget']}"):
        return content
    return None


def plain_bars(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """In docstrings a bar is that of |x|, and never a substitution of reStructuredText."""
    for i, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...", "+", "|")):
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
            lines[i] = "".join(parts)


def lists_of_names(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Arguments that are described together, ``a, b: text``, stay together."""
    for i, line in enumerate(lines):
        if match := re.match(r"^( +)([a-z]\w*(?:, [a-z]\w*)+): ", line):
            lines[i] = line.replace(match[2], match[2].replace(", ", ","), 1)


def beside_raises(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Under "Raises:" a sentence that names no exception is a paragraph of its own."""
    for i, line in enumerate(lines):
        if line.strip() != "Raises:":
            continue
        for j in range(i + 1, len(lines)):
            if not lines[j].startswith("    "):
                break
            if re.match(r"^    [A-Z][a-z]+ ", lines[j]):
                lines[j:j] = [""]
                for k in range(j + 1, len(lines)):
                    if not lines[k].startswith("    "):
                        break
                    lines[k] = lines[k][4:]
                break


def ours_only(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Leave out what another package puts into our classes."""
    inner = getattr(thing, "fget", None) or getattr(thing, "func", None) or thing
    origin = getattr(inner, "__module__", None)
    return True if origin and not str(origin).startswith("gaba") else None


def whole_texts() -> None:
    """Properties have docstrings like any other, not ``type: text`` as napoleon takes them."""

    def parse(self: Any) -> list[str]:
        self._what = "method"
        self._parse()
        return []

    GoogleDocstring._parse_attribute_docstring = parse
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"


def autolink(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """Turn code that is a public name into a link, except in titles and links."""
    objects = app.env.domains.python_domain.objects
    for node in list(tree.findall(nodes.literal)):
        match = CALL.match(node.astext())
        if match is None or isinstance(node.parent, (nodes.reference, nodes.title)):
            continue
        first, dot, rest = match["name"].partition(".")
        name = ALSO[first] + dot + rest if first in ALSO and dot else match["name"]
        name = name if name in objects else (public(name) or "")
        if name not in objects or objects[name].docname == docname:
            continue
        entry = objects[name]
        link = make_refnode(
            app.builder, docname, entry.docname, entry.node_id, node.deepcopy(), name
        )
        node.replace_self(link)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    whole_texts()
    app.connect("autodoc-process-docstring", plain_bars, priority=100)
    app.connect("autodoc-process-docstring", lists_of_names, priority=200)
    app.connect("autodoc-process-docstring", beside_raises, priority=100)
    app.connect("autodoc-skip-member", ours_only)
    app.connect("missing-reference", missing)
    app.connect("doctree-resolved", autolink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
