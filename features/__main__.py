"""`python -m features`."""

from features.cli.manage import main

if __name__ == "__main__":
    main()
