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
_IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def export(path: Path) -> None:
    """Write the explorer to ``path``: one HTML file with its styles, scripts and plots inside.

    The file opens from a disk as it does from a server and asks no host for anything. Its content
    security policy allows no script but its own. It is written whole or not at all.

    Args:
        path: where to. Missing folders are made, and an existing file is replaced.

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
    styles = [_read(WEB / name) for name in _STYLE.findall(text)]
    scripts = [
        ("<script>", _vendored(WEB / name))
        if kind == "defer"
        else ('<script type="module">', _joined((WEB / name).resolve(), {}))
        for name, kind in _SCRIPT.findall(text)
    ]
    scripts = [(tag, script.replace("</script", "<\\/script")) for tag, script in scripts]
    policy = (
        f"default-src 'none'; script-src {_hashes([script for _, script in scripts])}; "
        f"style-src {_hashes(styles)}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = _SCRIPT.sub("", _STYLE.sub("", text))
    head = f'  <meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += "".join(f"  <style>{style}</style>\n" for style in styles)
    body = "".join(f"{tag}{script}</script>\n" for tag, script in scripts)
    text = text.replace('  <meta name="viewport"', f'{head}  <meta name="viewport"', 1)
    return text.replace("</body>", f"{body}</body>", 1)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _vendored(script: Path) -> str:
    """A script of others, under its licence."""
    return f"/*\n{_read(script.with_name('LICENSE'))}\n*/\n{_read(script)}"


def _hashes(texts: list[str]) -> str:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _joined(module: Path, done: dict[Path, str]) -> str:
    """``module`` after all that it imports, as one module.

    The names at the top of all these modules must differ: a browser refuses the file otherwise.
    """
    text = done[module] = _read(module)
    before = [(module.parent / name).resolve() for name in _IMPORT.findall(text)]
    parts = [_joined(other, done) for other in before if other not in done]
    return "".join([*parts, _EXPORT.sub("", _IMPORT.sub("", text))])
