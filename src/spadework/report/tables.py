"""The comparison with the published tables as text, Markdown, LaTeX or HTML.

In: a `Comparison`. Out: text. Each system has a column of published numbers, and where it was measured two more, measured and difference;
`-` stands for what was not published or not measured, `*` marks a number that is not in the paper's own tables.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from spadework import check
from spadework.comparison import MEAN, Cell, Comparison, Table, notes_of
from spadework.published import PAPER, REIMPLEMENTATIONS, SYSTEMS, System
from spadework.report.style import STYLE

TITLE = "SPADE and the systems it is compared with, on MVTec AD"
NONE = "-"
HEADS = {  # over what was measured, in place of "here"
    "quick": "quick: measured here SCALED DOWN. It shows that a method runs, not how good it is.",
    "default": "default: measured here with everyday settings, which are not the published ones.",
    "changed": "changed: measured here with other settings than the published ones.",
}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".html": "html", ".htm": "html", ".txt": "text"}


@dataclass(frozen=True)
class Group:
    """Columns under one heading. heads: one a column. columns: cells from top to bottom."""

    title: str
    heads: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Grid:
    """A table of words. stub: its first column, with a heading. last: whether the last row is a mean."""

    title: str
    stub: tuple[str, ...]
    groups: tuple[Group, ...]
    last: bool


def render(comparison: Comparison, form: str = "text", *, width: int = 120) -> str:
    """Return the comparison as text.

    Args:
        comparison: of `compare`.
        form: "text", "markdown", "latex" or "html".
        width: of "text", in characters: systems that do not fit stand in a further block below.

    Raises:
        InputError: an unknown form.
    """
    check.one_of(form, "format", FORMS)
    heads = {series.detector: series.how for series in comparison.series}
    grids = [_grid(table, heads) for table in comparison.tables] + [_others()]
    return FORMS[form](grids, [_one_line(note) for note in _notes(comparison)], width)


def _one_line(words: str) -> str:
    """Words as they may stand in any form: what a library said as it died may hold line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())


def _grid(table: Table, heads: Mapping[str, str]) -> Grid:
    names = tuple(name.replace("_", " ") for name, _ in table.rows)
    title = f"{table.title}, %"
    if len(names) > 1:
        columns = zip(table.columns, zip(*(cells for _, cells in table.rows), strict=True), strict=True)
        return Grid(title, ("category", *names), tuple(_group(system, cells, heads) for system, cells in columns), True)
    cells = table.rows[0][1]  # the mean alone: systems go down the page
    groups = [Group("", ("published",), (tuple(_published(cell) for cell in cells),))]
    if any(cell.measured is not None or cell.why for cell in cells):
        groups.append(Group("", ("measured",), (tuple(_measured(cell) for cell in cells),)))
        groups.append(Group("", ("difference",), (tuple(_difference(cell) for cell in cells),)))
    return Grid(f"{title}, {MEAN}", ("system", *(each.title for each in table.columns)), tuple(groups), False)


def _group(system: System, cells: Sequence[Cell], heads: Mapping[str, str]) -> Group:
    """A system's columns: published, and where it was measured that too; of one that is not the paper's, measured alone.

    heads: over what was measured, by detector.
    """
    known = [("publ.", tuple(_published(cell) for cell in cells))] if system in SYSTEMS else []
    if any(cell.measured is not None or cell.why for cell in cells):
        known.append((heads[system.detector], tuple(_measured(cell) for cell in cells)))
        known += [("diff.", tuple(_difference(cell) for cell in cells))] if system in SYSTEMS else []
    return Group(system.title, tuple(head for head, _ in known), tuple(column for _, column in known))


def _published(cell: Cell) -> str:
    if cell.published is None:
        return NONE
    return str(cell.published) + ("" if cell.published.certainty == "printed" else "*")


def _measured(cell: Cell) -> str:
    if cell.measured is None:
        return "failed" if cell.why.startswith("failed") else NONE
    return f"{cell.measured:.1f}" + ("" if cell.spread is None else f"±{cell.spread:.1f}")


def _difference(cell: Cell) -> str:
    return NONE if cell.difference is None else f"{cell.difference:+.1f}"


def _others() -> Grid:
    stub = ("nearest images", *(f"K = {each.k}" for each in REIMPLEMENTATIONS))
    image = tuple(f"{each.image_auroc:.1f}" for each in REIMPLEMENTATIONS)
    pixel = tuple(f"{each.pixel_auroc:.1f}" for each in REIMPLEMENTATIONS)
    groups = (Group("", ("image ROCAUC",), (image,)), Group("", ("pixel ROCAUC",), (pixel,)))
    return Grid("Other implementations of SPADE, as they describe themselves, mean, %", stub, groups, False)


