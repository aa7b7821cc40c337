"""METHOD.md sections 1 to 4, moved by hand: tau, image, class, layer, kind of map and epoch, and all that follows.

Every number comes from the functions that training calls. The network's weights after every epoch, and the maps that
were asked for, are kept in memory, so that a move takes little longer than its picture (`explorer_panel`).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from cawalib.datasets import IGNORE, ClassStatistics, SegmentationDataset
from cawalib.method import (
    RunningScore,
    basic_weight,
    cawa_weight,
    class_activation_maps,
    count,
    csps,
    evaluation_mode,
    layer_activation_maps,
    present_classes,
    pseudo_masks,
    ratio_weight,
    score_labels,
)
from cawalib.progress import progress, say
from cawalib.runs import RunConfig
from cawalib.settings import DataConfig, MethodConfig, TrainingConfig, check_choice
from cawalib.training import (
    Training,
    TrainingImages,
    build_accelerator,
    check,
    load_checked,
    memory_errors,
    set_up,
    training_step,
)

LAYERS = {"small": ("decoder", "body.fuse.1", "body.down.2", "body.down.0")}  # of a network, from its end on
KINDS = MethodConfig.__dataclass_fields__["cam_kind"].metadata["choices"]
TAUS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
CANDIDATES = 200  # images of a large split among which the batch is chosen: reading all of it would take minutes
VISIBLE = 0.001  # share of an image's pixels that a class needs to be seen in it
MAPS_BYTES = 2**28  # of maps that are kept
COUNTS = ("TP", "FP", "FN", "TN")
TITLES = {"name": "class", "kind": "kind of map"}  # of controls, where it is not their name
PARTS = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}


@dataclass(frozen=True)
class Pick:
    """Where the controls stand."""

    name: str  # of the class
    image: int  # its number in the batch, from 1
    tau: float
    layer: str
    kind: str
    epoch: int  # from 1


@dataclass
class Explorer:
    """A network as it was after every epoch of its training, and a batch of validation images."""

    config: RunConfig
    dataset: SegmentationDataset
    statistics: ClassStatistics  # of the training split
    network: torch.nn.Module
    weights: list[dict[str, torch.Tensor]]  # the network's state after every epoch
    states: list[torch.Tensor]  # (4, C) for every epoch: training's S, BW, RW and w after it
    images: torch.Tensor  # (B, 3, H, W) float32, as the network sees them
    labels: torch.Tensor  # (B, H, W) int64, 255 = ignore
    layers: tuple[str, ...]
    _maps: dict[tuple, torch.Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def train(cls, config: RunConfig, images: int = 6, layers: tuple[str, ...] | None = None) -> Explorer:
        """Train a run in memory only, nothing is written, and choose validation images by their labels.

        Args:
            images: B, those that show the most tail classes.
            layers: that can be picked: "decoder" and names of modules; None: some of the small network, or "decoder".

        Raises:
            ConfigError, DatasetError, RunError: as `training.train`, before any work.
            ValueError: a layer that is not there, or not on the way to the last classifier.
        """
        layers = tuple(dict.fromkeys((config.target_layer, *(layers or LAYERS.get(config.network, ("decoder",))))))
        for layer in layers:
            check(config.replace(target_layer=layer))
        datasets = load_checked(config)
        with memory_errors(config):
            training = set_up(config, datasets, build_accelerator(config))
            weights, states = zip(*[_one_epoch(training) for _ in range(config.epochs)], strict=True)
            # the bare network, without the autocast that Accelerate puts around it
            network = training.accelerator.unwrap_model(training.model, keep_fp32_wrapper=False,
                                                        keep_torch_compile=False)
        chosen = _richest(datasets["val"], training.statistics, images)
        # at the size of the network's input, and nothing drawn at random
        batch = TrainingImages(datasets["val"], config.part(DataConfig), TrainingConfig(augment=False))
        pixels, labels = (part.to(training.accelerator.device) for part in batch.__getitems__(chosen))
        return cls(config, datasets["val"], training.statistics, network, list(weights), list(states), pixels, labels,
                   layers)

    # where the controls can stand

    @cached_property
    def grid_labels(self) -> torch.Tensor:
        """Labels on the score grid (B, h, w)."""
        return score_labels(self.labels, self.config.score_stride)

    @cached_property
    def classes(self) -> torch.Tensor:
        """The classes present in the batch, on the score grid, (P,) int64."""
        return present_classes(self.grid_labels)

    @cached_property
    def choices(self) -> dict[str, tuple]:
        """Control -> where it can stand; the classes from the rarest in training on."""
        rarest = sorted(self.classes.tolist(), key=lambda index: self.statistics.pixels[index])
        return {"name": tuple(self.dataset.classes[index] for index in rarest),
                "image": tuple(range(1, len(self.images) + 1)),
                "tau": tuple(sorted({*TAUS, self.config.pseudo_mask_threshold})), "layer": self.layers, "kind": KINDS,
                "epoch": tuple(range(1, len(self.weights) + 1))}

    def pick(self, **given) -> Pick:
        """The controls where they are told to stand. Left alone: the rarest class, the image with most of it, the run's
        tau, layer and kind, the last epoch.

        Raises:
            ConfigError: no such control, or one that cannot stand there.
        """
        picked = {"name": self.choices["name"][0], "tau": self.config.pseudo_mask_threshold,
                  "layer": self.config.target_layer, "kind": self.config.cam_kind, "epoch": len(self.weights)}
        for control, value in given.items():
            check_choice("control", control, tuple(self.choices))
            named = {str(choice): choice for choice in self.choices[control]}
            check_choice(control, str(value), tuple(named))
            picked[control] = named[str(value)]
        pixels = (self.labels == self.dataset.classes.index(picked["name"])).sum(dim=(1, 2))
        return Pick(**{"image": int(pixels.argmax()) + 1} | picked)

    # what follows from where they stand

    def maps(self, epoch: int, layer: str, kind: str) -> torch.Tensor:
        """Class activation maps (B, P, h, w) of the present classes, in [0, 1], at the layer's size, on the CPU."""
        return self._kept(self.network, (epoch, layer, kind))

    def _kept(self, network, key):
        found = self._maps.get(key)
        if found is None:
            found = self._looked(network, *key).cpu()
            while self._maps and _bytes(self._maps) + found.nbytes > MAPS_BYTES:
                self._maps.pop(next(iter(self._maps)), None)
            self._maps[key] = found
        return found

    def _looked(self, network, epoch, layer, kind):
        network.load_state_dict(self.weights[epoch - 1])
        if layer != "decoder":
            return layer_activation_maps(network, layer, self.images, self.classes, kind=kind)
        with torch.no_grad(), evaluation_mode(network):
            features = network.features(self.images)
        return class_activation_maps(features, network.classifier, self.classes, kind=kind)

    def all_maps(self) -> Iterator[torch.Tensor]:
        """All maps that can be asked for, one by one, the last epoch's first, as long as there is room to keep them.

        They come from a copy of the network, so that another thread can have them made.
        """
        network = copy.deepcopy(self.network)
        keys = itertools.product(reversed(self.choices["epoch"]), self.layers, KINDS)
        room = itertools.takewhile(lambda _: _bytes(self._maps) < 0.9 * MAPS_BYTES, keys)
        return (self._kept(network, key) for key in room)

    def masks(self, pick: Pick) -> torch.Tensor:
        """Pseudo masks (B, P, h, w) bool of the present classes, on the score grid."""
        return pseudo_masks(self.maps(pick.epoch, pick.layer, pick.kind), pick.tau, self.grid_labels.shape[-2:],
                            self.config.exclusive_masks)

    def numbers(self, pick: Pick) -> pd.DataFrame:
        """Of every class, over all images of the batch: four counts, the parts of CSPS, CSPS, and S, BW, RW and w.

        S is what one update with this batch makes of CSPS: a class that is not in it has the mean of the others.
        """
        labels, classes = self.grid_labels.cpu(), self.classes.cpu()
        counts = count(self.masks(pick), labels, classes, len(self.dataset.classes), self.config.absent_images)
        parts, running = tuple(self.config.score_parts.split(",")), RunningScore(len(counts))
        running.update(csps(counts, parts), counts[:, 0] + counts[:, 2] > 0)
        score = running.value()
        columns = dict(zip(("TP", "FP", "FN"), counts.T, strict=True))
        columns["TN"] = (labels != IGNORE).sum() - counts.sum(dim=1)
        columns |= {PARTS[part]: csps(counts, (part,)) for part in parts}
        columns |= {"CSPS": csps(counts, parts), "S": score, "BW": basic_weight(score), "RW": ratio_weight(score),
                    "weight": cawa_weight(score, self.config.weight_terms)}
        table = pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=self.dataset.classes)
        return table.astype(dict.fromkeys(COUNTS, int))

    def training_state(self, epoch: int) -> pd.DataFrame:
        """S, BW, RW and w of every class as training had them after an epoch."""
        return pd.DataFrame(self.states[epoch - 1].T.cpu().numpy(), self.dataset.classes, ["S", "BW", "RW", "weight"])

    def sentence(self, pick: Pick, table: pd.DataFrame) -> str:
        """The picked class's numbers in words; the table is from `numbers`."""
        row, trained = table.loc[pick.name], self.training_state(pick.epoch).loc[pick.name]
        counts = ", ".join(f"{name} {row[name]:,.0f}" for name in COUNTS)
        parts = ", ".join(f"{name} {row[name]:.3f}" for name in PARTS.values() if name in row)
        return (f"{pick.name}: {counts}; {parts}: CSPS {row['CSPS']:.3f}; BW {row['BW']:.2f}, RW {row['RW']:.2f}: "
                f"weight {row['weight']:.2f}. In training, after epoch {pick.epoch}: S {trained['S']:.3f}, weight "
                f"{trained['weight']:.2f}.")

    def sweep(self, control: str, values=None, **given) -> pd.DataFrame:
        """The picked class's numbers while one control moves, all its places or some, and the others stand still."""
        check_choice("control", control, tuple(self.choices))
        places = self.choices[control] if values is None else values
        picks = [self.pick(**given | {control: value}) for value in places]
        rows = [self.numbers(pick).loc[pick.name] for pick in picks]
        table = pd.DataFrame(rows, index=pd.Index(places, name=TITLES.get(control, control))).round(3)
        return table.astype(dict.fromkeys(COUNTS, int))

    def answer(self, control: str, first, last, **given) -> str:
        """What moving one control does to the picked class, in words, and where its CSPS is largest."""
        table, name = self.sweep(control, **given), self.pick(**given).name
        table["mask"] = table["TP"] + table["FP"]
        before, after = table.loc[first], table.loc[last]
        moves = [f"{column} from {before[column]:,{digits}} to {after[column]:,{digits}}" for column, digits in
                 (("mask", ".0f"), ("precision", ".2f"), ("recall", ".2f"), ("CSPS", ".2f"), ("weight", ".2f"))
                 if column in table]
        return (f"{name}, {control} from {first} to {last}: {', '.join(moves)}. Its CSPS is largest at {control} "
                f"{table['CSPS'].idxmax()}, {table['CSPS'].max():.2f}.")


