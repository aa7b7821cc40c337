"""What the checks share: batches, the loop written out, and a step of anybody's loop."""

import os
import subprocess
import sys

import torch
from torch.nn import functional

from cawalib.method import CAWAWeighting, Feedback
from cawalib.method.inputs import main_logits

CLASSES = 5
RATE = 1e-4  # small: steps of a larger one magnify rounding beyond what is compared


def batches(count, size=(32, 32), images=2, channels=3):
    """Noise with labels in blocks, the second batch without class 3; some pixels are void (255)."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number in range(count):
        blocks = torch.randint(CLASSES, (images, 1, *[4] * len(size)), generator=generator)
        labels = functional.interpolate(blocks.float(), size, mode="nearest")[:, 0].long()
        labels = torch.where((labels == 3) & (number == 1), 0, labels)
        labels[:, :5] = 255
        made.append((torch.randn(images, channels, *size, generator=generator), labels))
    return made


class Explicit:
    """The update and the loss written out, to be called as a criterion.

    Args:
        head: the last classifier, known by name.
        as_map: what brings its input to (B, K, h, w).
        convolution: gives the classifier as a convolution, where it is none.
    """

    def __init__(self, head, as_map=lambda features: features, convolution=lambda: None):
        self.head, self.as_map, self.convolution = head, as_map, convolution
        self.weighting, self.losses = CAWAWeighting(CLASSES), []
        head.register_forward_pre_hook(self._keep)

    def _keep(self, module, inputs):
        self.features = inputs[0].detach()

    def __call__(self, output, labels):
        logits = main_logits(output, CLASSES)
        labels = labels[:, 0] if labels.dim() == logits.dim() else labels
        head = self.convolution() or self.head
        self.weighting.update(Feedback(labels, None, self.as_map(self.features), head))
        if logits.shape[2:] != labels.shape[1:]:
            logits = functional.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
        weight = self.weighting.weight.clone()
        loss = functional.cross_entropy(logits.float(), labels, weight, ignore_index=255)
        self.losses.append(loss.item())
        return loss


def recorded(criterion):
    """The losses that a criterion gives from now on."""
    losses = []
    criterion.register_forward_hook(lambda module, inputs, loss: losses.append(loss.item()))
    return losses


def train(network, criterion, optimizer, data, first=0):
    """The plain loop; what is random in a network is drawn anew by the number of the step."""
    network.train()
    for number, (images, labels) in enumerate(data, first):
        torch.manual_seed(number)
        loss = criterion(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def check_plain_loop(make, line, head, data, path, **explicit):
    """Same loss as the explicit loop; saved in the middle and resumed in new objects; evaluation moves nothing.

    Args:
        make: () -> a new network, always the same.
        line: network -> criterion.
        head: network -> its last classifier.
    """
    def start(criterion_of):
        network = make()
        return network, criterion_of(network), torch.optim.SGD(network.parameters(), RATE)

    written_out = start(lambda network: Explicit(head(network), **{
        name: value(network) if name == "convolution" else value for name, value in explicit.items()}))
    train(*written_out, data)
    whole = start(line)
    losses = recorded(whole[1])
    train(*whole, data)
    close(losses, written_out[1].losses)
    close(whole[1].weight, written_out[1].weighting.weight)
    assert not torch.equal(whole[1].weight, torch.ones(CLASSES))

    half = start(line)
    train(*half, data[:2])
    torch.save([part.state_dict() for part in half], path / "checkpoint.pt")
    resumed = start(line)
    for part, state in zip(resumed, torch.load(path / "checkpoint.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    rest = recorded(resumed[1])
    train(*resumed, data[2:], first=2)
    assert rest == losses[2:] and torch.equal(resumed[1].weight, whole[1].weight)

    network, criterion, _ = whole
    before = criterion.weight
    network.eval(), criterion.eval()
    criterion(network(data[1][0]), data[1][1])
    assert torch.equal(criterion.weight, before) and criterion.calls == len(data)


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-6, atol=1e-6)


def two_processes(script, folder, torchrun=True):
    """Runs a script in two processes; each saves what it found as found0.pt and found1.pt in the folder."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if torchrun else []
    here = os.path.dirname(os.path.abspath(__file__))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": here, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *launcher, os.path.join(here, script), folder], env=environment,
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in (0, 1)]