def _notes(comparison: Comparison) -> list[str]:
    notes = [f"Published: {PAPER}, Tables 1 and 2. * from a secondary source. {NONE} not published, or not measured."]
    if not comparison.series:
        return [*notes, "Nothing measured here yet."]
    notes.append(
        "publ. published; here measured, ± standard deviation over seeds; diff. measured less published, in points of a percent."
    )
    notes += [note for head, note in HEADS.items() if any(series.how == head for series in comparison.series)]
    notes.append("A mean stands only where all its categories were measured. What was measured:")
    notes += [note for series in comparison.series for note in notes_of(series)]
    return notes + [f"Not in the tables: {words}." for words in comparison.left_out]


# ---- text --------------------------------------------------------------------------------------------------------------------


def _text(grids: Sequence[Grid], notes: Sequence[str], width: int) -> str:
    parts = [TITLE, *("\n\n".join([grid.title, *_blocks(grid, width)]) for grid in grids)]
    parts.append(
        "\n".join(textwrap.fill(note, width, subsequent_indent="  ", break_on_hyphens=False) for note in notes)
    )
    return "\n\n".join(parts) + "\n"


def _blocks(grid: Grid, width: int) -> list[str]:
    """The grid in as many blocks, one below the other, as the width asks for; at least one group each."""
    stub = max(map(len, grid.stub))
    blocks: list[list[Group]] = [[]]
    used = stub
    for group in grid.groups:
        needed = 2 + sum(_widths(group)) + len(group.heads) - 1
        if blocks[-1] and used + needed > width:
            blocks.append([])
            used = stub
        blocks[-1].append(group)
        used += needed
    return [_block(grid, groups, stub) for groups in blocks]


def _widths(group: Group) -> list[int]:
    """Of a group's columns; the last is widened where the heading above them is longer."""
    widths = [
        max(len(word) for word in (head, *column)) for head, column in zip(group.heads, group.columns, strict=True)
    ]
    widths[-1] += max(0, len(group.title) - sum(widths) - len(widths) + 1)
    return widths


def _block(grid: Grid, groups: Sequence[Group], stub: int) -> str:
    inner = [sum(_widths(group)) + len(group.heads) - 1 for group in groups]
    lines = []
    if any(group.title for group in groups):
        lines.append(
            " " * stub + "".join(f"  {group.title:>{size}}" for group, size in zip(groups, inner, strict=True))
        )
    rows = [[group.heads for group in groups]]
    rows += [[tuple(column[n] for column in group.columns) for group in groups] for n in range(len(grid.stub) - 1)]
    for name, row in zip(grid.stub, rows, strict=True):
        words = (
            "  " + " ".join(f"{w:>{s}}" for w, s in zip(part, _widths(g), strict=True))
            for part, g in zip(row, groups, strict=True)
        )
        lines.append(f"{name:<{stub}}" + "".join(words))
    rule = "-" * max(map(len, lines))
    heads = len(lines) - len(rows) + 1
    lines.insert(heads, rule)
    if grid.last:
        lines.insert(-1, rule)
    return "\n".join(line.rstrip() for line in lines)


# ---- Markdown ----------------------------------------------------------------------------------------------------------------


