"""One batch taken through METHOD.md sections 1 to 5, step by step, for the notebook that teaches the method.

Every number comes from the functions that training calls; nothing is computed in another way here, except by
pytorch-grad-cam, to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from cawalib.datasets import IGNORE, SegmentationDataset
from cawalib.method import (
    CAWAWeighting,
    Feedback,
    class_activation_maps,
    cross_entropy,
    csps,
    evaluation_mode,
    find_layer,
    layer_activation_maps,
    present_classes,
    pseudo_masks,
    score_labels,
)
from cawalib.notebook import illustrations
from cawalib.notebook.weight_tables import weight_table
from cawalib.results.figures import class_colours
from cawalib.runs import RunConfig
from cawalib.settings import MethodConfig
from cawalib.training import (
    MEAN,
    STD,
    build_accelerator,
    build_weighting,
    check,
    load_checked,
    memory_errors,
    set_up,
    training_step,
)

VISIBLE = 0.001  # share of an image's pixels that a class needs to be seen in it


@dataclass
class Walkthrough:
    """A batch, the network's view of it, and the image of the batch that holds most classes."""

    config: RunConfig
    dataset: SegmentationDataset
    network: torch.nn.Module
    images: torch.Tensor  # (B, 3, H, W) float32, as the network sees them; at most `feedback_images`
    labels: torch.Tensor  # (B, H, W) int64
    logits: torch.Tensor  # (B, C, H, W)
    features: torch.Tensor  # (B, K, h, w), the last classifier's input
    weighting: CAWAWeighting  # after one update with this batch
    shown: int  # index of the image that is drawn: that with the most rare classes

    @classmethod
    def prepare(cls, config: RunConfig, steps: int = 60) -> Walkthrough:
        """Train `steps` steps in memory only, nothing is written; then take the next batch.

        The score is shown from class activation maps, whatever the run's `score_source` is.

        Raises:
            ConfigError, DatasetError, RunError: as `training.train`, before any work.
        """
        check(config)
        datasets = load_checked(config)
        with memory_errors(config):
            training = set_up(config, datasets, build_accelerator(config))
            batches = _endless(training.loader)
            # never more than the run itself will make
            for _ in range(min(steps, config.epochs * training.batches)):
                training_step(training, *next(batches))
            # by its labels: of the next epoch's batches, at most fifty, the one with an image of the most rare classes
            some = [next(batches) for _ in range(min(50, training.batches))]
            images, labels = max(some, key=lambda batch: max(_richness(image, training.statistics) for image in
                                                             batch[1][:config.feedback_images]))
            images, labels = images[:config.feedback_images], labels[:config.feedback_images]
            # the bare network, without the autocast that Accelerate puts around it
            network = training.accelerator.unwrap_model(training.model, keep_fp32_wrapper=False,
                                                         keep_torch_compile=False)
            return cls._look(config.replace(score_source="cam"), datasets["train"], training.statistics, network,
                             images, labels)

    @classmethod
    def _look(cls, config, dataset, statistics, network, images, labels):
        with torch.no_grad(), evaluation_mode(network):
            logits, features = network(images, return_features=True)
        weighting = build_weighting(config.part(MethodConfig), statistics, epochs=config.epochs).to(images.device)
        weighting.update(Feedback(labels, logits, features, network.classifier, network, images))
        shown = max(range(len(labels)), key=lambda index: _richness(labels[index], statistics))
        return cls(config, dataset, network, images, labels, logits, features, weighting, shown)

    @property
    def grid_labels(self) -> torch.Tensor:
        """Labels on the score grid (B, h, w)."""
        return score_labels(self.labels, self.config.score_stride)

    @property
    def classes(self) -> torch.Tensor:
        """The classes present in the batch, on the score grid, (P,) int64."""
        return present_classes(self.grid_labels)

    @property
    def names(self) -> list[str]:
        return [self.dataset.classes[index] for index in self.classes]

    # 1 class activation maps

    def show_image(self) -> Figure:
        """The image that is drawn from here on, beside its labels."""
        return illustrations.image_and_labels(self._pixels(), _cpu(self.labels[self.shown]), self.dataset)

    def maps(self, size: tuple[int, int] | None = None, closed_form: bool = True) -> torch.Tensor:
        """Maps (B, P, H, W) of the present classes; without a size, that of the layer."""
        kind, layer = self.config.cam_kind, self.config.target_layer
        if layer != "decoder":
            return layer_activation_maps(self.network, layer, self.images, self.classes, size, kind)
        return class_activation_maps(self.features, self.network.classifier, self.classes, size, kind, closed_form)

    @property
    def _order(self) -> list[int]:
        """Places in `classes`, those first that are in the drawn image, the rarest of the dataset in front.

        Where there are more than fit on a page, these are shown.
        """
        drawn = set(present_classes(self.grid_labels[self.shown]).tolist())
        pixels = self.dataset.survey.statistics.pixels
        classes = self.classes.tolist()
        return sorted(range(len(classes)), key=lambda place: (classes[place] not in drawn, pixels[classes[place]]))

    def show_maps(self) -> Figure:
        maps = _cpu(self.maps(self.labels.shape[-2:])[self.shown])
        return illustrations.map_gallery(self._pixels(), maps[self._order], [self.names[i] for i in self._order])

    @cached_property
    def _compared(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Maps (P, H, W) of the drawn image, ours and pytorch-grad-cam's, class by class, and how faint each is (P,).

        Faint is a map whose largest value is small beside the terms that it is the sum of: scaled to [0, 1], it shows
        their rounding errors enlarged by as much.
        """
        from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
        from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

        layer = self.config.target_layer
        layer = self.network.body if layer == "decoder" else find_layer(self.network, layer)
        kind = {"grad_cam": GradCAM, "hires_cam": HiResCAM, "layer_cam": LayerCAM}[self.config.cam_kind]
        everywhere = np.ones(self.labels.shape[-2:], np.float32)
        theirs, faintness = [], []
        with evaluation_mode(self.network), kind(self.network, [layer]) as oracle:
            for index in self.classes.tolist():
                theirs.append(oracle(self.images[[self.shown]], [SemanticSegmentationTarget(index, everywhere)])[0])
                faintness.append(_faintness(oracle.activations_and_grads, self.config.cam_kind))
        return _cpu(self.maps(self.labels.shape[-2:])[self.shown]), np.stack(theirs), np.array(faintness)

    def difference_from_pytorch_grad_cam(self) -> float:
        """Largest absolute difference of any map of the drawn image, relative to the terms of the unscaled map.

        Equal maps differ by rounding, below 1e-4 of the terms that are added up; others by far more.
        """
        ours, theirs, faintness = self._compared
        return float((np.abs(ours - theirs).max(axis=(1, 2)) * faintness).max())

    def show_difference(self) -> Figure:
        """Both maps of some classes of the drawn image, and their absolute difference."""
        some = self._order[:4]
        ours, theirs, _ = self._compared
        return illustrations.map_differences(ours[some], theirs[some], [self.names[i] for i in some])

    # 2 pseudo masks, 3 counts and score

    def show_masks(self) -> Figure:
        masks = pseudo_masks(self.maps(), self.config.pseudo_mask_threshold, self.grid_labels.shape[-2:],
                             self.config.exclusive_masks)
        masks = masks[self.shown]
        return illustrations.mask_outcomes(_cpu(masks)[self._order], _cpu(self.grid_labels[self.shown]),
                                           self.classes[self._order].tolist(), [self.names[i] for i in self._order])

    def _counts(self):
        return self.weighting.count(Feedback(self.labels, self.logits, self.features, self.network.classifier,
                                             self.network, self.images))[self.classes]

    def counts(self) -> pd.DataFrame:
        """TP, FP, FN and TN per present class, pixels of the score grid over all images."""
        counts = _cpu(self._counts()).astype(int)
        table = pd.DataFrame(counts, index=self.names, columns=["TP", "FP", "FN"])
        return table.assign(TN=int((self.grid_labels != IGNORE).sum()) - counts.sum(axis=1))

    def scores(self) -> pd.DataFrame:
        """The parts of CSPS and CSPS itself per present class."""
        counts, parts = self._counts(), tuple(self.config.score_parts.split(","))
        table = {part: _cpu(csps(counts, (part,))) for part in parts}
        return pd.DataFrame(table | {"CSPS": _cpu(csps(counts, parts))}, index=self.names).round(3)

    # 4 weights, 5 loss

    def weights(self) -> pd.DataFrame:
        """Score, BW, RW and weight of every class after this one update."""
        return weight_table(self.dataset.classes, self.weighting.score().cpu(), self.config.weight_terms)

    def show_weights(self) -> Figure:
        return illustrations.weight_bars(self.weights(), class_colours(self.dataset.classes, self.dataset.palette))

    def losses(self) -> pd.DataFrame:
        """Plain and weighted loss of the batch."""
        weights = (torch.ones_like(self.weighting.weight), self.weighting.weight)
        losses = [cross_entropy(self.logits, self.labels, weight).item() for weight in weights]
        return pd.DataFrame({"loss": losses}, index=["cross entropy", "weighted by BW · RW"]).round(3)

    def _pixels(self):
        image = self.images[self.shown].cpu() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        return (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()


def _richness(labels, statistics):
    """How many tail classes labels (H, W) hold enough of to be seen, then how many classes."""
    shares = torch.bincount(labels.flatten(), minlength=256)[:len(statistics.classes)] / labels.numel()
    seen = [statistics.classes[index] for index in (shares > VISIBLE).nonzero()[:, 0].tolist()]
    return len(set(seen) & set(statistics.groups["pixels"]["tail"])), len(seen)


def _faintness(recorded, kind):
    """A map's largest value over the largest sum of the absolute values of its terms, in [0, 1]."""
    activations, gradients = recorded.activations[0], recorded.gradients[0]
    weights = {"grad_cam": gradients.mean(dim=(2, 3), keepdim=True), "hires_cam": gradients,
               "layer_cam": gradients.relu()}[kind]
    terms = weights * activations
    return float(terms.sum(dim=1).relu().max() / terms.abs().sum(dim=1).max().clamp_min(1e-30))


def _cpu(tensor):
    return tensor.cpu().numpy()


def _endless(loader):
    while True:
        yield from loader
