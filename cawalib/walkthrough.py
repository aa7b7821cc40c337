"""One batch taken through METHOD.md sections 1 to 5, step by step, for the notebook that teaches the method.

Every number comes from the functions that training calls; nothing is computed in another way here, except by
pytorch-grad-cam, to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from cawalib import illustrations, scoring
from cawalib.cam import class_activation_maps, evaluation_mode
from cawalib.config import RunConfig
from cawalib.datasets import IGNORE, load_datasets
from cawalib.losses import cross_entropy
from cawalib.style import class_colours
from cawalib.training import Training, set_up, training_step
from cawalib.transforms import MEAN, STD
from cawalib.weighting import cawa_weight, weight_table


@dataclass
class Walkthrough:
    """A batch, the network's view of it, and the image of the batch that holds most classes."""

    config: RunConfig
    training: Training
    images: torch.Tensor  # (B, 3, H, W) float32, as the network sees them
    labels: torch.Tensor  # (B, H, W) int64
    features: torch.Tensor  # A (B, K, h, w)
    logits: torch.Tensor  # (B, C, H, W)
    shown: int  # index of the image that is drawn

    @classmethod
    def prepare(cls, config: RunConfig, steps: int = 60) -> Walkthrough:
        """Train `steps` steps in memory only, nothing is written; then take the next batch."""
        training = set_up(config, load_datasets(config))
        batches = _endless(training.loader)
        for _ in range(2 if config.smoke else steps):
            training_step(training, *next(batches))
        images, labels = next(batches)
        network = training.accelerator.unwrap_model(training.model)
        with torch.no_grad(), evaluation_mode(network):
            logits, features = network(images, return_features=True)
        shown = max(range(len(labels)), key=lambda index: len(scoring.present_classes(labels[index])))
        return cls(config, training, images, labels, features, logits, shown)

    @property
    def names(self) -> list[str]:
        """The classes present in the batch, on the score grid."""
        return [self.training.statistics.classes[index] for index in self.classes]

    @property
    def classes(self) -> torch.Tensor:
        return scoring.present_classes(self.grid_labels)

    @property
    def grid_labels(self) -> torch.Tensor:
        """Labels on the score grid (B, h, w)."""
        return scoring.score_labels(self.labels, self.config.score_stride)

    @property
    def head(self) -> torch.nn.Module:
        return self.training.accelerator.unwrap_model(self.training.model).classifier

    # 1 class activation maps

    def show_image(self) -> Figure:
        """The image that is drawn from here on, beside its labels."""
        return illustrations.image_and_labels(self._pixels(), self._cpu(self.labels[self.shown]),
                                              self.training.datasets["train"])

    def maps(self, size: tuple[int, int]) -> torch.Tensor:
        """Maps (B, P, H, W) of the present classes."""
        return class_activation_maps(self.features, self.head, self.classes, size)

    def show_maps(self) -> Figure:
        maps = self._cpu(self.maps(self.labels.shape[-2:])[self.shown])
        return illustrations.map_gallery(self._pixels(), maps, self.names)

    def difference_from_pytorch_grad_cam(self) -> float:
        """Largest absolute difference of any map of the drawn image, at the image's size."""
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

        network = self.training.accelerator.unwrap_model(self.training.model)
        everywhere = np.ones(self.labels.shape[-2:], np.float32)
        one = slice(self.shown, self.shown + 1)
        ours = self._cpu(self.maps(self.labels.shape[-2:])[one])[0]
        with evaluation_mode(network), GradCAM(network, [network.body]) as oracle:
            theirs = [oracle(self.images[one], [SemanticSegmentationTarget(index, everywhere)])[0]
                      for index in self.classes.tolist()]
        return float(np.abs(ours - np.stack(theirs)).max())

    # 2 pseudo masks, 3 counts and score

    @property
    def masks(self) -> torch.Tensor:
        """Pseudo masks (B, P, h, w) on the score grid."""
        return scoring.pseudo_masks(self.maps(self.grid_labels.shape[-2:]), self.config.pseudo_mask_threshold)

    def show_masks(self) -> Figure:
        return illustrations.mask_outcomes(self._cpu(self.masks[self.shown]), self._cpu(self.grid_labels[self.shown]),
                                           self.classes.tolist(), self.names)

    def _counts(self):
        return scoring.count(self.masks, self.grid_labels, self.classes, len(self.training.statistics.classes),
                             self.config.absent_images)[self.classes]

    def counts(self) -> pd.DataFrame:
        """TP, FP, FN and TN per present class, pixels of the score grid over all images."""
        counts = self._cpu(self._counts()).astype(int)
        table = pd.DataFrame(counts, index=self.names, columns=["TP", "FP", "FN"])
        return table.assign(TN=int((self.grid_labels != IGNORE).sum()) - counts.sum(axis=1))

    def scores(self) -> pd.DataFrame:
        """The parts of CSPS and CSPS itself per present class."""
        counts = self._counts()
        parts = self.config.score_parts.split(",")
        table = {part: self._cpu(scoring.csps(counts, (part,))) for part in parts}
        table["CSPS"] = self._cpu(scoring.csps(counts, tuple(parts)))
        return pd.DataFrame(table, index=self.names).round(3)

    # 4 weights, 5 loss

    def _score(self):
        return scoring.csps(self._counts(), tuple(self.config.score_parts.split(",")))

    def show_weights(self) -> Figure:
        data = self.training.datasets["train"]
        return illustrations.weight_bars(weight_table(self.names, self._score().cpu(), self.config.weight_terms),
                                         class_colours(data.classes, data.palette))

    def losses(self) -> pd.DataFrame:
        """Plain and weighted loss of the batch."""
        weight = torch.ones(len(self.training.statistics.classes), device=self.labels.device)
        plain = cross_entropy(self.logits, self.labels, weight)
        weight[self.classes] = cawa_weight(self._score(), self.config.weight_terms)
        weighted = cross_entropy(self.logits, self.labels, weight)
        return pd.DataFrame({"loss": [plain.item(), weighted.item()]},
                            index=["cross entropy", "weighted by BW · RW"]).round(3)

    # helpers

    def _pixels(self):
        image = self.images[self.shown].cpu() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        return (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()

    @staticmethod
    def _cpu(tensor):
        return tensor.cpu().numpy()


def _endless(loader):
    while True:
        yield from loader
