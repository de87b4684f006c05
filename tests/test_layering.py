"""The shape of the package: imports point downwards, and importing it costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import visavis

ROOT = Path(visavis.__file__).parent

#: From top to bottom; a module may import those below it, and a package its own modules.
LAYERS = [
    "cli",
    "gateway",
    "showing",
    "demo",
    "report",
    "words",
    "evaluate",
    "campaign",
    "cluster",
    "serving",
    "erasure",
    "rescore",
    "schedule",
    "engine",
    "gpu",
    "eligibility",
    "rules",
    "policy",
    "journal",
    "history",
    "learning",
    "indicators",
    "base",
    "catalog",
    "features",
    "client",
    "sealed",
    "store",
    "digest",
    "parts",
    "selfcheck",
    "arithmetic",
    "kernel",
    "domain",
    "terminal",
    "errors",
    "v1",
]

#: Heavy packages and the modules that may import them; everything else must do without.
ALLOWED_IN = {
    "ray": {"cluster"},
    "grpc": {"gateway", "client", "v1"},
    "google": {"gateway", "client", "v1"},
    "duckdb": {"indicators", "demo"},
    "sqlglot": {"rules"},
    "sklearn": {"learning", "evaluate"},
    "torch": {"gpu"},
    "pandas": {"evaluate"},
}


def layer_of(module: str) -> str:
    return module.split(".")[1]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("visavis", *path.relative_to(ROOT).with_suffix("").parts)
        yield ".".join(parts), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Every module named by an import statement anywhere in the file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that a reader sees the layer"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


INNER = [(name, tree) for name, tree in modules() if name != "visavis.__init__"]


def test_every_module_has_its_layer() -> None:
    found = {layer_of(name) for name, _ in INNER}
    assert found == set(LAYERS)


@pytest.mark.parametrize(("name", "tree"), INNER, ids=[name for name, _ in INNER])
def test_imports_point_downwards(name: str, tree: ast.Module) -> None:
    own = layer_of(name)
    for other in imported(tree):
        if not other.startswith("visavis.") or not is_module(other):
            continue
        below = layer_of(other)
        if below != own:
            assert LAYERS.index(below) > LAYERS.index(own), f"{name} imports {other}"


@pytest.mark.parametrize(("name", "tree"), INNER, ids=[name for name, _ in INNER])
def test_heavy_packages_stay_where_they_belong(name: str, tree: ast.Module) -> None:
    for other in imported(tree):
        allowed = ALLOWED_IN.get(other.partition(".")[0])
        if allowed is not None:
            assert layer_of(name) in allowed, f"{name} imports {other}"


def loaded_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import visavis",
        "import visavis; visavis.match; visavis.Base; visavis.Catalog; visavis.Policy",
        "import visavis.cli",
    ],
)
def test_importing_stays_light(statement: str) -> None:
    # Not pandas: pyarrow looks for it by itself when it converts, wherever it is installed.
    heavy = {"ray", "grpc", "sklearn", "duckdb", "torch"}
    assert not loaded_after(statement) & heavy


def test_import_visavis_alone_loads_no_arrays() -> None:
    assert not loaded_after("import visavis") & {"numpy", "pyarrow", "pydantic", "typer"}


def test_every_public_name_loads() -> None:
    for name in visavis.__all__:
        assert getattr(visavis, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mach'"):
        _ = visavis.mach
