"""What happened: steps, the history, the JSONL file, diagnosis, plots and report."""

from gaba.record.diagnosis import Diagnosis, Finding, diagnose
from gaba.record.history import History
from gaba.record.jsonl import RunRecord
from gaba.record.step import Step

read = History.read

__all__ = ["Diagnosis", "Finding", "History", "RunRecord", "Step", "diagnose", "read"]
