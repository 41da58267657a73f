"""The command line as its users run it: subprocesses, exit codes, standard output and standard error."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import forks
import numpy as np
import pytest
from builders import TINY, defective_picture, mvtec_category, normal_pictures, write_pictures

from spadework import Spade
from spadework.cli.console import settings_from

SETTINGS = [option for name, value in TINY.items() for option in ("--set", f"{name}={value}")]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own for every command; `run_plainly` starts it from nothing, as a user does, and takes a second longer."""
    return forks.run(
        "import runpy; runpy.run_module('spadework', run_name='__main__', alter_sys=True)", *arguments, cwd=cwd
    )


def run_plainly(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spadework", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def only_json(done: subprocess.CompletedProcess[str]) -> dict:
    """Standard output as one JSON document; anything else on it fails."""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """good/: 8 normal pictures; new/ok.png normal, new/bad.png defective."""
    root = tmp_path_factory.mktemp("parts")
    write_pictures(root / "good", normal_pictures(8))
    (root / "new").mkdir()
    cv2.imwrite(str(root / "new" / "ok.png"), normal_pictures(1, start=40)[0][..., ::-1])
    cv2.imwrite(str(root / "new" / "bad.png"), defective_picture()[0][..., ::-1])
    return root


@pytest.fixture(scope="module")
def fitted(parts) -> Path:
    """A model fitted by the command line; tests that change it copy it."""
    done = run_plainly("fit", parts / "good", "-o", parts / "part.spade", *SETTINGS, "--max-false-alarms", 0.2)
    assert done.returncode == 0, done.stderr
    assert "learnt 8 normal pictures" in done.stdout
    assert "threshold" in done.stdout
    return parts / "part.spade"


@pytest.fixture
def own(fitted, tmp_path) -> Path:
    return Spade.load(fitted).save(tmp_path / "own.spade")


@pytest.mark.slow
def test_help_names_every_command():
    done = run_plainly("--help")
    assert done.returncode == 0
    for command in "demo fit predict append remove threshold info serve evaluate benchmark reproduce tables backbones detectors datasets".split():
        assert f"  {command} " in done.stdout
        assert run(command, "--help").returncode == 0
    assert "..." not in done.stdout.partition("Commands:")[2]  # no summary is cut off


def test_version_and_unknown_command():
    import spadework

    assert run_plainly("--version").stdout.strip() == f"spadework {spadework.__version__}"
    assert run("inspect").returncode == 2


def test_help_loads_nothing_heavy():
    code = "import sys, spadework.cli.app; print([m for m in ('cv2', 'numpy', 'onnxruntime', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_predict_tells_verdicts(fitted, parts):
    done = run("predict", fitted, parts / "new")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], Path(line[2]).name) for line in lines] == [("anomalous", "bad.png"), ("normal", "ok.png")]
    assert "2 inspected, 1 anomalous, 0 failed" in done.stderr


@pytest.mark.slow
def test_predict_json_equals_python(fitted, parts):
    done = run_plainly("predict", fitted, parts / "new", "--json", "--explain")
    found = only_json(done)["predictions"]
    expected = Spade.load(fitted).predict(parts / "new")
    assert [row["score"] for row in found] == pytest.approx(list(expected.scores), rel=1e-6)
    match = found[0]["matches"][0]
    assert Path(match["normal_image"]).parent.name == "good"
    y0, x0, y1, x1 = match["box"]
    mask = defective_picture()[1]
    assert mask[y0:y1, x0:x1].any()  # what is explained is the defect


def test_predict_goes_on_past_bad_files_and_tells(fitted, parts, tmp_path):
    bad = tmp_path / "broken.png"
    bad.write_text("no picture")
    done = run("predict", fitted, bad, parts / "new" / "ok.png", tmp_path / "nowhere", "--json")
    assert done.returncode == 1
    document = only_json(done)
    assert len(document["predictions"]) == 1
    assert {Path(failure["path"]).name for failure in document["failures"]} == {"broken.png", "nowhere"}
    assert "broken.png" in done.stderr
    assert "nowhere" in done.stderr


