"""Accelerate in two processes, with CAWALoss and with the loop written out; `check_accelerate` calls it."""

import sys

import torch
from check_accelerate import parts, train
from common import recorded

torch.set_num_threads(1)
ours, written_out = parts(), parts(explicit=True)
found = {"losses": recorded(ours[-1])}
train(*ours), train(*written_out)
found |= {"explicit": written_out[-1].losses, "weight": ours[-1].weight,
          "parameters": torch.cat([value.detach().flatten() for value in ours[1].parameters()])}
torch.save(found, f"{sys.argv[1]}/found{ours[0].process_index}.pt")
torch.distributed.destroy_process_group()
