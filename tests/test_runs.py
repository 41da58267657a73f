"""The benchmark's matrix of runs: what is planned, what survives, what is written, what is never done twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import faulty_detectors
import numpy as np
import pytest
from builders import mvtec_category

from spadework import benchmark, open_dataset, workers
from spadework import results as benchmark_results
from spadework.benchmark import run_benchmark
from spadework.detectors import DETECTORS, get_detector
from spadework.detectors.patchcore import PatchCore
from spadework.detectors.spade import Spade
from spadework.errors import DamagedResultError, InputError, MissingExtraError, OutputError
from spadework.evaluation import MEASURES, peak_memory_mb
from spadework.fingerprint import PACKAGE, code_files, data_hash, identity, key_of
from spadework.results import Record, Results, read_folder, read_record
from spadework.runs import Asked, Refused, Run, configuration_of, plan

TINY = {"image_size": 48, "calibration_images": 2, "grid_stride": 8, "kernel": "blocked"}
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for name in ("bolt", "cloth"):
        mvtec_category(folder, name)
    return folder


@pytest.fixture
def results(tmp_path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def faulty(monkeypatch):
    for name, place in faulty_detectors.NAMES.items():
        monkeypatch.setitem(DETECTORS, name, place)
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", faulty_detectors.CHILD))


def measure(root: Path, *detectors: str, **options):
    options = {"settings": TINY, "categories": ["bolt"], **options}
    return run_benchmark(open_dataset(root), detectors=detectors or ("spade",), **options)


def numbers(rows) -> list[tuple]:
    return sorted((row["category"], row["detector"], *(row[name] for name in MEASURES)) for row in rows)


def never(*arguments, **options):
    raise AssertionError("this was done already")


# ---------------------------------------------------------------- planning


def test_a_setting_goes_to_the_detectors_that_have_it(root):
    rows = measure(root, "spade", "patchcore", settings={**TINY, "kappa": 2, "coreset": 0.5}).rows
    found = {row["detector"]: row["settings"] for row in rows}
    assert (found["spade"]["kappa"], found["patchcore"]["coreset"]) == (2, 0.5)
    assert "kappa" not in found["patchcore"]
    with pytest.raises(InputError, match=r"none of the detectors spade, patchcore has a setting 'kapa'"):
        measure(root, "spade", "patchcore", settings={"kapa": 2})
    with pytest.raises(InputError, match="detector 'patchcore' has no setting 'kappa'"):
        measure(root, "patchcore", settings={"kappa": 2})


def test_one_that_refuses_its_settings_costs_its_rows_and_all_together_are_an_error(root):
    found = measure(root, "spade", "patchcore", settings={**TINY, "coreset": 7})
    assert [(row["detector"], "error" in row) for row in found.rows] == [("spade", False), ("patchcore", True)]
    assert found.failed
    assert "coreset must lie between 0 and 1" in found.rows[1]["reasons"]["pro"]
    with pytest.raises(InputError, match="coreset"):
        measure(root, "patchcore", settings={"coreset": 7})
    with pytest.raises(InputError, match="pooling"):
        measure(root, "spade", "patchcore", settings={"pooling": 2})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paper": True, "quick": True}, "two configurations"),
        ({"seeds": [1], "settings": {"seed": 2}}, "seed is given twice"),
        ({"pro_limit": 2}, "limit"),
        ({"resolution": "large"}, "resolution"),
        ({"detectors": ["spade", "sponge"]}, "sponge"),
        ({"memory_limit": 1.0}, "goes with jobs"),
        ({"jobs": 0}, "jobs"),
        ({"categories": ["nut"]}, "nut"),
    ],
)
def test_what_is_refused_before_the_first_run(root, options, words, monkeypatch):
    monkeypatch.setattr(benchmark, "perform", never)
    with pytest.raises(InputError, match=words):
        run_benchmark(open_dataset(root), **options)


def test_rows_say_which_configuration_seed_and_scale(root, monkeypatch):
    monkeypatch.setattr(PatchCore, "QUICK", {"coreset": 0.05, "image_size": 64})
    rows = measure(root, "patchcore", settings={}, quick=True, seeds=[3, 4, 3]).rows
    assert [(row["seed"], row["scale"], row["configuration"], row["changed"]) for row in rows] == [
        (3, "quick", "quick", {}),
        (4, "quick", "quick", {}),
    ]
    (row,) = measure(root, "patchcore", settings=TINY, quick=True).rows
    changed = {"image_size": 48, "calibration_images": 2, "kernel": "blocked"}
    assert (row["scale"], row["configuration"], row["changed"]) == ("quick", "quick", changed)  # smaller still
    (row,) = measure(root, "patchcore", settings={**TINY, "image_size": 256}, quick=True).rows
    assert (row["scale"], row["configuration"]) == ("quick", "quick")  # what is left of it
    assert PatchCore(coreset=0.01, image_size=32).scale == "quick"
    assert (PatchCore(coreset=0.05).scale, PatchCore(coreset=0.9, image_size=512).scale) == ("full", "full")
    assert configuration_of(Spade.paper(seed=5, threads=1), "default") == ("paper", {})
    assert configuration_of(Spade(), "quick") == ("default", {})  # it has no smaller one
    assert configuration_of(Spade.paper(crop=None), "paper") == ("paper", {"crop": None})


def test_a_category_given_twice_is_measured_once(root):
    assert [row["category"] for row in measure(root, categories=["bolt", "bolt"]).rows] == ["bolt"]


def test_a_refused_setting_that_is_no_number_does_not_spoil_the_document(root):
    found = measure(root, "spade", "patchcore", settings={**TINY, "coreset": float("nan")})
    document = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(document)["results"][1]["settings"]["coreset"] == "nan"


def test_a_run_is_the_same_from_its_json(root):
    (run,) = plan(["spade"], [open_dataset(root).category("bolt")], Asked(TINY))
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_a_detector_without_a_map_gives_nulls_and_says_what_it_cannot_do(root, faulty):
    (row,) = measure(root, "verdict").rows
    assert row["image_auroc"] is not None
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1", "pro"):
        assert row[name] is None
        assert row["reasons"][name] == "verdict gives no map; it cannot do: maps"


# ---------------------------------------------------------------- surviving


def test_faults_cost_their_own_row(root, faulty, results):
    told = []
    found = measure(root, "faulty", "absent", "exhausted", "spade", results=results, announce=told.append)
    rows = {row["detector"]: row for row in found.rows}
    assert rows["spade"]["image_auroc"] is not None
    assert rows["faulty"]["error"].startswith("ValueError: operands could not be broadcast together (a fault in the")
    assert "pip install 'spadework[torch]'" in rows["absent"]["error"]
    assert rows["exhausted"]["error"].startswith("out of memory")
    for name in ("faulty", "absent", "exhausted"):
        assert {rows[name][measure_] for measure_ in MEASURES} == {None}
        assert (rows[name]["n_train"], rows[name]["n_test"]) == (3, 3)
    (path,) = results.path.glob("faulty-*.json")
    assert "in _learn" in read_record(path).traceback
    assert any(str(path) in line for line in told)
    with pytest.raises(MissingExtraError):
        measure(root, "absent")


@pytest.mark.slow
def test_processes_that_die_cost_their_own_row(root, faulty, results, temporary):
    found = measure(root, "killed", "exiting", "faulty", "spade", results=results, jobs=2)
    rows = {row["detector"]: row for row in found.rows}
    assert "killed by SIGKILL: most often memory ran out" in rows["killed"]["error"]
    assert "exit code 3 and no result. Its last words: the library gave up" in rows["exiting"]["error"]
    assert rows["faulty"]["error"].startswith("ValueError: operands")
    assert numbers([rows["spade"]]) == numbers(measure(root).rows)
    assert (len(list(results.path.glob("*.json"))), list(temporary.glob("spadework-run*"))) == (4, [])
    assert list((results.path / ".claims").iterdir()) == []


@pytest.mark.slow
def test_order_and_processes_change_no_number(root):
    here = measure(root, "spade", "patchcore", categories=["bolt", "cloth"]).rows
    apart = measure(root, "patchcore", "spade", categories=["cloth", "bolt"], jobs=2).rows
    assert [(row["category"], row["detector"]) for row in apart[:2]] == [("cloth", "patchcore"), ("cloth", "spade")]
    assert numbers(here) == numbers(apart)


@pytest.mark.slow
def test_peak_memory_is_the_runs_own(root):
    full = np.ones(600 * 2**20, np.uint8)
    (row,) = measure(root, jobs=1).rows
    assert peak_memory_mb() > 600
    assert row["peak_memory_mb"] < 600
    del full


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory of other processes is looked at on Linux")
@pytest.mark.slow
def test_a_run_above_the_memory_limit_is_stopped_and_says_so(root, faulty):
    rows = measure(root, "hungry", "spade", jobs=2, memory_limit=0.4).rows
    assert "more than the memory limit of 410 MiB, and was stopped" in rows[0]["error"]
    assert rows[1]["image_auroc"] is not None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory of other processes is looked at on Linux")
@pytest.mark.slow
def test_runs_that_are_too_large_together_run_alone(root, faulty):
    told = []
    options = {"categories": ["bolt", "cloth"], "jobs": 2, "memory_limit": 0.8, "announce": told.append}
    rows = measure(root, "hungry", **options).rows
    assert [row["image_auroc"] is not None for row in rows] == [True, True]
    assert any("it will run alone" in line for line in told)


def test_what_was_measured_decides_how_many_run_beside_each_other(root):
    dataset = open_dataset(root)
    runs = plan(["spade", "patchcore"], list(dataset.categories), Asked(TINY))
    crew = workers.Crew(jobs=4, memory_limit=1000.0)
    waiting = workers._Waiting(runs, lambda index: workers.Taken())

    class Child:
        resident = 0.0

        def __init__(self, run):
            self.run = run

    under_way = {0: Child(runs[0])}
    assert crew._fits(waiting, 1, under_way)  # nothing measured: 250 each
    crew.peaks[workers.kind_of("patchcore", runs[1].settings)] = 800.0
    assert not crew._fits(waiting, 1, under_way)
    assert crew._fits(waiting, 2, under_way)
    assert crew._fits(waiting, 1, {})  # alone, whatever it takes
    under_way[0].resident = 990.0
    assert not crew._fits(waiting, 2, under_way)
    crew.peaks[workers.kind_of("spade", runs[0].settings)] = 100.0
    under_way[0].resident = 0.0
    assert crew._fits(waiting, 1, under_way)


def test_cores_are_shared_out_unless_set_by_hand(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in ("SPADEWORK_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert "SPADEWORK_THREADS" not in workers._environment(1)
    assert workers._environment(3)["SPADEWORK_THREADS"] == "2"
    monkeypatch.setenv("SPADEWORK_THREADS", "5")
    assert workers._environment(3)["SPADEWORK_THREADS"] == "5"


# ---------------------------------------------------------------- the folder of results


def test_nothing_is_done_twice_and_nothing_old_is_taken_for_new(root, results, tmp_path, monkeypatch):
    first = measure(root, "spade", "patchcore", categories=[], results=results)
    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "perform", never)
        again = measure(root, "spade", "patchcore", categories=[], results=results)
        assert (again.rows, again.reused) == (first.rows, 4)
        threads = measure(root, "spade", "patchcore", categories=[], results=results, settings={**TINY, "threads": 1})
        assert threads.reused == 4  # they change no answer
        shutil.copytree(root, tmp_path / "moved")
        assert measure(tmp_path / "moved", "spade", "patchcore", categories=[], results=results).reused == 4
    picture = tmp_path / "moved" / "bolt" / "test" / "good" / "000.png"
    picture.write_bytes(picture.read_bytes() + bytes(10))  # as many pictures, but not the same
    assert measure(tmp_path / "moved", "spade", "patchcore", categories=[], results=results).reused == 2
    shutil.copytree(root, tmp_path / "bitmaps")
    for part in ("train", "test"):  # another picture of the same name and length, as bitmaps of one camera all are
        picture = tmp_path / "bitmaps" / "bolt" / part / "good" / "000.png"
        content = bytearray(picture.read_bytes())
        before = data_hash(open_dataset(tmp_path / "bitmaps").category("bolt"))
        content[-20] ^= 1
        picture.write_bytes(content)
        assert data_hash(open_dataset(tmp_path / "bitmaps").category("bolt")) != before
    assert measure(root, results=results, settings={**TINY, "kappa": 2}).reused == 0
    assert measure(root, results=results, seeds=[7]).reused == 0
    assert measure(root, results=results, pro_limit=0.2).reused == 0
    assert len(results.records()[0]) == 4 + 2 + 3


def test_what_a_result_depends_on(root, monkeypatch):
    category = open_dataset(root).category("bolt")

    def key(detector=None, **options):
        made = detector or Spade(**TINY)
        return key_of(identity(made, category, **{"pro_limit": 0.3, "resolution": "original", **options}))

    same = key()
    assert key(Spade(**TINY, threads=2)) == same
    trained = get_detector("ae-l2")
    assert key(trained(checkpoints="here")) == key(trained()) != key(trained(device="cuda"))
    assert len({same, key(Spade(**TINY, kappa=2)), key(PatchCore(**TINY)), key(pro_limit=0.2)}) == 4
    monkeypatch.setattr("spadework.__version__", "99")
    assert key() != same


def test_code_that_was_changed_since_the_call_began_is_not_filed_under_the_old(root, results, monkeypatch):
    """In a clone: the process of the run imports the new files, while the key is of the old ones."""
    monkeypatch.setattr(workers, "code_hash", lambda cls: "before")
    (row,) = measure(root, results=results, jobs=1).rows
    assert row["image_auroc"] is None
    assert "the code of 'spade' was changed since this call began" in row["error"]


def test_code_that_decides_an_answer_is_counted_and_no_other():
    files = code_files(PatchCore)
    assert {"detectors/patchcore.py", "coreset.py", "kernels/scanning.py", "evaluation.py", "metrics.py"} <= set(files)
    assert not {"detectors/spade.py", "detectors/__init__.py", "workers.py", "results.py"} & set(files)
    assert not [name for name in files if name.startswith(("cli/", "report/"))]
    assert "detectors/spade.py" in code_files(faulty_detectors.Verdict)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_that_are_written_in_torch_say_so(name):
    """Then the list of detectors tells what to install, and the version of PyTorch is part of every result's key."""
    files = [PACKAGE / file for file in code_files(get_detector(name)) if not file.startswith("backbones/")]
    uses = [
        file.name for file in files if re.search(r"import torch\b|from torch|framework\(.torch.\)", file.read_text())
    ]
    assert not uses or get_detector(name).extra == "torch", (
        f'{uses} use it: give the class  extra: ClassVar[str] = "torch"'
    )


