"""What several test files need: the built wheel, and Nash-MTL where its solver installs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator

import pytest

from _installs import Built, built


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist of this tree."""
    return built(tmp_path_factory.mktemp("dist"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the tests: some million objects."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Skip a test that needs ecos, which has no wheels for Python 3.13 and later."""
    try:
        return (yield)
    except ImportError as error:
        if "'ecos'" in str(error) and sys.version_info >= (3, 13):
            pytest.skip("ecos has no wheels for this Python")
        raise
