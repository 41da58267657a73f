"""The station: what it records is what the model says; it learns at once; nothing that was accepted is lost, whatever dies."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from builders import TINY, answers, defective_picture, normal_picture, normal_pictures, tiny_model
from forks import Fork
from stations import NAME, candidate, history_in, inspect, png_of, station_in

from spadework.detectors import get_detector
from spadework.detectors.base import Detector
from spadework.detectors.spade import Spade
from spadework.errors import InputError, OutputError
from spadework.images import pixel_hash
from spadework.kernels import thread_count
from spadework.server import inspecting
from spadework.server.decoding import Decoders
from spadework.server.errors import CannotLearn, Conflict, ModelGone, NotFound, Overloaded, PictureGone, Stopped
from spadework.server.history import History
from spadework.server.lessons import label_of
from spadework.server.records import Filter
from spadework.server.station import Station
from spadework.storage import ModelFolder

SEARCHED = inspecting.SEARCHES if thread_count(None) > 1 else 1  # at once
TAKEN = inspecting.PASSES + 1 + SEARCHED  # some are searched, some are seen ahead
ODD = defective_picture(colour=(250, 240, 30))[0]


@pytest.fixture
def station(saved, tmp_path):
    with station_in(tmp_path / "station", saved) as made:
        yield made


def hold_up(station: Station, monkeypatch) -> threading.Event:
    """Let no search begin until the event is set; what is under way by then is `TAKEN`."""
    go, real = threading.Event(), Detector._predict_one

    def held(self, *arguments, **options):
        go.wait(60)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Detector, "_predict_one", held)
    return go


def fill(station: Station) -> list[Future]:
    """Give all stages something to do; what comes next waits."""
    futures = [station.submit(candidate(station, normal_picture(60 + i))) for i in range(TAKEN)]
    until = time.monotonic() + 60
    while station.waiting:
        assert time.monotonic() < until
        time.sleep(0.001)
    return futures


# ---------------------------------------------------------------- inspecting


def test_what_is_recorded_is_what_the_model_says(station, saved):
    expected = Spade.load(saved).predict(ODD).only
    found = inspect(station, ODD, "odd.png", decode_seconds=0.25)
    seen = found.seen
    assert station.history.get(found.id) == found
    assert (seen.score, seen.threshold, seen.map_threshold, seen.verdict) == (
        expected.score,
        expected.threshold,
        expected.map_threshold,
        "anomalous",
    )
    assert (seen.model, seen.name, seen.source, seen.who) == (NAME, "odd.png", "upload", "anna")
    assert (seen.model_hash, seen.detector) == (Spade.load(saved).model_hash(), "spade")
    assert seen.backbone_hash == station.snapshot().folder_.header["backbone"]["hash"]
    assert (seen.height, seen.width) == (64, 64)
    assert [(n["name"], n["distance"]) for n in seen.nearest] == list(expected.nearest_images)
    assert seen.nearest_distance == expected.nearest_images[0][1]
    assert [(r["box"], r["area"], r["score"]) for r in seen.regions] == [
        (list(r.box), r.area, r.score) for r in expected.regions
    ]
    assert seen.timings["decode"] == 0.25
    assert seen.timings["inspect"] > 0 <= seen.timings["wait"]
    np.testing.assert_array_equal(station.evidence(found).score_map(), expected.score_map)
    json.dumps(found.to_json(), allow_nan=False)


def test_polygons_lie_around_their_regions():
    values = np.zeros((40, 60), np.float32)
    values[5:15, 10:30] = 2.0
    values[7:13, 12:28] = 0.0  # a frame,
    values[9:11, 18:22] = 3.0  # and a region within it
    values[39, 59] = 2.5  # a single pixel in a corner
    values[30:33, 5:7] = np.nan
    from dataclasses import replace as replaced

    from spadework.scores import find_regions

    shell = tiny_model(2).predict(normal_picture(9)).only
    found = inspecting.regions_of(
        replaced(shell, score_map=values, map_threshold=1.0, regions=find_regions(values, 1.0))
    )
    assert [region["box"] for region in found] == [[9, 18, 11, 22], [39, 59, 40, 60], [5, 10, 15, 30]]
    for region in found:
        (polygon,) = region["polygons"]
        xs, ys = np.array(polygon).T
        y0, x0, y1, x1 = region["box"]
        assert (ys.min(), xs.min(), ys.max(), xs.max()) == (y0, x0, y1 - 1, x1 - 1)
        assert len(polygon) >= 4
    assert inspecting.regions_of(shell) == [] or shell.regions


def test_many_regions_are_cut_off_at_the_highest(monkeypatch):
    from dataclasses import replace as replaced

    from spadework.scores import find_regions

    values = np.zeros((100, 100), np.float32)
    values[::4, ::4] = np.arange(625).reshape(25, 25) + 2.0
    shell = tiny_model(2).predict(normal_picture(9)).only
    found = inspecting.regions_of(
        replaced(shell, score_map=values, map_threshold=1.0, regions=find_regions(values, 1.0))
    )
    assert [region["score"] for region in found] == list(np.arange(626.0, 526.0, -1.0))


def test_what_is_ready_together_is_one_transaction_in_order(station, monkeypatch):
    go, sizes, real = hold_up(station, monkeypatch), [], History.record_many
    monkeypatch.setattr(History, "record_many", lambda self, new: (sizes.append(len(new)), real(self, new))[1])
    futures = [station.submit(candidate(station, normal_picture(60 + i), f"{i}.png")) for i in range(9)]
    go.set()
    names = [future.result(60).seen.name for future in futures]
    assert names == [f"{i}.png" for i in range(9)]
    assert sum(sizes) == 9
    assert all(size <= 8 for size in sizes)


def test_rows_stand_in_the_order_in_which_pictures_were_taken(station, monkeypatch):
    """Also where the search of a later one ends first."""
    ended, real = [], Detector._predict_one

    def slow_at_first(self, seen, *arguments, **options):
        found = real(self, seen, *arguments, **options)
        if seen.name in ("0.png", "5.png"):
            time.sleep(0.3)
        ended.append(seen.name)
        return found

    monkeypatch.setattr(Detector, "_predict_one", slow_at_first)
    ready = [candidate(station, normal_picture(60 + i), f"{i}.png") for i in range(12)]
    futures = [station.submit(one) for one in ready]
    assert [future.result(60).id for future in futures] == list(range(1, 13))
    assert [station.history.get(number).seen.name for number in range(1, 13)] == [f"{i}.png" for i in range(12)]
    if SEARCHED > 1:
        assert ended != [f"{i}.png" for i in range(12)]


def test_what_is_searched_beside_another_is_told_the_same(station, saved, monkeypatch):
    """One alone has all threads, two share them; the answers do not tell."""
    threads, real = [], Spade._judge
    monkeypatch.setattr(Spade, "_judge", lambda self, seen: (threads.append(self.threads), real(self, seen))[1])
    pictures = [ODD, *(normal_picture(60 + i) for i in range(7))]
    alone = [inspect(station, picture).seen for picture in pictures]
    assert set(threads) == {None}
    threads.clear()
    together = [station.submit(candidate(station, picture)) for picture in pictures]
    for future, one in zip(together, alone, strict=True):
        seen = future.result(60).seen
        assert (seen.score, seen.regions, seen.evidence) == (one.score, one.regions, one.evidence)
    if SEARCHED > 1:
        assert thread_count(None) // 2 in threads


def test_memory_is_bounded_where_a_search_takes_long(saved, tmp_path, monkeypatch):
    """What waits for a slow one to be recorded is counted too."""
    with station_in(tmp_path / "s", saved, queue=100, batch=2) as station:
        slow, judged, real = threading.Event(), [], Detector._predict_one

        def held(self, seen, *arguments, **options):
            if seen.name == "slow.png":
                slow.wait(10)
            judged.append(seen.name)
            return real(self, seen, *arguments, **options)

        monkeypatch.setattr(Detector, "_predict_one", held)
        ready = [candidate(station, normal_picture(60 + i), "slow.png" if i == 0 else "new.png") for i in range(30)]
        futures = [station.submit(one) for one in ready]
        time.sleep(0.3)
        assert len(judged) < TAKEN + 2 * inspecting.AHEAD
        assert station.waiting >= 30 - TAKEN - 2 * inspecting.AHEAD
        slow.set()
        assert [future.result(60).id for future in futures] == list(range(1, 31))


def test_the_queue_is_bounded_by_number_and_by_bytes(saved, tmp_path, monkeypatch):
    with station_in(tmp_path / "s", saved, queue=TAKEN, batch=1, queue_bytes=70_000) as station:
        go = hold_up(station, monkeypatch)
        first = fill(station)
        small = [station.submit(candidate(station, normal_picture(61 + i))) for i in range(TAKEN)]
        with pytest.raises(Overloaded, match=f"{TAKEN} pictures wait already") as full:
            station.submit(candidate(station, normal_picture(70)))
        assert full.value.seconds > 0
        go.set()
        for future in (*first, *small):
            assert future.result(60).id
        go.clear()
        fill(station)
        large = station.submit(candidate(station, normal_picture(71, (200, 200))))  # alone it may be larger
        with pytest.raises(Overloaded):
            station.submit(candidate(station, normal_picture(72)))
        go.set()
        assert large.result(60).seen.height == 200


def test_closing_finishes_what_was_taken_and_takes_nothing_new(saved, tmp_path, monkeypatch):
    with history_in(tmp_path / "s") as history:
        station = Station(NAME, saved, history, history.pictures, batch=2)
        go = hold_up(station, monkeypatch)
        futures = [station.submit(candidate(station, normal_picture(60 + i))) for i in range(5)]
        late = candidate(station, normal_picture(70))
        station.stop()
        with pytest.raises(Stopped):
            station.submit(late)
        go.set()
        station.close()
        assert [future.result(0).seen.verdict for future in futures]
        assert history.count() == 5
        for change in (lambda: station.mark_normal(1, "anna"), lambda: station.reload("anna")):
            with pytest.raises(Stopped):
                change()
        Station(NAME, saved, history, history.pictures).close()  # the model is free again


def test_one_who_has_gone_costs_nothing(saved, tmp_path, monkeypatch):
    with station_in(tmp_path / "s", saved, batch=1) as station:
        go = hold_up(station, monkeypatch)
        first = fill(station)
        gone, kept = (station.submit(candidate(station, normal_picture(61 + i))) for i in range(2))
        assert gone.cancel()
        go.set()
        assert all(future.result(60).id for future in (*first, kept))
        assert station.history.count() == TAKEN + 1


@pytest.mark.parametrize("what", ["network", "search", "evidence", "history"])
def test_an_error_is_told_to_whom_it_concerns_and_the_next_is_served(station, monkeypatch, what):
    def fail(*arguments, **options):
        raise OutputError("no room")

    place = {"network": (Detector, "_see_one"), "search": (Detector, "_predict_one")}
    place["evidence"] = (type(station.pictures), "put_evidence")
    with monkeypatch.context() as patch:
        patch.setattr(*place.get(what, (History, "record_many")), fail)
        with pytest.raises(OutputError, match="no room"):
            inspect(station, ODD)
    assert inspect(station, ODD).id == 1


def test_a_picture_that_the_model_cannot_use_costs_its_neighbours_nothing(station, monkeypatch):
    go = hold_up(station, monkeypatch)
    good, bad = candidate(station, ODD), candidate(station, ODD)
    object.__setattr__(bad, "rgb", np.zeros((5, 5), np.int64))
    futures = [station.submit(one) for one in (good, bad, good)]
    go.set()
    assert futures[0].result(60).seen.score == futures[2].result(60).seen.score
    with pytest.raises(InputError):
        futures[1].result(60)


def test_a_detector_without_a_map_is_served(tmp_path):
    path = tmp_path / "near.spade"
    get_detector("nearest-image")(image_size=64).fit(normal_pictures(4), path=path)
    with station_in(tmp_path / "s", path) as station:
        found = inspect(station, ODD)
        assert (found.seen.evidence, found.seen.regions) == (None, ())
        assert not station.can_learn
        with pytest.raises(NotFound, match="no map"):
            station.match(found, 1, 1)
        with pytest.raises(CannotLearn, match="cannot take single pictures"):
            station.mark_normal(found.id, "anna")
        assert station.history.decisions(found.id) == ()
        assert station.mark_defect(found.id, "anna").kind == "defect"
        assert station.normals() == ()
        station.set_max_false_alarms(0.5, "anna")
        assert station.snapshot().threshold_.asked == 0.5


# ---------------------------------------------------------------- this is normal


def test_this_is_normal_holds_at_once(station, saved):
    """The same picture passes, others change as a fresh fit's would, and disk and history agree."""
    found = inspect(station, ODD, "odd.png")
    assert found.seen.verdict == "anomalous"
    before = station.model_hash
    held = station.snapshot()
    old = answers(held)
    marked = station.mark_normal(found.id, "ben", "a reflection")
    assert (marked.kind, marked.who, marked.note, marked.appended) == ("normal", "ben", "a reflection", True)
    assert (marked.threshold, marked.model_hash) == (found.seen.threshold, found.seen.model_hash)
    assert (marked.passes, marked.verdict_now) == (True, "normal")
    again = inspect(station, ODD, "odd again.png")
    assert (again.seen.verdict, again.seen.score) == ("normal", marked.score_now)
    assert again.seen.model_hash == station.model_hash == marked.model_hash_now == Spade.load(saved).model_hash()
    assert station.history.get(found.id).decision == station.history.decision(marked.id)

    fresh = Spade(**TINY).fit([*normal_pictures(6), ODD])
    assert answers(station.snapshot()) == answers(Spade.load(saved)) == answers(fresh)
    assert answers(held) == old  # who had the old one still has it

    (change,) = station.history.changes(NAME).items
    assert (change.made.what, change.made.who, change.made.inspection_id) == ("append", "ben", found.id)
    assert (change.made.model_hash_before, change.made.model_hash_after) == (before, station.model_hash)
    assert change.made.pictures == (pixel_hash(ODD),)
    last = station.normals()[-1]
    assert (last.name, last.pixel_hash, last.added_by) == ("odd.png (inspection 1)", pixel_hash(ODD), "ben")
    assert station.history.unfinished(NAME) == ()


