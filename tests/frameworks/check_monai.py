"""MONAI's U-Net in a plain loop, images and volumes, also with MONAI's own tensors."""

import pytest
import torch
from common import CLASSES, batches, check_plain_loop
from monai.data import MetaTensor
from monai.networks.nets import UNet

from cawalib.method import CAWALoss

SIZES = pytest.mark.parametrize("size", [(64, 64), (32, 32, 32)], ids=["2D", "3D"])


def line(network):
    num_classes = CLASSES
    criterion = CAWALoss(num_classes, network)
    return criterion


def of_residual_units(network):
    num_classes = CLASSES
    criterion = CAWALoss(num_classes, network, head="model.2")
    return criterion


def maker(size, units):
    def make():
        torch.manual_seed(0)
        return UNet(len(size), 1, CLASSES, channels=(8, 16, 32), strides=(2, 2), num_res_units=units)

    return make


@SIZES
def test_unet(size, tmp_path):
    check_plain_loop(maker(size, 0), line, lambda network: network.model[2], batches(4, size, channels=1), tmp_path)


@SIZES
@pytest.mark.parametrize("own", [False, True], ids=["tensors", "MetaTensor"])
def test_unet_of_residual_units(size, own, tmp_path):
    data = batches(4, size, channels=1)
    if own:
        data = [(MetaTensor(images), MetaTensor(labels[:, None])) for images, labels in data]
    check_plain_loop(maker(size, 2), of_residual_units, lambda network: network.model[2], data, tmp_path)
