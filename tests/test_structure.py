"""How the code is built: imports point one way, the public names, what an import costs, docstrings, sizes."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import spadework

PACKAGE = Path(spadework.__file__).parent
REPOSITORY = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import, at its head, from its own line and from the lines above it.
ORDER = """
errors
check checksums files orientation readahead
images canvas pyramid ranking calibration
backbones storage sections sketches retrieval entries kernels metrics scores
search_index tiling coreset kmeans mixture alignment
gallery datasets
correspondence
prediction bill
detectors
evaluation rehearsal
published fingerprint results
runs
workers
benchmark comparison probe
estimates
report
batch demo reproduce
client
server
cli distributed
__main__
"""
RANK = {name: line for line, names in enumerate(ORDER.split("\n")) for name in names.split()}

PUBLIC = [
    "Detector",
    "Evaluation",
    "Explanation",
    "Failure",
    "Prediction",
    "Predictions",
    "Region",
    "Spade",
    "SpadeworkError",
    "Threshold",
    "evaluate",
    "load",
    "open_backbone",
    "open_dataset",
    "write_report",
]


def head_of(path: Path) -> str:
    """The top-level part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    """Top-level parts of the package that a file imports when it is loaded (not inside a function)."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spadework":
            inside = node.module.split(".")[1:]
            found += inside[:1] or [alias.name for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.Import):
            found += [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("spadework.")]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    if path == PACKAGE / "__init__.py":
        assert imported(path) == []  # nothing is loaded before it is needed
        return
    assert head_of(path) in RANK, f"give {head_of(path)} its place in ORDER"
    for name in imported(path):
        assert RANK[name] <= RANK[head_of(path)], f"{head_of(path)} must not import {name}"


def test_no_import_goes_in_a_circle():
    edges = {}
    for path in FILES:
        edges.setdefault(head_of(path), set()).update(set(imported(path)) - {head_of(path)})
    done = []
    while edges:
        free = [name for name, needs in edges.items() if not needs - set(done)]
        assert free, f"a circle among {sorted(edges)}"
        for name in free:
            done.append(name)
            del edges[name]


def test_the_public_names_are_these():
    assert spadework.__all__ == PUBLIC == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(spadework, name).__doc__, name
    assert set(PUBLIC) <= set(dir(spadework))
    with pytest.raises(AttributeError, match="has no attribute 'Spad'"):
        _ = spadework.Spad


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"numpy", "cv2", "onnxruntime", "PIL", "torch", "timm", "torchvision", "onnx", "typer", "rich"}
    assert loaded_by("import spadework") & heavy == set()


def test_inspecting_loads_no_framework():
    found = loaded_by("import spadework; spadework.Spade, spadework.evaluate")
    assert {"numpy", "cv2"} <= found
    assert found & {"torch", "timm", "torchvision", "onnx", "typer", "rich", "sklearn", "scipy", "matplotlib"} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_are_short_and_plain(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    words = r"import pickle|pickle\.(load|dump)|cPickle|joblib|allow_pickle=True|NotImplementedError|\bTODO\b|\bFIXME\b"
    assert not re.search(words, text)
    assert not re.search(r"weights_only=False", text)


def test_nothing_names_a_path_of_one_machine():
    # written so that this file does not name one either
    pattern = re.compile(r"(?<![\w.:/])/(?:wo" + r"rk|root|ho" + r"me|Users|tmp)/[\w.]")
    kinds = ("*.py", "*.md", "*.toml", "Makefile")
    folders = [REPOSITORY / name for name in ("src", "tests", "benchmarks", "docs")]
    files = [file for folder in folders for kind in kinds for file in folder.rglob(kind)]
    files += [file for kind in kinds for file in REPOSITORY.glob(kind)]
    assert len(files) > 40
    assert pattern.search("/ho" + "me/someone/spadework")
    found = [str(file.relative_to(REPOSITORY)) for file in files if pattern.search(file.read_text(encoding="utf-8"))]
    assert found == []


# ---------------------------------------------------------------- docstrings


def public_things():
    """Public classes, functions and methods as the source has them: (where, node, whether a class's own docstring counts)."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node
                for inner in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{path.relative_to(PACKAGE)}:{node.name}.{inner.name}", inner


THINGS = list(public_things())


def argument_names(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    return [
        a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs] if a.arg not in ("self", "cls")
    ]


def documented(docstring: str) -> list[str] | None:
    """The names under `Args:`, in order; None without such a part. "y, x: ..." names two."""
    match = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))+)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    if match is None:
        return None
    names = re.findall(r"^ {4}(\w+(?:, \w+)*):", match.group(1), re.MULTILINE)
    return [name for group in names for name in group.split(", ")]


def is_overload(node: ast.AST) -> bool:
    return any(getattr(decorator, "id", "") == "overload" for decorator in getattr(node, "decorator_list", ()))


def mismatches(things) -> list[str]:
    wrong = []
    for where, node in things:
        docstring = ast.get_docstring(node)
        if docstring is None:
            if not is_overload(node):
                wrong.append(f"{where}: no docstring")
            continue
        names = documented(docstring)
        function = node
        if isinstance(node, ast.ClassDef):
            function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if names is not None and function is not None and names != argument_names(function):
            wrong.append(f"{where}: documents {names}, takes {argument_names(function)}")
    return wrong


def test_every_public_thing_is_documented_with_its_arguments():
    assert len(THINGS) > 100
    assert mismatches(THINGS) == []


def test_the_check_of_docstrings_finds_what_is_wrong():
    source = '''
def good(a, *, b=1):
    """Do.

    Args:
        a: one, which
            goes on.
        b: two.

    Returns:
        c: nothing.
    """
def missing(a, b):
    """Do.

    Args:
        a: one.
    """
def bare(a): ...
'''
    things = [(node.name, node) for node in ast.parse(source).body]
    assert mismatches(things) == ["missing: documents ['a'], takes ['a', 'b']", "bare: no docstring"]


def test_settings_of_every_detector_are_documented():
    from spadework.detectors import DETECTORS, get_detector

    for name in DETECTORS:
        detector = get_detector(name)
        assert tuple(documented(detector.__doc__)) == detector.setting_names()


def test_every_error_is_in_the_tree_that_is_drawn():
    errors = import_module("spadework.errors")
    for name, found in vars(errors).items():
        if inspect.isclass(found) and found.__module__ == errors.__name__:
            assert issubclass(found, errors.SpadeworkError)
            assert name in errors.__doc__
