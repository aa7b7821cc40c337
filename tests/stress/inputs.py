"""Calls that cannot be right: exit status, and the last line, which names what was found; no traceback above it."""

import time
from concurrent.futures import ThreadPoolExecutor

from ground import OUTCOMES, finish

LONG = "x" * 300
# parameters of notebook 02 (03 where a setting is of CAWA alone), and what the line must name
TRAINED = [
    ("02", "dataset=nowhere", "dataset"), ("02", "dataset=camvid data_root=nowhere", "nowhere"),
    ("02", "epochs=0", "epochs"), ("02", "epochs=-1", "epochs"), ("02", "epochs=many", "epochs"),
    ("02", "epochs=3.5", "epochs"), ("02", "epoch=3", "epochs"), ("02", "learning_rate=nan", "learning_rate"),
    ("02", "learning_rate=inf", "learning_rate"), ("02", "learning_rate=-1", "learning_rate"),
    ("02", "learning_rate=0", "learning_rate"), ("02", "method=nobody", "method"),
    ("02", "network=nowhere", "network"), ("02", "network=unet encoder=nowhere", "encoder"),
    ("02", "encoder_weights=cifar", "encoder_weights"), ("02", "device=cuda", "device"),
    ("02", "device=tpu", "device"), ("02", "mixed_precision=fp16", "mixed_precision"),
    ("02", "image_height=33", "image_height"), ("02", "image_height=0", "image_height"),
    ("02", "image_width=-32", "image_width"), ("02", "batch_size=0", "batch_size"),
    ("02", "batch_size=100000", "batch_size"), ("02", "seed=-1", "seed"), ("02", "seed=1e3", "seed"),
    ("02", "outputs_root=", "outputs_root"), ("02", "outputs_root=/proc/nowhere", "outputs_root"),
    ("02", f"outputs_root={LONG}", "too long"), ("02", "imbalance=0.5", "imbalance"),
    ("02", "imbalance=x", "imbalance"), ("02", "smoke=maybe", "smoke"), ("02", "smoke=1", "smoke"),
    ("02", "scale_min=2.0 scale_max=1.0", "scale_m"), ("02", "scale_min=0", "scale_min"),
    ("02", "validate_every=0", "validate_every"), ("02", "optimizer=adam", "optimizer"),
    ("02", "weight_decay=-1", "weight_decay"), ("02", "data_workers=-1", "data_workers"),
    ("02", "method=focal focal_gamma=-1", "focal_gamma"),
    ("02", "method=effective_number effective_beta=1.5", "effective_beta"),
    ("02", "method=ohem ohem_threshold=2", "ohem_threshold"), ("02", "focal_gamma=3", "focal_gamma"),
    ("02", "initial_weights=nowhere.safetensors", "initial_weights"),
    ("02", "initial_weights=README.md", "README.md"), ("02", "rare_classes=soft", "rare_classes"),
    ("02", "train_images=-1", "train_images"), ("02", "short_side=-1", "short_side"),
    ("02", "val_fraction=1.5 dataset=folder", "val_fraction"), ("02", "dataset=folder data_root=docs", "docs"),
    ("03", "pseudo_mask_threshold=2.0", "pseudo_mask_threshold"),
    ("03", "pseudo_mask_threshold=0", "pseudo_mask_threshold"), ("03", "score_source=oracle", "score_source"),
    ("03", "score_source=frozen", "not found"), ("03", "target_layer=nowhere", "target_layer"),
    ("03", "score_momentum=1.5", "score_momentum"), ("03", "cam_kind=magic", "cam_kind"),
    ("03", "weight_power=-1", "weight_power"), ("03", "update_every=0", "update_every"),
    ("03", "feedback_images=-1", "feedback_images"), ("03", "score_stride=0", "score_stride"),
    ("03", "warmup_epochs=-1", "warmup_epochs"), ("03", "absent_images=skipp", "absent_images"),
    ("03", "score_parts=iou,iuo", "score_parts"), ("03", "method=none", "method"), ("04", "study=nowhere", "nowhere"),
    ("04", "split=everything", "split"), ("04", "runs_from=nowhere", "runs_from"), ("05", "study=nowhere", "nowhere"),
    ("05", "baseline=nobody runs_from=reference study=evidence group=streets 100", "nobody"),
    ("05", "group=nowhere", "nowhere"), ("05", "split=everything", "split"), ("01", "dataset=nowhere", "dataset"),
    ("01", "dataset=camvid data_root=nowhere", "nowhere"),
    ("01", "val_fraction=0 dataset=folder data_root=nowhere", "val_fraction"),
    ("01", "download=true dataset=camvid", "camvid"), ("07", "network=nowhere", "nowhere"),
    ("07", "point=middle", "point"),
]
NOTEBOOKS = {"01": "01_data_preparation", "02": "02_baseline", "03": "03_cawa_training", "04": "04_ablations",
             "05": "05_figures", "07": "07_own_photographs"}