def test_undo_is_as_if_it_never_was(station, saved, model):
    found = inspect(station, ODD)
    marked = station.mark_normal(found.id, "ben")
    undone = station.undo(marked.id, "carl")
    assert (undone.undone_by, undone.withdrawn, undone.appended) == ("carl", True, True)
    assert station.undo(marked.id, "dora") == undone  # once
    assert answers(station.snapshot()) == answers(Spade.load(saved)) == answers(model)
    assert station.snapshot().threshold_ == model.threshold_
    assert inspect(station, ODD).seen.verdict == "anomalous"
    assert station.history.get(found.id).decision is None
    assert [change.made.what for change in station.history.changes(NAME).items] == ["remove", "append"]
    again = station.mark_normal(found.id, "ben")
    assert again.id != marked.id
    assert again.passes


def test_said_twice_is_said_once(station):
    found = inspect(station, ODD)
    first, second = station.mark_normal(found.id, "ben"), station.mark_normal(found.id, "carl")
    assert first.id == second.id
    assert second.passes
    assert station.snapshot().n_normal_ == 7
    assert len(station.history.changes(NAME).items) == 1
    assert station.mark_defect(found.id, "ben").kind == "defect"
    assert station.mark_defect(found.id, "ben").id == 2


def test_a_defect_is_not_kept_as_normal(station, saved, model):
    found = inspect(station, ODD)
    marked = station.mark_normal(found.id, "ben")
    defect = station.mark_defect(found.id, "ben", "a scratch after all")
    assert station.history.decision(marked.id).undone_by == "ben"
    assert station.history.get(found.id).decision.id == defect.id
    assert answers(Spade.load(saved)) == answers(model)
    station.undo(defect.id, "ben")
    assert station.history.get(found.id).decision is None


