"""What it costs to tell data by the contents of their files: the first time, and every time after.

    python benchmarks/digests.py --folder /a/disk/with/9/GB

Files of noise, in the numbers and sizes of 20,000 small ones (ADE20K has 22,210 pairs) and of Cityscapes (2,975 pairs
to train, 500 to validate). They have just been written, and lie in the system's cache if it is large enough: from a
disk the first time takes as long as reading them does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd

from cawalib.datasets.digests import pairs_digest

SHAPES = {"20,000 small files": (10_000, 45_000, 6_000), "as Cityscapes": (3_475, 2_350_000, 30_000)}


def write(folder: Path, pairs: int, image_bytes: int, label_bytes: int) -> list[tuple[Path, Path]]:
    """Pairs of files that all differ."""
    image, labels, found = os.urandom(image_bytes), os.urandom(label_bytes), []
    folder.mkdir()
    for number in range(pairs):
        pair = folder / f"{number}.jpg", folder / f"{number}.png"
        for path, content in zip(pair, (image, labels), strict=True):
            path.write_bytes(number.to_bytes(8, "big") + content)
        found.append(pair)
    return found


def seconds(job) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where the files are written, and removed again; nothing: a temporary one")
    parser.add_argument("--share", type=float, default=1.0, help="of the files")
    options = parser.parse_args()
    rows = []
    for name, (count, image_bytes, label_bytes) in SHAPES.items():
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        pairs = write(folder / "files", max(1, round(count * options.share)), image_bytes, label_bytes)
        total = sum(path.stat().st_size for pair in pairs for path in pair)
        read = seconds(lambda pairs=pairs: [path.read_bytes() for pair in pairs for path in pair])
        first, after = (seconds(lambda pairs=pairs, folder=folder: pairs_digest(pairs, b"", folder)) for _ in "12")
        rows.append({"data": name, "files": f"{2 * len(pairs):,}", "GB": f"{total / 1e9:.2f}",
                     "reading alone (s)": f"{read:.1f}", "digest, first (s)": f"{first:.1f}",
                     "digest, after (s)": f"{after:.2f}", "first, times reading": f"{first / read:.2f}",
                     "after, times first": f"{after / first:.2f}"})
        shutil.rmtree(folder)
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
