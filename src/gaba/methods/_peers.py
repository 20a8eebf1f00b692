"""Rows of the table of methods."""

from __future__ import annotations

from gaba.methods._table import Method

PEERS: tuple[Method, ...] = ()
