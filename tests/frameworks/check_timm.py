"""timm's features under heads of one's own: a convolution, and a linear layer on the tokens of a transformer."""

import pytest
import timm
import torch
from common import CLASSES, batches, check_plain_loop
from torch import nn
from torch.nn import functional

from cawalib.method import CAWALoss

SIZE = (64, 96)


class Pyramid(nn.Module):
    """Features of a convolutional network, and a convolution on the last but one."""

    def __init__(self):
        super().__init__()
        self.body = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(2,))
        self.head = nn.Conv2d(self.body.feature_info.channels()[-1], CLASSES, 1)

    def forward(self, images):
        return self.head(self.body(images)[-1])


class Tokens(nn.Module):
    """A vision transformer, and a linear layer on its tokens; the logits are brought to the image's size."""

    def __init__(self):
        super().__init__()
        self.body = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=SIZE, depth=2, num_classes=0)
        self.head = nn.Linear(self.body.num_features, CLASSES)

    def forward(self, images):
        tokens = self.body.forward_features(images)[:, self.body.num_prefix_tokens:]
        logits = self.head(tokens).transpose(1, 2).unflatten(2, (SIZE[0] // 16, SIZE[1] // 16))
        return functional.interpolate(logits, images.shape[2:], mode="bilinear")


class ChannelsLast(nn.Module):
    """A Swin transformer, whose features have their channels last, and a linear layer on them."""

    def __init__(self):
        super().__init__()
        self.body = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, features_only=True,
                                      img_size=SIZE, depths=(1, 1, 1, 1), out_indices=(1,))
        self.head = nn.Linear(self.body.feature_info.channels()[-1], CLASSES)

    def forward(self, images):
        return self.head(self.body(images)[-1]).permute(0, 3, 1, 2)


def line(network):
    num_classes = CLASSES
    criterion = CAWALoss(num_classes, network)
    return criterion


def grid_of(tokens):
    rows = [tokens[:, 6 * row:6 * row + 6].movedim(2, 1) for row in range(4)]
    return torch.stack(rows, dim=2)


def convolution_of(network):
    def convolution():
        made = nn.Conv2d(network.head.in_features, CLASSES, 1)
        made.load_state_dict({"weight": network.head.weight[:, :, None, None], "bias": network.head.bias})
        return made

    return convolution


@pytest.mark.parametrize("kind, explicit", [
    (Pyramid, {}), (Tokens, {"as_map": grid_of, "convolution": convolution_of}),
    (ChannelsLast, {"as_map": lambda features: features.permute(0, 3, 1, 2), "convolution": convolution_of})])
def test_features(kind, explicit, tmp_path):
    def make():
        torch.manual_seed(0)
        return kind()

    check_plain_loop(make, line, lambda network: network.head, batches(4, SIZE), tmp_path, **explicit)
