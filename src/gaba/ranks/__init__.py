"""Several ranks, one decision: what is measured is the gradient averaged over them."""

from gaba.ranks.sync import Sync, by_name

__all__ = ["Sync", "by_name"]
