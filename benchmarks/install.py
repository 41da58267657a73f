"""What the base installation takes on disk, package by package, in a fresh environment.

python benchmarks/install.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path

from common import Row, finish, parser

COLUMNS = {"package": "package", "MB": "mb"}
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    options = parser(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT], check=True)
        sizes = Counter(measure(next(environment.glob("lib/python3*/site-packages"))))
        total = sum(file.stat().st_size for file in environment.rglob("*") if file.is_file() and not file.is_symlink())
    large = {name: size for name, size in sizes.items() if size > 8_000_000}
    rows: list[Row] = [
        {"package": name, "mb": megabytes(size)} for name, size in sorted(large.items(), key=lambda item: -item[1])
    ]
    rows.append({"package": "everything else", "mb": megabytes(total - sum(large.values()))})
    rows.append({"package": "the whole environment", "mb": megabytes(total)})
    return finish("install", rows, COLUMNS, options)


def measure(packages: Path) -> dict[str, int]:
    """Bytes below each top-level folder; a package's bundled libraries count as the package."""
    sizes: Counter[str] = Counter()
    for entry in packages.iterdir():
        name = entry.name.removesuffix(".libs").replace("opencv_python_headless", "cv2").replace("pillow", "PIL")
        files = entry.rglob("*") if entry.is_dir() else [entry]
        sizes[name] += sum(file.stat().st_size for file in files if file.is_file())
    return dict(sizes)


def megabytes(size: int) -> float:
    return round(size / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
