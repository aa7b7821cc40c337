"""mmsegmentation's signature of a loss, called as its decode heads call it.

mmsegmentation itself is not installed here: its dependency mmcv builds on no PyTorch of today. Where it is, its own
FCN head is asked as well.
"""

import pytest
import torch
from common import CLASSES, RATE, Explicit, batches, close
from torch import nn
from torch.nn import functional

from cawalib.method import CAWALoss


class CAWA(CAWALoss):
    loss_name = "loss_cawa"

    def forward(self, cls_score, label, weight=None, avg_factor=None, reduction_override=None, ignore_index=255):
        return super().forward(cls_score, label)  # what else a head may give has nothing to say


class Head(nn.Module):
    """What a decode head does with its loss: logits at the labels' size, and arguments by name."""

    def __init__(self, loss_decode=None):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.conv_seg = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, CLASSES, 1)
        self.loss_decode = loss_decode
        self.ignore_index = 255

    def loss(self, images, labels):
        logits = self.conv_seg(self.body(images).relu())
        logits = functional.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        loss = self.loss_decode(logits, labels, weight=None, ignore_index=self.ignore_index)
        return {self.loss_decode.loss_name: loss}


def steps(head, loss, data):
    optimizer, losses = torch.optim.SGD(head.parameters(), RATE), []
    for images, labels in data:
        losses.append(loss(head, images, labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return [one.item() for one in losses]


def start():
    num_classes, head = CLASSES, Head()
    head.loss_decode = CAWA(num_classes, head=head.conv_seg)
    return head


def test_the_losses_of_the_explicit_loop_and_resuming(tmp_path):
    data, written_out, ours = batches(4), Head(), start()
    criterion = Explicit(written_out.conv_seg)

    def explicit(head, images, labels):
        logits = head.conv_seg(head.body(images).relu())
        return criterion(functional.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False), labels)

    def own(head, images, labels):
        loss, = head.loss(images, labels).values()
        return loss

    losses = steps(ours, own, data)
    close(losses, steps(written_out, explicit, data))
    half, resumed = start(), start()
    steps(half, own, data[:2])
    torch.save(half.state_dict(), tmp_path / "half.pt")
    resumed.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
    assert steps(resumed, own, data[2:]) == losses[2:]
    before = resumed.loss_decode.weight
    resumed.eval()
    assert list(resumed.loss(*data[1])) == ["loss_cawa"] and torch.equal(resumed.loss_decode.weight, before)


def test_in_the_real_head():
    heads = pytest.importorskip("mmseg.models.decode_heads", reason="no mmsegmentation", exc_type=ImportError)
    structures = pytest.importorskip("mmseg.structures")
    engine = pytest.importorskip("mmengine.structures")
    num_classes = CLASSES
    head = heads.FCNHead(in_channels=8, channels=8, num_classes=CLASSES, in_index=0, num_convs=1,
                         norm_cfg={"type": "BN"}).train()
    head.loss_decode = CAWA(num_classes, head=head.conv_seg)
    sample = structures.SegDataSample(gt_sem_seg=engine.PixelData(data=batches(1)[0][1][:1]))
    losses = head.loss([torch.randn(1, 8, 16, 16)], [sample], None)
    losses["loss_cawa"].backward()
    assert not torch.equal(head.loss_decode.weight, torch.ones(CLASSES))
