#!/usr/bin/env python
"""Both stages chained: a folder of videos and a saved model to a report."""

from hazard.cli.infer import main

if __name__ == "__main__":
    main()