def test_a_picture_that_was_there_from_the_beginning_stays_when_it_is_undone(station):
    found = inspect(station, normal_picture(2))
    marked = station.mark_normal(found.id, "ben")
    assert (marked.appended, marked.passes) == (False, True)
    assert not station.undo(marked.id, "ben").withdrawn
    assert station.snapshot().n_normal_ == 6
    assert station.history.changes(NAME).items == ()


def test_a_picture_that_two_decisions_hold_goes_with_the_last(station):
    first, second = inspect(station, ODD, "a"), inspect(station, ODD, "b")
    one, two = station.mark_normal(first.id, "ben"), station.mark_normal(second.id, "ben")
    assert (one.appended, two.appended) == (True, False)
    assert station.undo(one.id, "ben").withdrawn
    assert station.snapshot().n_normal_ == 7
    assert station.history.decision(two.id).appended
    assert station.undo(two.id, "ben").withdrawn
    assert station.snapshot().n_normal_ == 6


def test_a_picture_that_a_manager_took_out_is_not_missed(station):
    found = inspect(station, ODD)
    marked = station.mark_normal(found.id, "ben")
    station.remove(pixel_hash(ODD), "meg")
    assert station.undo(marked.id, "ben").withdrawn
    assert station.snapshot().n_normal_ == 6


