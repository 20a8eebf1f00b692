"""The problems of the benchmark, one a file; :func:`gaba.bench.load` finds them by name."""
