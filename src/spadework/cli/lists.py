"""Commands that tell what there is: backbones, detectors, datasets."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spadework.cli import options
from spadework.cli.console import note, say, say_json, table

if TYPE_CHECKING:
    from spadework.datasets import Dataset


def backbones(as_json: options.JsonFlag = False) -> None:
    """List the networks and what each needs."""
    from spadework.backbones import list_backbones

    found = list_backbones()
    if as_json:
        say_json({"backbones": [asdict(each) for each in found]})
        return
    for each in found:
        say(f"{each.name}  {'ready' if each.available else 'not ready: ' + each.why}")
        levels = ", ".join(f"{c} channels at stride {s}" for s, c in zip(each.strides, each.channels, strict=True))
        say(f"    {each.description}{f' ({levels})' if levels else ''}")
        say(f"    needs {each.needs}")


def detectors(
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Tell all about these, with their settings.", show_default=False),
    ] = None,
    as_json: options.JsonFlag = False,
) -> None:
    """List the methods and their needs; with a NAME, all about it.

    A method that needs an extra says whether its framework is installed. With a NAME every setting has its default and meaning.
    """
    from spadework.detectors import describe, describe_all

    found = [describe(each) for each in name] if name else describe_all()
    if as_json:
        say_json({"detectors": found})
    elif name:
        for each in found:
            _say_detector(each)
    else:
        rows = [[read(each) for read in DETECTOR_COLUMNS.values()] for each in found]
        table(list(DETECTOR_COLUMNS), rows, optional=["source"])
        for each in found:
            if "unavailable" in each:
                note(f"{each['name']}: {each['unavailable']}")
        note("all about one and its settings: spadework detectors NAME")


def _say_detector(each: dict[str, Any]) -> None:
    say(f"{each['name']}: {each['summary']}")
    say(f"    source: {each['source']}")
    say(f"    works on {NEEDS[each['needs']]}; {'gives a map' if each['localises'] else 'gives no map'}")
    for title, value in (("cannot do", each["cannot"]), ("cost", each["cost"]), ("needs the extra", _extra(each))):
        if value:
            say(textwrap.indent(textwrap.fill(f"{title}: {value}", 100, subsequent_indent="  "), " " * 4))
    if each["quick"]:
        say(f"    --quick sets {', '.join(f'{key}={value!r}' for key, value in each['quick'].items())}")
    say("    settings (--set NAME=VALUE):")
    for setting in each["settings"]:
        say(f"      {setting['name']} = {setting['default']!r}")
        say(textwrap.indent(textwrap.fill(setting["meaning"], 100), " " * 10))


def _extra(each: dict[str, Any]) -> str:
    """The extra a detector needs, and whether its framework is here: an extra is named after it."""
    extra = each.get("extra", "")
    return f"{extra} (not installed)" if extra and find_spec(extra) is None else extra


NEEDS = {"pyramid": "features", "pixels": "pixels"}  # features: those of `--backbone`
DETECTOR_COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    "name": lambda each: each["name"],
    "source": lambda each: each.get("source", "cannot be loaded, see below"),
    "works on": lambda each: NEEDS.get(each.get("needs", ""), ""),
    "map": lambda each: "" if "localises" not in each else "yes" if each["localises"] else "no",
    "cannot do": lambda each: each.get("cannot", ""),
    "cost": lambda each: each.get("cost", ""),
    "extra": _extra,
}


def datasets(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DATASET]", help="Say how this folder would be read.", show_default=False)
    ] = None,
    render: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Render the synthetic parts into this folder, in MVTec AD layout.", show_default=False
        ),
    ] = None,
    category: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="With --render: which parts; may be repeated.  [default: all]", show_default=False
        ),
    ] = [],  # noqa: B006 - Typer reads it as "none given"
    n_train: Annotated[int, typer.Option(metavar="N", help="With --render: normal pictures to learn from.")] = 40,
    n_good: Annotated[int, typer.Option(metavar="N", help="With --render: normal pictures to test on.")] = 10,
    n_per_defect: Annotated[int, typer.Option(metavar="N", help="With --render: pictures of each defect.")] = 3,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="With --render: side of the pictures.")] = 256,
    seed: Annotated[int, typer.Option(metavar="N", help="With --render: another seed renders other parts.")] = 0,
    as_json: options.JsonFlag = False,
) -> None:
    """List layouts, look at a folder, or render parts."""
    from spadework.datasets import open_dataset

    if render is not None:
        from spadework.datasets.synthetic import write_dataset

        counts = {"n_train": n_train, "n_good": n_good, "n_per_defect": n_per_defect}
        made = write_dataset(render, categories=category or None, **counts, size=size, seed=seed)
        _show(made, as_json)
        note(f"rendered into {render}")
    elif folder is not None:
        _show(open_dataset(folder), as_json)
    else:
        _list_layouts(as_json)


def _list_layouts(as_json: bool) -> None:
    from spadework.datasets import LAYOUTS
    from spadework.datasets.synthetic import CATEGORIES

    if as_json:
        layouts = [{"name": each.name, "title": each.title, "tree": each.tree} for each in LAYOUTS.values()]
        say_json({"layouts": layouts, "synthetic": {name: list(kinds) for name, kinds in CATEGORIES.items()}})
        return
    for each in LAYOUTS.values():
        say(f"{each.name}: {each.title}")
        say(textwrap.indent(each.tree, "    "))
    say("synthetic: rendered here, `spadework datasets --render DIR`")
    for name, kinds in CATEGORIES.items():
        say(f"    {name}: {', '.join(kinds)}")


def _show(dataset: Dataset, as_json: bool) -> None:
    rows = [_counts(category) for category in dataset.categories]
    if as_json:
        say_json({"layout": dataset.layout, "root": str(dataset.root), "categories": rows})
        return
    say(f"{dataset.root}: layout {dataset.layout}")
    headers = ["category", "train", "test good", "test defective", "masks", "kinds"]
    lines = [[*list(row.values())[:4], "yes" if row["masks"] else "no", ", ".join(row["kinds"])] for row in rows]
    table(headers, lines, numbers=headers[1:4])


def _counts(category: Any) -> dict[str, Any]:
    defective = sum(sample.is_anomalous for sample in category.test)
    return {
        "category": category.name,
        "train": len(category.train),
        "test_good": len(category.test) - defective,
        "test_defective": defective,
        "masks": category.has_masks,
        "kinds": list(category.kinds),
    }