def test_the_last_normal_picture_stays(tmp_path):
    path = tiny_model(2).save(tmp_path / "part.spade")
    with station_in(tmp_path / "s", path) as station:
        found = inspect(station, ODD)
        marked = station.mark_normal(found.id, "ben")
        for normal in station.normals()[:2]:
            station.remove(normal.pixel_hash, "meg")
        for attempt in (
            lambda: station.undo(marked.id, "ben"),
            lambda: station.mark_defect(found.id, "ben"),
            lambda: station.remove(pixel_hash(ODD), "meg"),
        ):
            with pytest.raises(Conflict, match="last normal picture"):
                attempt()
        assert station.history.get(found.id).decision.id == marked.id


def test_what_cannot_be_learnt_is_not_recorded(station, saved, monkeypatch):
    found = inspect(station, ODD)
    with ModelFolder.open(saved).writing(), pytest.raises(OutputError, match="another process is writing"):
        station.mark_normal(found.id, "ben")
    assert station.history.get(found.id).decision is None
    assert station.history.unfinished(NAME) == ()
    station.pictures.path(found.seen.picture).unlink()
    with pytest.raises(PictureGone):
        station.mark_normal(found.id, "ben")
    for attempt in (
        lambda: station.mark_normal(99, "ben"),
        lambda: station.mark_defect(99, "ben"),
        lambda: station.undo(99, "ben"),
        lambda: station.remove("0" * 64, "ben"),
        lambda: station.normal_thumbnail("0" * 64),
    ):
        with pytest.raises(NotFound):
            attempt()


