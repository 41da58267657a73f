"""Published beside measured: the tables of the SPADE paper with what was measured here, and what exactly that was.

In: records of runs (`spadework.results`), or none. Out: `Comparison`: three tables of cells in percent, and for each detector its `Series`, the one set
of results that stands in the tables. Results of different settings, versions or networks are never mixed in a column; which set is taken follows from
what it is of, never from how good it is: pictures of the whole of MVTec AD before others, then the published configuration before the default and the quick
one, then the set of more categories, then the newer one. What is left out is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from spadework.published import (
    CATEGORIES,
    COUNTS,
    IMAGE_SYSTEMS,
    PIXEL_SYSTEMS,
    SYSTEMS,
    Number,
    System,
    categories_of,
    published,
)
from spadework.results import Record
from spadework.runs import CONFIGURATIONS

MEAN = "mean"
DATASET = "mvtec"
PRO_LIMIT = 0.3
ELSEWHERE = frozenset(
    {"dataset", "category", "data", "pictures"}
)  # of an identity: what differs among the runs of one series


@dataclass(frozen=True)
class Cell:
    """One number of a table, in percent. measured: mean over seeds. spread: standard deviation over seeds, None for one. why: why none was measured.

    comparable: whether it was measured on as many pictures as MVTec AD holds.
    """

    published: Number | None
    measured: float | None = None
    spread: float | None = None
    why: str = ""
    comparable: bool = True

    @property
    def difference(self) -> float | None:
        """Measured less published, in points of a percent; None where either is missing or they are of different pictures."""
        if self.published is None or self.measured is None or not self.comparable:
            return None
        return self.measured - self.published.value


@dataclass(frozen=True)
class Table:
    """columns: systems. rows: names, of categories and of the mean, each with one cell a column."""

    title: str
    measure: str
    columns: tuple[System, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Series:
    """What was measured of one detector: runs that differ in category and seed alone, by category and seed."""

    detector: str
    runs: dict[str, dict[int | None, Record]]

    @property
    def first(self) -> Record:
        """Any of its records, for what they have in common."""
        return next(iter(next(iter(self.runs.values())).values()))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, of a detector that has one."""
        found = {seed for runs in self.runs.values() for seed in runs}
        return tuple(sorted(seed for seed in found if seed is not None))

    @property
    def how(self) -> str:
        """In one word, how far from published settings it is: "quick" (scaled down), "default", "changed", or "here" for none of these."""
        rows = [run.row for runs in self.runs.values() for run in runs.values()]
        if any("quick" in (row["configuration"], row["scale"]) for row in rows):
            return "quick"
        if any(row["configuration"] != "paper" for row in rows):
            return "default"
        return "changed" if any(row["changed"] for row in rows) else "here"

    @property
    def fewer_seeds(self) -> tuple[str, ...]:
        """Categories that were not measured with every seed that others were."""
        return tuple(name for name, runs in self.runs.items() if not set(runs) >= set(self.seeds))

    @property
    def failures(self) -> dict[str, str]:
        """Category -> why a run of it failed."""
        return {name: run.row["error"] for name, runs in self.runs.items() for run in runs.values() if run.failed}

    @property
    def other_pictures(self) -> dict[str, tuple[int, int]]:
        """Category -> pictures learnt from and judged, where they are not as many as MVTec AD holds."""
        return {name: counts for name in self.runs if (counts := self._counts(name)) != _expected(name)}

    def _counts(self, category: str) -> tuple[int, int]:
        return _pictures(next(iter(self.runs[category].values())))

    def value(self, measure: str, category: str) -> tuple[float | None, float | None, str]:
        """Return mean and standard deviation over seeds, in percent, and why there is none."""
        runs = self.runs.get(category, {})
        if not runs:
            return None, None, ""
        failed = [run.row["error"] for run in runs.values() if run.failed]
        found = [run.row[measure] for run in runs.values()]
        known = [100 * float(value) for value in found if value is not None]
        if len(known) < len(found):
            return None, None, f"failed: {failed[0]}" if failed else self._reason(runs, measure)
        return fmean(known), stdev(known) if len(known) > 1 else None, ""

    @staticmethod
    def _reason(runs: Mapping[int | None, Record], measure: str) -> str:
        reasons = [run.row["reasons"].get(measure) for run in runs.values()]
        return next((str(reason) for reason in reasons if reason), "undefined")

    def mean(self, measure: str, categories: Sequence[str]) -> tuple[float | None, float | None, str]:
        """As `value`, over categories: only where all of them were measured, with the same seeds for the deviation."""
        values = [self.value(measure, name) for name in categories]
        known = [value for value, _, _ in values if value is not None]
        if len(known) < len(categories):
            return (
                None,
                None,
                next((why for _, _, why in values if why), f"{len(known)} of {len(categories)} categories"),
            )
        seeds = self.seeds
        whole = len(seeds) > 1 and all(set(self.runs[name]) == set(seeds) for name in categories)
        means = (
            [fmean(100 * self.runs[name][seed].row[measure] for name in categories) for seed in seeds] if whole else []
        )
        return fmean(known), stdev(means) if means else None, ""


