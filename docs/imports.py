"""The layers of the package, its imports as they are in the code, and a picture of both.

    .venv/bin/python docs/imports.py

writes docs/images/imports.svg. `tests/test_imports.py` enforces the layers for every file, and it
fails if the picture is out of date.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import networkx

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "imports.svg"

LAYERS: dict[str, dict[str, str]] = {
    "command line": {"cli": "gaba demo, train, explain, …"},
    "applications": {
        "turbofan": "life of engines",
        "cmapss": "download of their data",
        "bench": "methods compared",
        "domains": "other fields",
        "web": "pages",
        "demo": "the rule in figures",
    },
    "frameworks": {"integrations": "Lightning, Transformers, TorchJD, …"},
    "import gaba": {"gaba": "what a user imports"},
    "flow": {"balancer": "check → measure → decide → combine → record"},
    "catalogue": {"methods": "a name → a Method"},
    "pieces of a method": {
        "roles": "balanced, fixed, observed",
        "absences": "losses without a gradient",
        "refusals": "losses that a rule cannot take",
        "windows": "micro-batches of one step",
        "measurement": "losses → norms",
        "rules": "norms → multipliers",
        "stabilisers": "steady over steps",
        "multipliers": "scale and limit",
        "record": "steps, history, diagnosis",
    },
    "processes": {"ranks": "what they agree on"},
    "torch": {"autograd": "graph and gradients"},
    "ground": {
        "state": "kept and restored",
        "files": "named when writing fails",
        "pieces": "init and update",
        "measures": "figures of a step",
        "extras": "optional libraries",
        "folders": "where data are",
        "spelling": "what was meant",
        "late": "loaded when asked for",
    },
    "numbers": {"tensors": "dtype and device", "splitmix": "seeded draws"},
}
"""Layer → part → what it does, from top to bottom.

