"""The rehearsal: folds, the rule, the budget; `fit(tune=True)`, `fit --tune`, and what the model tells of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import TINY, answers, normal_pictures, write_pictures
from typer.testing import CliRunner

from spadework import Spade, evaluate, load, open_backbone, open_dataset, rehearsal, write_report
from spadework.cli.app import app
from spadework.cli.tuning import tuning_line
from spadework.datasets.synthetic import write_dataset
from spadework.detectors import get_detector
from spadework.errors import InputError
from spadework.kernels.reference import nearest
from spadework.pyramid import descriptors
from spadework.rehearsal import candidates, choice
from spadework.rehearsal import stage as stage_module
from spadework.rehearsal.candidates import AXES, Facts, cost, fixed_by_user, grid
from spadework.rehearsal.choice import Choice
from spadework.rehearsal.measuring import Outcome
from spadework.rehearsal.network import RememberingNetwork
from spadework.rehearsal.stage import FOLDS, Act, set_stage
from spadework.rehearsal.trial import OutOfTime, run

FACTS = Facts(side=300.0, pictures=160, strides=(4, 8, 16), multiple=16)
SMALL = {"tested": 4, "planted": 8}


@pytest.fixture(scope="module")
def network():
    return open_backbone("embedded", threads=2)


@pytest.fixture(scope="module")
def stage():
    return set_stage(normal_pictures(12), seed=0, **SMALL)


@pytest.fixture
def quick(monkeypatch):
    """Rehearsals of a few acts."""
    usual = rehearsal.rehearse
    monkeypatch.setattr(rehearsal, "rehearse", lambda *given, **more: usual(*given, **more, **SMALL))


def outcome(mean: float, *, scatter: float = 0.0, seed: int = 0, sizes: tuple[float, ...] = ()) -> Outcome:
    by_size = tuple(outcome(own, scatter=scatter, seed=seed + 10 * number) for number, own in enumerate(sizes, 1))
    return Outcome(mean, mean, mean, mean + scatter * np.random.default_rng(seed).standard_normal(200), by_size)


# ---- the stage


def test_nothing_an_act_is_compared_with_has_pieces_that_were_planted_on_it(stage):
    assert len(stage.acts) == 12
    assert stage.sources == [0, 1, 2, 3, 0, 1, 2, 3]
    for act in stage.acts:
        fold = stage.held_out(act)
        assert fold.start <= stage.places[act.source] < fold.stop
        assert 1 < fold.stop - fold.start <= -(-12 // FOLDS)
    assert len({stage.held_out(act).start for act in stage.acts}) == 4  # as many as are tested


def test_the_stage_follows_from_the_pictures_and_the_seed_not_from_their_order():
    pictures = normal_pictures(10)
    one = set_stage(pictures, seed=3, **SMALL)
    other = set_stage([*pictures[::-1], pictures[4]], seed=3, **SMALL)
    assert all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))
    for act in one.acts:
        assert np.array_equal(one.show(act)[0], other.show(act)[0])
    third = set_stage(pictures, seed=4, **SMALL)
    assert not all(np.array_equal(a, b) for a, b in zip(one.pictures, third.pictures, strict=True))


def test_pictures_that_cannot_be_read_are_left_out_and_too_few_are_refused(tmp_path):
    paths = write_pictures(tmp_path, normal_pictures(9))
    paths[3].write_bytes(b"nothing")
    assert len(set_stage(paths, seed=0).pictures) == 8
    with pytest.raises(InputError, match="at least 8 different normal pictures.*; 7 can be used"):
        set_stage(paths[:8], seed=0)


def test_acts_show_the_picture_and_the_defect_on_it(stage):
    picture, mask = stage.show(Act(2, None))
    assert mask is None
    assert np.array_equal(picture, stage.pictures[stage.places[2]])
    changed, mask = stage.show(Act(2, 0))
    assert mask.any()
    assert not np.array_equal(changed[mask], picture[mask])
    assert np.array_equal(changed[~mask], picture[~mask])


# ---- a trial


def test_an_act_is_judged_by_all_pictures_but_those_of_its_fold(stage, network):
    settings = {**Spade(**TINY).settings(), "gallery_k": 12}
    trial = run(stage, settings, RememberingNetwork(network), lambda share: None)
    plain = Spade(**{**TINY, "calibration_images": 0})
    plain.backbone_ = network
    for act, heard in zip(stage.acts[::5], trial._heard[::5], strict=True):
        stays = [plain._pyramid(p).levels for p in np.delete(np.array(stage.pictures), stage.held_out(act), axis=0)]
        rows = np.concatenate([descriptors(levels) for levels in stays])
        own = descriptors(plain._pyramid(stage.show(act)[0]).levels)
        expected = nearest(own, rows, kappa=1).distances.reshape(heard.distances.shape)
        assert np.allclose(heard.distances, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("error::spadework.detectors.placing.SearchRadiusWarning")
def test_a_candidate_that_does_not_suit_warns_of_nothing(stage, network):
    run(stage, {**Spade(**TINY).settings(), "search_radius": 2.0}, RememberingNetwork(network), lambda share: None)


def test_forward_passes_are_shared_by_candidates_of_one_input_size(stage, network):
    remembered = RememberingNetwork(network)
    settings = Spade(**TINY).settings()
    one = run(stage, settings, remembered, lambda share: None)
    assert remembered.passes == 12 + 8
    run(stage, {**settings, "pooling": 3}, remembered, lambda share: None)
    assert remembered.passes == 12 + 8
    again = run(stage, settings, RememberingNetwork(network, limit=0), lambda share: None)
    assert all(np.array_equal(a.distances, b.distances) for a, b in zip(one._heard, again._heard, strict=True))


def test_a_trial_stops_when_its_time_is_over_and_leaves_nothing(stage, network, temporary):
    def clock(share):
        if share > 0.6:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        run(stage, Spade(**TINY).settings(), RememberingNetwork(network), clock)
    assert [path for path in temporary.iterdir() if path.is_dir()] == []


def test_planted_pictures_stay_in_memory_only_where_all_of_them_have_room(monkeypatch):
    pictures = normal_pictures(8)
    most = sum(picture.nbytes for picture in pictures) + stage_module.PLANTED * pictures[0].nbytes * 4 // 3
    for room, stay in ((most + 10, True), (most - 10, False)):
        monkeypatch.setattr(stage_module, "KEEP_BYTES", room)
        made = set_stage(pictures, seed=0)
        made.show(made.acts[-1])
        assert bool(made._planted) == stay


def test_of_very_many_pictures_only_so_many_are_read(monkeypatch):
    monkeypatch.setattr(stage_module, "MOST", 10)
    read = []
    usual = stage_module.load
    monkeypatch.setattr(stage_module, "load", lambda picture: read.append(0) or usual(picture))
    pictures = normal_pictures(40)
    one, other = (set_stage(pictures, seed=seed, **SMALL) for seed in (0, 1))
    assert len(one.pictures) == len(other.pictures) == 10
    assert len(read) == 20
    assert {picture.tobytes() for picture in one.pictures} != {picture.tobytes() for picture in other.pictures}


def test_no_more_are_read_than_there_is_time_for_but_enough_to_deal():
    pictures = normal_pictures(12)
    assert len(set_stage(pictures, seed=0, enough=lambda: True, **SMALL).pictures) == 8
    assert len(set_stage(pictures, seed=0, enough=lambda: False, **SMALL).pictures) == 12


# ---- candidates


def test_what_the_user_set_is_not_tried():
    assert fixed_by_user(Spade().settings()) == frozenset()
    settings = Spade(image_size=320, levels=[1, 2]).settings()
    fixed = fixed_by_user(settings)
    assert fixed == {"image_size", "levels"}
    tried = {name for axis in AXES for changes in axis.changes(settings, FACTS, fixed) for name in changes}
    assert tried & fixed == set()
    assert "grid_stride" in tried


def test_candidates_are_never_what_is_set_already_nor_unknown_nor_against_a_rule():
    settings = Spade().settings()
    for axis in AXES:
        for changes in axis.changes(settings, FACTS, frozenset()):
            assert changes.keys() <= settings.keys()
            assert any(settings[name] != value for name, value in changes.items())
            Spade(**{**settings, **changes})._check_settings()


def test_sizes_end_where_the_pictures_do():
    sizes = {c["image_size"] for c in AXES[0].changes(Spade().settings(), FACTS, frozenset())}
    assert sizes == {192, 320, 384}
    large = Facts(2000.0, 160, (4, 8, 16), 16)
    assert {c["image_size"] for c in AXES[0].changes(Spade().settings(), large, frozenset())} == {
        192,
        320,
        384,
        512,
        "auto",
    }


def test_the_cost_goes_with_pixels_pairs_and_images():
    settings = Spade().settings()
    assert grid(settings, FACTS) == 32
    assert grid({**settings, "levels": [1], "grid_stride": 4}, FACTS) == 64
    assert grid({**settings, "image_size": (128, 512)}, FACTS) == 32
    assert grid({**settings, "image_size": "auto"}, Facts(800.0, 160, (4, 8, 16), 16)) == 75
    usual = cost(settings, FACTS)
    assert cost({**settings, "image_size": 512}, FACTS) > 4 * usual
    assert cost({**settings, "grid_stride": 16}, FACTS) < usual
    assert cost({**settings, "gallery_k": 100}, FACTS) > usual
    assert cost({**settings, "gallery_k": 1000}, FACTS) == cost({**settings, "gallery_k": 160}, FACTS)


# ---- the rule


def decide(
    monkeypatch,
    means: dict,
    *,
    scatter: float = 0.0,
    costs=None,
    sizes=None,
    deadline: float = 1e9,
    seconds: float = 1.0,
):
    """A choice among three values of one setting, with outcomes that are given."""
    now = [0.0]

    class Told:
        def __init__(self, settings):
            self.seconds = seconds

        def outcome(self, settings):
            key = settings["pooling"]
            return outcome(means[key], scatter=scatter, seed=key, sizes=(sizes or {}).get(key, ()))

    def told(stage, settings, network, clock):
        now[0] += seconds
        clock(1.0)
        return Told(settings)

    axis = candidates.Axis("pooling", ("pooling",), lambda settings, facts: iter([{"pooling": 3}, {"pooling": 5}]))
    monkeypatch.setattr(choice, "AXES", (axis,))
    monkeypatch.setattr(choice, "run", told)
    monkeypatch.setattr(candidates, "after_search", lambda settings, fixed: [{}])
    monkeypatch.setattr(candidates, "other_scores", lambda settings, fixed: [])
    monkeypatch.setattr(candidates, "cost", lambda settings, facts: (costs or {}).get(settings["pooling"], 1.0))
    made = Choice(None, Spade().settings(), None, FACTS, deadline=deadline, clock=lambda: now[0])
    return made.make(), made


def test_a_wide_gaussian_is_tried_beside_others_and_given_up_again():
    settings = Spade().settings()
    tried = candidates.after_search(settings, frozenset())
    assert tried[0] == {}
    pairs = [(changes["smoothing"], changes["wide_smoothing"]) for changes in tried[1:]]
    assert {(2.0, 32.0), (4.0, 32.0), (8.0, None)} <= set(pairs)
    assert (4.0, None) not in pairs  # what it is already
    later = candidates.after_search({**settings, "smoothing": 4.0, "wide_smoothing": 32.0}, frozenset())
    assert {"smoothing": 4.0, "wide_smoothing": None} in later
    assert len(set(pairs)) == len(pairs) == len(later) - 1


def test_no_gaussian_is_tried_that_is_wider_than_the_view():
    tried = candidates.after_search(Spade(image_size=16).settings(), frozenset())
    assert len(tried) > 1
    assert all(changes.get("wide_smoothing") is None for changes in tried)


@pytest.mark.parametrize("changes", [{"smoothing": 3.0}, {"wide_smoothing": 30.0}])
def test_smoothing_that_was_chosen_stays(changes):
    settings = Spade(**changes).settings()
    assert candidates.after_search(settings, candidates.fixed_by_user(settings)) == [{}]


def test_a_clearly_better_value_is_taken(monkeypatch):
    chosen, made = decide(monkeypatch, {1: 0.8, 3: 0.9, 5: 0.85})
    assert chosen == {"pooling": 3}
    assert [each.changes for each in made.tried] == [{}, {"pooling": 3}, {"pooling": 5}]
    assert made.tried[1].gain.value == pytest.approx(0.1)


def test_the_default_stays_where_nothing_is_better_by_more_than_a_standard_error(monkeypatch):
    assert decide(monkeypatch, {1: 0.8, 3: 0.81, 5: 0.79}, scatter=0.02)[0] == {}
    assert decide(monkeypatch, {1: 0.8, 3: 0.79, 5: 0.7})[0] == {}


def test_of_those_as_good_as_the_best_the_cheapest_is_taken(monkeypatch):
    means, costs = {1: 0.7, 3: 0.9, 5: 0.895}, {1: 3.0, 3: 9.0, 5: 6.0}
    assert decide(monkeypatch, means, scatter=0.01, costs=costs)[0] == {"pooling": 5}
    assert decide(monkeypatch, means, scatter=0.001, costs=costs)[0] == {"pooling": 3}


def test_what_gains_for_small_defects_and_spoils_large_ones_is_worth_less(monkeypatch):
    means, sizes = {1: 0.8, 3: 0.9, 5: 0.87}, {1: (0.8, 0.8, 0.8), 3: (1.0, 1.0, 0.7), 5: (0.87, 0.87, 0.87)}
    assert decide(monkeypatch, means, sizes=sizes)[0] == {"pooling": 5}
    assert decide(monkeypatch, means)[0] == {"pooling": 3}  # but for the sizes it would be that
    made = decide(monkeypatch, means, sizes=sizes)[1]
    assert [each.least_gain for each in made.tried] == pytest.approx([0.0, -0.1, 0.07])
    assert [each.worth.value for each in made.tried] == pytest.approx([0.0, 0.0, 0.14])


def test_what_makes_pictures_cost_many_times_as_much_is_not_tried(monkeypatch):
    chosen, made = decide(monkeypatch, {1: 0.8, 3: 0.9, 5: 0.95}, costs={1: 1.0, 3: 4.0, 5: 4.1})
    assert chosen == {"pooling": 3}
    assert [each.changes for each in made.tried] == [{}, {"pooling": 3}]
    assert made.left_out == []  # that is not for want of time


def test_settings_that_these_pictures_do_not_allow_are_told_of(monkeypatch):
    def refuses(first, *, then):
        def told(stage, settings, network, clock):
            if first or settings["pooling"] != 1:
                raise InputError("part 7: no.")
            return then

        return told

    class Told:
        seconds = 1.0

        def outcome(self, settings):
            return outcome(0.5)

    axis = candidates.Axis("pooling", ("pooling",), lambda settings, facts: iter([{"pooling": 3}]))
    monkeypatch.setattr(choice, "AXES", (axis,))
    made = Choice(None, Spade().settings(), None, FACTS, deadline=1e9)
    monkeypatch.setattr(choice, "run", refuses(True, then=None))
    with pytest.raises(InputError, match=r"part 7: no\. Leave that picture out, or fit without tuning"):
        made.make()
    monkeypatch.setattr(choice, "run", refuses(False, then=Told()))
    assert made.make() == {}
    assert made.failed == [({"pooling": 3}, "part 7: no.")]


def test_what_would_not_end_in_time_is_left_out_and_told(monkeypatch):
    monkeypatch.setattr(choice, "MOST_COST", 100.0)
    chosen, made = decide(monkeypatch, {1: 0.8, 3: 0.9, 5: 0.95}, costs={5: 50.0}, deadline=10.0)
    assert chosen == {"pooling": 3}
    assert made.left_out == [{"pooling": 5}]


def test_a_budget_that_even_the_first_exceeds_leaves_everything_as_it_is(monkeypatch):
    chosen, made = decide(monkeypatch, {1: 0.8, 3: 0.9, 5: 0.95}, deadline=0.5)
    assert chosen == {}
    assert made.tried == []
    assert made.left_out[0] == {}


# ---- the faces


def settings_of(found) -> dict:
    return {name: value for name, value in found.settings().items() if name != "threads"}


@pytest.mark.slow
def test_a_tuned_model_is_one_that_was_given_what_was_chosen(quick, tmp_path):
    pictures = normal_pictures(10)
    steps = []
    tuned = Spade(**TINY).fit(pictures, tune=True, progress=lambda *step: steps.append(step))
    told = tuned.folder_.header["tuning"]
    assert told == json.loads(json.dumps(told))
    assert told["pictures"] == 10
    assert told["planted"] == 8
    assert told["tried"][0]["changes"] == {}
    assert len(told["tried"]) > 10
    assert any(what.startswith("rehearsing · levels") for what, _, _ in steps)
    same = Spade(**{**TINY, **told["chosen"]}).fit(pictures)
    assert settings_of(tuned) == settings_of(same)
    assert answers(tuned) == answers(same)
    kept = load(tuned.save(tmp_path / "part.spade"))
    assert settings_of(kept) == settings_of(tuned)
    assert kept.folder_.header["tuning"] == told


@pytest.mark.slow
def test_tuning_again_starts_from_what_the_user_set_and_chooses_the_same(quick):
    pictures = normal_pictures(10)
    tuned = Spade(**TINY).fit(pictures, tune=True)
    first = tuned.folder_.header["tuning"]
    tuned.fit(pictures, tune=True)
    second = tuned.folder_.header["tuning"]
    strip = [[{**row, "seconds": 0} for row in told["tried"]] for told in (first, second)]
    assert strip[0] == strip[1]
    assert first["chosen"] == second["chosen"]
    tuned.fit(pictures)
    assert "tuning" not in tuned.folder_.header


def test_a_fit_that_fails_after_tuning_leaves_the_settings(quick, monkeypatch):
    detector = Spade(**TINY)
    before = detector.settings()
    monkeypatch.setattr(Spade, "_tune", lambda *given: ({"smoothing": 8.0}, {}))
    monkeypatch.setattr(Spade, "_learn", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detector.fit(normal_pictures(9), tune=True)
    assert detector.settings() == before


def test_the_line_on_tuning_tells_what_it_costs_and_what_it_had_no_time_for():
    row = {"gain": 0.02, "standard_error": 0.004}
    tried = [{**row, "changes": {}, "cost": 31.0}, {**row, "changes": {"pooling": 3}, "cost": 32.0}]
    told = {"planted": 9, "tested": 3, "seconds": 5.0, "tried": tried, "chosen": {"pooling": 3}, "left_out": []}
    assert "times as long" not in tuning_line(told)
    tried.append({**row, "changes": {"image_size": 384}, "cost": 93.0})
    told |= {"chosen": {"image_size": 384}, "left_out": [{"kappa": 3}, {"kappa": 5}]}
    line = tuning_line(told)
    assert "; a new picture takes about 3 times as long (" in line
    assert "2 settings left out for want of time: a longer --tune-minutes tries them" in line
    assert "left out for want of time" in tuning_line(told | {"chosen": {}})


def test_what_cannot_be_tuned_says_so():
    with pytest.raises(InputError, match="nearest-image cannot be tuned, only spade can"):
        get_detector("nearest-image")().fit(normal_pictures(9), tune=True)
    for minutes in (0, -1, float("nan"), "ten", True):
        with pytest.raises(InputError, match="tune_minutes must be a number above 0"):
            Spade(**TINY).fit(normal_pictures(9), tune=True, tune_minutes=minutes)
    with pytest.raises(InputError, match="at least 8 different"):
        Spade(**TINY).fit(normal_pictures(3), tune=True)


@pytest.mark.slow
def test_the_command_line_tunes_and_tells(quick, tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(10))
    model, given = tmp_path / "part.spade", [f"--set={name}={value}" for name, value in TINY.items()]
    done = CliRunner().invoke(app, ["fit", str(tmp_path / "good"), "-o", str(model), "--tune", *given])
    assert done.exit_code == 0, done.output
    assert "defects planted on 4 normal pictures" in done.output
    info = CliRunner().invoke(app, ["info", str(model)])
    assert "as given" in info.output
    assert "standard error" in info.output
    assert "levels [1, 2]" in info.output
    told = json.loads(CliRunner().invoke(app, ["info", str(model), "--json"]).stdout)["tuning"]
    assert told["tried"][0]["mean"] > 0.5


def test_too_few_pictures_to_tune_are_told_before_the_bill(tmp_path):
    write_pictures(tmp_path / "good", normal_pictures(7))
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(
            app, ["fit", str(tmp_path / "good"), "-o", str(tmp_path / "m.spade"), "--tune", *more]
        )
        assert isinstance(done.exception, InputError)
        assert "tuning takes at least 8 different normal pictures" in str(done.exception)
        assert "7 can be used" in str(done.exception)
        assert "memory" not in done.output


def test_a_model_that_was_not_tuned_has_no_table(saved):
    done = CliRunner().invoke(app, ["info", str(saved)])
    assert "tuning" not in done.output
    assert json.loads(CliRunner().invoke(app, ["info", str(saved), "--json"]).stdout)["tuning"] is None


@pytest.mark.slow
def test_the_report_shows_what_was_tried(quick, tmp_path):
    data = write_dataset(tmp_path / "parts", categories=["gear"], n_train=9, n_good=2, n_per_defect=1, size=64)
    model = Spade(**TINY).fit([sample.path for sample in data.categories[0].train], tune=True)
    page = write_report(tmp_path, [evaluate(model, data.categories[0])]).read_text()
    assert "8 defects planted on 4 normal pictures" in page
    assert page.count("levels [1, 2]") >= 1
    assert open_dataset(tmp_path / "parts").categories[0].name == "gear"