@pytest.mark.parametrize("what", ["append", "remove"])
def test_an_error_before_the_change_is_recorded_is_mended_by_saying_it_again(station, monkeypatch, what):
    found = inspect(station, ODD)
    if what == "remove":
        marked = station.mark_normal(found.id, "ben")

    def away(*arguments, **options):
        raise OutputError("the database is away")

    say = (
        (lambda: station.mark_normal(found.id, "ben")) if what == "append" else (lambda: station.undo(marked.id, "ben"))
    )
    with monkeypatch.context() as patch:
        patch.setattr(History, "change", away)
        with pytest.raises(OutputError, match="away"):
            say()
    assert len(station.history.unfinished(NAME)) == 1
    say()
    assert station.history.unfinished(NAME) == ()
    assert station.snapshot().n_normal_ == (7 if what == "append" else 6)


# ---------------------------------------------------------------- managing


def test_append_remove_threshold_reload(station, saved):
    added = station.append(ODD, "by hand.png", "meg")
    assert (added.made.what, added.made.who, station.snapshot().n_normal_) == ("append", "meg", 7)
    with pytest.raises(Conflict, match="already"):
        station.append(ODD, "by hand.png", "meg")
    removed = station.remove(pixel_hash(ODD), "meg")
    assert removed.made.model_hash_after == added.made.model_hash_before
    moved = station.set_max_false_alarms(0.5, "meg")
    assert (moved.made.what, moved.made.detail["max_false_alarms"]) == ("threshold", 0.5)
    assert Spade.load(saved).threshold_.asked == station.snapshot().threshold_.asked == 0.5
    with pytest.raises(InputError):
        station.set_max_false_alarms(2.0, "meg")
    Spade.load(saved).append(normal_picture(40))
    assert station.snapshot().n_normal_ == 6
    reloaded = station.reload("meg")
    assert (reloaded.made.what, station.snapshot().n_normal_) == ("reload", 7)
    assert [c.made.what for c in station.history.changes(NAME).items] == ["reload", "threshold", "remove", "append"]
    kept = answers(station.snapshot())
    shutil.rmtree(saved)
    with pytest.raises(ModelGone):
        station.reload("meg")
    with pytest.raises(ModelGone):
        station.append(ODD, "late.png", "meg")
    assert answers(station.snapshot()) == kept  # what is in use goes on
    assert inspect(station, ODD).id


