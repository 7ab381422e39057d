"""All benchmarks that need no data: python -m tests.bench [options of tests.bench.search_step]."""

from __future__ import annotations

from tests.bench import search_step

if __name__ == "__main__":
    search_step.main()
