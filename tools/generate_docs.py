"""Write the generated parts of the docs: docs/cli.md from the commands, tables and figures from the benchmarks' JSON.

python tools/generate_docs.py            # write
python tools/generate_docs.py --check    # fail if anything is out of date
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import figures

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command_line() -> str:
    """The text of docs/cli.md: each command's own help, at a fixed width."""
    os.environ.update({"COLUMNS": "110", "TERMINAL_WIDTH": "110", "NO_COLOR": "1"})
    from typer.testing import CliRunner

    from spadework.cli.app import app

    def help_of(*command: str) -> str:
        result = CliRunner().invoke(app, [*command, "--help"], prog_name="spadework")
        assert result.exit_code == 0, result.output
        return "\n".join(line.rstrip() for line in result.output.strip().splitlines())

    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    parts = [
        "# Command line",
        "Generated from the commands by `python tools/generate_docs.py`.",
        "Exit codes: 0 done; 1 done, but some pictures or runs failed and are named on standard error; 2 nothing done, bad input; 130 interrupted.",
        f"```\n{help_of()}\n```",
    ]
    for name in names:
        parts.append(f"## spadework {name}\n\n```\n{help_of(name)}\n```")
    return "\n\n".join(parts) + "\n"


def table(name: str) -> str:
    """A Markdown table from benchmarks/results/NAME.json: {"command", "machine", "columns": {title: key}, "rows"}."""
    data: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    columns = data["columns"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in data["rows"]:
        lines.append(f"| {' | '.join(_cell(row.get(key)) for key in columns.values())} |")
    return "\n".join(lines) + f"\n\nMade by `{data['command']}` on {data['machine']}.\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_tables(text: str) -> str:
    """A document with its tables made anew."""
    return TABLE.sub(lambda found: found.group(1) + table(found.group("name")) + found.group(3), text)


def generated() -> dict[Path, str]:
    """Every generated document and what it should say."""
    documents = {ROOT / "docs" / "cli.md": command_line()}
    documents[ROOT / "docs" / "images" / "detectors.svg"] = figures.detectors(RESULTS)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if path.name != "cli.md":
            documents[path] = with_tables(path.read_text(encoding="utf-8"))
    return documents


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'out of date' if check else 'written'}: {', '.join(stale)}\n")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
