"""torchvision's segmentation networks in a plain loop."""

import pytest
import torch
from common import CLASSES, batches, check_plain_loop
from torch import nn
from torchvision.models import segmentation
from torchvision.models.resnet import Bottleneck

from cawalib.method import CAWALoss


def maker(name, **options):
    def make():
        torch.manual_seed(0)
        network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **options)
        for module in network.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # else rounding grows to percents in 3 steps
        return network

    return make


def automatic(network):
    num_classes = CLASSES
    criterion = CAWALoss(num_classes, network)
    return criterion


def with_head(network):
    num_classes = CLASSES
    criterion = CAWALoss(num_classes, network, head="classifier.low_classifier")
    return criterion


@pytest.mark.parametrize("name, options, line, head", [
    ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}, automatic, lambda network: network.classifier[4]),
    ("fcn_resnet50", {}, automatic, lambda network: network.classifier[4]),
    ("lraspp_mobilenet_v3_large", {}, with_head, lambda network: network.classifier.low_classifier)])
def test_networks(name, options, line, head, tmp_path):
    check_plain_loop(maker(name, **options), line, head, batches(4, (64, 64)), tmp_path)


def test_two_classifiers_whose_sum_is_the_output_are_named():
    network = maker("lraspp_mobilenet_v3_large")()
    (images, labels), = batches(1)
    with pytest.raises(ValueError, match="found 2 layers that may be the last classifier"):
        CAWALoss(CLASSES, network)(network(images), labels)
