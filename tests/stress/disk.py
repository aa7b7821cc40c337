"""A disk that is full at some moment of a run: named, nothing half-written taken as done; with more room it goes on."""

import os
import shlex
import subprocess
import sys

from ground import OUTCOMES, finish, numbers, one_line


def can_mount() -> bool:
    """Whether this process may mount a small file system, by itself or in a name space of its own."""
    return subprocess.run([*_AS_ROOT, "true"], capture_output=True).returncode == 0


_AS_ROOT = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
IN_SMALL_ROOM = """
mount -t tmpfs -o size={room}k none {folder} || exit 99
{python} {call} 2>&1; echo "exit status $?"
mount -o remount,size=200m {folder}
echo "more room"
{python} {call} 2>&1; echo "exit status $?"
cp -r {folder}/. {kept}
umount {folder}
"""


def full_disks(place, folder, tally, sizes, expected) -> None:
    """One run of notebook 02 for each size, of a run's own size in percent."""
    for percent in sizes:
        room, kept = folder / f"room{percent}", folder / f"kept{percent}"
        room.mkdir(parents=True), kept.mkdir()
        run = place.runs(room)[0]
        call = shlex.join(place.notebook(run, room / "out.ipynb"))
        script = IN_SMALL_ROOM.format(room=max(4, percent * _size(place, folder) // 100), folder=room, kept=kept,
                                      python=sys.executable, call=call)
        process = place.start("-c", f"import os, sys; os.execvp({(_AS_ROOT + ['sh'])[0]!r}, "
                              f"{_AS_ROOT + ['sh', '-c', script]!r})", stdin=subprocess.DEVNULL)
        _, output = finish(process)
        first, _, second = output.partition("more room")
        same = numbers(kept / run.folder.relative_to(room)) == expected[0] and second.endswith("exit status 0\n")
        status = first.rpartition("exit status ")[2].strip()
        told = one_line(first.rpartition("exit status")[0], "No space left on device", "disk is full")
        if not same or (status != "0" and not told):
            outcome = OUTCOMES[2]
        else:
            outcome = OUTCOMES[0] if status == "0" else OUTCOMES[1]
        tally.add("a full disk", outcome, f"room for {percent} % of a run, exit status {status}, "
                  f"same numbers afterwards: {same}, {first[-700:]}, {second[-300:]}")


def _size(place, folder) -> int:
    """Of a finished run with its notebook, in KiB; the one that was made in peace."""
    run = place.runs(folder.parent / "peace")[0].folder
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) // 1024
