"""Steps of runs, under torchrun: what they take, and what is sent. Arguments: result file, steps, settings files."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
import yaml

from cawalib.method import cawa
from cawalib.runs import config_from
from cawalib.training import build_accelerator, load_checked, set_up, training_step
from cawalib.training.launch import joined

sent = {"class weights": 0}
added_up = cawa.sum_over_processes


def counted(tensor):
    sent["class weights"] += tensor.numel() * tensor.element_size()
    return added_up(tensor)


def bytes_out():
    """What this machine, a network namespace, has sent."""
    counter = Path(f"/sys/class/net/{os.environ.get('GLOO_SOCKET_IFNAME', 'lo')}/statistics/tx_bytes")
    return int(counter.read_text()) if counter.is_file() else 0


def measured(settings, count):
    """Of one run."""
    config = joined(config_from(yaml.safe_load(Path(settings).read_text())))
    accelerator = build_accelerator(config)
    with accelerator.main_process_first():
        datasets = load_checked(config)
    training = set_up(config, datasets, accelerator)
    seconds, first, done = [], 0, 0
    for images, labels in training.loader:
        if done == 2:  # the first two set up what later ones have
            accelerator.wait_for_everyone()
            first, sent["class weights"] = bytes_out(), 0
        started = time.perf_counter()
        training_step(training, images, labels)
        seconds.append(time.perf_counter() - started)
        training.batch = done = done + 1
        if done == count + 2:
            break
    accelerator.wait_for_everyone()
    network = training.network
    return {
        "seconds": statistics.median(seconds[2:]), "sent": (bytes_out() - first) / count,
        "class weights": sent["class weights"] / count, "classes": len(training.statistics.classes),
        "gradients": sum(part.numel() * part.element_size() for part in network.parameters() if part.requires_grad),
        "buffers": sum(part.numel() * part.element_size() for part in network.buffers()),
        "equal": equal_everywhere(training.criterion.weighting.weight),
    }


def equal_everywhere(tensor):
    """Whether all processes hold the same bits."""
    if not torch.distributed.is_initialized():
        return True
    others = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(others, tensor.contiguous())
    return all(torch.equal(tensor, other) for other in others)


cawa.sum_over_processes = counted
result, count, *files = sys.argv[1:]
found = [measured(file, int(count)) for file in files]
if os.environ["RANK"] == "0":
    Path(result).write_text(json.dumps(found))
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
