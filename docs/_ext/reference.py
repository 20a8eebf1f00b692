"""Writes a reference page for every public module, from its `__all__`, before each build.

A name is described once, on the page of the first module that offers it (`gaba` before its
packages, those before their files); other pages that offer it refer there. A module without an
`__all__` promises nothing: its classes and functions are described under *Inside*.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

FOLDER = "reference"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Name:
    """A name that a module offers.

    Attributes:
        module: the module that offers it.
        short: as it stands in the `__all__`.
        thing: what it names.
        home: the module on whose page it is described.
    """

    module: str
    short: str
    thing: Any
    home: str

    @property
    def full(self) -> str:
        """With the module that offers it."""
        return f"{self.module}.{self.short}"

    @property
    def described(self) -> bool:
        """Whether it says what it is: a docstring, or for data at least a short value."""
        if self.kind:
            return bool((inspect.getdoc(self.thing) or "").strip())
        return bool(text_of(self)) or telling(self)

    @property
    def kind(self) -> str:
        """The directive of autodoc that describes it; data have none."""
        if inspect.isclass(self.thing):
            return "autoexception" if issubclass(self.thing, BaseException) else "autoclass"
        return "autofunction" if inspect.isroutine(self.thing) else ""


@cache
def modules() -> tuple[ModuleType, ...]:
    """Every module of gaba without an underscore in its path, packages before their files."""
    import gaba

    names = ["gaba", *(found.name for found in pkgutil.walk_packages(gaba.__path__, "gaba."))]
    public = sorted((n for n in names if "._" not in n), key=lambda n: (n.count("."), n))
    return tuple(importlib.import_module(name) for name in public)


def promises(module: ModuleType) -> bool:
    """Whether the module says what it offers."""
    return hasattr(module, "__all__")


def offered(module: ModuleType) -> list[str]:
    """The names that a module offers; without an `__all__`, the classes and functions in it."""
    if promises(module):
        return list(module.__all__)
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and thing.__module__ == module.__name__
    ]


@cache
def names() -> tuple[Name, ...]:
    """Every offered name of every module; those with an `__all__` come first."""
    homes: dict[int, str] = {}
    found = []
    for module in sorted(modules(), key=lambda module: not promises(module)):
        for short in offered(module):
            thing = getattr(module, short)
            if isinstance(thing, ModuleType):
                continue
            home = module.__name__
            if inspect.isclass(thing) or inspect.isroutine(thing):
                home = homes.setdefault(id(thing), home)
            found.append(Name(module.__name__, short, thing, home))
    return tuple(found)


@cache
def homes() -> dict[int, Name]:
    """Of every class and function, by identity, the name under which it is described."""
    return {
        id(name.thing): name
        for name in names()
        if name.module == name.home and (inspect.isclass(name.thing) or callable(name.thing))
    }


def text_of(name: Name) -> list[str]:
    """What is written under a name of data in the file that defines it."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "gaba":
            continue
        if vars(module).get(name.short) is name.thing:
            docs = ModuleAnalyzer.for_module(module_name).find_attr_docs()
            if ("", name.short) in docs:
                return docs["", name.short]
    return []


def telling(name: Name) -> bool:
    """Whether the value of data says what they are."""
    return len(repr(name.thing)) < 200 and " object at 0x" not in repr(name.thing)


def data(name: Name) -> Iterator[str]:
    """A name of data, with its value if that is short."""
    value = " ".join(repr(name.thing).split())
    yield f".. py:data:: {name.short}"
    if telling(name):
        yield f"   :value: {value}"
    yield ""
    yield from (f"   {line}" for line in text_of(name))
    yield ""


def described(name: Name) -> Iterator[str]:
    """A class, a function or data, where it is described."""
    if not name.kind:
        yield from data(name)
        return
    yield f".. {name.kind}:: {name.full}"
    if name.kind != "autofunction":
        yield "   :members:"
        if any(base.__module__.startswith("gaba") for base in name.thing.__bases__):
            yield "   :show-inheritance:"
    yield ""


def page(module: ModuleType) -> str:
    """The page of one module."""
    mine = [name for name in names() if name.module == module.__name__]
    elsewhere = [name for name in mine if name.home != module.__name__]
    title = module.__name__
    lines = [title, "=" * len(title), "", f".. automodule:: {title}"]
    lines += ["   :no-index:"] * any(name.full == title for name in names())
    lines += ["", f".. py:currentmodule:: {title}", ""]
    if elsewhere:
        refs = (f":py:obj:`{n.short} <{n.home}.{_short(n)}>`" for n in elsewhere)
        lines += ["Described elsewhere: " + ", ".join(refs) + ".", ""]
    for name in mine:
        if name.home == module.__name__:
            lines += described(name)
    return "\n".join(lines).rstrip() + "\n"


def _short(name: Name) -> str:
    return homes()[id(name.thing)].short


def index() -> str:
    """The page that leads to all of them."""
    lines = ["Reference", "=========", ""]
    lines += [
        "Every public name with its signature, formula, shapes, errors, source and example. Each",
        "example is executed by the tests. `[source]` leads to the code.",
        "",
    ]
    groups = {
        "Public": [m for m in modules() if promises(m) and m.__all__],
        "Inside": [m for m in modules() if not promises(m) and page_needed(m)],
    }
    lines += [
        ":doc:`command-line` has every command with its options, :doc:`methods` every method, and",
        ":doc:`papers` says what comes from where.",
        "",
    ]
    for caption, members in groups.items():
        lines += [f".. rubric:: {caption}", ""]
        if caption == "Inside":
            lines += ["What the parts are made of; it may change from version to version.", ""]
        for module in members:
            sentence = (module.__doc__ or "").strip().partition("\n")[0]
            lines += [f":doc:`{module.__name__}`", f"   {sentence}", ""]
        lines += [".. toctree::", "   :hidden:", ""]
        lines += [f"   {module.__name__}" for module in members]
        lines += [""]
    lines += [".. toctree::", "   :hidden:", "", "   command-line", "   methods", "   papers", ""]
    return "\n".join(lines)


def page_needed(module: ModuleType) -> bool:
    """Whether there is anything to say of a module."""
    return promises(module) or any(name.home == module.__name__ for name in names())


def write(folder: Path) -> None:
    """Write all pages; what has not changed is left alone, what is no longer there goes."""
    folder.mkdir(exist_ok=True)
    pages = {m.__name__: page(m) for m in modules() if page_needed(m) and offered(m)}
    pages["index"] = index()
    for name, text in pages.items():
        _write(folder / f"{name}.rst", text)
    for path in folder.glob("gaba*.rst"):
        if path.name.removesuffix(".rst") not in pages:
            path.unlink()


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def adds(name: str, page: Callable[[], Iterable[str]]) -> Callable[[Sphinx], dict[str, Any]]:
    """The `setup` of an extension that writes one more page, line by line, after the others."""

    def setup(app: Sphinx) -> dict[str, Any]:
        def inited(app: Sphinx) -> None:
            _write(Path(app.srcdir, FOLDER, name), "\n".join(page()))

        app.connect("builder-inited", inited, priority=600)
        return {"parallel_read_safe": True, "parallel_write_safe": True}

    return setup


def _warn_of_undescribed() -> None:
    for name in names():
        if name.module != name.home or not promises(importlib.import_module(name.module)):
            continue
        if not name.described:
            log.warning("%s has no description where it is defined", name.full)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""

    def inited(app: Sphinx) -> None:
        write(Path(app.srcdir, FOLDER))
        _warn_of_undescribed()

    app.connect("builder-inited", inited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
