"""What tells data from other data: the contents of all files, each read once and remembered by its size and times."""

from __future__ import annotations

import contextlib
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cawalib.files import content_sum, sha256, write_json
from cawalib.progress import progress

REMEMBERED_FROM = 2**28  # bytes of all files; of fewer it takes less than a second to read them again
READERS = 4  # threads; hashing lets go of Python's lock


def pairs_digest(pairs, mapping: bytes, kept_in=None) -> str:
    """SHA-256 over the names and contents of all files, and over how their labels are mapped to classes.

    Args:
        pairs: list of (image path, label path).
        mapping: of the labels.
        kept_in: folder that remembers what was read of large data; None: it is read again each time.
    """
    paths = [Path(path) for pair in pairs for path in pair]
    known_by = {path: _state(path) for path in paths}
    large = kept_in is not None and sum(state[0] for state in known_by.values()) >= REMEMBERED_FROM
    table = _table(kept_in, paths) if large else None
    known = _read(table) if large else {}
    unread = [path for path in paths if known.get(str(path), [None])[:-1] != known_by[path]]
    with ThreadPoolExecutor(READERS) as pool:
        bar = progress(pool.map(sha256, unread), len(unread), "reading files, for their digest", delay=2)
        known |= {str(path): [*known_by[path], digest] for path, digest in zip(unread, bar, strict=True)}
    if large and unread:
        with contextlib.suppress(OSError):  # a folder that cannot be written costs the reading again
            table.parent.mkdir(parents=True, exist_ok=True)
            write_json(table, {"files": known, "checksum": content_sum(known)})
    digest = hashlib.sha256(mapping)
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name} {known[str(path)][-1]}\n".encode())
    return digest.hexdigest()


def _state(path):
    """What changes when a file is written: its size, and its times, of which no program can set back the second."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _table(folder, paths):
    return Path(folder, "digests", hashlib.sha256(str(paths[0].resolve()).encode()).hexdigest()[:16] + ".json")


def _read(table):
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged: made anew
        kept = json.loads(table.read_text())
        if kept["checksum"] == content_sum(kept["files"]):
            return kept["files"]
    return {}