A file imports from its own part and from lower layers.
"""
KNOWS = {"bench": {"turbofan"}}
"""Part → the parts of its own layer that it may import from."""
ONLY: dict[str, set[str]] = {
    "autograd": {"state", "tensors", "spelling"},
    "extras": {"folders"},
    "folders": set(),
    "spelling": set(),
    "late": set(),
}
"""Part → all that it may import from, for parts that may know less than all lower layers."""
BELOW = {"ranks": "measurement", "autograd": "measurement"}
"""Part → the part that it stands right below in the picture."""
BESIDE = ("extras", "folders", "spelling", "late")
"""Parts that need the standard library only. Every layer uses them, so they stand beside it."""


def place(part: str) -> int:
    """The number of the layer of a part, 0 for the highest; -1 if it is in none."""
    return next((i for i, parts in enumerate(LAYERS.values()) if part in parts), -1)


def allowed(importer: str, imported: str) -> bool:
    """Whether a file of one part may import from a file of another."""
    if importer == imported:
        return True
    if importer in ONLY:
        return imported in ONLY[importer]
    if place(importer) == place(imported):
        return imported in KNOWS.get(importer, set())
    return -1 < place(importer) < place(imported)


@dataclass(frozen=True)
class Import:
    """One import of a file: a module, or a name that a module has.

    Attributes:
        module: The module in full, such as "gaba.rules".
        name: What is taken from it; "" for the module itself.
        line: Where it stands.
        optional: It stands in `with needs(...)` or in `if TYPE_CHECKING`.
    """

    module: str
    name: str
    line: int
    optional: bool


class Tree:
    """The files of the package ``gaba`` in ``source``, and what they import anywhere in them."""

    def __init__(self, source: Path) -> None:
        self.paths = {_module(path, source): path for path in sorted(source.rglob("gaba/**/*.py"))}
        self.code = {
            name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.paths.items()
        }

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """Module → its imports."""
        return {name: [*self._imports(name)] for name in self.paths}

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """The modules; an edge says that the first imports the second."""
        graph = networkx.DiGraph(
            (name, one.module)
            for name, found in self.imports.items()
            for one in found
            if one.module in self.paths and one.module != name
        )
        graph.add_nodes_from(self.paths)
        return graph

    @cached_property
    def parts(self) -> networkx.DiGraph[str]:
        """The parts; an edge says that a file of the first imports from a file of the second."""
        edges = {(part(one), part(other)) for one, other in self.graph.edges}
        return networkx.DiGraph((one, other) for one, other in sorted(edges) if one != other)

    def folder(self, module: str) -> str:
        """The package whose files may use the private names of a module.

        A file directly in ``gaba`` is a part by itself and shares them with nobody.
        """
        is_package = self.paths[module].name == "__init__.py"
        return module if is_package or module.count(".") < 2 else module.rpartition(".")[0]

    def offered(self, module: str) -> list[str] | None:
        """The names in ``__all__``; None if the module has none."""
        for node in self.code[module].body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                assert isinstance(node, ast.Assign)
                return list(ast.literal_eval(node.value))
        return None

    def _imports(self, name: str) -> Iterator[Import]:
        package = name if self.paths[name].name == "__init__.py" else name.rpartition(".")[0]
        bound = dict[str, str]()
        for node, optional in _walk(self.code[name]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
                    yield Import(alias.name, "", node.lineno, optional)
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: package.count(".") + 2 - node.level]
                module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    if inner in self.paths:
                        bound[alias.asname or alias.name] = inner
                        yield Import(inner, "", node.lineno, optional)
                    else:
                        yield Import(module, alias.name, node.lineno, optional)
            elif isinstance(node, ast.Call) and node.args:
                called, first = node.func, node.args[0]
                word = called.attr if isinstance(called, ast.Attribute) else ""
                word = called.id if isinstance(called, ast.Name) else word
                if word == "import_module" and isinstance(first, ast.Constant):
                    yield Import(str(first.value), "", node.lineno, optional)
        for node, optional in _walk(self.code[name]):
            if isinstance(node, ast.Attribute) and private(node.attr):
                owner = ast.unparse(node.value)
                first, _, rest = owner.partition(".")
                if first in bound:
                    module = ".".join(filter(None, [bound[first], rest]))
                    yield Import(module, node.attr, node.lineno, optional)


def part(module: str) -> str:
    """The part that a module belongs to: "rules" for `gaba.rules.norms`."""
    name = module.split(".")[1] if "." in module else "gaba"
    return "cli" if name == "__main__" else name


def private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def _module(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _walk(node: ast.AST, optional: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it stands in `with needs(...)` or `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        inner = optional
        if isinstance(child, ast.If):
            inner |= "TYPE_CHECKING" in ast.unparse(child.test)
        elif isinstance(child, ast.With):
            inner |= any("needs(" in ast.unparse(item.context_expr) for item in child.items)
        yield child, inner
        yield from _walk(child, inner)


# --- the picture ------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, ROW, GAP, TOP = 1080, 170, 150, 46, 40, 24
"""In pixels: the picture, its margins, the height of a row, the gap below it, the top margin."""
STYLE = """
.bg{fill:#f7f6f2}.band{fill:#ecebe4}.box{fill:#fff;stroke:#1f5fa8;stroke-width:1.3}
.side{fill:#fff;stroke:#8a8778;stroke-width:1.3;stroke-dasharray:5 3}
.layer{font:600 13px system-ui,sans-serif;fill:#6b685b}
.name{font:600 15px system-ui,sans-serif;fill:#1a1a1a;text-anchor:middle}
.says{font:11.5px system-ui,sans-serif;fill:#55534a;text-anchor:middle}
.edge{fill:none;stroke:#1f5fa8;stroke-width:1.4;stroke-opacity:.75;marker-end:url(#head)}
.head{fill:#1f5fa8}
"""
HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="6.5" markerHeight="6.5" '
    'orient="auto"><path class="head" d="M0 0L8 4L0 8Z"/></marker>'
)
SAYS = {name: text for parts in LAYERS.values() for name, text in parts.items()}
Arrow: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Box:
    """A rectangle as high as a row."""

    left: float
    top: float
    width: float

    @property
    def right(self) -> float:
        """The x of its right side."""
        return self.left + self.width

    @property
    def middle(self) -> float:
        """The x of its center."""
        return self.left + self.width / 2


def arrows(tree: Tree) -> list[Arrow]:
    """The imports between parts, without those that a chain of others implies."""
    down = networkx.DiGraph(
        (one, other)
        for one, other in tree.parts.edges
        if allowed(one, other) and not {one, other} & {*BESIDE}
    )
    return sorted(networkx.transitive_reduction(down).edges)


def svg(tree: Tree) -> str:
    """The picture as SVG."""
    boxes, height = _boxes(), TOP + len(LAYERS) * (ROW + GAP)
    shapes = [_rect("bg", 0, 0, WIDTH, height, 10)]
    for row, layer in enumerate(LAYERS):
        top = TOP + row * (ROW + GAP)
        shapes.append(_rect("band", 12, top - 9, WIDTH - RIGHT - 12, ROW + 18, 9))
        shapes.append(_text("layer", 26, top + 28, layer))
    shapes += [f'<path class="edge" d="{path}"/>' for path in _paths(arrows(tree), boxes)]
    for name, box in boxes.items():
        shapes.append(_rect("box", box.left, box.top, box.width, ROW, 7))
        shapes.append(_text("name", box.middle, box.top + 20, name))
        shapes.append(_text("says", box.middle, box.top + 37, SAYS[name]))
    side = Box(WIDTH - RIGHT + 16, TOP - 9, RIGHT - 28)
    shapes.append(_rect("side", side.left, side.top, side.width, height - 55, 9))
    shapes.append(_text("says", side.middle, side.top + 30, "for every layer"))
    for row, name in enumerate(BESIDE):
        shapes.append(_text("name", side.middle, height / 2 - 40 + 54 * row, name))
        shapes.append(_text("says", side.middle, height / 2 - 23 + 54 * row, SAYS[name]))
    note = "An arrow is an import. Imports that a chain of arrows implies are left out."
    shapes.append(_text("says", (WIDTH - RIGHT) / 2, height - 14, note))
    label = "The layers of gaba. Every import goes from a higher layer to a lower one."
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
    return "\n".join(
        [
            f'{start} role="img" aria-label="{label}">',
            f"<style>{STYLE}</style>",
            f"<defs>{HEAD}</defs>",
            *shapes,
            "</svg>\n",
        ]
    )


def _boxes() -> dict[str, Box]:
    """The place of every part, row by row."""
    found = dict[str, Box]()
    for row, parts in enumerate(LAYERS.values()):
        top = TOP + row * (ROW + GAP)
        widths = {
            name: max(6.3 * len(text), 9.6 * len(name)) + 18
            for name, text in parts.items()
            if name not in BESIDE
        }
        space = (WIDTH - LEFT - RIGHT - sum(widths.values())) / (len(widths) + 1)
        left = LEFT + space
        for name, width in widths.items():
            above = found.get(BELOW.get(name, ""))
            found[name] = Box(above.middle - width / 2 if above else left, top, width)
            left += width + space
    return found


def _paths(pairs: list[Arrow], boxes: dict[str, Box]) -> Iterator[str]:
    """The line of each arrow; within a layer it is straight."""
    down = [pair for pair in pairs if place(pair[0]) < place(pair[1])]
    starts, ends = _touch(down, 0, boxes), _touch(down, 1, boxes)
    taken = [*boxes.values()]
    for pair in sorted(down, key=lambda pair: abs(starts[pair] - ends[pair])):
        yield _route(boxes[pair[0]], boxes[pair[1]], starts[pair], ends[pair], taken)
    for one, other in sorted({*pairs} - {*down}):
        start, end = boxes[one], boxes[other]
        to = end.right + 6 if end.left < start.left else end.left - 6
        yield f"M{start.middle:.0f} {start.top + ROW / 2:.0f}H{to:.0f}"


def _touch(pairs: list[Arrow], side: int, boxes: dict[str, Box]) -> dict[Arrow, float]:
    """The x at which each arrow touches its box, in the order of the boxes at the other end."""
    found = dict[Arrow, float]()
    for name, box in boxes.items():
        own = [pair for pair in pairs if pair[side] == name]
        own.sort(key=lambda pair: boxes[pair[1 - side]].middle)
        step = min(16.0, (box.width - 20) / max(1, len(own)))
        for number, pair in enumerate(own):
            found[pair] = box.middle + (number - (len(own) - 1) / 2) * step
    return found


def _route(start: Box, end: Box, x: float, to: float, taken: list[Box]) -> str:
    """A line down from ``start`` at ``x`` to ``end`` at ``to``, past what stands in between.

    It passes each row between them where nothing is ``taken``, and takes that place.
    """
    y = start.top + ROW
    words = [f"M{x:.0f} {y:.0f}"]
    while (top := y + GAP) < end.top:
        row = [(box.left - 7, box.right + 7) for box in taken if box.top == top]
        places = [to, *(side for sides in row for side in sides)]
        clear = [at for at in places if not any(low < at < high for low, high in row)]
        past = min(clear, key=lambda at: abs(at - to) + abs(at - x))
        taken.append(Box(past - 1, top, 2))
        words.append(f"{_curve(x, y, past, top)}V{top + ROW:.0f}")
        x, y = past, top + ROW
    return "".join([*words, _curve(x, y, to, end.top - 6)])


def _curve(x: float, y: float, to: float, end: float) -> str:
    half = (y + end) / 2
    return f"C{x:.0f} {half:.0f} {to:.0f} {half:.0f} {to:.0f} {end:.0f}"


def _rect(kind: str, left: float, top: float, width: float, height: float, radius: int) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" rx="{radius}"'
    return f'<rect class="{kind}" x="{left:.0f}" y="{top:.0f}" {size}/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(svg(Tree(ROOT / "src")), encoding="utf-8")
    print(PICTURE)
