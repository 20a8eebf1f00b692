"""The same rule in other fields: equal effect instead of equal nominal weight.

Each field has an adapter of its own, ``gaba.domains.NAME``, which imports that field's library and
calls `gaba.rules`; this package imports none of them.

>>> from gaba import domains
>>> domains.find("portfolio").extra
'skfolio'
"""

from gaba.domains._registry import DOMAINS, Domain, find

__all__ = ["DOMAINS", "Domain", "find"]