def test_failed_runs_are_tried_again_by_the_next_call_only(root, faulty, results):
    measure(root, "faulty", results=results)
    told = []
    assert measure(root, "faulty", results=results, announce=told.append).reused == 0
    assert len(results.records()[0]) == 1
    (record,) = results.records()[0]
    assert record.failed
    later = Record(record.key, record.identity, record.row, time.time() + 3600, record.machine)
    results.write(later)  # by another process, after this call began
    assert measure(root, "faulty", results=results).reused == 1


def spoil(path: Path, how: str) -> None:
    text = path.read_text()
    content = json.loads(text)
    if how == "cut off":
        path.write_text(text[: len(text) // 2])
    elif how == "empty":
        path.write_text("")
    elif how == "edited":
        content["row"]["image_auroc"] = 0.999
        path.write_text(json.dumps(content))
    elif how == "newer":
        path.write_text(json.dumps(content | {"version": 2}))
    elif how == "foreign":
        path.write_text('{"results": []}')
    elif how == "a list":
        path.write_text("[1]")
    elif how == "binary":
        path.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("how", ["cut off", "empty", "edited", "newer", "foreign", "a list", "binary"])
def test_a_bad_file_is_named_and_measured_again(how, root, results):
    first = measure(root, results=results)
    (path,) = results.path.glob("*.json")
    spoil(path, how)
    with pytest.raises(DamagedResultError, match=path.name):
        read_record(path)
    records, problems = read_folder(results.path)
    assert (records, len(problems), path.name in problems[0]) == ([], 1, True)
    told = []
    again = measure(root, results=results, announce=told.append)
    assert (again.reused, numbers(again.rows)) == (0, numbers(first.rows))
    assert any("measured again" in line and path.name in line for line in told)
    assert read_record(path).row["image_auroc"] == first.rows[0]["image_auroc"]


def test_other_files_in_the_folder_are_left_alone(root, results):
    (results.path / "notes.json").write_text("{}")
    (results.path / ".half.tmp").write_text("{")
    measure(root, results=results)
    (path,) = results.path.glob("spade-*.json")
    path.with_name(f"{path.name}.bak").write_bytes(path.read_bytes()[:100])
    records, problems = read_folder(results.path)
    assert (len(records), problems) == (1, [])
    assert (results.path / "notes.json").read_text() == "{}"


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        Results(tmp_path / "file")
    with pytest.raises(InputError, match="no such folder of results"):
        read_folder(tmp_path / "nowhere")


def test_a_full_disk_ends_all_and_keeps_what_was_done(root, results, monkeypatch):
    real, written = Path.write_bytes, []

    def write_bytes(path, data):
        if path.parent == results.path and written:
            raise OSError(28, os.strerror(28), str(path))
        written.append(path)
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match=os.strerror(28)):
        measure(root, categories=[], results=results)
    monkeypatch.undo()
    assert len(results.records()[0]) == 1
    assert list((results.path / ".claims").iterdir()) == []
    assert measure(root, categories=[], results=results).reused == 1


@pytest.mark.parametrize("jobs", [None, 1])
def test_an_error_in_this_process_lets_go_of_its_runs(jobs, root, results, monkeypatch, temporary):
    def write(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write", write)
    with pytest.raises(KeyboardInterrupt):
        measure(root, categories=[], results=results, jobs=jobs)
    assert list((results.path / ".claims").iterdir()) == []
    assert list(temporary.glob("spadework-run*")) == []


@pytest.mark.parametrize("jobs", [None, 1])
def test_a_run_that_another_process_is_at_is_waited_for(jobs, root, results, monkeypatch):
    (run,) = plan(["spade"], [open_dataset(root).category("bolt")], Asked(TINY))
    own = identity(run.make(), run.category, pro_limit=run.pro_limit, resolution=run.resolution)
    (row,) = measure(root).rows
    claim = Results(results.path).claim(own)  # a lock belongs to the opened file, so this is as good as another process
    assert results.claim(own) is None

    def finish():
        time.sleep(0.3)
        results.write(Record.now(own, row | {"n_train": 77}))
        claim.release()

    monkeypatch.setattr(benchmark, "perform", never)
    monkeypatch.setattr(workers, "_Child", never)
    monkeypatch.setattr(benchmark, "BUSY", 0.1)
    monkeypatch.setattr(workers, "BUSY", 0.1)
    thread = threading.Thread(target=finish)
    thread.start()
    found = measure(root, results=results, jobs=jobs)
    thread.join()
    assert (found.reused, found.rows[0]["n_train"]) == (1, 77)


def test_a_result_under_the_name_of_another_run_is_not_that_run(root, results):
    """As a careless copy leaves it: sound in itself, but of other settings."""
    first = measure(root, results=results)
    (path,) = results.path.glob("*.json")
    (record,) = results.records()[0]
    asked = {**record.identity, "settings": {**record.identity["settings"], "kappa": 2}}
    path.rename(results.file_of(asked))
    with pytest.raises(DamagedResultError, match=r"of another run .*key is"):
        results.find(asked)
    assert first.reused == 0


def test_a_hold_on_a_claim_that_was_just_given_up_is_none(results, monkeypatch):
    """Between opening the file of a claim and locking it, its owner may let go of it: the file is then nobody's name any more."""
    own = {"detector": "spade", "category": "bolt"}
    first = results.claim(own)
    real = benchmark_results.lock_file

    def lock_file(descriptor):
        first.release()
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(benchmark_results, "lock_file", lock_file)
        second = results.claim(own)
    assert second is not None
    assert results.claim(own) is None
    second.release()
    assert list((results.path / ".claims").iterdir()) == []


def test_where_a_file_system_has_no_locks_everything_is_free(root, results, monkeypatch):
    def lock_file(descriptor):
        raise OSError(37, os.strerror(37))  # ENOLCK

    monkeypatch.setattr("spadework.results.lock_file", lock_file)
    assert measure(root, results=results).reused == 0
    assert measure(root, results=results).reused == 1


def start_cli(root: Path, results: Path, *, detectors=("spade", "sleepy")) -> subprocess.Popen:
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import faulty_detectors
from spadework import workers
from spadework.cli import main
from spadework.detectors import DETECTORS, get_detector
DETECTORS.update(faulty_detectors.NAMES)
workers.COMMAND = (sys.executable, "-c", faulty_detectors.CHILD)
sys.argv[0] = "spadework"
main()
"""
    chosen = [word for name in detectors for word in ("--detector", name)]
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-c", code, "benchmark", str(root), "--category", "bolt", *chosen, *settings]
    options = ["--results", str(results), "--jobs", "2"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children_of(process: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize(
    "how", [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGKILL))]
)
def test_an_interruption_leaves_whole_results_and_no_process(how, root, results):
    process = start_cli(root, results.path)
    deadline = time.monotonic() + 60
    while not list(results.path.glob("spade-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = children_of(process.pid)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in errors
    while any(is_alive(child) for child in begun) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert begun
    assert not any(is_alive(child) for child in begun)
    assert [record.identity["detector"] for record in results.records()[0]] == ["spade"]
    assert measure(root, results=results).reused == 1


def test_a_refused_run_has_a_row(root, faulty):
    category = open_dataset(root).category("bolt")
    planned = plan(["spade", "absent"], [category], Asked(TINY))
    assert [type(each) for each in planned] == [Run, Refused]
