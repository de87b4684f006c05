"""What strangers install: sdist, then wheel, and what they hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import visavis

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build("--sdist", ROOT, out)
    (made,) = out.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist, so that nothing of this tree can help."""
    folder = tmp_path_factory.mktemp("unpacked")
    # Python 3.11 has the filter from 3.11.4 on; Debian 12 comes with an older one.
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **safely)
    (tree,) = folder.iterdir()
    out = tmp_path_factory.mktemp("wheel")
    build("--wheel", tree, out)
    (made,) = out.glob("*.whl")
    return made


def build(kind: str, tree: Path, out: Path) -> None:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_sdist_holds_every_source(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        str(path.relative_to(ROOT))
        for folder, pattern in (
            ("csrc", "*"),
            ("src/visavis", "*.py"),
            ("src/visavis", "*.pyi"),
            ("src/visavis", "*.toml"),
            ("tests", "*.py"),
            ("docs", "*.md"),
            ("proto", "*"),
        )
        for path in (ROOT / folder).rglob(pattern)
        if path.is_file()
    }
    assert wanted - names == set()
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py", "Makefile", "buf.yaml"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.long
def test_the_wheel_holds_the_package_and_no_sources_of_the_core(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for compiled in (
        "visavis/_kernel",
        "visavis/_rows",
        "visavis/gateway/_wire",
        "visavis/gateway/_columns",
    ):
        assert any(re.fullmatch(rf"{compiled}\.cpython-.*\.so", name) for name in names)
        assert f"{compiled}.pyi" in names
    assert {"visavis/py.typed", "visavis/demo/policy.toml"} <= set(names)
    assert {"visavis/v1/version_pb2.py", "visavis/v1/version_pb2.pyi"} <= set(names)
    wrong = [name for name in names if name.endswith((".cpp", ".h", ".pyx", ".c"))]
    assert wrong == []
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"visavis", f"visavis-{visavis.__version__}.dist-info"}


@pytest.mark.long
def test_the_wheel_runs_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import visavis, visavis.selfcheck\n"
        f"assert visavis.__file__.startswith({str(tmp_path)!r}), visavis.__file__\n"
        "from visavis import _kernel\n"
        "from visavis.gateway import _wire\n"
        f"assert _kernel.__file__.startswith({str(tmp_path)!r}), _kernel.__file__\n"
        f"assert _wire.__file__.startswith({str(tmp_path)!r}), _wire.__file__\n"
        "assert all(visavis.selfcheck.check_variants().values())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
