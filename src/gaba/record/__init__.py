"""What happened: steps, history, the JSONL file, diagnosis, plots and report."""

from gaba.record.jsonl.history import History
from gaba.record.jsonl.jsonl import RunRecord, Step

__all__ = ["History", "RunRecord", "Step"]