@pytest.mark.slow
def test_predict_goes_on_past_broken_links_and_pipes_and_never_waits(fitted, parts, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(parts / "new", folder)
    (folder / "zz.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    os.rename(folder / "ok.png", os.fsencode(folder) + b"/caf\xe9.png")
    for options in ((), ("--out", folder), ("--out", folder)):
        done = run("predict", fitted, folder, *options)
        assert done.returncode == 1
        assert "2 inspected, 1 anomalous, 2 failed" in done.stderr
        assert "caf\\udce9.png" in done.stdout
        assert "Traceback" not in done.stderr


def test_predict_out_writes_maps_overlays_tables(fitted, parts, tmp_path):
    out = tmp_path / "out"
    done = run("predict", fitted, parts / "new", "--out", out, "--explain")
    assert done.returncode == 0, done.stderr
    score_map = cv2.imread(str(out / "maps" / "bad.tiff"), cv2.IMREAD_UNCHANGED)
    expected = Spade.load(fitted).predict(parts / "new" / "bad.png").score_map
    assert score_map.dtype == np.float32
    np.testing.assert_allclose(score_map, expected, rtol=1e-5)
    assert cv2.imread(str(out / "overlays" / "bad.jpg")).shape[1] == 480  # enlarged, with words below
    assert cv2.imread(str(out / "explanations" / "bad.jpg")) is not None
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["path"]).name, row["verdict"]) for row in rows] == [
        ("bad.png", "anomalous"),
        ("ok.png", "normal"),
    ]
    assert [row["path"] for row in json.loads((out / "predictions.json").read_text())["predictions"]] == [
        row["path"] for row in rows
    ]


@pytest.mark.slow
def test_predict_npy(fitted, parts, tmp_path):
    assert run("predict", fitted, parts / "new" / "ok.png", "--out", tmp_path, "--map-format", "npy").returncode == 0
    assert np.load(tmp_path / "maps" / "ok.npy").shape == (64, 64)
    assert run("predict", fitted, parts / "new", "--out", tmp_path, "--map-format", "jpeg").returncode == 2


@pytest.mark.slow
def test_append_info_threshold(own, parts):
    before = only_json(run("info", own, "--json"))
    assert before["normal_images"] == 8
    done = run("append", own, parts / "new" / "ok.png", "--json")
    assert done.returncode == 0, done.stderr
    after = only_json(run("info", own, "--verify", "--json"))
    assert (after["normal_images"], after["verified"]) == (9, True)
    assert after["model_hash"] != before["model_hash"]
    assert after["threshold"]["value"] == before["threshold"]["value"]
    moved = only_json(run("threshold", own, "--max-false-alarms", 0.5, "--json"))
    assert moved["threshold"]["value"] <= before["threshold"]["value"]
    assert moved["threshold"]["promised"] == 0.5
    again = run("append", own, parts / "new" / "ok.png", "--recalibrate")
    assert "9 now" in again.stdout  # a picture counts once
    assert "from 5 normal images" in again.stdout
    assert "kappa = 1" in run("info", own).stdout


def test_fit_refuses_to_replace_unless_told(own, parts):
    before = (own / "header.json").read_bytes()
    done = run("fit", parts / "good", "-o", own, *SETTINGS)
    assert (done.returncode, "--overwrite" in done.stderr) == (2, True)
    assert (own / "header.json").read_bytes() == before
    assert run("fit", parts / "good", "-o", own, *SETTINGS, "--overwrite").returncode == 0


