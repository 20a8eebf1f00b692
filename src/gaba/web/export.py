"""The explorer as one HTML file that needs nothing else: ``gaba web --export FILE``."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from pathlib import Path

__all__ = ["export", "standalone"]

WEB = Path(__file__).parent
PAGE = WEB / "static" / "explorer" / "index.html"

_STYLE = re.compile(r'^ *<link rel="stylesheet" href="([^"]+)">\n', re.MULTILINE)
_SCRIPT = re.compile(r'^ *<script src="([^"]+)" (defer|type="module")></script>\n', re.MULTILINE)
_SERVER_ONLY = re.compile(r" *<!-- server only -->.*?<!-- end server only -->\n?", re.DOTALL)
_NAMES = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
_WHOLE = re.compile(r'^import \* as (\w+) from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def export(path: Path) -> None:
    """Write the explorer to ``path``: one HTML file with its styles, scripts and plots inside.

    The file opens from a disk as it does from a server, asks no host for anything, and its content
    security policy allows no script but its own. It is written whole or not at all.

    Args:
        path: where to; folders on the way are made, and a file that is there is replaced.

    Raises:
        IsADirectoryError: ``path`` is a folder.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "explorer.html")
        ...     export(file)
        ...     file.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"path must be a file to write, found the folder {path}: add a name, explorer.html"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(standalone(PAGE))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def standalone(page: Path = PAGE) -> str:
    """The HTML of ``page`` with every style sheet and script that it names put into it.

    What stands between ``<!-- server only -->`` and ``<!-- end server only -->`` is left out.

    >>> "<script src" in standalone()
    False
    """
    text = _SERVER_ONLY.sub("", page.read_text(encoding="utf-8"))
    styles = [_file(name).read_text(encoding="utf-8") for name in _STYLE.findall(text)]
    scripts = [
        _vendored(_file(name)) if kind == "defer" else _bundle(_file(name))
        for name, kind in _SCRIPT.findall(text)
    ]
    scripts = [script.replace("</script", "<\\/script") for script in scripts]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = _SCRIPT.sub("", _STYLE.sub("", text))
    head = f'  <meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += "".join(f"  <style>{style}</style>\n" for style in styles)
    body = "".join(f"<script>{script}</script>\n" for script in scripts)
    text = text.replace('  <meta name="viewport"', f'{head}  <meta name="viewport"', 1)
    return text.replace("</body>", f"{body}</body>", 1)


def _file(name: str) -> Path:
    """The file behind an address like ``static/common.css``."""
    return WEB / name


def _vendored(script: Path) -> str:
    """A script of others, under its licence."""
    licence = script.with_name("LICENSE").read_text(encoding="utf-8")
    return f"/*\n{licence}\n*/\n{script.read_text(encoding='utf-8')}"


def _hashes(texts: list[str]) -> str:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _bundle(entry: Path) -> str:
    """The module ``entry`` and all that it imports, as one script: each module a function."""
    order: list[Path] = []
    _visit(entry.resolve(), order, ())
    number = {module: i for i, module in enumerate(order)}
    parts = [_as_function(module, number) for module in order]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"


def _visit(module: Path, order: list[Path], above: tuple[Path, ...]) -> None:
    """Append ``module`` to ``order`` after everything that it imports."""
    if module in above:
        raise ValueError(f"{module.name} imports itself by way of others: break the circle")
    if module in order:
        return
    text = module.read_text(encoding="utf-8")
    for _, name in [*_NAMES.findall(text), *_WHOLE.findall(text)]:
        _visit((module.parent / name).resolve(), order, (*above, module))
    order.append(module)


def _as_function(module: Path, number: dict[Path, int]) -> str:
    text = module.read_text(encoding="utf-8")

    def source(name: str) -> str:
        return f"module{number[(module.parent / name).resolve()]}"

    def names(found: re.Match[str]) -> str:
        wanted = found[1].replace(" as ", ": ")
        return f"const {{{wanted}}} = {source(found[2])};\n"

    exported = [name for _, name in _EXPORT.findall(text)]
    text = _NAMES.sub(names, text)
    text = _WHOLE.sub(lambda found: f"const {found[1]} = {source(found[2])};\n", text)
    text = _EXPORT.sub(r"\1 \2", text)
    if left := _LEFT.search(text):
        raise ValueError(
            f"{module.name}: only `import {{…}} from`, `import * as … from` and exported "
            f"functions, constants and classes can be put into one file, found {left[0]!r}"
        )
    result = f"return {{ {', '.join(exported)} }};"
    return f"const module{number[module]} = (() => {{\n{text}\n{result}\n}})();"
