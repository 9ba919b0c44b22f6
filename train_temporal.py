#!/usr/bin/env python
"""Stage two: temporal heads and baselines over the cached sequences, compared honestly."""

from hazard.cli.train import main

if __name__ == "__main__":
    main()
