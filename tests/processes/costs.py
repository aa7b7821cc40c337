"""What a step costs in several processes, measured, and what that says of machines that were not there."""

import json
import math
import statistics

from machines import machines
from torch import nn

from cawalib.settings import NetworkConfig
from cawalib.training import build_model

HERE = __file__.rpartition("/")[0]
COUNTS, ROUNDS, STEPS = (1, 2, 4), 3, 8
NETWORKS = ("small", "deeplabv3plus")
# assumed, not measured: bytes a second that a GPU sends to the next one, and seconds until a message begins to arrive
CLUSTERS = {8: ("8 in one machine, NVLink at 100 GB/s", 100e9), 64: ("64 in 8 machines, 100 Gbit/s each", 12.5e9)}
LATENCY = 10e-6


def share(count):
    """Of n bytes that a ring adds up over so many processes, what each of them sends."""
    return 2 * (count - 1) / count


def tables(check, with_machines, start, ended, torchrun) -> str:
    """Two tables in Markdown: what was measured, and what it predicts."""
    found = {}
    for _ in range(ROUNDS):  # side by side, since the machine may have something else to do
        for count in COUNTS:
            steps = measured(check, count, with_machines and count > 1, start, ended, torchrun)
            for network, row in zip(NETWORKS, steps, strict=True):
                found.setdefault((network, count), []).append(row)
    check.see(all(steps["equal"] for rows in found.values() for steps in rows),
              "class weights are the same in all processes, bit by bit")
    found = {key: found[key] for key in sorted(found, key=lambda key: NETWORKS.index(key[0]))}
    return f"{measured_table(check, found, with_machines)}\n\n{predicted_table(found, with_machines)}"


def measured(check, count, apart, start, ended, torchrun):
    settings = [check.file(check.config(network=network, batch_size=8)) for network in NETWORKS]
    result = check.folder / "result.json"
    result.unlink(missing_ok=True)
    script = [f"{HERE}/steps.py", result, STEPS, *settings]
    if not apart:
        ends = [ended(start(*torchrun, "--standalone", "--nproc-per-node", count, *script))]
    else:
        with machines(count) as command:
            all_of_them = []
            for number in range(count):
                before, options = command(number)
                all_of_them.append(start(*before, *torchrun, *options, *script))
            ends = [ended(process) for process in all_of_them]
    if not result.is_file():
        raise SystemExit(f"steps in {count} processes did not end well: {ends}")
    return json.loads(result.read_text())


def measured_table(check, found, with_machines):
    lines = ["| network | processes | a step's time, of that in one | KB sent per step | formula: gradients | "
             "formula: class weights |", "|:--|--:|--:|--:|--:|--:|"]
    for (network, count), rows in found.items():
        ratio = statistics.median(row["seconds"] / one["seconds"]
                                  for row, one in zip(rows, found[network, 1], strict=True))
        one, sent = rows[0], statistics.median(row["sent"] for row in rows)
        gradients, weights = (share(count) * one[name] for name in ("gradients", "class weights"))
        shown = f"{sent / 1000:,.1f}" if with_machines else "not seen"
        shown = shown if count > 1 else "0.0"
        lines.append(f"| {network} | {count} | {ratio:.2f} | {shown} | {gradients / 1000:,.1f} | "
                     f"{weights / 1000:.2f} |")
        if with_machines and count > 1:
            check.see(gradients <= sent < 1.5 * (gradients + one["buffers"] * (count - 1)) + 50_000,
                      f"{network}, {count} processes: {sent / gradients:.2f} times the gradients were sent")
    return "\n".join(lines)


def predicted_table(found, with_machines):
    """Times in milliseconds by formula, with what was sent more than by formula in the measurement."""
    above = 1.0
    if with_machines:
        large = [row for row in found["deeplabv3plus", 4]]
        above = statistics.median(row["sent"] / (share(4) * row["gradients"]) for row in large)
    lines = [f"Measured traffic over that of the formula (deeplabv3plus, 4 processes): {above:.2f}.", "",
             "| network, classes | GPUs | MB sent by each per step | ms: gradients | bytes: class weights | ms: class "
             "weights | ms: SyncBatchNorm |", "|:--|:--|--:|--:|--:|--:|--:|"]
    for name, classes in (("deeplabv3plus", 19), ("segformer", 150), ("unet", 150)):
        network = build_model(NetworkConfig(network=name), classes)
        gradients = 4 * sum(part.numel() for part in network.parameters())
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        statistic_bytes = 4 * sum(4 * part.num_features + 1 for part in norms)  # there and back
        for count, (words, bandwidth) in CLUSTERS.items():
            def milliseconds(size, calls):
                hops = 2 * math.ceil(math.log2(count))  # noqa: B023 - called here
                return 1000 * (calls * hops * LATENCY + above * share(count) * size / bandwidth)  # noqa: B023

            update = 3 * 4 * classes
            lines.append(f"| {name}, {classes} | {words} | {above * share(count) * gradients / 1e6:,.0f} | "
                         f"{milliseconds(gradients, 1):.2f} | {update} | {milliseconds(update, 1):.2f} | "
                         f"{milliseconds(statistic_bytes, 2 * len(norms)):.1f} |")
    return "\n".join(lines)
