"""The bill in advance: its arithmetic, what it says, that it leaves nothing behind, and that every method has one."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace

import pytest
from builders import TINY, mvtec_category, normal_pictures, write_pictures
from test_detectors import SETTINGS
from typer.testing import CliRunner

from spadework import Spade, bill, estimates, probe
from spadework.bill import Bill, Change, gigabytes
from spadework.cli.app import app
from spadework.datasets import open_dataset
from spadework.detectors import DETECTORS, get_detector
from spadework.detectors.costs import PREPARING, READING, THRESHOLD
from spadework.errors import InputError
from spadework.estimates import bill_of, estimate, estimate_runs, is_worth_telling
from spadework.probe import Probe, Small, Stage, spread
from spadework.runs import Asked, plan

CHOICES = [option for name, value in TINY.items() for option in ("--set", f"{name}={value}")]
TIMES = {READING: 0.5, THRESHOLD: 0.25}  # seconds a step


def stage(step: float, steps: int, *, once: float = 0.0) -> Stage:
    """A stage of even steps, but for what is done once, before the first."""
    return Stage([step + once, *[step] * (steps - 1)], [1.0] * steps, steps, steps)


def small(detector: Spade, count: int, *, step: float = 0.25, peak: float = 300.0) -> Small:
    chosen = Spade(**{**detector.settings(), **detector._probe()})
    stages = {
        READING: stage(0.5, count, once=2.0),
        THRESHOLD: stage(step, min(count, int(chosen.calibration_images))),
    }
    sizes = {"pyramids": count * 2.0**20, "codes": count * 2.0**18, "code_axes": 5.0 * 2**20}
    return Small(chosen, count, stages, sizes, sizes, rest=1.0, seconds=20.0, peak=peak)


def found(detector: Spade, *, before: float = 0.25, after: float = 0.25) -> Probe:
    return Probe(small(detector, 6, step=before), small(detector, 26, step=after), seconds=3.0)


# ---------------------------------------------------------------- arithmetic


def test_each_stage_is_scaled_by_its_own_counts():
    model = Spade(calibration_images=100, gallery_k=5)
    told = bill_of(found(model), model, 240)
    assert told.stages[READING] == pytest.approx(2.0 + 0.5 * 240)  # what is done once counts once
    assert told.stages[THRESHOLD] == pytest.approx(
        0.25 * 100
    )  # at most 100 are left out; each is searched among 5, as in the probe
    assert told.seconds == pytest.approx(1.0 + 122 + 25)
    assert (told.normal, told.tests) == (240, 0)


def test_a_search_among_more_images_takes_as_much_longer_as_the_two_small_fits_say():
    model = Spade(calibration_images=10)
    as_long = bill_of(found(model), model, 240).stages[THRESHOLD]
    assert as_long == pytest.approx(10 * 0.25 * (50 / 25) ** 0.1)  # at least a little
    linear = bill_of(found(model, before=0.05, after=0.25), model, 240).stages[THRESHOLD]
    assert linear == pytest.approx(10 * 0.25 * 50 / 25)
    steeper = bill_of(found(model, before=0.01, after=0.25), model, 240).stages[THRESHOLD]
    assert steeper == pytest.approx(linear)  # never more than in proportion


def test_room_grows_with_the_pictures_but_for_what_does_not():
    model = Spade()
    told = bill_of(found(model), model, 1000)
    assert told.disk_mb == pytest.approx(1000 * 1.25 + 5)
    assert told.model_mb == told.disk_mb
    assert told.memory_mb == pytest.approx(300 + 96 - 26 * 1.25)  # a search index holds 96 MiB at most


def test_a_call_that_takes_far_longer_is_no_step():
    uneven = Stage([1.0] * 7 + [9.0] + [1.0] * 8, [1.0] * 16, 16, 16)
    assert uneven.step == 1.0
    assert replace(uneven, seconds=[1.0] * 12 + [9.0] + [1.0] * 3).step == 1.0
    assert replace(uneven, seconds=[1.0] * 12 + [9.0] + [1.0] * 3).extra == pytest.approx(8.0)
    assert Stage().step == Stage().extra == 0.0


def test_a_sample_goes_from_first_to_last():
    assert spread(range(100), 5) == [0, 20, 40, 60, 80]
    assert spread([1, 2], 2) == [1, 2]


# ---------------------------------------------------------------- words


def test_what_it_says():
    told = Bill({"reading": 20.0, "training": 5.0}, 600.0, 300.0, 250.0, 50)
    assert str(told) == "about 25 s, 0.6 GB memory, 0.3 GB disk"
    assert told.problems == ()
    assert told.warnings() == []
    assert [gigabytes(size) for size in (0.1, 50, 1536, 20480)] == ["1 MB", "50 MB", "1.5 GB", "20 GB"]


def test_what_is_too_much_is_said_with_what_to_change():
    change = Change("memory", {"gallery_k": 10}, "gallery_k=10", 700.0, 200.0, 300.0)
    told = Bill({"": 800.0}, 2000.0, 300.0, 0.0, 50, free_memory_mb=1000.0, free_disk_mb=310.0, advice=(change,))
    assert told.problems == ("time", "memory", "disk")
    assert told.warnings() == [
        "memory: only 1.0 GB is free",
        "disk: only 0.3 GB is free",
        "for less memory: gallery_k=10 (about 12 min, 0.2 GB memory, 0.3 GB disk)",
    ]


def test_as_json():
    told = Bill({"a": 800.0}, 2000.0, 300.0, 1.0, 50, advice=(Change("time", {"x": 1}, "x=1", 1.0, 2.0, 3.0),))
    content = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert set(content) == {
        *(
            "seconds",
            "peak_memory_mb",
            "disk_mb",
            "model_mb",
            "normal_images",
            "test_images",
            "stages",
            "free_memory_mb",
        ),
        *("free_disk_mb", "too_much", "advice", "unknown", "probe_seconds"),
    }
    assert content["advice"] == [
        {"why": "time", "settings": {"x": 1}, "what": "x=1", "seconds": 1.0, "peak_memory_mb": 2.0, "disk_mb": 3.0}
    ]


# ---------------------------------------------------------------- small fits


def test_a_bill_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Spade(**TINY)
    before = dict(vars(model))
    told = model.bill(normal_pictures(16))
    assert vars(model) == before
    assert list(tmp_path.iterdir()) == []
    assert told.normal == 16
    assert told.seconds > 0
    assert told.memory_mb > 50
    assert told.disk_mb > 0.1
    assert set(told.stages) <= {READING, PREPARING, THRESHOLD, "other"}


@pytest.mark.slow
def test_advice_where_limits_are_tiny(monkeypatch):
    monkeypatch.setattr(bill, "LONG", 1e-3)
    told = estimate(Spade(**{**TINY, "calibration_images": 100, "image_size": 128}), normal_pictures(40, (128, 128)))
    assert "time" in told.problems
    assert told.advice
    for change in told.advice:
        assert change.why == "time"
        assert change.seconds < estimates.CLEARLY * told.seconds
        Spade(**{**TINY, **change.settings})._check_settings()
    assert any("for less time: " in line for line in told.warnings())


def test_what_fit_refuses_the_bill_refuses():
    with pytest.raises(InputError, match="pooling must be odd"):
        Spade(pooling=2).bill(normal_pictures(4))
    with pytest.raises(InputError):
        Spade(**TINY).bill([])


def test_a_dozen_pictures_are_not_worth_a_bill():
    assert not is_worth_telling(Spade(), normal_pictures(12))
    assert is_worth_telling(Spade(), normal_pictures(13))
    assert is_worth_telling(get_detector("ganomaly")(), normal_pictures(2))


TRAINED = {name for name, settings in SETTINGS.items() if "epochs" in settings}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in TRAINED - {"ganomaly"} else ()) for name in DETECTORS]
)
def test_every_method_has_a_bill(name, monkeypatch):
    monkeypatch.setattr(probe, "TRIAL_SECONDS", 0.2)
    detector = get_detector(name)(**SETTINGS[name])
    told = estimate(detector, normal_pictures(14), advise=False)
    assert told.seconds > 0
    assert told.memory_mb > 50
    assert told.disk_mb > 0
    assert set(told.stages) - {"other", "training"} <= set(detector._stages(14))


# ---------------------------------------------------------------- benchmarks and commands


@pytest.mark.slow
def test_runs_are_added_up(tmp_path):
    for name in ("bolt", "nut"):
        mvtec_category(tmp_path, name, train=4)
    runs = plan(["spade", "nearest-image"], open_dataset(tmp_path).categories, Asked(TINY))
    told = estimate_runs(runs)
    assert (told.normal, told.tests, told.unknown) == (16, 12, ())
    assert {"inspecting", "measuring"} & set(told.stages)
    assert estimate_runs(runs, brief=True).normal == 0  # four pictures each
    apart = estimate_runs(runs[:1], jobs=1)
    assert apart.stages["loading"] > 0.3


def test_a_method_that_fails_is_named(tmp_path, monkeypatch):
    mvtec_category(tmp_path, "bolt", train=4)
    runs = plan(["spade"], open_dataset(tmp_path).categories, Asked(TINY))
    monkeypatch.setattr(estimates, "_bills", lambda group: 1 / 0)
    (line,) = estimate_runs(runs).unknown
    assert line.startswith("spade: ZeroDivisionError")


def test_a_dry_run_writes_nothing(tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(8))
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(
        app, ["fit", str(tmp_path / "good"), "-o", str(tmp_path / "a.spade"), "--dry-run", *CHOICES]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("about ")
    assert READING in done.stdout
    done = CliRunner().invoke(
        app, ["fit", str(tmp_path / "good"), "-o", str(tmp_path / "a.spade"), "--dry-run", "--json", *CHOICES]
    )
    assert json.loads(done.stdout)["normal_images"] == 8
    assert sorted(tmp_path.rglob("*")) == before


def test_a_benchmark_s_dry_run(tmp_path):
    mvtec_category(tmp_path, "bolt", train=4)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["benchmark", str(tmp_path), "--dry-run", "--json", "-", *CHOICES])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["normal_images"], told["test_images"]) == (4, 3)
    assert sorted(tmp_path.rglob("*")) == before


def test_fit_says_the_bill_before_it_starts(tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(14))
    done = CliRunner().invoke(app, ["fit", str(tmp_path / "good"), "-o", str(tmp_path / "a.spade"), *CHOICES])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("about ")
    assert (tmp_path / "a.spade").is_dir()