@dataclass(frozen=True)
class Comparison:
    """The tables; the series that stand in them; in words, what was left out."""

    tables: tuple[Table, ...]
    series: tuple[Series, ...]
    left_out: tuple[str, ...]


def compare(records: Iterable[Record] = (), *, left_out: Sequence[str] = ()) -> Comparison:
    """Set the published tables beside what was measured.

    Args:
        records: of `spadework.results.read_folder`; none gives the published tables alone. Those of other data sets are left out.
        left_out: what else is not in the tables, in words.
    """
    series, others = _choose(list(records))
    left_out = [*left_out, *others]
    by_name = {each.detector: each for each in series}
    known = {each.detector for each in SYSTEMS}
    further = tuple(System(name, name) for name in by_name if name not in known)
    image = (*IMAGE_SYSTEMS, *(each for each in SYSTEMS if each not in IMAGE_SYSTEMS), *further)
    pixel = (*PIXEL_SYSTEMS, *(each for each in further if _has_map(by_name[each.detector])))
    tables = (
        _table("Table 1: image ROCAUC", "image_auroc", image, by_name, always=False),
        _table("Table 2: pixel ROCAUC", "pixel_auroc", pixel, by_name, always=True),
        _table(f"PRO, to a false-positive rate of {PRO_LIMIT}", "pro", pixel, by_name, always=False),
    )
    return Comparison(tables, tuple(series), tuple(left_out))


def _table(
    title: str, measure: str, columns: tuple[System, ...], series: Mapping[str, Series], *, always: bool
) -> Table:
    """A table; categories of which nothing is known, published or measured, have rows only with `always`."""
    rows = []
    for name in CATEGORIES:
        if always or any(name in series[each.detector].runs for each in columns if each.detector in series):
            rows.append((name, tuple(_cell(measure, each.detector, name, series) for each in columns)))
    rows.append((MEAN, tuple(_mean_cell(measure, each.detector, series) for each in columns)))
    return Table(title, measure, columns, tuple(rows))


def _cell(measure: str, detector: str, category: str, series: Mapping[str, Series]) -> Cell:
    number = published(measure, detector, category)
    if detector not in series:
        return Cell(number)
    own = series[detector]
    return Cell(number, *own.value(measure, category), comparable=category not in own.other_pictures)


def _mean_cell(measure: str, detector: str, series: Mapping[str, Series]) -> Cell:
    number = published(measure, detector)
    if detector not in series:
        return Cell(number)
    over = categories_of(detector) if measure == "pixel_auroc" else CATEGORIES
    own = series[detector]
    return Cell(number, *own.mean(measure, over), comparable=not set(over) & set(own.other_pictures))


def _has_map(series: Series) -> bool:
    rows = [run.row for runs in series.runs.values() for run in runs.values()]
    return any(row["pixel_auroc"] is not None or "error" in row for row in rows)


def _expected(category: str) -> tuple[int, int]:
    return COUNTS[category].train, COUNTS[category].test


# ---- which results stand in the tables ---------------------------------------------------------------------------------------


def _choose(records: list[Record]) -> tuple[list[Series], list[str]]:
    """One series a detector, in the order of the paper, others after; and what was left out, in words."""
    kept, left_out = _comparable(records)
    sets: dict[str, dict[str, list[Record]]] = {}
    for record in kept:
        sets.setdefault(record.identity["detector"], {}).setdefault(_signature(record), []).append(record)
    chosen = []
    for detector in sorted(sets, key=_place):
        ranked = sorted(sets[detector].values(), key=_rank, reverse=True)
        chosen.append(Series(detector, _by_category(ranked[0])))
        older = len(ranked[0]) - sum(map(len, chosen[-1].runs.values()))
        left_out += [f"{detector}: {older} older results of the same settings and other pictures"] if older else []
        left_out += [
            f"{detector}: {len(other)} results of {described(other[0])}{_apart(other[0], ranked[0][0])}"
            for other in ranked[1:]
        ]
    return chosen, left_out


def _comparable(records: list[Record]) -> tuple[list[Record], list[str]]:
    """Those of MVTec AD's categories, with PRO to the published limit; and, in words, how many are not."""
    checks: dict[str, Callable[[Record], bool]] = {
        "other data sets": lambda each: each.identity["dataset"] == DATASET and each.identity["category"] in CATEGORIES,
        f"PRO to another false-positive rate than {PRO_LIMIT}": lambda each: each.identity["pro_limit"] == PRO_LIMIT,
    }
    left_out = []
    for what, fits in checks.items():
        kept = [each for each in records if fits(each)]
        if len(kept) < len(records):
            left_out.append(f"{len(records) - len(kept)} results of {what}")
        records = kept
    return records, left_out


