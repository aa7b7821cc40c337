"""`fully_shard` in two processes, with CAWALoss and with the loop written out, saved and resumed with PyTorch's
distributed checkpoints; `check_plain` calls it."""

import sys

import torch
import torch.distributed.checkpoint as checkpoints
from check_plain import make
from common import CLASSES, RATE, Explicit, batches, recorded, train
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from cawalib.method import CAWALoss

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank, num_classes, folder = distributed.get_rank(), CLASSES, sys.argv[1]
mesh = init_device_mesh("cpu", (2,))
data = [(images[rank::2], labels[rank::2]) for images, labels in batches(4, images=4)]


def whole(network):
    """The classifier with all of its parameters, which the loop written out has to gather by itself."""
    def convolution():
        made = nn.Conv2d(8, CLASSES, 1)
        made.load_state_dict({name: value.full_tensor() for name, value in network[2][2].state_dict().items()})
        return made

    return convolution


def start(explicit=False):
    network = make()
    if explicit:
        criterion = Explicit(network[2][2], convolution=whole(network))
    else:
        criterion = CAWALoss(num_classes, network)
    fully_shard(network, mesh=mesh)
    return network, criterion, torch.optim.SGD(network.parameters(), RATE)


def state(network, criterion, optimizer):
    model, of_optimizer = get_state_dict(network, optimizer)
    return {"model": model, "optimizer": of_optimizer, "criterion": criterion.state_dict()}


ours, written_out, half, resumed = start(), start(explicit=True), start(), start()
found = {"losses": recorded(ours[1]), "explicit": written_out[1].losses, "rest": recorded(resumed[1])}
train(*ours, data), train(*written_out, data), train(*half, data[:2])
checkpoints.save(state(*half), checkpoint_id=f"{folder}/checkpoint")
loaded = state(*resumed)
checkpoints.load(loaded, checkpoint_id=f"{folder}/checkpoint")
set_state_dict(resumed[0], resumed[2], model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
resumed[1].load_state_dict(loaded["criterion"])
train(*resumed, data[2:])
parameters = [value.full_tensor().detach().flatten() for value in ours[0].parameters()]
torch.save(found | {"weight": ours[1].weight, "parameters": torch.cat(parameters)}, f"{folder}/found{rank}.pt")
distributed.destroy_process_group()
