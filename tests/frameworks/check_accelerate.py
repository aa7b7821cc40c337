"""Accelerate: prepared, saved with `save_state`, resumed with `load_state`; and in two processes."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from common import CLASSES, RATE, Explicit, batches, close, recorded, two_processes
from torch import nn
from torch.utils.data import DataLoader

from cawalib.method import CAWALoss


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))


def parts(precision="no", explicit=False):
    """A new accelerator, network, optimizer, loader and criterion."""
    num_classes, network = CLASSES, make()
    accelerator = Accelerator(mixed_precision=precision, cpu=True)
    if explicit:
        criterion = Explicit(network[3])
    else:
        criterion = CAWALoss(num_classes, network).to(accelerator.device)
        accelerator.register_for_checkpointing(criterion)
    data = [pair for images, labels in batches(4) for pair in zip(images, labels, strict=True)]
    loader = DataLoader(data, batch_size=2)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    return accelerator, *accelerator.prepare(network, optimizer, loader), criterion


def train(accelerator, network, optimizer, loader, criterion, only=slice(None)):
    network.train()
    for images, labels in list(loader)[only]:
        loss = criterion(network(images), labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()


@pytest.fixture(autouse=True)
def fresh():
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one, and keeps its precision


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_losses_of_the_explicit_loop(precision):
    ours, written_out = parts(precision), parts(precision, explicit=True)
    losses = recorded(ours[-1])
    train(*ours), train(*written_out)
    close(losses, written_out[-1].losses)
    close(ours[-1].weight, written_out[-1].weighting.weight)
    assert not torch.equal(ours[-1].weight, torch.ones(CLASSES))


def test_a_state_resumes_as_if_nothing_had_been(tmp_path):
    whole, half, resumed = parts(), parts(), parts()
    losses = recorded(whole[-1])
    train(*whole)
    train(*half, only=slice(2))
    half[0].save_state(tmp_path / "state")
    resumed[0].load_state(tmp_path / "state")
    rest = recorded(resumed[-1])
    train(*resumed, only=slice(2, None))
    assert rest == losses[2:] and torch.equal(resumed[-1].weight, whole[-1].weight)


def test_two_processes(tmp_path):
    one, other = two_processes("two_accelerate.py", tmp_path)
    assert torch.equal(one["weight"], other["weight"]) and torch.equal(one["parameters"], other["parameters"])
    for found in (one, other):
        close(found["losses"], found["explicit"])


def test_evaluation_moves_nothing():
    ours = parts()
    train(*ours)
    _, network, _, loader, criterion = ours
    before, calls = criterion.weight, criterion.calls
    network.eval()
    with torch.no_grad():
        assert all(torch.isfinite(criterion(network(images), labels)) for images, labels in loader)
    assert torch.equal(criterion.weight, before) and criterion.calls == calls
    train(*ours)
    assert not torch.equal(criterion.weight, before)  # and training moves it again
