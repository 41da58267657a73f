"""The recipe of the embedded network: data, augmentation, network, losses, loop, export. `tools/train_backbone.py` runs it.

    pictures (n, 64, 64, 3) -> canvases of 128 x 128 -> levels at strides 4, 8, 16 -> losses -> weights -> ONNX file

Never imported by the package: whoever inspects pictures needs no framework.
"""
