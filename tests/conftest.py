"""Nash-MTL is tested where its solver can be had."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Skip a test that needs ecos, which has no wheels for Python 3.13 and later."""
    try:
        return (yield)
    except ImportError as error:
        if "'ecos'" in str(error) and sys.version_info >= (3, 13):
            pytest.skip("ecos has no wheels for this Python")
        raise
