"""Network namespaces as machines: each has one address, and a counter of all bytes that it sends."""

import os
import subprocess
from contextlib import contextmanager

PORT = "29511"


def missing() -> str:
    """Why there can be none, in one line; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        done = subprocess.run("ip link add cwtest type veth peer name cwtest2 && ip link del cwtest", shell=True,
                              capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else f"network namespaces: {' '.join(done.stderr.split())} (Debian: iproute2)"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def machines(count: int):
    """As many namespaces, each on a veth pair whose other ends a bridge joins. Yields what starts torchrun in them.

    Two are joined by one veth pair, without a bridge.
    """
    names = [f"cawaseg{number}" for number in range(count)]
    try:
        for name in names:
            ip("netns", "add", name)
        if count == 2:
            ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        else:
            ip("link", "add", "cawaseg", "type", "bridge")
            ip("link", "set", "cawaseg", "up")
        for number, name in enumerate(names):
            if count > 2:
                ip("link", "add", f"cawaseg{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", f"cawaseg{number}", "master", "cawaseg", "up")
            ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", name, "link", "set", device, "up")

        def command(number):
            """The start of a command on one machine: torchrun with one process there."""
            return ["ip", "netns", "exec", names[number], "env", "GLOO_SOCKET_IFNAME=eth0"], \
                ["--nnodes", str(count), "--node-rank", str(number), "--nproc-per-node", "1",
                 "--master-addr", "10.77.0.1", "--master-port", PORT]

        yield command
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", "cawaseg"], capture_output=True)
