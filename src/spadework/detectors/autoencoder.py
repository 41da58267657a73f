"""What the two convolutional autoencoders share: network, patches, training. They differ in what they compare a picture and its copy by.

Letters: `n` pictures or patches, `s` their side in pixels, `c` channels.

Recipe, with how sure each part is. Textures: patches of 128 x 128, inspected every 30 pixels, overlapping maps averaged; objects: the whole picture at
256 x 256, one more convolution; a code of 100 numbers; 10,000 patches a category, drawn once, textures as rotated crops, objects shifted and turned,
mirrored where the object permits (verified in the MVTec AD paper). Layers of the encoder at 128, kernel/stride/filters: 4/2/32, 4/2/32, 3/1/32,
4/2/64, 3/1/64, 4/2/128, 3/1/64, 3/1/32, 8/1/100; leaky ReLU of slope 0.2 but for code and output; the decoder mirrors it (secondary). 200 epochs, Adam at
2e-4, weight decay 1e-5, batch 128 (recalled). How far objects are turned and shifted, 5 degrees and 5 % here, is our choice; the paper does not say.
Substitution: a tenth of the normal pictures is held out of the training for the threshold; the paper trains on all and sets none.
Source: Bergmann, Loewe, Fauser, Sattlegger and Steger 2019, Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
Autoencoders, VISAPP, arXiv:1807.02011; Bergmann, Fauser, Sattlegger and Steger 2019, MVTec AD, CVPR.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.patches import average_map, drawn_example
from spadework.detectors.trained import TrainedDetector, Views, to_tensor
from spadework.detectors.training import Course
from spadework.errors import InputError
from spadework.prediction import Judgement

IMAGE_SCORES = frozenset({"map", "mean"})
SLOPE = 0.2
BOTTOM = 8  # side of the last map before the code


def build_autoencoder(side: int, channels: int, *, latent: int, width: int) -> Any:
    """Return the network, (n, channels, s, s) to the same.

    Args:
        side: of what goes in: 32, or twice that, and so on; each doubling puts one more convolution in front.
        channels: of pictures.
        latent: numbers in the code.
        width: filters of the first layers; the others have once, twice or four times as many.
    """
    from torch import nn

    front = (side // BOTTOM).bit_length() - 3  # 1 at 64, 2 at 128, 3 at 256
    layers = [
        *[(4, 2, width)] * front,
        (3, 1, width),
        (4, 2, 2 * width),
        (3, 1, 2 * width),
        (4, 2, 4 * width),
        (3, 1, 2 * width),
        (3, 1, width),
    ]
    encoder: list[Any] = []
    decoder: list[Any] = []
    before = channels
    for kernel, stride, filters in layers:
        encoder += [nn.Conv2d(before, filters, kernel, stride, padding=1), nn.LeakyReLU(SLOPE)]
        decoder = [nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(filters, before, kernel, stride, padding=1), *decoder]
        before = filters
    code = nn.Conv2d(before, latent, BOTTOM)
    return nn.Sequential(*encoder, code, nn.ConvTranspose2d(latent, before, BOTTOM), *decoder)


class Autoencoder(TrainedDetector):
    """Base of the autoencoders; its settings are theirs."""

    judging: ClassVar[tuple[str, ...]] = ("autoencoder",)
    channels: ClassVar[int]
    cost: ClassVar[str] = "days on a CPU as published, hours on a GPU; one pass a picture, textures one a patch"

    patch: int | None
    stride: int
    latent: int
    width: int
    examples: int
    rotation: float | None
    shift: float
    mirror: bool
    weight_decay: float
    image_score: str

    @abstractmethod
    def _tensor(self, pictures: np.ndarray, network: Any) -> Any:
        """Return uint8 pictures (n, s, s, 3) as what the network sees, (n, c, s, s)."""

    @abstractmethod
    def _loss(self, pictures: Any, copies: Any) -> Any:
        """Return the loss of (n, c, s, s) and their copies, one number."""

    @abstractmethod
    def _residual(self, pictures: Any, copies: Any) -> Any:
        """Return what differs in each pixel, (n, s, s)."""

    def _check_settings(self) -> None:
        self._check_training()
        for name in ("stride", "latent", "width", "examples"):
            check.positive_int(getattr(self, name), name)
        side = self.image_size if self.patch is None else check.positive_int(self.patch, "patch")
        if side < 32 or side & (side - 1):
            name = "image_size" if self.patch is None else "patch"
            raise InputError(f"{name} must be 32, 64, 128, 256 or a further power of two, not {side}.")
        if side > self.image_size:
            raise InputError(f"patch must be at most image_size, {self.image_size}, not {side}.")
        if self.patch is not None and self.stride > side:
            raise InputError(
                f"stride must be at most the patch's side, {side}, so that no pixel is left out, not {self.stride}."
            )
        if self.rotation is not None:
            check.not_negative(self.rotation, "rotation")
        check.share(self.shift, "shift", zero=True)
        check.not_negative(self.weight_decay, "weight_decay")
        check.one_of(self.image_score, "image_score", IMAGE_SCORES)

    def _side(self) -> int:
        return int(self.image_size if self.patch is None else self.patch)

    def _build(self) -> dict[str, Any]:
        network = build_autoencoder(self._side(), self.channels, latent=int(self.latent), width=int(self.width))
        return {"autoencoder": network}

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        import torch

        network = networks["autoencoder"]
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

        def learn(batch: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
            pictures = self._tensor(np.stack([self._example(views, int(number)) for number in batch]), network)
            loss = self._loss(pictures, network(pictures))
            adam.zero_grad()
            loss.backward()
            adam.step()
            return {"loss": loss.detach()}

        return Course(networks, [adam], int(self.examples), learn)

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
        network = networks["autoencoder"]

        def judge(patches: np.ndarray) -> np.ndarray:
            pictures = self._tensor(patches, network)
            found: np.ndarray = self._residual(pictures, network(pictures)).cpu().numpy()
            return found

        found = average_map(view, self._side(), int(self.stride), judge)
        return Judgement(found, float(found.mean()) if self.image_score == "mean" else None)


def gray(pictures: np.ndarray, network: Any) -> Any:
    """Return uint8 (n, s, s, 3) as (n, 1, s, s) in 0..1, by the weights of ITU-R BT.601."""
    rgb = to_tensor(pictures, network)
    return 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]