CASES = [*(("notebook", *case) for case in TRAINED),
         *(("call", *case) for case in [
             ("notebook notebooks/nowhere.ipynb {out}/a.ipynb", "nowhere.ipynb"),
             ("notebook README.md {out}/a.ipynb", "README.md"),
             ("notebook notebooks/02_baseline.ipynb {out}/a.txt", "a.txt"),
             ("notebook notebooks/02_baseline.ipynb {out}/nowhere/a.ipynb", "nowhere"),
             (f"notebook notebooks/02_baseline.ipynb {{out}}/{LONG}.ipynb", "name too long"),
             ("notebook notebooks/02_baseline.ipynb notebooks/02_baseline.ipynb", "other than the notebook itself"),
             ("notebook notebooks/02_baseline.ipynb", "expected NOTEBOOK and OUT"),
             ("notebook notebooks/02_baseline.ipynb {out}/a.ipynb --timeout 0", "timeout"),
             ("notebook notebooks/02_baseline.ipynb {out}/a.ipynb --timeout soon", "timeout"),
             ("notebook notebooks/02_baseline.ipynb {out}/a.ipynb -p seed 1 -p seed 2", "more than once"),
             ("notebook notebooks/02_baseline.ipynb {out}/a.ipynb --fast", "--fast"),
             ("predict nowhere README.md --out {out}/p", "nowhere"),
             ("predict README.md README.md --out {out}/p", "README.md"),
             ("predict nowhere --export {out}/a.onnx", "nowhere"),
             ("predict nowhere README.md --out {out}/p --point middle", "middle"),
             ("results nowhere.csv --baseline none", "nowhere.csv"),
             ("results README.md --baseline none", "README.md"),
             ("results.publish nowhere {out}/p", "nowhere"),
             ("results.publish demo {out}/nowhere --restore", "nowhere"),
         ])]


def bad_inputs(place, folder, tally, count) -> None:
    """The first `count` of them, spread over the list; each is printed with what it said and how long it took."""
    folder.mkdir()
    chosen = [CASES[index * len(CASES) // count] for index in range(count)]
    with ThreadPoolExecutor(2) as pool:
        for words, (code, output, seconds), named in pool.map(lambda case: _one(place, folder, case), chosen):
            lines = [line for line in output.splitlines() if line.strip()]
            last = lines[-1] if lines else ""
            well = code in (1, 2) and named.lower() in last.lower() and not any("Traceback" in line for line in lines)
            print(f"{code} | {seconds:4.1f} s | {words[:90]} | {last[:200]}", flush=True)
            tally.add("bad input", OUTCOMES[1] if well else OUTCOMES[2],
                      f"{words[:120]}: exit status {code}, {len(lines)} lines, the last: {last}")


def _one(place, folder, case):
    kind, *rest, named = case
    if kind == "call":
        words = rest[0].format(out=folder).split(" ")
        words[0] = f"cawalib.{words[0]}"
    else:
        number, given = rest
        pairs = [pair.split("=", 1) for pair in _split(given)]
        words = ["cawalib.notebook", f"notebooks/{NOTEBOOKS[number]}.ipynb", str(folder / "out.ipynb"), "--leave-out",
                 "walk-through", *(word for name, value in pairs for word in ("-p", name, value))]
    started = time.monotonic()
    code, output = finish(place.start("-m", *words))
    shown = f"{rest[0]} {rest[-1]}" if kind == "notebook" else rest[0]
    return shown, (code, output, time.monotonic() - started), named


def _split(given):
    """At spaces before a name and its equals sign alone: values may hold spaces."""
    words = []
    for word in given.split(" "):
        if "=" in word:
            words.append(word)
        else:
            words[-1] += f" {word}"
    return words
