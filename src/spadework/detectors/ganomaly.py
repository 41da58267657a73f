"""GANomaly: an encoder, a decoder and a second encoder learn to copy normal pictures and their codes; a code that comes back changed is anomalous.

In: normal pictures. Out, for a new one: an image score, the mean squared difference of its two codes. No map.
Letters: `x` a picture in -1..1, `z` its code, `x'` the copy, `z'` the code of the copy, `f` the features of the discriminator.

Recipe, all verified in the authors' code: networks of DCGAN, pictures of 32 x 32, codes of 100 numbers, 64 filters, batch 64, 15 epochs, Adam
at 2e-4 with beta1 0.5. Loss of the generator: |f(x) - f(x')|^2 + 50 |x - x'| + |z - z'|^2, means each; of the discriminator: half the binary
cross-entropies of x and x'. The discriminator is drawn anew when its loss falls below 1e-5. Score: the mean of (z - z')^2.
Differences: the authors' code keeps the epoch of the best ROCAUC on the test pictures; here the last epoch counts, for nothing is chosen on test data.
It stretches the scores of a test set to 0..1, which changes no order and needs the test set; here they stay as they are. Batch normalisation is fixed
when a picture is inspected, so that an answer depends on that picture alone. A tenth of the normal pictures is held out for the threshold.
Cannot: say where.
Source: Akcay, Atapour-Abarghouei and Breckon 2018, GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, ACCV, arXiv:1805.06725.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.anogan import BETAS, check_side
from spadework.detectors.dcgan import decoder, encoder, initialise, signed, taken_for
from spadework.detectors.trained import TrainedDetector, Views
from spadework.detectors.training import Course
from spadework.prediction import Judgement

LOST = 1e-5  # a discriminator this sure teaches nothing


class GANomaly(TrainedDetector):
    """GANomaly. The defaults are those of the authors' code.

    Args:
        image_size: side that pictures are resized to.
        latent: numbers in a code.
        width: filters of the layers nearest to the picture.
        adversarial_weight: of the discriminator's features in the generator's loss.
        picture_weight: of the difference of picture and copy.
        code_weight: of the difference of the two codes.
        epochs: times that all pictures are seen.
        batch_size: pictures a step.
        learning_rate: of Adam, for all networks.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the networks; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("ganomaly")().fit("good/").predict("new.png").score > 0  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "ganomaly"
    summary: ClassVar[str] = "change of a code after decoding and encoding again; image score, no map"
    source: ClassVar[str] = "Akcay et al. 2018, arXiv:1805.06725"
    localises: ClassVar[bool] = False
    cannot: ClassVar[str] = "say where"
    cost: ClassVar[str] = "minutes on a CPU; one pass a picture"
    judging: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "second_encoder")
    QUICK: ClassVar[Mapping[str, Any]] = {"width": 32, "batch_size": 16}

    def __init__(
        self,
        *,
        image_size: int = 32,
        latent: int = 100,
        width: int = 64,
        adversarial_weight: float = 1.0,
        picture_weight: float = 50.0,
        code_weight: float = 1.0,
        epochs: int = 15,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
        held_out: float = 0.1,
        max_false_alarms: float = 0.01,
        checkpoints: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.latent = latent
        self.width = width
        self.adversarial_weight = adversarial_weight
        self.picture_weight = picture_weight
        self.code_weight = code_weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_training()
        check_side("image_size", self.image_size)
        for name in ("latent", "width"):
            check.positive_int(getattr(self, name), name)
        for name in ("adversarial_weight", "picture_weight", "code_weight"):
            check.not_negative(getattr(self, name), name)

    def _build(self) -> dict[str, Any]:
        side, latent, width = int(self.image_size), int(self.latent), int(self.width)
        return {
            "encoder": initialise(encoder(side, 3, latent, width=width)),
            "decoder": initialise(decoder(side, 3, latent, width=width)),
            "second_encoder": initialise(encoder(side, 3, latent, width=width)),
            "discriminator": initialise(encoder(side, 3, 1, width=width)),
        }

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch

        discriminator = networks["discriminator"]
        own = [value for name in self.judging for value in networks[name].parameters()]
        adams = [
            torch.optim.Adam(each, lr=self.learning_rate, betas=BETAS) for each in (own, discriminator.parameters())
        ]

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            x = signed(views[batch], discriminator)
            z, copy, again = self._copy(networks, x)
            loss = self._loss(x, copy, z, again, discriminator)
            adams[0].zero_grad()
            loss.backward()
            adams[0].step()
            answers = taken_for(True, discriminator(x)) + taken_for(False, discriminator(copy.detach()))
            adams[1].zero_grad()
            (0.5 * answers).backward()
            adams[1].step()
            if float(answers.detach()) < 2 * LOST:
                initialise(discriminator)
            return {"generator": loss.detach(), "discriminator": 0.5 * answers.detach()}

        return Course(networks, adams, len(views), learn)

    def _copy(self, networks: dict[str, Any], x: Any) -> tuple[Any, Any, Any]:
        """The code of pictures, their copies, and the code of the copies."""
        z = networks["encoder"](x)
        copy = networks["decoder"](z)
        return z, copy, networks["second_encoder"](copy)

    def _loss(self, x: Any, copy: Any, z: Any, again: Any, discriminator: Any) -> Any:
        looks = ((discriminator.features(x) - discriminator.features(copy)) ** 2).mean()
        pixels = (x - copy).abs().mean()
        codes = ((z - again) ** 2).mean()
        return self.adversarial_weight * looks + self.picture_weight * pixels + self.code_weight * codes

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        z, _, again = self._copy(networks, signed(view[None], networks["encoder"]))
        return Judgement(None, float(((z - again) ** 2).mean()))
