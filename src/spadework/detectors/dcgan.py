"""The networks of DCGAN, which AnoGAN and GANomaly are built from.

In and out: pictures (n, c, s, s) in -1..1, `s` a power of two of at least 16; codes (n, d, 1, 1).
Source: Radford, Metz and Chintala 2016, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, ICLR,
arXiv:1511.06434, with kernels of 4 x 4 as in its usual PyTorch form (recalled).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spadework.detectors.trained import to_tensor

SLOPE = 0.2
BOTTOM = 4  # side of the smallest map
LEAST_SIDE = 16


def encoder(side: int, channels: int, outputs: int, *, width: int) -> Any:
    """Return a network that halves pictures down to 4 x 4 and takes `outputs` numbers from it; its part "features" is all but the last step.

    Args:
        side: of pictures.
        channels: of pictures.
        outputs: numbers that come out, (n, outputs, 1, 1).
        width: filters of the first layer; each further one has twice as many.
    """
    from torch import nn

    layers: list[Any] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(SLOPE)]
    for _ in range((side // BOTTOM).bit_length() - 2):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(SLOPE)]
        width *= 2
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("last", nn.Conv2d(width, outputs, BOTTOM, bias=False))
    return network


def decoder(side: int, channels: int, latent: int, *, width: int) -> Any:
    """Return a network that makes pictures (n, channels, side, side) in -1..1 of codes (n, latent, 1, 1).

    Args:
        side: of pictures.
        channels: of pictures.
        latent: numbers in a code.
        width: filters of the last layer but one; each earlier one has twice as many.
    """
    from torch import nn

    doublings = (side // BOTTOM).bit_length() - 2
    filters = width * 2**doublings
    layers = [nn.ConvTranspose2d(latent, filters, BOTTOM, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    for _ in range(doublings):
        layers += [
            nn.ConvTranspose2d(filters, filters // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(filters // 2),
            nn.ReLU(),
        ]
        filters //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(filters, channels, 4, 2, 1, bias=False), nn.Tanh())


def initialise(network: Any) -> Any:
    """Draw a network's weights as DCGAN does, from normal distributions of deviation 0.02, and return it."""
    from torch import nn

    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)
    return network


def signed(views: np.ndarray, network: Any) -> Any:
    """Return uint8 (n, s, s, 3) as (n, 3, s, s) in -1..1."""
    return to_tensor(views, network) * 2 - 1


def taken_for(real: bool, answers: Any) -> Any:
    """Return the binary cross-entropy of a discriminator's raw answers, had all pictures been real, or none."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    wanted = torch.ones_like(answers) if real else torch.zeros_like(answers)
    return binary_cross_entropy_with_logits(answers, wanted)