def _markdown(grids: Sequence[Grid], notes: Sequence[str], width: int) -> str:
    parts = [f"# {TITLE}", *(f"## {grid.title}\n\n{_markdown_grid(grid)}" for grid in grids)]
    parts.append("\n".join(f"- {_plain_markdown(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _markdown_grid(grid: Grid) -> str:
    heads = [" ".join(filter(None, (group.title, head))) for group in grid.groups for head in group.heads]
    lines = [[grid.stub[0], *heads], ["---", *(["---:"] * len(heads))]]
    lines += [[name, *cells] for name, cells in _rows(grid)]
    return "\n".join("| " + " | ".join(_plain_markdown(word) for word in line) + " |" for line in lines)


def _rows(grid: Grid) -> list[tuple[str, list[str]]]:
    columns = [column for group in grid.groups for column in group.columns]
    return [(name, [column[n] for column in columns]) for n, name in enumerate(grid.stub[1:])]


def _plain_markdown(words: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_<`" else letter for letter in words)


# ---- LaTeX -------------------------------------------------------------------------------------------------------------------

LATIN_END = "\u0180"  # from here on LaTeX knows no letter of itself
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "·": r"$\cdot$",
    "|": r"$|$", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def _latex(grids: Sequence[Grid], notes: Sequence[str], width: int) -> str:
    parts = ["% needs \\usepackage{booktabs} and \\usepackage{graphicx}", *(_latex_grid(grid) for grid in grids)]
    items = "\n".join(f"  \\item {_plain_latex(note)}" for note in notes)
    return "\n\n".join([*parts, f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"]) + "\n"


def _latex_grid(grid: Grid) -> str:
    heads = [head for group in grid.groups for head in group.heads]
    lines = []
    if any(group.title for group in grid.groups):
        spans = [f"\\multicolumn{{{len(group.heads)}}}{{c}}{{{_plain_latex(group.title)}}}" for group in grid.groups]
        lines += ["& " + " & ".join(spans) + r" \\", _latex_rules(grid)]
    lines += [_latex_line([grid.stub[0], *heads]), r"\midrule"]
    lines += [_latex_line([name, *cells]) for name, cells in _rows(grid)]
    if grid.last:
        lines.insert(-1, r"\midrule")
    body = "\n".join(lines)
    tabular = f"\\begin{{tabular}}{{l{'r' * len(heads)}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}"
    fitted = f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{tabular}}}"
    return f"\\begin{{table}}\n\\centering\n\\caption{{{_plain_latex(grid.title)}}}\n{fitted}\n\\end{{table}}"


def _latex_rules(grid: Grid) -> str:
    start, rules = 2, []
    for group in grid.groups:
        rules.append(f"\\cmidrule(lr){{{start}-{start + len(group.heads) - 1}}}")
        start += len(group.heads)
    return " ".join(rules)


def _latex_line(words: Sequence[str]) -> str:
    return " & ".join(_latex_number(word) for word in words) + r" \\"


def _latex_number(word: str) -> str:
    """A difference below nothing with a minus sign, not a hyphen."""
    return f"${word}$" if word.startswith("-") and len(word) > 1 else _plain_latex(word)


def _plain_latex(words: str) -> str:
    plain = "".join(_LATEX.get(letter, letter if letter < LATIN_END else f"[U+{ord(letter):04X}]") for letter in words)
    return plain.replace("--", "-{}-")  # an option's name, not a dash


# ---- HTML --------------------------------------------------------------------------------------------------------------------

_HTML_STYLE = """
.wide th, .wide td { white-space: nowrap; } td.here { font-weight: 600; } td.diff { color: var(--quiet); } .first { padding-left: 18px; }
.wide th:first-child { position: sticky; left: 0; background: var(--ground); padding-right: 8px; }
tr.over th { border-bottom: 0; padding-bottom: 0; } tr.over th.many { text-align: center; }
"""


def _html(grids: Sequence[Grid], notes: Sequence[str], width: int) -> str:
    tables = "\n".join(f'<h2>{escape(grid.title)}</h2>\n<div class="wide">{_html_grid(grid)}</div>' for grid in grids)
    listed = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(TITLE)}</title>'
    body = f"<main><h1>{escape(TITLE)}</h1>\n{tables}\n<h2>Notes</h2>\n<ul>\n{listed}\n</ul></main>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}{_HTML_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _html_grid(grid: Grid) -> str:
    over = ""
    if any(group.title for group in grid.groups):
        over = f'<tr class="over"><th></th>{"".join(_html_title(group) for group in grid.groups)}</tr>'
    marks = [mark for group in grid.groups for mark in _html_marks(group)]
    heads = [head for group in grid.groups for head in group.heads]
    cells = "".join(f'<th class="{mark}">{escape(head)}</th>' for mark, head in zip(marks, heads, strict=True))
    body = []
    for name, words in _rows(grid):
        row = "".join(f'<td class="{m}">{escape(word)}</td>' for m, word in zip(marks, words, strict=True))
        mean = ' class="mean"' if grid.last and name == MEAN else ""
        body.append(f"<tr{mean}><th>{escape(name)}</th>{row}</tr>")
    head = f"{over}<tr><th>{escape(grid.stub[0])}</th>{cells}</tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _html_title(group: Group) -> str:
    many = " many" if len(group.heads) > 1 else ""
    return f'<th class="first{many}" colspan="{len(group.heads)}">{escape(group.title)}</th>'


def _html_marks(group: Group) -> list[str]:
    kinds = {**dict.fromkeys(("here", "measured", *HEADS), "here"), "diff.": "diff", "difference": "diff"}
    return [
        " ".join(filter(None, (kinds.get(head, ""), "first" if n == 0 else ""))) for n, head in enumerate(group.heads)
    ]


FORMS: dict[str, Callable[[Sequence[Grid], Sequence[str], int], str]] = {
    "text": _text,
    "markdown": _markdown,
    "latex": _latex,
    "html": _html,
}
