"""What the benchmark scripts share: the machine in words, results as JSON, tables that the docs are made from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


def machine() -> str:
    """Cores, processor, versions: no name of a host."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, NumPy {np.__version__}"


def peak_mb() -> float:
    """Peak resident memory of this process in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run_apart(script: str, *options: str) -> Row:
    """Run one case of a script in a fresh process, so that the peak is that case's own; it prints one JSON row."""
    done = subprocess.run([sys.executable, script, *options], stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout)
    return row


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that all scripts take."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tiny", action="store_true", help="seconds instead of minutes, for tests; writes no result")
    made.add_argument("--json", metavar="FILE", help="write the result here instead of benchmarks/results")
    return made


def import_torchvision() -> None:
    """Import torchvision, also beside a CPU build of PyTorch, which has no torchvision of its own."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from torchvision_shim import make_importable

    make_importable()


def large_network() -> str:
    """The name of a Wide-ResNet-50-2 with random weights: shapes and times are those of the published one. Needs the extra timm."""
    import_torchvision()
    return "timm:wide_resnet50_2.tv_in1k@random"


def finish(
    name: str, rows: list[Row], columns: dict[str, str], options: argparse.Namespace, *, script: str | None = None
) -> int:
    """Print the rows, write them as JSON, and return 1 if any answer was wrong. script: which one made them, if not `name`."""
    document = {
        "command": f"python benchmarks/{script or name}.py",
        "machine": machine(),
        "columns": columns,
        "rows": rows,
    }
    target = Path(options.json) if options.json else RESULTS / f"{name}.json"
    if options.json or not options.tiny:
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print("  ".join(f"{title}: {row.get(key)}" for title, key in columns.items()))
    return 1 if any(row.get("same_answer") is False for row in rows) else 0
