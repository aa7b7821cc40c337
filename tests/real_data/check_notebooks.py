"""The notebooks 01 and 03 on real files of every benchmark, and on somebody's own: one epoch of training on each.

As in a batch: by jobs of one warm process, since a dozen processes would spend most of their time on imports.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from cawalib.notebook import warm

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SMALL = {"epochs": 1, "image_height": 64, "image_width": 64}
# folder -> dataset, settings of 03: each way to resize, to evaluate and to crop once
RUNS = {
    "cityscapes": ("cityscapes", SMALL | {"image_width": 128, "batch_size": 2, "short_side": 128, "evaluation": "whole",
                                          "largest_class_share": 0.75}),
    "cityscapes-256": ("cityscapes", SMALL | {"image_width": 128, "train_images": 32}),
    "cocostuff": ("cocostuff", SMALL | {"batch_size": 4, "short_side": 96, "evaluation": "slide"}),
    # there are validation pairs only, so that only a smoke run can be made of them
    "ade20k": ("ade20k", SMALL | {"batch_size": 2, "evaluation": "whole", "smoke": True}),
    "10k": ("cocostuff10k", SMALL | {"batch_size": 4, "data_workers": 2}),
    "own": ("folder", SMALL | {"batch_size": 4, "val_fraction": 0.3}),
}
PAIRS = {"cityscapes": (4, 4), "cityscapes-256": (372, 122), "cocostuff": (8, 4), "ade20k": (0, 2), "10k": (5, 3),
         "own": (7, 3)}


def data_root(folder, place):
    """Where a dataset is; the 10k lists are laid beside links to real files, the own images are made."""
    if folder == "own":
        own_images(place / "own images")
        return place / "own images"
    if folder == "10k" and (DATA / "cocostuff").is_dir():
        root = place / "10k lists"
        for kind in ("images", "annotations"):
            (root / kind).mkdir(parents=True)
            (root / kind / "train2017").symlink_to(DATA / "cocostuff" / kind / "train2017")
        (root / "imageLists").mkdir()
        names = sorted(path.stem for path in (root / "images" / "train2017").iterdir())
        (root / "imageLists" / "train.txt").write_text("\n".join(f"COCO_train2014_{name}" for name in names[:5]))
        (root / "imageLists" / "test.txt").write_text("\n".join(names[5:]))
        return root
    return DATA / folder


def own_images(root):
    colours = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200)], np.uint8)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.csv").write_text("name,colour\nground,0 0 0\nred thing,200 0 0\nblue thing,#0000c8\n")
    for number in range(10):
        labels = np.zeros((70, 90 + number), np.uint8)
        labels[10:30, 20:40], labels[50:60, 5 * number:5 * number + 20] = 1, 2
        Image.fromarray(colours[labels] // 2 + 60).save(root / "images" / f"photo {number}.jpg")
        Image.fromarray(colours[labels]).save(root / "masks" / f"photo {number}.png")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(folder, notebook) -> a future of its finished process."""
    process = warm.start()
    socket = os.environ.pop(warm.VARIABLE, "")  # for these jobs alone
    place = tmp_path_factory.mktemp("real")
    roots = {folder: root for folder in RUNS if (root := data_root(folder, place)).is_dir()}

    def run(folder, notebook, settings):
        output = place / f"{folder}-{notebook}.ipynb"
        settings = {"dataset": RUNS[folder][0], "data_root": str(roots[folder]), "outputs_root": str(place / folder),
                    "prepared_root": str(place / "prepared")} | settings
        command = [sys.executable, "-m", "cawalib.notebook", f"notebooks/{notebook}.ipynb", str(output)]
        if folder not in ("cityscapes", "cocostuff"):  # the walk-through on the most images and the most classes
            command += ["--leave-out", "walk-through"]
        command += [word for name, value in settings.items() for word in ("-p", name, str(value))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                              env=os.environ | {"OMP_NUM_THREADS": "1", warm.VARIABLE: socket})
        return done, output, place / folder

    with ThreadPoolExecutor(1) as pool:  # the other core has tests of its own
        jobs = {(folder, notebook): pool.submit(run, folder, notebook, settings if "03" in notebook else {
            name: settings[name] for name in ("val_fraction",) if name in settings})
                for folder, (_, settings) in RUNS.items() if folder in roots
                for notebook in ("01_data_preparation", "03_cawa_training")}
        if "ade20k" in roots:
            jobs["ade20k", "02_baseline"] = pool.submit(run, "ade20k", "02_baseline", RUNS["ade20k"][1])
        yield jobs
    if process:
        process.communicate()  # closes its standard input


def result_of(executed, folder, notebook):
    if (folder, notebook) not in executed:
        pytest.skip(f"real {folder} is not at ../shared/data/{folder} beside this repository")
    done, output, outputs = executed[folder, notebook].result()
    assert done.returncode == 0, done.stdout + done.stderr
    return nbformat.read(output, as_version=4), outputs


@pytest.mark.parametrize("folder", RUNS)
def test_preparation(executed, folder):
    notebook, outputs = result_of(executed, folder, "01_data_preparation")
    shown = "\n".join(str(output.get("data", {}).get("text/html", output.get("text", "")))
                      for cell in notebook.cells for output in cell.get("outputs", []))
    for split, pairs in zip(("train", "val"), PAIRS[folder], strict=True):
        if pairs:
            assert ("a part: " in shown or folder == "own") and f">{pairs}<" in shown, split
    assert ("missing; expected images/training and annotations/training" in shown) == (folder == "ade20k")
    dataset, split = RUNS[folder][0], "" if PAIRS[folder][0] else "_val"
    assert (outputs / "tables" / dataset / f"class_statistics{split}.csv").is_file()
    for name in ("class_frequencies", "co_occurrence"):
        assert (outputs / "figures" / dataset / f"{name}.pdf").stat().st_size > 5000


@pytest.mark.parametrize("folder", RUNS)
def test_one_epoch(executed, folder):
    _, outputs = result_of(executed, folder, "03_cawa_training")
    [path] = (outputs / "runs" / RUNS[folder][0] / "cawa").rglob("metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["epochs"] == 1 and metrics["smoke"] == (folder == "ade20k")
    assert len(metrics["classes"]) == {"cocostuff": 171, "10k": 171, "ade20k": 150, "own": 3}.get(folder, 19)
    pixels = {"cityscapes": 4 * 2048 * 1024, "cityscapes-256": 122 * 256 * 128}.get(folder)
    judged = sum(map(sum, metrics["splits"]["val"]["confusion"]))
    assert judged > 0 and (pixels is None or 0.8 * pixels < judged <= pixels)  # at the labels' full size, less void


def test_a_baseline_where_only_validation_pairs_are(executed):
    _, outputs = result_of(executed, "ade20k", "02_baseline")
    assert len(list((outputs / "runs" / "ade20k" / "inverse_sqrt").rglob("metrics.json"))) == 1