@pytest.mark.slow
def test_fit_skips_bad_files_by_name_or_stops(parts, tmp_path):
    good = write_pictures(tmp_path / "good", normal_pictures(3))
    good[1].write_bytes(good[1].read_bytes()[:200])  # truncated
    done = run("fit", tmp_path / "good", "-o", tmp_path / "a.spade", *SETTINGS, "--json")
    assert done.returncode == 1
    assert [Path(failure["path"]).name for failure in only_json(done)["failures"]] == ["001.png"]
    assert only_json(done)["normal_images"] == 2
    done = run("fit", tmp_path / "good", "-o", tmp_path / "b.spade", *SETTINGS, "--strict")
    assert (done.returncode, "001.png" in done.stderr) == (2, True)
    assert not (tmp_path / "b.spade").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "nowhere", "-o", "a.spade"], ["nowhere", "does not exist|cannot be listed"]),
        (["fit", ".", "-o", "a.spade"], ["no pictures found"]),
        (["predict", "nowhere.spade", "."], ["nowhere.spade", "does not exist"]),
        (["predict", "STEM", "."], ["does not exist", "Did you mean", "part.spade"]),
        (["predict", "PARTS", "."], ["good", "not a Spadework model"]),
        (["fit", "ALL", "-o", "a.spade"], ["laid out as a data set", "Learn from"]),
        (["fit", "PARTS", "-o", "a.spade", "--set", "kapa=3"], ["kapa", "kappa"]),
        (["fit", "PARTS", "-o", "a.spade", "--set", "kappa"], ["NAME=VALUE"]),
        (["fit", "PARTS", "-o", "a.spade", "--max-false-alarms", "2"], ["max_false_alarms", "between 0 and 1"]),
        (["fit", "PARTS", "-o", "a.spade", "--backbone", "resnet"], ["resnet", "embedded"]),
        (["fit", "PARTS", "-o", "a.spade", "--detector", "sponge"], ["sponge", "spade"]),
        (["benchmark", "PARTS"], ["Found", "Expected", "mvtec"]),
        (["evaluate", "MODEL", "nowhere"], ["nowhere", "no such folder"]),
        (["demo", "--out", "PARTS"], ["not made by the demo"]),
    ],
)
def test_bad_input_exits_with_2_and_a_sentence(arguments, words, parts, fitted, tmp_path):
    known = {"ALL": parts, "PARTS": parts / "good", "MODEL": fitted, "STEM": fitted.with_suffix("")}
    done = run(*[known.get(each, each) for each in arguments], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert any(each in done.stderr for each in word.split("|")), done.stderr
    assert not (tmp_path / "a.spade").exists()


@pytest.mark.slow
def test_ctrl_c_in_fit_leaves_nothing(parts, tmp_path):
    write_pictures(tmp_path / "many", normal_pictures(60))
    command = [
        sys.executable,
        "-m",
        "spadework",
        "fit",
        str(tmp_path / "many"),
        "-o",
        str(tmp_path / "a.spade"),
        *SETTINGS,
    ]
    process = subprocess.Popen([*command, "--set", "image_size=256"], stderr=subprocess.PIPE, text=True)
    draft = None
    while draft is None and process.poll() is None:  # as soon as the work has begun
        draft = next(tmp_path.glob(".a.spade*"), None)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (130, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many"]


def test_a_closed_pipe_is_no_error(fitted, parts):
    command = f"{sys.executable} -m spadework detectors spade patchcore | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("spade:")


@pytest.mark.slow
def test_detectors_are_a_table_and_each_tells_all():
    names = [each["name"] for each in only_json(run("detectors", "--json"))["detectors"]]
    lines = run("detectors").stdout.splitlines()
    heading = next(line for line in lines if line.strip())
    assert heading.split() == ["name", "source", "works", "on", "map", "cannot", "do", "cost", "extra"]
    starts = [line.split()[0] for line in lines if line[1:2].isalnum()]
    assert starts[1:] == names  # one line each where there is room
    shown = run("detectors", "patchcore").stdout
    for words in (
        "patchcore: nearest of a coreset",
        "Roth et al. 2022",
        "works on features; gives a map",
        "coreset = 0.1",
    ):
        assert words in shown
    (only,) = only_json(run("detectors", "spade", "--json"))["detectors"]
    assert (only["name"], only["localises"], only["extra"]) == ("spade", True, "")
    refused = run("detectors", "spad")
    assert (refused.returncode, "patchcore" in refused.stderr) == (2, True)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_detectors_can_be_read_on_a_narrow_terminal(monkeypatch, capsys, columns):
    from spadework.cli import lists
    from spadework.detectors import DETECTORS

    monkeypatch.setattr("spadework.cli.console._width", lambda console: columns)
    lists.detectors(None)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= columns
    assert [line.split()[0] for line in lines if line[1:2].isalnum()] == ["name", *DETECTORS]  # no name cut in two
    assert ("source" in lines[1]) == ("left out for want of width: source" not in shown.err) == (columns > 80)


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_measures_can_be_read_on_a_narrow_terminal(monkeypatch, capsys, columns):
    """The longest names there are, and no number is broken; what had no room is named."""
    from spadework.cli.console import MEASURE_COLUMNS, measures_table

    values = dict.fromkeys(MEASURE_COLUMNS.values(), 0.98765)
    verdicts = {"found": 109, "anomalous": 119, "false_alarms": 12, "normal": 80}
    known = {"n_train": 391, "n_test": 167, "fit_seconds": 1234.5, "predict_seconds_per_image": 0.123, "reasons": {}}
    row = {"category": "hazelnut_reduced", "detector": "texture-inspection", "scale": "quick", "seed": 0}
    monkeypatch.setattr("spadework.cli.console._width", lambda console: columns)
    measures_table([row | known | values | {"verdicts": verdicts}, row | known | values | {"detector": "padim"}])
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith(" hazelnut_reduced")]
    assert max(map(len, shown.out.splitlines())) <= columns
    assert [line.split()[:3] for line in lines] == [
        ["hazelnut_reduced", "texture-inspection", "quick"],
        ["hazelnut_reduced", "padim", "quick"],
    ]
    assert all(line.count("0.9877") >= 3 for line in lines)
    assert ("109 of 119" in lines[0]) == (columns > 80)  # the longest names leave no room for it
    assert ("left out for want of width: image F1, pixel F1" in shown.err) == (columns < 200)


def test_a_reason_is_given_once_with_all_its_measures(capsys):
    from spadework.cli.console import MEASURE_COLUMNS, measures_table

    row = {"category": "bolt", "detector": "padim", "n_train": 3, "n_test": 3, "fit_seconds": 1.0}
    reasons = {"pro": "no masks", "pixel_ap": "no masks", "image_ap": "no defects"}
    values = dict.fromkeys(MEASURE_COLUMNS.values()) | {"predict_seconds_per_image": 0.1, "reasons": reasons}
    measures_table([row | values])
    assert capsys.readouterr().err.splitlines() == [
        "bolt: image_ap is undefined: no defects",
        "bolt: pro, pixel_ap are undefined: no masks",
    ]


@pytest.mark.slow
def test_explain_with_a_method_that_matches_nothing_says_so(parts, tmp_path):
    options = ["--detector", "nearest-image", "--set", "image_size=48"]
    assert run("fit", parts / "good", "-o", tmp_path / "near.spade", *options).returncode == 0
    for out in ([], ["--out", tmp_path / "out"]):
        done = run("predict", tmp_path / "near.spade", parts / "new", "--explain", *out)
        assert done.returncode == 0
        assert "nearest-image matches no normal places, so --explain shows nothing; spade does" in done.stderr
        assert "explanations" not in done.stderr


def test_detectors_that_need_a_missing_part_are_still_listed(monkeypatch, capsys):
    from spadework.cli import lists
    from spadework.detectors import DETECTORS

    monkeypatch.setitem(DETECTORS, "absent", "faulty_detectors:Absent")
    monkeypatch.setenv("COLUMNS", "200")
    lists.detectors(None)
    shown = capsys.readouterr()
    assert "absent" in shown.out
    assert "absent: detector 'absent' needs the extra 'torch': install it with  pip install" in shown.err


@pytest.mark.slow
def test_lists_as_json():
    found = {each["name"]: each["settings"] for each in only_json(run("detectors", "--json"))["detectors"]}
    assert {"spade", "patchcore"} <= set(found)
    assert all(each["meaning"] for settings in found.values() for each in settings)
    settings = {each["name"]: each for each in found["spade"]}
    assert settings["kappa"]["default"] == 1
    assert only_json(run("backbones", "--json"))["backbones"][0]["name"] == "embedded"
    assert "mvtec" in {each["name"] for each in only_json(run("datasets", "--json"))["layouts"]}


@pytest.mark.slow
def test_datasets_renders_shows_and_benchmark_measures(tmp_path):
    counts = ["--n-train", 6, "--n-good", 2, "--n-per-defect", 1, "--size", 64]
    assert run("datasets", "--render", tmp_path / "parts", "--category", "gear", *counts).returncode == 0
    shown = only_json(run("datasets", tmp_path / "parts", "--json"))
    assert (shown["layout"], shown["categories"][0]["train"], shown["categories"][0]["masks"]) == ("mvtec", 6, True)
    options = [*SETTINGS, "--report", tmp_path / "report"]
    done = run("benchmark", tmp_path / "parts", "--json", "-", *options)
    assert done.returncode == 0, done.stderr
    (row,) = only_json(done)["results"]
    needed = "dataset category detector backbone settings n_train n_test image_auroc pixel_auroc pro image_ap pixel_ap"
    for key in f"{needed} fit_seconds predict_seconds_per_image peak_memory_mb".split():
        assert row[key] is not None, key
    assert (row["verdicts"]["normal"], row["verdicts"]["anomalous"]) == (2, 5)
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    run("fit", tmp_path / "parts" / "gear" / "train", "-o", tmp_path / "gear.spade", *SETTINGS)
    done = run("evaluate", tmp_path / "gear.spade", tmp_path / "parts", "--json", tmp_path / "row.json")
    assert "image AUROC" in done.stdout
    (same,) = json.loads((tmp_path / "row.json").read_text())["results"]
    assert {key: same[key] for key in ("image_auroc", "pixel_auroc", "pro")} == {
        key: row[key] for key in ("image_auroc", "pixel_auroc", "pro")
    }


@pytest.mark.slow
def test_benchmark_of_several_detectors_goes_on_where_it_was(tmp_path):
    mvtec_category(tmp_path / "set", "bolt")
    settings = [
        option for name in ("image_size=48", "calibration_images=0", "coreset=0.5") for option in ("--set", name)
    ]
    options = ["--detector", "spade", "--detector", "patchcore", "--seed", 1, *settings, "--results", tmp_path / "out"]
    done = run("benchmark", tmp_path / "set", *options, "--json", "-")
    assert done.returncode == 0, done.stderr
    rows = only_json(done)["results"]
    assert [(row["detector"], row["seed"], row["scale"]) for row in rows] == [
        ("spade", 1, "full"),
        ("patchcore", 1, "full"),
    ]
    again = run("benchmark", tmp_path / "set", *options, "--json", "-")
    assert "2 of 2 runs are in the folder of results already" in again.stderr
    assert only_json(again)["results"] == rows
    refused = run("benchmark", tmp_path / "set", *options, "--report", tmp_path / "report")
    assert (refused.returncode, "--report draws what was measured in this very process" in refused.stderr) == (2, True)
    refused = run("benchmark", tmp_path / "set", "--memory-limit", 4, "--report", tmp_path / "report")
    assert (refused.returncode, "leave out --results, --jobs and --memory-limit" in refused.stderr) == (2, True)
    assert "results on bolt, which are not in the paper's tables" in run("tables", "--results", tmp_path / "out").stderr


def test_json_target_is_refused_before_the_work(fitted, parts, tmp_path):
    done = run("benchmark", parts, "--json", tmp_path)  # a folder
    assert (done.returncode, "name a file" in done.stderr) == (2, True)


@pytest.mark.slow
def test_demo_end_to_end(tmp_path):
    done = run_plainly("demo", "--out", tmp_path / "demo", "--size", 128)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "demo" / "report.html") in done.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
    assert f"serve {tmp_path / 'demo' / 'gear.spade'} --open" in done.stdout
    assert (tmp_path / "demo" / "gear.spade").is_dir()
    assert f"pictures of {tmp_path / 'demo' / 'parts' / 'gear' / 'test'} dropped" in done.stdout
    assert (tmp_path / "demo" / "parts" / "gear" / "test" / "rust").is_dir()
    again = run("demo", "--out", tmp_path / "demo", "--size", 128, "--json")
    assert {row["category"] for row in only_json(again)["results"]} == {"board", "gear", "weave"}
    assert os.listdir(tmp_path / "demo" / "inspection" / "gear" / "maps")


