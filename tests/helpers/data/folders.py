"""Folders of empty files."""

from pathlib import Path


def tree(root: Path, *names: str) -> Path:
    """Make empty files below a folder and return the folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root
