"""What a trained network does on a split: its metrics, and a few pictures to look at."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from cawalib.cam import class_activation_maps, evaluation_mode
from cawalib.config import RunConfig
from cawalib.datasets import SegmentationDataset
from cawalib.datasets.statistics import ClassStatistics
from cawalib.metrics import confusion_matrix, summary
from cawalib.models import SegmentationModel
from cawalib.transforms import EvaluationImages, collate_evaluation

SMOKE_BATCHES = 2  # all that a smoke run sees of a split
SAMPLE_IMAGES = 4


@torch.no_grad()
def evaluate(model: SegmentationModel, dataset: SegmentationDataset, statistics: ClassStatistics, config: RunConfig,
             accelerator: Accelerator) -> dict:
    """All metrics of a dataset at the labels' full resolution, see `metrics.summary`.

    Args:
        model: the bare network, on the accelerator's device; its train/eval flags are left as they are.
        statistics: of the training split, for head, body and tail.
    """
    num_classes = len(dataset.classes)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=accelerator.device)
    loader = DataLoader(EvaluationImages(dataset, config), config.batch_size, collate_fn=collate_evaluation,
                        num_workers=config.data_workers, generator=torch.Generator())
    with evaluation_mode(model):
        for images, labels in itertools.islice(loader, SMOKE_BATCHES if config.smoke else None):
            for logits, truth in zip(_logits(model, images, accelerator), labels, strict=True):
                confusion += confusion_matrix(predict(logits, truth.shape), truth.to(logits.device), num_classes)
    return summary(confusion.cpu().numpy(), statistics)


def predict(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Logits (C, h, w) of one image to the most likely class at every pixel of (H, W), int64."""
    if tuple(logits.shape[-2:]) != tuple(size):
        logits = torch.nn.functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    return logits.argmax(dim=0)


def _logits(model, images, accelerator):
    images = images.to(accelerator.device, memory_format=torch.channels_last)
    with accelerator.autocast():
        return model(images).float()


@torch.no_grad()
def sample_predictions(model: SegmentationModel, dataset: SegmentationDataset, statistics: ClassStatistics,
                       config: RunConfig, accelerator: Accelerator) -> dict[str, np.ndarray]:
    """A few images with labels, predictions and maps, all at the network's size (see `Run.samples`).

    Those with the most pixels of tail classes: chosen by their labels, never by how well they came out.
    """
    chosen = _richest_in_tail(dataset, statistics)
    images = EvaluationImages(dataset, config)
    batch = torch.stack([images[index][0] for index in chosen])
    labels = torch.stack([_nearest(images[index][1], batch.shape[-2:]) for index in chosen])
    classes = torch.arange(len(dataset.classes))
    with evaluation_mode(model):
        predictions = _logits(model, batch, accelerator).argmax(dim=1)
        features = model.features(batch.to(accelerator.device, memory_format=torch.channels_last))
        maps = class_activation_maps(features, model.classifier, classes.to(accelerator.device), batch.shape[-2:])
    present = (labels[:, None] == classes[None, :, None, None]).any(dim=(2, 3))
    maps = (maps.cpu() * present[:, :, None, None] * 255).round()
    pixels = torch.stack([_resized(dataset[index][0], batch.shape[-2:]) for index in chosen])
    return {"images": pixels.numpy(), "labels": labels.numpy(), "predictions": predictions.cpu().byte().numpy(),
            "maps": maps.byte().numpy(), "present": present.numpy()}


def _richest_in_tail(dataset, statistics):
    tail = [statistics.classes.index(name) for name in statistics.groups["pixels"]["tail"]]
    share = [np.isin(dataset[index][1], tail).mean() for index in range(len(dataset))]
    return np.argsort(-np.asarray(share), kind="stable")[:SAMPLE_IMAGES]


def _nearest(labels, size):
    return torch.nn.functional.interpolate(labels[None, None], size, mode="nearest")[0, 0]


def _resized(image, size):
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    tensor = torch.nn.functional.interpolate(tensor, size, mode="bilinear", antialias=True)
    return tensor[0].permute(1, 2, 0).round().clamp(0, 255).byte()