@pytest.mark.slow
def test_the_same_pictures_twice_are_told(parts, fitted, own):
    done = run("append", own, parts / "good", "--json")
    assert only_json(done)["appended"] == 0
    assert len(only_json(done)["repeated"]) == 8
    assert "in the model already" in done.stderr
    done = run("fit", parts / "good", parts / "new" / "ok.png", "-o", own, "--overwrite", *SETTINGS)
    assert "learnt 9 normal pictures" in done.stdout


@pytest.mark.slow
def test_one_picture_gives_no_verdicts_and_says_so(parts, tmp_path):
    done = run("fit", parts / "good" / "000.png", "-o", tmp_path / "one.spade", *SETTINGS)
    assert "no threshold, so no verdicts" in done.stdout
    done = run("predict", tmp_path / "one.spade", parts / "new")
    assert "no threshold, so no verdicts" in done.stderr


@pytest.mark.slow
def test_nothing_inspected_is_told_by_the_exit_code(fitted, tmp_path):
    assert run("predict", fitted, tmp_path / "nowhere").returncode == 2
    (tmp_path / "text.png").write_text("no picture")
    assert run("predict", fitted, tmp_path / "text.png", "--out", tmp_path / "out").returncode == 2


@pytest.mark.slow
def test_measuring_on_learnt_pictures_is_warned_of(parts, fitted, tmp_path):
    write_pictures(tmp_path / "set" / "good", normal_pictures(8))  # those that were learnt: the held-out one among them
    write_pictures(tmp_path / "set" / "bad", [defective_picture()[0]])
    done = run_plainly("evaluate", fitted, tmp_path / "set", "--json", "-")
    assert only_json(done)["results"][0]["n_test_learnt"] == 1
    assert "1 test pictures are in the model" in done.stderr
    done = run("evaluate", fitted, tmp_path / "set")
    assert "1 of 1 defective pictures found, 0 false alarms on 1 good ones" in done.stdout


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("levels=[1, 2]", [1, 2]),
        ("levels=1,2", [1, 2]),
        ("level_weights=2, 1,0.5", [2, 1, 0.5]),
        ("crop=(160,224)", [160, 224]),
        ("crop=160x224", [160, 224]),
        ("image-size=auto", "auto"),
        ("weights=a,b.pth", "a,b.pth"),
        ("kappa=3", 3),
        ("weights=null", None),
        ("wide_smoothing=None", None),
        ("align=none", "none"),
    ],
)
def test_values_of_settings_are_numbers_lists_sizes_or_text(text, value):
    assert list(settings_from([text]).values()) == [value]


def test_a_time_for_tuning_without_tuning_is_refused_before_anything_starts(tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(3))
    done = run("fit", tmp_path / "good", "-o", tmp_path / "m.spade", "--tune-minutes", "1")
    assert done.returncode == 2
    assert "give --tune too" in done.stderr
    done = run("fit", tmp_path / "good", "-o", tmp_path / "m.spade", "--tune", "--detector", "patchcore")
    assert done.returncode == 2
    assert "only spade can" in done.stderr
