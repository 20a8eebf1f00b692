"""How tests call the interpreter: a warning is an error there too.

`make test-oldest` sets PYTHONWARNINGS to another policy.

Two hundred tests start a program, and importing torch takes most of the time of the small ones.
:func:`run` is `subprocess.run` without that: a server imports torch once, and forks for every
program. The program has its own process, arguments, folder, environment and exit; what it shares
is what was imported before. A test that counts imports, takes a library away, kills its program
or sets PYTHONPATH wants a fresh interpreter.

    python -W error tests/_python.py

reads one request a line, as JSON, and prints one exit status a line.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

POLICY = os.environ.get("PYTHONWARNINGS", "error")
PYTHON = (sys.executable, "-W", POLICY)
IMPORTED = ("torch", "torch._dynamo", "pandas", "matplotlib.pyplot")
"""What the server has imported before it forks."""


def run(
    words: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: int = 300,
    policy: str | None = None,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """What ``python WORDS`` does in the folder ``cwd``: a file, ``-c CODE`` or ``-m MODULE``.

    ``policy`` is that of ``-W``. After ``timeout`` seconds the program is ended by SIGALRM. A
    ``fresh`` interpreter has imported nothing.
    """
    whole = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    if fresh or not hasattr(os, "fork") or sys.platform == "darwin":
        start = [sys.executable, *(["-W", policy] if policy else [])]
        return subprocess.run(
            [*start, *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=whole,
            timeout=timeout,
            check=False,
        )
    server = _server(policy)
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        places = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        asked = {"words": words, "cwd": str(cwd), "env": whole, "places": places}
        print(json.dumps({**asked, "timeout": timeout}), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        out, err = (Path(place).read_text(encoding="utf-8") for place in places)
    return subprocess.CompletedProcess(words, status, out, err)


@cache
def _server(policy: str | None) -> subprocess.Popen[str]:
    start = [sys.executable, *(["-W", policy] if policy else []), __file__]
    settings = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"}
    environment = {**os.environ, **settings}
    server = subprocess.Popen(
        start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    atexit.register(server.kill)
    return server


def main() -> None:
    """As the text at the top says. Returns in a child, whose program then ends as any does."""
    for name in IMPORTED:
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            return _become(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _become(asked: dict[str, object]) -> None:
    """Be the program that was asked for."""
    words, places, env = asked["words"], asked["places"], asked["env"]
    assert isinstance(words, list)
    assert isinstance(places, list)
    assert isinstance(env, dict)
    signal.alarm(int(str(asked["timeout"])))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, place in enumerate(places, 1):
        os.dup2(os.open(str(place), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(env)
    kind, *rest = words
    if kind == "-c":
        code, *sys.argv[1:] = rest
        sys.argv[0], sys.path[0] = kind, ""
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