def test_changes_by_others_are_noted_when_the_station_opens(saved, tmp_path):
    root = tmp_path / "s"
    with station_in(root, saved) as station:
        station.append(ODD, "by hand.png", "meg")
    with station_in(root, saved) as station:
        assert len(station.history.changes(NAME).items) == 1
    Spade.load(saved).append(normal_picture(40))
    with station_in(root, saved) as station:
        latest = station.history.changes(NAME).items[0].made
        assert (latest.what, latest.who, latest.detail["why"]) == ("reload", "station", "changed while not served")


def test_one_model_has_one_station(station, saved, tmp_path):
    with pytest.raises(Conflict, match="another station serves"), station_in(tmp_path / "other", saved):
        pass
    with pytest.raises(ModelGone), station_in(tmp_path / "other", tmp_path / "missing.spade"):
        pass


def test_normals_are_told_page_by_page(station):
    first, second = station.normals(0, 4), station.normals(4, 4)
    assert [normal.pixel_hash for normal in (*first, *second)] == [pixel_hash(p) for p in normal_pictures(6)]
    assert station.normals(6) == ()
    assert sum(normal.score is not None for normal in (*first, *second)) == 5
    assert station.normal_thumbnail(first[0].pixel_hash).shape == (64, 64, 3)
    for offset, limit in ((-1, 5), (0, 0), (0, 1001)):
        with pytest.raises(InputError):
            station.normals(offset, limit)


def test_a_match_is_shown_with_both_places_also_later(station, saved):
    found = inspect(station, ODD)
    expected = Spade.load(saved)
    explained = expected.explain(expected.predict(ODD), 12, 45)
    for _ in range(2):
        match = station.match(found, 12, 45)
        assert (match.box, match.normal_box, match.normal.name) == (
            explained.box,
            explained.normal_box,
            explained.name,
        )
        assert match.distance == pytest.approx(explained.distance)
        y0, x0, y1, x1 = match.box
        np.testing.assert_array_equal(match.here, ODD[y0:y1, x0:x1])
        np.testing.assert_array_equal(match.there, explained.normal_patch)
        assert not match.removed
        station.append(normal_picture(40), "another", "meg")  # the model changes, the match does not
        break
    station.remove(match.normal.pixel_hash, "meg")
    later = station.match(found, 12, 45)
    assert (later.removed, later.there, later.normal_box) == (True, None, match.normal_box)
    with pytest.raises(InputError, match="lies outside"):
        station.match(found, 64, 0)
    station.showing._evidence, station.showing._pictures = (
        type(station.showing._evidence)(1),
        type(station.showing._pictures)(1),
    )
    station.pictures.path(found.seen.picture).unlink()
    assert station.match(found, 12, 45).here is None
    station.showing._evidence = type(station.showing._evidence)(1)
    station.pictures.evidence_path(found.seen.evidence).unlink()
    with pytest.raises(PictureGone):
        station.match(found, 12, 45)


def test_kept_pictures_are_decoded_where_it_is_safe(saved, tmp_path):
    with (
        Decoders(1, 10**6, 512 << 20, 20.0) as decoders,
        station_in(tmp_path / "s", saved, decoders=decoders) as station,
    ):
        marked = station.mark_normal(inspect(station, ODD).id, "ben")
        assert marked.passes
        assert next(iter(decoders._children)).pictures == 1


# ---------------------------------------------------------------- at once


