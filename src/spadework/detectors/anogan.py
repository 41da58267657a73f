"""AnoGAN: a generator learns to make normal pictures; a new picture is compared with the most similar one that it can make.

In: normal pictures. Out, for a new one: for each pixel the squared difference to the most similar generated picture, summed over the colours, as a map.
Letters: `x` a picture in -1..1, `z` a code, `G` the generator, `f` the features of the discriminator, all but its last layer.

Recipe, with how sure each part is. DCGAN, codes of 64 numbers, pictures of 128 x 128, 50 epochs, learning rate 2e-4; for a new picture 300 steps of
search for the code, at rate 0.02; map: per-pixel L2 of x and G(z); objects are resized to 128, textures to 512 and cut into patches of 128 without
overlap; patches are drawn as for the autoencoders (all verified in the MVTec AD paper). The search lowers (1 - l) sum|x - G(z)| + l sum|f(x) - f(G(z))|
with l = 0.1, and what remains is the image score (recalled; with several patches the highest). Adam with beta1 0.5 for the training, Adam for the search,
batch 64, 64 filters (recalled). G and f are fixed in the search, their batch normalisation too, so patches do not see each other (our choice).
The search starts from one seeded code, the same for all patches, so that an answer depends on nothing but the picture.
Substitution: a tenth of the normal pictures is held out of the training for the threshold; the paper trains on all and sets none.
Left out: nothing. Cannot: be quick: each picture takes hundreds of passes; find defects where the generator has not learnt all that is normal.
Source: Schlegl, Seeboeck, Waldstein, Schmidt-Erfurth and Langs 2017, Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide
Marker Discovery, IPMI, arXiv:1703.05921; Bergmann, Fauser, Sattlegger and Steger 2019, MVTec AD, CVPR, section 4.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.costs import Growth
from spadework.detectors.dcgan import LEAST_SIDE, decoder, encoder, initialise, signed, taken_for
from spadework.detectors.patches import average_map, drawn_example
from spadework.detectors.trained import TrainedDetector, Views
from spadework.detectors.training import Course
from spadework.errors import InputError
from spadework.prediction import Judgement

IMAGE_SCORES = frozenset({"search", "map"})
PROBED_STEPS = 10
BETAS = (0.5, 0.999)


class AnoGAN(TrainedDetector):
    """AnoGAN. The defaults are the published ones for objects; `image_size=512, patch=128` are those for textures.

    Args:
        image_size: side that pictures are resized to.
        patch: None takes the whole picture (objects); a side in pixels cuts patches without overlap (textures).
        latent: numbers in a code.
        width: filters of the layers nearest to the picture.
        search_steps: steps of the search for the code of a new picture.
        search_rate: learning rate of that search.
        feature_weight: weight of the discriminator's features in what the search lowers, 0 to 1; pictures weigh the rest.
        examples: patches to learn from, drawn from the normal pictures once.
        rotation: they are turned by at most so many degrees either way; None for 5 (whole pictures) or 180 (patches).
        shift: whole pictures are shifted by at most this share of their side either way.
        mirror: whether half of them are mirrored; only where the object permits.
        epochs: times that all patches are seen.
        batch_size: patches a step.
        learning_rate: of Adam, for both networks.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        image_score: "search", what the search could not lower, or "map", the highest value of the map.
        smoothing: sigma of a Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the networks; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order, patches, codes and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("anogan").quick().fit("good/").predict("new.png").score_map.shape  # doctest: +SKIP
        (1024, 1024)
    """

    name: ClassVar[str] = "anogan"
    summary: ClassVar[str] = "difference to the most similar picture a generator can make; map and image score"
    source: ClassVar[str] = "Schlegl et al. 2017, arXiv:1703.05921; settings of Bergmann et al. 2019, MVTec AD, CVPR"
    cannot: ClassVar[str] = "what the generator has not learnt to make, though normal"
    cost: ClassVar[str] = "days on a CPU as published, hours on a GPU; hundreds of passes a picture"
    judging: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    QUICK: ClassVar[Mapping[str, Any]] = {
        "image_size": 64,
        "width": 16,
        "examples": 320,
        "epochs": 12,
        "batch_size": 16,
        "search_steps": 60,
        "search_rate": 0.05,
    }

    def __init__(
        self,
        *,
        image_size: int = 128,
        patch: int | None = None,
        latent: int = 64,
        width: int = 64,
        search_steps: int = 300,
        search_rate: float = 0.02,
        feature_weight: float = 0.1,
        examples: int = 10_000,
        rotation: float | None = None,
        shift: float = 0.05,
        mirror: bool = False,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
        held_out: float = 0.1,
        image_score: str = "search",
        smoothing: float = 0.0,
        max_false_alarms: float = 0.01,
        checkpoints: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.patch = patch
        self.latent = latent
        self.width = width
        self.search_steps = search_steps
        self.search_rate = search_rate
        self.feature_weight = feature_weight
        self.examples = examples
        self.rotation = rotation
        self.shift = shift
        self.mirror = mirror
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.image_score = image_score
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        self._check_training()
        check_side("image_size" if self.patch is None else "patch", self._side())
        if self._side() > self.image_size:
            raise InputError(f"patch must be at most image_size, {self.image_size}, not {self._side()}.")
        for name in ("latent", "width", "search_steps", "examples"):
            check.positive_int(getattr(self, name), name)
        for name in ("search_rate", "feature_weight"):
            check.not_negative(getattr(self, name), name)
        if self.feature_weight > 1:
            raise InputError(f"feature_weight must be at most 1, not {self.feature_weight}.")
        if self.rotation is not None:
            check.not_negative(self.rotation, "rotation")
        check.share(self.shift, "shift", zero=True)
        check.one_of(self.image_score, "image_score", IMAGE_SCORES)

    def _side(self) -> int:
        return self.image_size if self.patch is None else check.positive_int(self.patch, "patch")

    def _build(self) -> dict[str, Any]:
        side, width = self._side(), int(self.width)
        return {
            "generator": initialise(decoder(side, 3, int(self.latent), width=width)),
            "discriminator": initialise(encoder(side, 3, 1, width=width)),
        }

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _inspecting(self, count: int) -> Growth:
        return Growth(1, int(self.search_steps))

    def _probe(self) -> dict[str, Any]:
        return super()._probe() | {"search_steps": min(int(self.search_steps), PROBED_STEPS)}

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch

        generator, discriminator = networks["generator"], networks["discriminator"]
        adams = [torch.optim.Adam(each.parameters(), lr=self.learning_rate, betas=BETAS) for each in networks.values()]

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            x = signed(np.stack([self._example(views, int(number)) for number in batch]), generator)
            made = generator(torch.randn(len(x), int(self.latent), 1, 1).to(x.device))
            told_apart = taken_for(True, discriminator(x)) + taken_for(False, discriminator(made.detach()))
            adams[1].zero_grad()
            told_apart.backward()
            adams[1].step()
            believed = taken_for(True, discriminator(made))
            adams[0].zero_grad()
            believed.backward()
            adams[0].step()
            return {"generator": believed.detach(), "discriminator": told_apart.detach()}

        return Course(networks, adams, int(self.examples), learn)

    def _example(self, views: Views, number: int) -> np.ndarray:
        return drawn_example(
            views,
            number,
            None if self.patch is None else self._side(),
            seed=int(self.seed),
            rotation=self.rotation,
            shift=self.shift,
            mirror=self.mirror,
        )

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        worst = 0.0

        def judge(patches: np.ndarray) -> np.ndarray:
            nonlocal worst
            maps, remaining = self._search(networks, patches)
            worst = max(worst, float(remaining.max()))
            return maps

        found = average_map(view, self._side(), self._side(), judge)
        return Judgement(found, worst if self.image_score == "search" else None)

    def _search(self, networks: dict[str, Any], patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (n, s, s) of uint8 patches (n, s, s, 3), and what the search could not lower, (n,)."""
        import torch

        generator, discriminator = networks["generator"], networks["discriminator"]
        x = signed(patches, generator)
        features = discriminator.features(x)
        start = torch.randn(int(self.latent), 1, 1, generator=torch.Generator().manual_seed(int(self.seed)))
        z = start.to(x.device).expand(len(x), -1, -1, -1).clone().requires_grad_()
        adam = torch.optim.Adam([z], lr=self.search_rate)
        with torch.enable_grad():
            for _ in range(int(self.search_steps)):
                loss = self._remaining(x, features, generator(z), discriminator).sum()
                (z.grad,) = torch.autograd.grad(loss, z)
                adam.step()
        made = generator(z.detach())
        remaining = self._remaining(x, features, made, discriminator)
        return (((x - made) / 2) ** 2).sum(dim=1).cpu().numpy(), remaining.cpu().numpy()

    def _remaining(self, x: Any, features: Any, made: Any, discriminator: Any) -> Any:
        """What the search lowers, one number a patch."""
        pixels = (x - made).abs().flatten(1).sum(dim=1)
        looks = (features - discriminator.features(made)).abs().flatten(1).sum(dim=1)
        return (1 - self.feature_weight) * pixels + self.feature_weight * looks


def check_side(name: str, side: int) -> None:
    """Raise InputError unless DCGAN can be built for pictures of this side."""
    if side < LEAST_SIDE or side & (side - 1):
        raise InputError(f"{name} must be 16, 32, 64, 128 or a further power of two, not {side}.")
