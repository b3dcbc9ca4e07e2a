"""What holds for the whole repository: floors, sizes, docstrings, versions, links."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "secateurs"
FLOORS = {
    "core": 1, "statistics": 2, "models": 2, "graph": 2, "measure": 2, "formats": 2, "runtime": 3, "planning": 3, "apply": 4,
    "train": 5, "papers": 6, "tokens": 6, "samples": 6, "report": 7, "comparing": 8, "demo": 9,
    "cli": 10,
}  # fmt: skip
FOR_ALL = {"errors", "extras", "files", "recipe", "registry", "usercode", "version"}
MOST_LINES = 400


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "runs" not in path.relative_to(ROOT).parts]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every absolute import of a file, inside functions too, as (line, dotted name)."""
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room(module: str) -> str:
    """``secateurs.train.pruner`` -> ``train``; the package itself -> ``""``."""
    return (module.split(".") + [""])[1]


SOURCES = python_files("src")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A room imports itself and rooms on lower floors; what lies at the root imports the lowest floor only."""
    here = room(module_name(path))
    if here == "":
        return  # the front door opens every room
    assert here in FLOORS or here in FOR_ALL, f"{here!r} has no floor: add it to the table in docs/index.md and here"
    for line, name in imports(path):
        there = room(name) if name.split(".")[0] == "secateurs" else None
        if there is None or there == here or there in FOR_ALL:
            continue
        assert there in FLOORS, f"{path.name}:{line} imports {name}: import the room itself, not the package"
        floor = FLOORS.get(here, 1.5)
        assert FLOORS[there] < floor, f"{path.name}:{line}: {here} (floor {floor}) imports {name} (floor {FLOORS[there]})"


def test_core_imports_torch_and_numpy_only() -> None:
    allowed = {"torch", "numpy", "secateurs", *sys.stdlib_module_names}
    found = [(path.name, line, name) for path in sorted((PACKAGE / "core").glob("*.py")) for line, name in imports(path)]
    assert len(found) > 10
    assert [item for item in found if item[2].split(".")[0] not in allowed] == []


def test_no_file_is_long_without_a_reason() -> None:
    long = [path for path in python_files("src", "tests", "benchmarks", "examples") if read(path).count("\n") > MOST_LINES]
    assert [str(path.relative_to(ROOT)) for path in long if "long because:" not in read(path)] == []


def undocumented(tree: ast.Module, name: str) -> Iterator[str]:
    """The module, its public functions and classes, and the public methods of those, where they have no docstring."""
    if ast.get_docstring(tree) is None:
        yield name
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield f"{name}.{node.name}"
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method) is None:
                yield f"{name}.{node.name}.{method.name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert list(undocumented(ast.parse(read(path)), module_name(path))) == []


def texts() -> list[Path]:
    kinds = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".jsonl", ".html", ".j2", ".css"}
    folders = ("src", "tests", "docs", "benchmarks", "examples", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [path for path in [*ROOT.iterdir(), *inside] if path.suffix in kinds or path.name in ("Makefile", "run")]
    return [path for path in found if path.is_file() and not {"runs", "__pycache__"} & set(path.relative_to(ROOT).parts)]


def test_no_path_of_one_machine() -> None:
    absolute = re.compile(r"(?<![\w.:/])/(?:work|root|home|opt|Users|mnt|tmp)/[\w.]")
    found = [(path.relative_to(ROOT), hit.group()) for path in texts() for hit in absolute.finditer(read(path))]
    assert len(texts()) > 40
    assert found == []


def declared() -> dict[str, str]:
    """Every dependency of the package and its extras with its lower bound."""
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = [Requirement(line) for line in lines]
    return {r.name.lower(): str(r.specifier).removeprefix(">=") for r in wanted if r.name != "secateurs"}


def pinned(file: str) -> dict[str, str]:
    """``name==version`` lines of a constraints file."""
    lines = read(ROOT / file).splitlines()
    return {name.lower(): version for name, version in (line.split("==") for line in lines if "==" in line)}


def test_lowest_versions_are_the_lower_bounds() -> None:
    assert pinned("constraints-lowest.txt") == declared()


def test_pins_are_within_the_bounds() -> None:
    bounds = declared()
    for name, version in pinned("constraints.txt").items():
        assert Requirement(f"{name}>={bounds[name]}").specifier.contains(version), name


def test_readme_states_the_supported_versions() -> None:
    text = read(ROOT / "README.md")
    stated = {name.lower(): version for name, version in re.findall(r"^\| (\w+) \| ([\d.]+) or newer", text, re.M)}
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    bounds = declared() | {"python": project["requires-python"].removeprefix(">=")}
    assert {"python", "torch", "numpy", "transformers", "accelerate", "lightning"} <= set(stated)
    assert stated == {name: bounds[name] for name in stated}


def test_changelog_knows_this_version() -> None:
    from secateurs.version import __version__

    assert f"## [{__version__}]" in read(ROOT / "CHANGELOG.md")


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The fragment of every heading, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", read(path), flags=re.S)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http://", "https://", "mailto:"))]
    for target in targets:
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        assert file.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}"
