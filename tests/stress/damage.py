"""A bit turned round, or a file cut, in any file that is read back: named, or without effect."""

import contextlib
import io

from ground import OUTCOMES
from test_damage import damaged, read, same

from cawalib.datasets import DatasetError, load_datasets, prepared
from cawalib.predict import load_network
from cawalib.runs import ARCHIVE, RunError, read_archive, write_archive
from cawalib.settings import ConfigError, DataConfig
from cawalib.training import read_checkpoint, read_network, train

ERRORS = (RunError, ConfigError, DatasetError)


def targets(place, folder):
    """(name, file, what reads it) of every file that a run or somebody who uses one reads back."""
    config = place.runs(folder / "outputs")[2].replace(epochs=2)
    with contextlib.redirect_stdout(io.StringIO()):
        run = train(config)
    export = run.export(folder / "network.safetensors")
    write_archive(folder / ARCHIVE, [run])
    streets = DataConfig(dataset="streets", data_root=str(folder / "drawn"), image_height=32, image_width=64)
    load_datasets(streets)

    def pixels(data):
        found = load_datasets(data)
        return {split: [found[split].digest, *(array for index in range(4) for array in found[split][index])]
                for split in found}

    pairs = load_datasets(config.part(DataConfig))["train"]
    shard = next(prepared.write(pairs, folder / "prepared").glob(prepared.SHARDS))

    def once_more():
        with contextlib.redirect_stdout(io.StringIO()):
            return train(config).metrics

    found = [(name, run.folder / name, lambda: read(run.folder)) for name in
             ("config.json", "environment.json", "history.csv", "class_weights.csv", "samples.npz", "metrics.json")]
    found += [("checkpoint", run.folder / "checkpoint" / "last.pt",
               lambda: read_checkpoint(run.folder / "checkpoint" / "last.pt")),
              ("network in a file", export, lambda: [read_network(export), load_network(export).classes]),
              ("archive of a study", folder / ARCHIVE, lambda: [
                  (one.metrics, one.history, one.class_weights, one.environment)
                  for one in read_archive(folder / ARCHIVE).values()]),
              ("drawn streets", next((folder / "drawn").rglob("train*.npz")), lambda: pixels(streets)),
              ("decoded pairs", shard, lambda: [prepared.find(pairs, folder / "prepared")(index)
                                                for index in range(len(pairs))]),
              ("an image", place.data / "images" / "train03.png", once_more),
              ("a mask", place.data / "masks" / "train03.png", once_more),
              ("classes.csv", place.data / "classes.csv", once_more)]
    return found


def damage(place, folder, tally, random, count) -> None:
    """`count` times: one file, one place, one reader; the file is mended afterwards."""
    found = targets(place, folder)
    expected = [reader() for _, _, reader in found]
    for number in range(count):
        name, path, reader = found[number % len(found)]
        content = path.read_bytes()
        path.write_bytes(damaged(content, random))
        try:
            unchanged = same(reader(), expected[number % len(found)])
            outcome, what = OUTCOMES[0] if unchanged else OUTCOMES[2], "read as something else"
        except ERRORS as error:
            outcome, what = OUTCOMES[1] if "\n" not in str(error) else OUTCOMES[2], str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it does not name the file
            outcome, what = OUTCOMES[2], f"{type(error).__name__}: {error}"
        path.write_bytes(content)
        tally.add("a bit turned round or a file cut", outcome, f"{name}: {what}")
