"""Two calls at once: the second one waits for the first, and none is kept out by one that was killed."""

import os
import subprocess
import sys
import time

import filelock
import pytest

from cawalib.runs import RunError, alone, claim, locks

HOLDER = """
import sys
from cawalib.runs import alone
lock = alone(sys.argv[1], "tiny")
print("mine", flush=True)
sys.stdin.readline()
"""


def call(folder):
    return subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)


def test_a_second_call_waits_and_says_for_whom(tmp_path):
    first = call(tmp_path)
    assert first.stdout.readline() == "mine\n"
    second = call(tmp_path)
    who = f"process {first.pid} on {os.uname().nodename}"
    assert second.stdout.readline() == f"study 'tiny': {who} is computing it in {tmp_path}; waiting for it to end\n"
    time.sleep(0.3)
    assert second.poll() is None
    first.communicate("\n")
    assert second.stdout.readline() == "mine\n"
    second.kill()  # leaves its lock behind, which counts for nothing
    second.wait()
    alone(tmp_path, "tiny").release()
    other = alone(tmp_path, "another study")  # other studies are not kept waiting
    other.release()


def test_a_place_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="outputs folder .*file: cannot be locked for study 'tiny' .File exists"):
        alone(tmp_path / "file", "tiny")

    def no_locks(lock, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    with pytest.raises(RunError, match="cannot be locked for study 'tiny' .FileSystem does not app"):
        alone(tmp_path, "tiny")


MOUNTS = """22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:27 / {0} rw,relatime shared:2 - {1} server:/home {2}
"""


@pytest.mark.parametrize("kind, options, named", [
    ("nfs4", "rw,vers=4.2,local_lock=none", ""),
    ("nfs", "rw,vers=3,nolock,local_lock=all", "nfs, local_lock=all, nolock"), ("lustre", "rw,flock", ""),
    ("lustre", "rw,localflock", "lustre, localflock"), ("fuse.sshfs", "rw", "fuse.sshfs"),
    ("cifs", "rw,nobrl", "cifs, nobrl"), ("ext4", "rw", "")])
def test_a_mount_that_keeps_its_locks_to_itself_is_told(tmp_path, monkeypatch, kind, options, named):
    place = tmp_path / "a mount"
    (tmp_path / "mountinfo").write_text(MOUNTS.format(str(place).replace(" ", "\\040"), kind, options))
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "mountinfo")
    assert locks.private_mount(place / "runs" / ".lock") == (named and f"its mount {place} ({named})")
    assert locks.private_mount(tmp_path / ".lock") == ""
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "none")  # another system
    assert locks.private_mount(place / "runs" / ".lock") == ""


def test_where_locks_do_not_pass_who_was_there_from_another_machine_is_not_overrun(tmp_path, monkeypatch):
    left = '{"host": "elsewhere", "process": 12}'
    (tmp_path / "config.json").write_text("{}")  # of an empty folder nothing is left, see test_training.py
    (tmp_path / ".lock").write_text(left)
    with claim(tmp_path):  # its lock would be seen, so that process was killed
        assert os.uname().nodename in (tmp_path / ".lock").read_text()
    assert (tmp_path / ".lock").read_text() == ""
    monkeypatch.setattr(locks, "private_mount", lambda path: "its mount /home (nfs, nolock)")
    with claim(tmp_path):
        pass
    (tmp_path / ".lock").write_text(left)
    refused = (r"\.lock: process 12 on elsewhere was at it when last seen, and its mount /home .nfs, nolock. does not "
               "pass locks on to other machines; if nothing runs there any more, delete this file")
    for _ in range(2):
        with pytest.raises(RunError, match=refused), claim(tmp_path):
            pass
    (tmp_path / ".lock").unlink()
    with claim(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} on .* is writing this run"), \
            claim(tmp_path):
        pass


def test_a_study_is_waited_for_and_others_are_not(tmp_path, monkeypatch):
    asked = []

    def acquire(lock, blocking=True):
        asked.append((lock.lock_file, blocking))
        if not blocking:
            raise filelock.Timeout(lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    for study in ("tiny", "other"):
        alone(tmp_path, study)
    assert [blocking for _, blocking in asked] == [False, True, False, True] and len(set(dict(asked))) == 2


# ---------------------------------------------------------------- one process a run

@pytest.fixture
def kept(monkeypatch):
    """Keeps every lock object, so that none is given free because nobody has it any more."""
    kept, make = [], filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", lambda *place, **named: kept.append(make(*place, **named)) or kept[-1])
    return kept


def test_a_run_is_written_by_one_and_given_free_whatever_happens(tmp_path, kept):
    folder = tmp_path / "run"
    with claim(folder):
        (folder / "written").touch()
        with pytest.raises(RunError, match="run folder .*run: process .* is writing this run"), claim(folder):
            pass
    with pytest.raises(ValueError), claim(folder):
        raise ValueError
    with claim(folder):
        assert len(kept) == 4
    # the lock stays: whoever waits has this file open, and another one would let two in
    assert {path.name for path in folder.iterdir()} == {"written", ".lock"}


def test_a_run_refused_before_it_began_leaves_no_trace(tmp_path):
    with claim(tmp_path / "out" / "runs" / "data" / "method" / "hash" / "seed0"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    (tmp_path / "out" / "runs" / "data" / "other").mkdir(parents=True)
    with claim(tmp_path / "out" / "runs" / "data" / "method" / "hash" / "seed0"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "runs", "data", "other"]