@pytest.mark.slow
def test_inspections_see_whole_models_only(saved, tmp_path):
    """While pictures go in and out, every inspection is by one of the models that were really there, and says so."""
    probes = [ODD, normal_picture(50), normal_picture(51)]
    stop, seen, errors = threading.Event(), [], []

    with station_in(tmp_path / "s", saved) as station:
        states = {station.model_hash: station.snapshot()}

        def ask(number):
            try:
                while not stop.is_set():
                    found = inspect(station, probes[number % 3])
                    seen.append((number % 3, found.seen.model_hash, found.seen.score, found.seen.threshold))
            except Exception as error:
                errors.append(error)

        with ThreadPoolExecutor(4) as pool:
            for number in range(4):
                pool.submit(ask, number)
            for index in range(6):
                station.append(normal_picture(70 + index), f"{index}", "meg")
                states[station.model_hash] = station.snapshot()
                if index % 2:
                    station.remove(pixel_hash(normal_picture(70 + index)), "meg")
                    states[station.model_hash] = station.snapshot()
                station.set_max_false_alarms(0.1 + index / 20, "meg")
                states[station.model_hash] = station.snapshot()
            stop.set()
        assert errors == []
        expected = {
            (probe, name): (p.score, p.threshold)
            for name, detector in states.items()
            for probe, p in enumerate(detector.predict(probes))
        }
        assert len(seen) > 10
        assert len({name for _, name, _, _ in seen}) > 2
        for probe, name, score, threshold in seen:
            assert (score, threshold) == expected[probe, name]


@pytest.mark.slow
def test_what_is_submitted_after_the_answer_is_judged_by_the_new_model(station):
    """Also while others keep the queue full."""
    stop = threading.Event()

    def noise():
        while not stop.is_set():
            inspect(station, normal_picture(60))

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(noise)
        try:
            for index in range(3):
                picture = defective_picture(80 + index)[0]
                found = inspect(station, picture)
                marked = station.mark_normal(found.id, "ben")
                after = inspect(station, picture)
                assert after.seen.model_hash == marked.model_hash_now
                assert after.seen.verdict == "normal"
        finally:
            stop.set()


# ---------------------------------------------------------------- crashes

CHILD = """
import os, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from builders import defective_picture
from stations import inspect, station_in
with station_in(Path(sys.argv[1]), Path(sys.argv[2])) as station:
    def say(*words):  # in one write, whole also beside the other thread's and when killed
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    def look(number):
        index = 0
        while True:
            index += 1
            say("inspected", inspect(station, defective_picture(1000 * number + index)[0]).id)
    say("go")
    threading.Thread(target=look, args=(7,), daemon=True).start()
    index = int(sys.argv[4])
    while True:
        index += 1
        found = inspect(station, defective_picture(index)[0])
        say("inspected", found.id)
        marked = station.mark_normal(found.id, "ben")
        say("normal", marked.id)
        if index % 2:
            station.undo(marked.id, "carl")
            say("undone", marked.id)
"""


@pytest.mark.slow
def test_killed_at_random_moments_nothing_accepted_is_lost(saved, tmp_path):
    """Each round goes on where the last was killed, under load."""
    root, accepted = tmp_path / "s", []
    rng = np.random.default_rng(3)
    for number in range(8):
        child = Fork(CHILD, root, saved, Path(__file__).parent, 100 * number)
        assert child.stdout.readline() == "go\n"
        threading.Timer(rng.uniform(0.05, 1.2), child.send_signal, [signal.SIGKILL]).start()
        told = child.stdout.read()
        assert child.wait() == -signal.SIGKILL
        assert told.endswith("\n") or not told
        accepted += [(what, value) for what, value in map(str.split, told.splitlines())]
        assert {what for what, _ in accepted} <= {"inspected", "normal", "undone"}

        with station_in(root, saved) as station:
            assert station.history.unfinished(NAME) == ()
            model = Spade.load(saved)
            model.verify()
            held = {entry.name for entry in model.gallery_.entries}
            for what, value in accepted:
                if what == "inspected":
                    assert station.history.get(int(value)) is not None
                    continue
                decision = station.history.decision(int(value))
                label = label_of(station.history.get(decision.inspection_id))
                assert (label in held) == (decision.undone_at is None)
                if what == "undone":
                    assert decision.undone_at is not None
            standing = station.history.find(Filter(decision="normal", limit=200)).items
            assert {label_of(one) for one in standing} == {name for name in held if "inspection" in name}
            sample = next(iter(standing), None)
            if sample is not None:
                picture = station._read(sample.seen.picture)
                assert inspect(station, picture).seen.verdict == "normal"
    assert sum(what == "normal" for what, _ in accepted) > 3


