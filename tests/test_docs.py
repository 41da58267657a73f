"""Docs under test: what they say exists, what exists is in them, generated parts are up to date."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spadework
from spadework.backbones import list_backbones
from spadework.datasets import LAYOUTS
from spadework.datasets.synthetic import CATEGORIES
from spadework.detectors import DETECTORS, describe, get_detector
from spadework.evaluation import MEASURES

ROOT = Path(__file__).resolve().parent.parent
DOCS = {
    path.name: path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
}
EVERYTHING = "\n".join(DOCS.values())


def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands() -> list[str]:
    from spadework.cli.app import app

    return [command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command):
    assert f"spadework {command}" in DOCS["README.md"]


def test_commands_in_the_docs_exist_with_their_options():
    help_text = DOCS["cli.md"]
    for command, rest in re.findall(r"^\s*(?:\$ )?spadework ([a-z]+)(.*)$", EVERYTHING, re.MULTILINE):
        assert command in commands(), command
        section = help_text.partition(f"## spadework {command}\n")[2].partition("\n## ")[0]
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.partition("#")[0]):
            assert option in section, f"spadework {command} {option}"


@pytest.mark.parametrize("name", sorted({*DETECTORS, *MEASURES, *LAYOUTS, *CATEGORIES}))
def test_every_name_is_documented(name):
    assert name in EVERYTHING


@pytest.mark.parametrize("name", DETECTORS)
def test_every_setting_has_a_meaning(name):
    for setting in describe(name)["settings"]:
        assert setting["meaning"], setting["name"]


def test_backbones_are_documented():
    for each in list_backbones():
        assert each.name.partition(":")[0] in EVERYTHING


def test_links_inside_the_docs_lead_somewhere():
    for name, text in DOCS.items():
        folder = ROOT if (ROOT / name).exists() else ROOT / "docs"
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (folder / target).exists(), f"{name}: {target}"


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    """The blocks run in order on rendered parts, in a folder that has what they name."""
    from builders import defective_picture, normal_pictures, write_pictures

    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "good", normal_pictures(6))
    write_pictures(tmp_path / "false_alarms", normal_pictures(2, start=6))
    write_pictures(tmp_path, [defective_picture()[0]], prefix="new")
    (tmp_path / "new000.png").rename(tmp_path / "new.png")
    blocks = re.findall(r"```python\n(.*?)```", DOCS["README.md"], re.DOTALL)
    assert blocks
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)


def test_the_detector_of_the_development_docs_works(tmp_path, monkeypatch):
    """Fit, verdict, save, load, and a run in the benchmark, as the text says."""
    from builders import defective_picture, mvtec_category, normal_pictures

    from spadework import open_dataset
    from spadework.benchmark import run_benchmark
    from spadework.detectors import load_detector

    (block,) = re.findall(r"```python\n(.*?)```", DOCS["development.md"], re.DOTALL)
    (tmp_path / "mean_vector.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DETECTORS, "mean-vector", "mean_vector:MeanVector")
    model = get_detector("mean-vector")(image_size=48).fit(normal_pictures(6))
    found = model.predict(defective_picture()[0])
    assert (found.is_anomalous, found.score_map) == (True, None)
    assert load_detector(model.save(tmp_path / "own.spade")).predict(defective_picture()[0]).score == found.score
    mvtec_category(tmp_path / "set", "bolt")
    names = ["spade", "mean-vector"]
    settings = {"image_size": 48, "calibration_images": 0}
    rows = run_benchmark(open_dataset(tmp_path / "set"), detectors=names, settings=settings).rows
    assert [(row["detector"], row["image_auroc"] is not None) for row in rows] == [(name, True) for name in names]


def test_public_names():
    assert spadework.__all__ == sorted(spadework.__all__)
    for name in spadework.__all__:
        assert getattr(spadework, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Spate'"):
        spadework.Spate  # noqa: B018


def test_readme_numbers_are_those_of_the_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "real.json").read_text())
    for row in results["rows"]:
        assert f"{row['image_auroc']:.4g}" in DOCS["README.md"]


def test_the_version_has_a_place_in_the_changelog():
    assert "## [Unreleased]" in DOCS["CHANGELOG.md"] or f"## [{spadework.__version__}]" in DOCS["CHANGELOG.md"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    sorted(
        path.name
        for path in (ROOT / "benchmarks").glob("*.py")
        if path.name not in {"common.py", "install.py", "real.py"}
    ),
)
def test_benchmarks_run_at_a_tiny_size(script, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / script, "--tiny", "--json", tmp_path / "result.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if script == "public.py" and done.stderr.startswith("skipped: anomalib is not installed"):
        pytest.skip(done.stderr.strip())
    document = json.loads((tmp_path / "result.json").read_text())
    assert set(document["columns"].values()) <= set(document["rows"][0])
