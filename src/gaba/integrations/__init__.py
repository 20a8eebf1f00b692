"""The balancer inside other frameworks: one file a framework, the only place that imports it.

None of them is imported here. Import the one that you use, such as
``from gaba.integrations.lightning import BalanceMonitor``; if its framework is not installed, the
error names the extra that brings it.
"""
