"""The rules of the house: who imports whom, what a package shows, how light the runtime is."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("tfpose_edge", "training", "converters", "runtime")
HEAVY = ("torch", "coremltools", "executorch", "onnxruntime", "openvino", "onnx")
TRAINING_ONLY = ("tyro", "accelerate", "pycocotools")

# file or folder -> what it may import of our packages and of torch; the longest match counts
MAY_IMPORT = {
    "tfpose_edge": ("tfpose_edge", "torch"),
    "training": (
        "tfpose_edge",
        "training",
        "torch",
        "runtime.geometry",
        "runtime.skeleton",
        "runtime.draw",
        "runtime.errors",
    ),
    "training/evaluate.py": ("tfpose_edge", "training", "torch", "runtime"),
    "converters": ("tfpose_edge", "converters", "torch", "runtime", "training.data", "training.metrics"),
    "runtime": ("runtime",),
    "runtime/backends/executorch.py": ("runtime", "torch"),
}
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path, module_level_only: bool = False) -> Iterator[str]:
    """Absolute dotted names that a file imports; `from a import b` gives a.b where a is a package of ours."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if module_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            is_package = (ROOT / (node.module or "").replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if is_package else str(node.module) for alias in node.names)


def is_within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


def rule_for(path: Path) -> tuple[str, ...]:
    relative = path.relative_to(ROOT).as_posix()
    return MAY_IMPORT[max((key for key in MAY_IMPORT if relative == key or relative.startswith(key + "/")), key=len)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_stay_within_the_house_rules(path):
    guarded = (*OURS, "torch")
    forbidden = [m for m in imports_of(path) if is_within(m, guarded) and not is_within(m, rule_for(path))]
    assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}, it may import {rule_for(path)}"


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "tfpose_edge")], ids=lambda p: p.name)
def test_the_network_needs_torch_alone(path):
    allowed = (*sys.stdlib_module_names, "tfpose_edge", "torch", "numpy", *optional_of(path))
    assert not [m for m in imports_of(path) if not is_within(m, allowed)]


def optional_of(path: Path) -> tuple[str, ...]:
    """safetensors belongs to the checkpoint, triton to the kernels, timm to optional backbones."""
    names = {"checkpoint.py": ("safetensors",), "backbone.py": ("timm",)}
    return names.get(path.name, ("triton",) if "attention" in path.parts else ())


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "runtime")], ids=lambda p: p.name)
def test_the_runtime_needs_numpy_and_opencv_alone(path):
    allowed = (*sys.stdlib_module_names, "runtime", "numpy", "cv2")
    assert not [m for m in imports_of(path, module_level_only=True) if not is_within(m, allowed)]


@pytest.mark.parametrize(
    "path", [*(ROOT / "training" / "data").rglob("*.py"), ROOT / "training" / "metrics.py"], ids=lambda p: p.name
)
def test_what_converters_share_with_training_stays_light(path):
    assert not [m for m in imports_of(path, module_level_only=True) if is_within(m, TRAINING_ONLY)]


def test_importing_the_runtime_loads_no_engine():
    code = f"import sys, runtime; print(*[m for m in {HEAVY} if m in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.split() == []


def test_listing_the_engines_loads_none():
    code = f"import sys, runtime.backends as b; len(b.ENGINES); print(*[m for m in {HEAVY} if m in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.split() == []


@pytest.mark.parametrize("package", OURS)
def test_a_package_shows_exactly_what_all_says(package):
    module = importlib.import_module(package)
    public = {name for name, value in vars(module).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert sorted(public - {"annotations"}) == sorted(module.__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, "a file has one job and 300 lines at most"
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if f.end_lineno - f.lineno >= 50 and "parser" not in f.name]
    assert not long, f"over 50 lines: {long}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_its_job_in_its_first_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and len(docstring.splitlines()[0]) <= 120


def test_no_file_is_named_after_nothing():
    banned = {"utils", "misc", "common", "core", "helpers", "manager"}
    assert not [path for path in FILES if path.stem in banned or banned & set(path.relative_to(ROOT).parts)]
