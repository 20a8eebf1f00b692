"""One example a field; ``gaba domains NAME`` runs it."""
