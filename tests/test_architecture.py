"""The list of wings in docs/architecture.md is complete, and the imports follow its rules."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.helpers.paths import ROOT

PACKAGES = ("features", "hazard")
WINGS = re.findall(r"^((?:features|hazard)(?:\.\w+)?)\s{2,}", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
MAX_MODULES = 13
"""Largest number of modules in one folder, not counting `__init__.py`."""
NO_VERB = re.compile(
    r"(a|all|an|and|any|as|at|both|by|each|every|for|from|how|if|in|it|its|no|nothing|of|on|one|only|or|some|such|that|the"
    r"|there|these|they|this|those|to|true|false|what|when|where|whether|which|who|whose|with|without)\b",
    re.IGNORECASE,
)
"""Words that no imperative begins with. Ruff's D401 checks only the form of verbs."""
LAZY = {"hazard.models.heads"}
"""Packages whose `__init__` imports its own modules: HEADS is there."""


def module_files() -> dict[str, Path]:
    """Return the file of each module of ours."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = module_files()


def wing_of(module: str) -> str:
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if (ROOT / first / second).is_dir() and second else first


def imported_modules(module: str) -> set[str]:
    """Return the modules of ours that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys() or {node.module}
    return found & MODULES.keys() - {module}


IMPORTS = {module: imported_modules(module) for module in MODULES}


def test_every_wing_is_listed() -> None:
    folders = [folder for package in PACKAGES for folder in (ROOT / package).iterdir()]
    held = {f"{folder.parent.name}.{folder.name}" for folder in folders if (folder / "__init__.py").exists()}
    assert held | set(PACKAGES) == set(WINGS)


def test_a_wing_imports_only_wings_above_it() -> None:
    rank = {name: i for i, name in enumerate(WINGS)}
    faces = {"features", "hazard", "features.__main__", "hazard.__main__"}
    pairs = [(own, other) for own in IMPORTS.keys() - faces for other in IMPORTS[own]]
    assert not [(own, other) for own, other in pairs if rank[wing_of(other)] > rank[wing_of(own)]]
    assert not [(own, other) for own, other in pairs if own.startswith("features") and other.startswith("hazard")]


def test_no_module_imports_itself_by_way_of_others() -> None:
    cycle: list[str] = []
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle


def test_no_folder_holds_more_modules_than_a_reader_keeps_in_mind() -> None:
    counts: dict[Path, int] = {}
    for file in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]:
        if file.name != "__init__.py":
            counts[file.parent] = counts.get(file.parent, 0) + 1
    assert not {folder: count for folder, count in counts.items() if count > MAX_MODULES}


def test_a_package_imports_nothing_of_ours_by_itself() -> None:
    """`import hazard.models.input_spec` must not bring torch along."""
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"} - LAZY
    eager = []
    for name in packages:
        for node in ast.parse(MODULES[name].read_text()).body:
            if isinstance(node, ast.ImportFrom | ast.Import) and any(p in ast.unparse(node) for p in PACKAGES):
                eager.append(name)
    assert not eager


def test_tests_mirror_the_packages() -> None:
    folders = [file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").glob("*/**/test_*.py")]
    assert not [folder for folder in folders if not (ROOT / folder).is_dir()]


def test_docstrings_of_functions_begin_with_an_imperative() -> None:
    wrong = []
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
                if not is_property and NO_VERB.match(text):
                    wrong.append(f"{name}.{node.name}: {text.splitlines()[0]}")
    assert not wrong
