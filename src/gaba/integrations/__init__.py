"""The balancer inside other frameworks: one file a framework, the only place that imports it.

Import the one that you use, such as ``from gaba.integrations.lightning import BalanceMonitor``. If
its framework is not installed, the error names the extra to install.
"""
