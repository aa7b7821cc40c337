"""DistributedDataParallel in two processes, with CAWALoss and with the loop written out; `check_plain` calls it."""

import sys

import torch
from check_plain import make
from common import CLASSES, RATE, Explicit, batches, recorded, train
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cawalib.method import CAWALoss

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank, num_classes, folder = distributed.get_rank(), CLASSES, sys.argv[1]
data = [(images[rank::2], labels[rank::2]) for images, labels in batches(4, images=4)]


def start(explicit=False):
    network = make()
    if explicit:
        criterion = Explicit(network[2][2])
    else:
        criterion = CAWALoss(num_classes, network)
    network = DistributedDataParallel(network)
    return network, criterion, torch.optim.SGD(network.parameters(), RATE)


ours, written_out, half, resumed = start(), start(explicit=True), start(), start()
found = {"losses": recorded(ours[1]), "explicit": written_out[1].losses, "rest": recorded(resumed[1])}
train(*ours, data), train(*written_out, data), train(*half, data[:2])
if rank == 0:
    torch.save([part.state_dict() for part in half], f"{folder}/checkpoint.pt")
distributed.barrier()
for part, state in zip(resumed, torch.load(f"{folder}/checkpoint.pt", weights_only=True), strict=True):
    part.load_state_dict(state)
train(*resumed, data[2:])
parameters = torch.cat([value.detach().flatten() for value in ours[0].parameters()])
found |= {"weight": ours[1].weight, "parameters": parameters}
torch.save(found, f"{folder}/found{rank}.pt")
distributed.destroy_process_group()