STEPS = ("change", "undo", "remove", "change of undo")


@pytest.mark.parametrize("step", ["decide", "append", *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS)])
def test_a_crash_after_each_step_is_finished_when_the_station_opens(saved, tmp_path, monkeypatch, step):
    root = tmp_path / "s"

    class Died(BaseException):
        pass

    def dying(place, name):
        real = getattr(place, name)

        def call(*arguments, **options):
            real(*arguments, **options)
            raise Died

        monkeypatch.setattr(place, name, call)

    undoing = step in ("undo", "remove", "change of undo")
    with station_in(root, saved) as station:
        found = inspect(station, ODD)
        if undoing:
            marked = station.mark_normal(found.id, "ben")
        place = {"append": Spade, "remove": Spade}.get(step, History)
        dying(place, step.split()[0])
        with pytest.raises(Died):
            _ = station.undo(marked.id, "carl") if undoing else station.mark_normal(found.id, "ben")
    monkeypatch.undo()
    with station_in(root, saved) as station:
        assert station.history.unfinished(NAME) == ()
        (decision,) = station.history.decisions(found.id)
        assert decision.appended
        assert (decision.undone_at is not None, decision.withdrawn) == (undoing, undoing)
        assert station.snapshot().n_normal_ == (6 if undoing else 7)
        assert inspect(station, ODD).seen.verdict == ("anomalous" if undoing else "normal")
        whats = [change.made.what for change in station.history.changes(NAME).items]
        assert [what for what in whats if what != "reload"] == (["remove", "append"] if undoing else ["append"])


def test_what_cannot_be_finished_does_not_keep_the_station_shut(saved, tmp_path, caplog):
    root = tmp_path / "s"
    with station_in(root, saved) as station:
        found = inspect(station, ODD)
        station.history.decide(found.id, "normal", "ben", model=NAME, model_hash="m", threshold=1.0)
        station.pictures.path(found.seen.picture).unlink()
    with station_in(root, saved) as station:
        assert "decision 1 cannot be finished" in caplog.text
        assert inspect(station, ODD).id == 2


# ---------------------------------------------------------------- how fast


@pytest.mark.slow
def test_batches_cost_little_over_the_model_alone_and_so_does_one_client(tmp_path):
    """Bounds with room for a busy machine; what is reached on a quiet one is told by `python benchmarks/station.py`."""
    model = Spade(calibration_images=10).fit([normal_picture(i, (256, 256)) for i in range(30)])
    path = model.save(tmp_path / "part.spade")
    probes = [normal_picture(100 + i, (256, 256)) for i in range(24)]
    with station_in(tmp_path / "s", path) as station:
        ready = [candidate(station, picture) for picture in probes]

        def alone():
            return sum(1 for _ in station.snapshot().predict_each(probes))

        def together():
            return [future.result(60) for future in [station.submit(one) for one in ready]]

        def seconds(work):
            started = time.perf_counter()
            work()
            return time.perf_counter() - started

        alone(), together()
        best = min(seconds(together) for _ in range(5)) / min(seconds(alone) for _ in range(5))
        assert best < 1.5
        one = np.median([seconds(lambda: station.snapshot().predict(probes[0])) for _ in range(15)])
        served = np.median([seconds(lambda: station.submit(ready[0]).result(60)) for _ in range(15)])
        assert served - one < 0.05
        found = together()[0]
        started = time.perf_counter()
        station.mark_normal(found.id, "ben")
        inspect(station, probes[0])
        assert time.perf_counter() - started < 3.0


def test_png_of_is_a_picture():
    assert png_of(ODD)[:4] == b"\x89PNG"
