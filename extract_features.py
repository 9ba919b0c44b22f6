#!/usr/bin/env python
"""Stage one: decode every clip once, run a frozen CNN over its frames, store the features in one HDF5 cache."""

from features.cli.extract import main

if __name__ == "__main__":
    main()
