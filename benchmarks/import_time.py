"""How much `import gaba` adds to `import torch, numpy`, as a ratio measured in paired processes.

Each pair runs in random order, so that caches and a busy machine hit both alike; the median of the
paired ratios is printed, with the middle half of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys

TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(modules: str) -> float:
    command = [sys.executable, "-c", TIMED.format(modules)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    seconds("torch, numpy, gaba")  # fills the caches
    ratios: list[float] = []
    for _ in range(pairs):
        both = {"torch, numpy": 0.0, "torch, numpy, gaba": 0.0}
        for modules in random.sample(sorted(both), k=2):
            both[modules] = seconds(modules)
        ratios.append(both["torch, numpy, gaba"] / both["torch, numpy"])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"import of torch, numpy and gaba over that of torch and numpy, {pairs} pairs: "
        f"median {middle:.3f} (middle half {low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
