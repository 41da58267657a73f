"""CAVGA-Ru: a variational autoencoder learns to attend to all of a normal picture; where it does not attend in a new one, that is anomalous.

In: normal pictures. Out, for a new one: for each pixel 1 - attention, 0 to 1, as a map.
Letters: `F` the encoder's last features, (n, C, g, g), `z` the means of the codes, (n, d, g, g), `A` attention, (n, g, g).

Recipe, with how sure each part is: ResNet-18 as encoder, codes that keep their places, a residual decoder, a discriminator of DCGAN (secondary); loss:
reconstruction + Kullback-Leibler + adversarial + 0.01 * mean(1 - A) (secondary); A: Grad-CAM of z in F, normalised by a sigmoid (secondary); map: 1 - A,
brought to picture size; 256 x 256, Adam at 1e-4, 150 epochs, batch 16 (secondary). Reconstruction as the mean squared difference, codes of 100 numbers a place,
both terms as means over their numbers, Adam's beta1 0.5 for the discriminator (recalled or our choice). The sigmoid is taken of the weighted sum itself:
rectified first, as Grad-CAM is, attention would never fall below a half and not learn where the sum is negative (our choice).
Image score: the mean of the map (the paper gives none that we know of; the highest value is 1 to the last digit for every picture once the sum is large).
Left out: the pre-training of the discriminator on a large set of faces, and that of the encoder, if it had one (not known): both start from scratch.
Differences: a tenth of the normal pictures is held out of the training for the threshold.
Cannot: draw sharp borders: the map has one value for 32 x 32 pixels, interpolated. Nothing makes attention lower at a defect, except that none was seen.
Source: Venkataramanan, Peng, Singh and Mahalanobis 2020, Attention Guided Anomaly Localization in Images, ECCV, arXiv:1911.08616; Selvaraju et al. 2017,
Grad-CAM, ICCV, arXiv:1610.02391.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.dcgan import LEAST_SIDE, encoder, initialise, signed, taken_for
from spadework.detectors.trained import TrainedDetector, Views
from spadework.detectors.training import Course
from spadework.errors import InputError
from spadework.prediction import Judgement

BETAS = (0.5, 0.999)


class CAVGARu(TrainedDetector):
    """CAVGA-Ru. The defaults are the published ones.

    Args:
        image_size: side that pictures are resized to: 128, 256 or a further power of two; with fewer stages less.
        width: filters of the first layers; 64 is ResNet-18.
        stages: of the encoder; 4 is ResNet-18. With fewer the map is finer and sees less at a time.
        latent: numbers in the code of a place.
        attention_weight: of the attention in the loss.
        epochs: times that all pictures are seen.
        batch_size: pictures a step.
        learning_rate: of Adam, for all networks.
        held_out: share of the normal pictures that is not trained on; the threshold rests on it. 0 for no threshold.
        smoothing: sigma of a Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        checkpoints: a folder where the training is kept every minute, and taken up from; None for none.
        device: "cpu", or "cuda" to train and inspect on a GPU.
        threads: of the networks; None for the environment's SPADEWORK_THREADS or PyTorch's own choice.
        seed: of first weights, order, noise and held-out pictures.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("cavga-ru").quick().fit("good/").predict("new.png").score_map.shape  # doctest: +SKIP
        (1024, 1024)
    """

    name: ClassVar[str] = "cavga-ru"
    summary: ClassVar[str] = "where a network that attends to all that is normal does not attend; map and image score"
    source: ClassVar[str] = "Venkataramanan et al. 2020, arXiv:1911.08616"
    cannot: ClassVar[str] = "sharp borders: one value for 32 x 32 pixels"
    cost: ClassVar[str] = "days on a CPU as published, an hour on a GPU; one pass a picture"
    judging: ClassVar[tuple[str, ...]] = ("encoder",)
    QUICK: ClassVar[Mapping[str, Any]] = {"width": 16, "epochs": 6, "batch_size": 8, "learning_rate": 1e-3}

    def __init__(
        self,
        *,
        image_size: int = 256,
        width: int = 64,
        stages: int = 4,
        latent: int = 100,
        attention_weight: float = 0.01,
        epochs: int = 150,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
        held_out: float = 0.1,
        smoothing: float = 0.0,
        max_false_alarms: float = 0.01,
        checkpoints: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size = image_size
        self.width = width
        self.stages = stages
        self.latent = latent
        self.attention_weight = attention_weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.checkpoints = checkpoints
        self.device = device
        self.threads = threads
        self.seed = seed

    def _check_settings(self) -> None:
        for name in ("width", "stages", "latent"):
            check.positive_int(getattr(self, name), name)
        self._check_training()
        least = max(LEAST_SIDE, 2 ** (self.stages + 2))  # a grid of 2 x 2
        if self.image_size < least or self.image_size & (self.image_size - 1):
            raise InputError(
                f"image_size must be a power of two of at least {least} with {self.stages} stages, not {self.image_size}."
            )
        check.not_negative(self.attention_weight, "attention_weight")

    def _build(self) -> dict[str, Any]:
        from spadework.detectors.residual_vae import Decoder, Encoder

        sizes = {"width": int(self.width), "stages": int(self.stages), "latent": int(self.latent)}
        discriminator = initialise(encoder(int(self.image_size), 3, 1, width=int(self.width)))
        return {"encoder": Encoder(**sizes), "decoder": Decoder(**sizes), "discriminator": discriminator}

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch

        discriminator = networks["discriminator"]
        own = [value for name in ("encoder", "decoder") for value in networks[name].parameters()]
        adams = [
            torch.optim.Adam(own, lr=self.learning_rate),
            torch.optim.Adam(discriminator.parameters(), lr=self.learning_rate, betas=BETAS),
        ]

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            x = signed(views[batch], discriminator)
            features, mean, log_variance = networks["encoder"](x)
            copy = networks["decoder"](mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance))
            ignored = torch.sigmoid(-grad_cam(features, mean, learning=True)).mean()
            difference = ((x - copy) ** 2).mean()
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
            believed = taken_for(True, discriminator(copy))
            loss = difference + divergence + believed + self.attention_weight * ignored
            adams[0].zero_grad()
            loss.backward()
            adams[0].step()
            told_apart = taken_for(True, discriminator(x)) + taken_for(False, discriminator(copy.detach()))
            adams[1].zero_grad()
            told_apart.backward()
            adams[1].step()
            return {"picture": difference.detach(), "code": divergence.detach(), "ignored": ignored.detach()}

        return Course(networks, adams, len(views), learn)

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        import torch

        network = networks["encoder"]
        with torch.enable_grad():
            features = network.features(signed(view[None], network)).requires_grad_()
            attended = grad_cam(features, network.mean(features), learning=False)
        ignored = torch.sigmoid(-attended)[0].detach().cpu().numpy()  # 1 - A, exact also where A is nearly 1
        return Judgement(ignored, float(ignored.mean(dtype=np.float64)))


def grad_cam(features: Any, target: Any, *, learning: bool) -> Any:
    """Return the sum of feature maps, each weighed by the mean gradient of the target's sum in it: (n, g, g), not normalised.

    Args:
        features: F, (n, C, g, g), part of what the target was computed from.
        target: z, of any shape with n first.
        learning: whether gradients of the result are wanted, too.
    """
    import torch

    (gradient,) = torch.autograd.grad(target.sum(), features, create_graph=learning, retain_graph=True)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (n, C, 1, 1)
    return (weights * features).sum(dim=1)
