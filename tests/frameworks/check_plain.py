"""PyTorch alone: DDP and FSDP2 in two processes, mixed and half precision, and heads of several layers in half."""

import pytest
import torch
from common import CLASSES, RATE, Explicit, batches, close, recorded, two_processes
from torch import nn

from cawalib.method import CAWALoss


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
                         nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)))


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes(kind, tmp_path):
    one, other = two_processes(f"two_{kind}.py", tmp_path)
    assert torch.equal(one["weight"], other["weight"]) and torch.equal(one["parameters"], other["parameters"])
    assert not torch.equal(one["weight"], torch.ones(CLASSES))
    for found in (one, other):
        close(found["losses"], found["explicit"])
        assert found["rest"] == found["losses"][2:]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", [None, "2"], ids=["found", "several layers"])
@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "true"])
def test_precisions(dtype, head, mixed):
    losses = []
    for explicit in (False, True):
        network = make().to(torch.float32 if mixed else dtype)
        layer = network[2] if head else network[2][2]
        criterion = Explicit(layer) if explicit else CAWALoss(CLASSES, network, head)
        losses.append(criterion.losses if explicit else recorded(criterion))
        scaler = torch.amp.GradScaler("cpu", enabled=mixed and dtype == torch.float16)
        optimizer = torch.optim.SGD(network.parameters(), RATE)
        for images, labels in batches(4):
            with torch.autocast("cpu", dtype, enabled=mixed):
                loss = criterion(network(images if mixed else images.to(dtype)), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    close(*losses)
