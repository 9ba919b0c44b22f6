"""The list of rooms in docs/architecture.md is true, and imports go upward only."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = re.findall(
    r"^((?:features|hazard)/[\w/]+(?:\.py|/))\s", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
)


def room(file: Path) -> int:
    path = file.relative_to(ROOT).as_posix()
    return next(i for i, name in enumerate(ROOMS) if path == name or (name.endswith("/") and path.startswith(name)))


def files() -> list[Path]:
    found = [p for package in ("features", "hazard") for p in (ROOT / package).rglob("*.py")]
    return [p for p in found if p.name != "__init__.py" or p.parent.parent != ROOT]


def imported(file: Path) -> list[str]:
    """Modules of ours, whether named as `from hazard.x import y` or as `from hazard import x`."""
    modules = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("features", "hazard"):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules += [m for m in inner if source(m).exists()] or [node.module or ""]
    return modules


def source(module: str) -> Path:
    base = ROOT / module.replace(".", "/")
    return base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"


def test_every_file_has_a_room_and_every_room_a_file() -> None:
    assert {room(file) for file in files()} == set(range(len(ROOMS)))


def test_imports_point_upward_only() -> None:
    wrong = [
        f"{file.name} imports {module}"
        for file in files()
        for module in imported(file)
        if room(source(module)) > room(file)
    ]
    assert not wrong


def test_stage_one_knows_nothing_of_stage_two() -> None:
    assert not [f for f in (ROOT / "features").glob("*.py") if any(m.startswith("hazard") for m in imported(f))]
