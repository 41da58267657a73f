"""What detectors share that train a network: the loop, checkpoints and resuming, the held-out share, what is kept and what is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import normal_pictures

from spadework.bill import duration
from spadework.cli import console
from spadework.detectors import training
from spadework.detectors.trained import TrainedDetector, to_tensor
from spadework.detectors.training import Course
from spadework.errors import InputError, MissingExtraError, ModelError, TrainingError
from spadework.prediction import Judgement
from spadework.storage import HEADER

torch = pytest.importorskip("torch", reason="training needs the extra torch: torch is not installed")
from torch import nn  # noqa: E402

PICTURES = normal_pictures(8, size=(8, 8))
SOURCE = Path(training.__file__).parents[2]


class Small(TrainedDetector):
    """Two layers that learn the picture; with dropout, batch normalisation, Adam and a falling rate, all of which a resumed training must hit."""

    name = "small"
    judging = ("net",)

    def __init__(
        self, image_size=8, epochs=3, batch_size=3, learning_rate=0.01, held_out=0.25, device="cpu", checkpoints=None,
        smoothing=0.0, max_false_alarms=0.1, threads=1, seed=0, poison=None,
    ):  # fmt: skip
        for key, value in list(locals().items()):
            if key not in ("self", "__class__"):
                setattr(self, key, value)

    def _check_settings(self):
        self._check_training(multiple=4, least=8)

    def _build(self):
        return {
            "net": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Conv2d(4, 3, 1))
        }

    def _course(self, networks, views):
        optimiser = torch.optim.Adam(networks["net"].parameters(), lr=self.learning_rate)

        def learn(batch, rng):
            pictures = to_tensor(views[batch], networks["net"])
            noise = torch.from_numpy(rng.normal(0, 0.01, pictures.shape).astype(np.float32))
            loss = ((networks["net"](pictures + noise) - pictures) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            self.seen = getattr(self, "seen", 0) + 1
            return {"loss": float("nan") if self.seen == self.poison else loss.detach()}

        return Course(networks, [optimiser], len(views), learn, rate=lambda share: 1 - share)

    def _inspect(self, networks, view):
        picture = to_tensor(view[None], networks["net"])
        return Judgement(((networks["net"](picture) - picture) ** 2).sum(1)[0].numpy())


def weights_of(model):
    return np.array(model.folder_.read("network_net")).tobytes()


class InterruptionError(Exception):
    pass


def interrupt_after(steps):
    def progress(what, done, total):
        if what.startswith("training") and done == steps:
            raise InterruptionError

    return progress


@pytest.mark.parametrize("after", [1, 2, 5])  # two steps an epoch: in the midst of one, and at its end
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(after, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    whole = Small().fit(PICTURES)
    model = Small(checkpoints=tmp_path)
    with pytest.raises(InterruptionError):
        model.fit(PICTURES, progress=interrupt_after(after))
    steps = []
    model.fit(PICTURES, progress=lambda *step: steps.append(step))
    assert [step[1] for step in steps if step[0].startswith("training")] == list(range(after + 1, 7))
    assert weights_of(model) == weights_of(whole)
    assert model.folder_.header["training"] == whole.folder_.header["training"]  # the losses too
    assert model.model_hash() == whole.model_hash()  # where checkpoints lie changes no answer


def test_a_finished_training_is_not_done_again(tmp_path):
    first = Small(checkpoints=tmp_path).fit(PICTURES)
    steps = []
    again = Small(checkpoints=str(tmp_path)).fit(PICTURES[::-1], progress=lambda *step: steps.append(step[0]))
    assert not [what for what in steps if what.startswith("training")]
    assert weights_of(again) == weights_of(first)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 4}, {"learning_rate": 0.1}, "pictures"])
def test_another_training_does_not_take_up_a_checkpoint(change, tmp_path):
    Small(checkpoints=tmp_path).fit(PICTURES)
    other, pictures = ({}, PICTURES[1:]) if change == "pictures" else (change, PICTURES)
    found = Small(checkpoints=tmp_path, **other).fit(pictures)
    assert weights_of(found) == weights_of(Small(**other).fit(pictures))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_checkpoint_is_named(tmp_path):
    Small(checkpoints=tmp_path).fit(PICTURES)
    checkpoint = next(tmp_path.iterdir())
    array = next(checkpoint.glob("network_net*"))
    array.write_bytes(b"\0" * array.stat().st_size)
    with pytest.raises(ModelError, match=r"small-\w+\.checkpoint: cannot be taken up .* Delete it to train anew"):
        Small(checkpoints=tmp_path).fit(PICTURES)


@pytest.mark.parametrize("what", ["code_hash", "versions"])
def test_a_training_of_other_code_or_versions_is_not_taken_up(what, tmp_path, monkeypatch):
    """A result is filed under the code and the versions of now, so its weights must be theirs."""
    Small(checkpoints=tmp_path).fit(PICTURES)
    monkeypatch.setattr(f"spadework.fingerprint.{what}", lambda detector: "another")
    steps = []
    Small(checkpoints=tmp_path).fit(PICTURES, progress=lambda *step: steps.append(step[0]))
    assert any(step.startswith("training") for step in steps)
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_hold_no_pickle_and_come_as_often_as_said(tmp_path, monkeypatch):
    saved = []
    real = training.Checkpoint.save
    monkeypatch.setattr(
        training.Checkpoint, "save", lambda self, *rest: (saved.append(rest[2]["step"]), real(self, *rest))
    )
    Small(checkpoints=tmp_path).fit(PICTURES)
    assert saved == [6]  # a minute has not passed before
    assert {file.suffix for file in next(tmp_path.iterdir()).iterdir()} <= {".json", ".bin", ""}
    assert HEADER in {file.name for file in next(tmp_path.iterdir()).iterdir()}


def test_equal_seeds_give_equal_weights_and_others_do_not():
    assert weights_of(Small().fit(PICTURES)) == weights_of(Small().fit(PICTURES[::-1]))
    assert weights_of(Small(seed=1).fit(PICTURES)) != weights_of(Small().fit(PICTURES))


def test_a_loss_that_is_no_number_ends_the_training_by_name(tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 2, step 2 of 2: loss is nan\. Lower learning_rate"):
        Small(poison=4).fit(PICTURES)
    with pytest.raises(TrainingError, match="loss is"):
        Small(learning_rate=1e30, epochs=20).fit(PICTURES)


def test_torch_is_left_as_it_was():
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    model = Small(threads=1).fit(PICTURES)
    model.predict(PICTURES)
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_threads_asked_for_are_those_that_run(monkeypatch):
    used = []
    monkeypatch.setattr(
        Small, "_inspect", lambda *_: used.append(torch.get_num_threads()) or Judgement(np.zeros((2, 2)))
    )
    Small(threads=1, epochs=1).fit(PICTURES)
    assert set(used) == {1}


def test_held_out_pictures_are_not_trained_on(monkeypatch):
    trained_on = []
    real = Small._course
    monkeypatch.setattr(
        Small, "_course", lambda self, nets, views: (trained_on.append(views[:]), real(self, nets, views))[1]
    )
    model = Small().fit(PICTURES)
    rows = {row.tobytes() for row in trained_on[0]}
    held = {np.array(row).tobytes() for row in model.held_out_}
    assert (len(rows), len(held)) == (6, 2)
    assert rows | held == {picture.tobytes() for picture in PICTURES}
    assert model.threshold_.n == 2
    np.testing.assert_array_equal(np.sort(model.normal_scores_), np.sort(model.predict(list(model.held_out_)).scores))
    assert not list(model.folder_.path.glob("views*"))
    everything = Small(held_out=0).fit(PICTURES)
    assert everything.threshold_.value is None
    assert everything.folder_.header["training"]["pictures"] == 8


def test_batches_are_dealt_evenly():
    sizes = []
    course = Course({}, [], 11, lambda batch, rng: (sizes.append(sorted(batch)), {"loss": 0.0})[1])
    training.train(course, epochs=2, batch_size=4, seed=0)
    assert [len(batch) for batch in sizes] == [6, 5, 6, 5]
    assert sorted(sizes[0] + sizes[1]) == sorted(sizes[2] + sizes[3]) == list(range(11))
    assert sizes[0] != sizes[2]


def test_progress_tells_loss_and_time_left_in_one_bar(monkeypatch):
    from rich.progress import Progress

    steps, bars = [], []
    Small().fit(PICTURES, progress=lambda *step: steps.append(step))
    told = [step for step in steps if step[0].startswith("training")]
    assert [step[1:] for step in told] == [(i, 6) for i in range(1, 7)]
    assert all(step[0].startswith("training · loss 0.") and step[0].endswith(" s left") for step in told)
    real = Progress.add_task
    monkeypatch.setattr(Progress, "add_task", lambda self, *a, **k: (bars.append(a), real(self, *a, **k))[1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress_bar() as progress:
        for step in steps:
            progress(*step)
    assert len(bars) == 3  # reading, training, setting the threshold


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("image_size", 10, "image_size must be a multiple of 4 and at least 8"),
        ("epochs", 0, "epochs"),
        ("batch_size", 0, "batch_size"),
        ("learning_rate", 0, "learning_rate must be above 0"),
        ("held_out", 1, "held_out"),
        ("device", "gpu", 'device must be "cpu", "cuda"'),
        ("checkpoints", 3, "checkpoints"),
        ("threads", 0, "threads"),
        ("smoothing", 9, "smoothing must be at most 8, the side of what the method sees"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, value, told):
    with pytest.raises(InputError, match=told):
        Small(**{setting: value}).fit(PICTURES)


def test_a_device_that_is_not_there_is_refused_but_a_model_of_it_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="PyTorch sees no CUDA device here"):
        Small(device="cuda").fit(PICTURES)
    model = Small().fit(PICTURES)
    model.device = "cuda"
    again = Small.load(model.save(tmp_path / "m.spade"))
    assert again.device == "cuda"
    np.testing.assert_array_equal(again.predict(PICTURES).scores, model.predict(PICTURES).scores)


def test_without_torch_a_detector_says_what_to_install(monkeypatch, tmp_path):
    path = Small().fit(PICTURES, path=tmp_path / "m.spade").folder_.path
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingExtraError, match=r"'small' needs the extra 'torch': install it with  pip install 'spadework\[torch\]'"
    ):
        Small().fit(PICTURES)
    model = Small.load(path)
    assert model.n_normal_ == 8  # looking at a model needs none
    with pytest.raises(MissingExtraError, match="extra 'torch'"):
        model.predict(PICTURES)


def test_all_detectors_are_listed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from spadework.detectors import DETECTORS, describe\n"
        "print(all(describe(name)['settings'] for name in DETECTORS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)})
    assert done.stdout == "True\n", done.stderr


def test_another_build_of_the_network_is_refused(tmp_path, monkeypatch):
    path = Small().fit(PICTURES, path=tmp_path / "m.spade").folder_.path
    monkeypatch.setattr(Small, "_build", lambda self: {"net": nn.Conv2d(3, 3, 1)})
    with pytest.raises(ModelError, match="another build"):
        Small.load(path).predict(PICTURES)