def _bytes(maps):
    return sum(part.nbytes for part in list(maps.values()))  # a list: another thread may add to them


def _one_epoch(training: Training) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Train an epoch and write nothing; the network's state after it, and S, BW, RW and w (4, C)."""
    training.model.train()
    training.loader.set_epoch(training.epoch)
    training.loader.dataset.epoch = training.epoch
    steps, total = training.batches, 0.0
    bar = progress(itertools.islice(training.loader, steps), steps, f"epoch {training.epoch + 1}, step")
    for images, labels in bar:
        total += training_step(training, images, labels)
        training.batch += 1
    training.epoch, training.batch = training.epoch + 1, 0
    say(f"epoch {training.epoch:3d}: loss {float(total) / steps:.3f}")
    network = {name: values.detach().clone() for name, values in training.network.state_dict().items()}
    return network, training.criterion.weighting.state().cpu()


def _richest(dataset, statistics, count):
    """Indices of the images in whose labels most tail classes can be seen, then most classes; of a large split, of some
    evenly spread ones."""
    tail = statistics.groups["pixels"]["tail"]

    def richness(index):
        labels = dataset[index][1]
        pixels = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:len(statistics.classes)]
        seen = [statistics.classes[place] for place in np.flatnonzero(pixels > VISIBLE * labels.size)]
        return len(set(seen) & set(tail)), len(seen)

    some = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), CANDIDATES)).round().astype(int)).tolist()
    return sorted(some, key=richness, reverse=True)[:count]