def _place(detector: str) -> tuple[int, str]:
    names = [each.detector for each in SYSTEMS]
    return (names.index(detector) if detector in names else len(names)), detector


def _signature(record: Record) -> str:
    """What the results of one column have in common: everything but category, pictures and seed; and whether the pictures are MVTec AD's."""
    common = {key: value for key, value in record.identity.items() if key not in ELSEWHERE}
    common["settings"] = {key: value for key, value in common["settings"].items() if key != "seed"}
    return json.dumps([common, _is_whole(record)], sort_keys=True)


def _is_whole(record: Record) -> bool:
    return _pictures(record) == _expected(record.identity["category"])


def _pictures(record: Record) -> tuple[int, int]:
    train, test = record.identity["pictures"]
    return int(train), int(test)


def _rank(records: list[Record]) -> tuple[bool, int, int, int, float]:
    row, measured = records[0].row, [each for each in records if not each.failed]
    place = -CONFIGURATIONS.index(row["configuration"])
    categories = len({each.identity["category"] for each in measured})
    return _is_whole(records[0]), place, -len(row["changed"]), categories, max(each.finished for each in records)


def _by_category(records: list[Record]) -> dict[str, dict[int | None, Record]]:
    """Records by category and seed; of two, the newer: the pictures were changed between them."""
    found: dict[str, dict[int | None, Record]] = {}
    for record in sorted(records, key=lambda each: each.finished):
        found.setdefault(record.identity["category"], {})[record.row.get("seed")] = record
    return {name: found[name] for name in CATEGORIES if name in found}


# ---- in words ----------------------------------------------------------------------------------------------------------------


def _apart(record: Record, shown: Record) -> str:
    """In words, versions and settings that set a record apart from the one shown and that `described` does not tell."""
    own, other = record.identity, shown.identity
    words = [f"{name} {value}" for name, value in own["versions"].items() if other["versions"].get(name) != value]
    changed = set(record.row["changed"]) | {"seed"}
    words += [
        f"{name}={json.dumps(value)}"
        for name, value in own["settings"].items()
        if name not in changed and other["settings"].get(name) != value
    ]
    return f", apart by {', '.join(words)}" if words else ""


def described(record: Record) -> str:
    """Return how a record was made, in words: configuration, what was changed in it, scale, network, versions."""
    row, identity = record.row, record.identity
    changed = ", ".join(f"{key}={json.dumps(value)}" for key, value in row["changed"].items())
    words = [f"{row['configuration']} configuration" + (f" with {changed}" if changed else "")]
    if row.get("scale") == "quick" and row["configuration"] != "quick":
        words.append("scaled down")
    if identity["backbone"]:
        words.append(f"network {row.get('backbone') or row['settings'].get('backbone')} ({identity['backbone'][:12]})")
    words.append(f"pixels compared at the {'picture' if identity['resolution'] == 'original' else 'network'}'s size")
    return ", ".join([*words, f"Spadework {identity['versions']['spadework']} (code {identity['code'][:8]})"])


def notes_of(series: Series) -> list[str]:
    """Return what was measured of a detector, in words, the warnings first."""
    rows = [run.row for runs in series.runs.values() for run in runs.values() if not run.failed]
    words = [f"{series.detector}: {described(series.first)}"]
    if series.seeds:
        words.append(f"seed{'s' if len(series.seeds) > 1 else ''} {', '.join(map(str, series.seeds))}")
    words.append(f"{len(series.runs) - len(series.failures)} of {len(CATEGORIES)} categories")
    if rows:
        words.append(f"fitted in {sum(row['fit_seconds'] or 0 for row in rows):.0f} s in all")
        peaks = [row["peak_memory_mb"] for row in rows if row["peak_memory_mb"]]
        words += [f"at most {max(peaks):.0f} MiB"] if peaks else []
    notes = [", ".join(words) + "."]
    if series.other_pictures:
        name, (train, test) = next(iter(series.other_pictures.items()))
        notes.append(
            f"{series.detector}: NOT MEASURED ON THE WHOLE OF MVTec AD: {len(series.other_pictures)} categories hold other numbers of pictures "
            f"({name}: {train} to learn from, {test} to judge; MVTec AD has {COUNTS[name].train} and {COUNTS[name].test}). "
            "Published numbers are no comparison, so no difference is given."
        )
    if series.fewer_seeds:
        notes.append(
            f"{series.detector}: not all seeds were measured of {', '.join(series.fewer_seeds)}; means take what there is."
        )
    over = categories_of(series.detector)
    if len(over) < len(CATEGORIES):
        notes.append(f"{series.detector}: its mean in Table 2, published and measured, is over {', '.join(over)}.")
    notes += [f"{series.detector}, {name}: failed: {why}" for name, why in series.failures.items()]
    return notes
