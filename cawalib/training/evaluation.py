"""What a trained network does on a split: its metrics, and a few pictures to look at."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from cawalib.datasets import ClassStatistics, SegmentationDataset
from cawalib.method import class_activation_maps, evaluation_mode
from cawalib.progress import progress
from cawalib.runs import RunConfig
from cawalib.settings import DataConfig, EvaluationConfig
from cawalib.training.decisions import Line, Tally, line_of, with_others
from cawalib.training.metrics import summary
from cawalib.training.models import SegmentationModel
from cawalib.training.transforms import EvaluationImages, collate_evaluation, normalised

SMOKE_BATCHES = 2  # all that a smoke run sees of a split
SAMPLE_IMAGES = 4
SAMPLE_CANDIDATES = 200
PICTURE_SIDE = 256  # pixels


@torch.no_grad()
def evaluate(model: SegmentationModel, dataset: SegmentationDataset, statistics: ClassStatistics, config: RunConfig,
             accelerator: Accelerator, line: Line | None = None) -> dict:
    """All metrics of a dataset at the labels' full resolution, see `metrics.summary`; several processes share it.

    Args:
        model: the bare network, on the accelerator's device; its train/eval flags are left as they are.
        statistics: of the training split, for head, body and tail.
        line: what else the network is judged by, under "decision" (`decisions.Tally.result`); None: as trained alone.
    """
    tally = Tally(line, len(dataset.classes), accelerator.device)
    with evaluation_mode(model):
        for images, labels in _batches(dataset, config, accelerator):
            for logits, truth in zip(_logits(model, images, config, accelerator), labels, strict=True):
                tally.add(logits, truth.to(logits.device))
    tally.confusions = accelerator.reduce(tally.confusions, "sum")
    tally.bins = {alpha: accelerator.reduce(bins.to(accelerator.device), "sum").cpu()
                  for alpha, bins in tally.bins.items()}
    return summary(tally.confusion, statistics) | ({} if line is None else {"decision": tally.result()})


def move_line(model: SegmentationModel, dataset: SegmentationDataset, statistics: ClassStatistics, config: RunConfig,
              accelerator: Accelerator, costs: torch.Tensor | None) -> Line:
    """How the decisions of a trained network are to be moved when it is judged.

    Args:
        dataset: the training split, from whose images, not augmented, a line is fitted where settings ask for it.
        costs: see `criterion.Criterion.costs`.
    """
    line = line_of(costs, statistics, accelerator.device, config.ranked)
    if config.other_decisions:
        shares = torch.as_tensor(statistics.pixels, dtype=torch.float32, device=accelerator.device).clamp_min(1)
        network = _Judged(model, config, accelerator)
        line = with_others(line, network, _batches(dataset, config), shares / shares.sum())
    return line


class _Judged(torch.nn.Module):
    """A network as `evaluate` calls it."""

    def __init__(self, model, config, accelerator):
        super().__init__()
        self.model, self.config, self.accelerator = model, config, accelerator

    def forward(self, images):
        return _logits(self.model, images, self.config, self.accelerator)


def _batches(dataset, config, shared_by=None):
    """Normalised images and their labels; has a length. Of this process's part alone, if an Accelerator shares it."""
    # images of one size go through the network together; whole ones one by one, as memory asks
    batch = config.batch_size if config.evaluation == "resize" else 1
    seen = range(len(dataset))[:SMOKE_BATCHES * batch if config.smoke else None]
    if shared_by is not None:
        seen = seen[shared_by.process_index::shared_by.num_processes]
        batch = max(1, batch // shared_by.num_processes)
    loader = DataLoader(Subset(_images(dataset, config), seen), batch, collate_fn=collate_evaluation,
                        num_workers=config.data_workers, generator=torch.Generator())
    return progress(loader, len(loader), "evaluating", delay=1)


def _images(dataset, config):
    return EvaluationImages(dataset, config.part(DataConfig), config.part(EvaluationConfig))


def _logits(model, images, config, accelerator):
    """Logits (B, C, h, w) float32 at the images' size."""
    return whole_logits(lambda part: _forward(model, part, accelerator), images.to(accelerator.device), config)


def whole_logits(forward, images: torch.Tensor, config: RunConfig) -> torch.Tensor:
    """Logits (B, C, h, w) at the images' size, as a run is judged: in one piece, or as the mean over windows.

    Args:
        forward: images (B, 3, h, w), sides multiples of 32 -> logits (B, C, h, w).
        images: (B, 3, h, w) float32, normalised.
        config: the run's.
    """
    if config.evaluation == "slide":
        return slide(forward, images, (config.image_height, config.image_width))
    if config.evaluation == "whole":
        height, width = images.shape[-2:]
        return forward(_padded(images))[..., :height, :width]
    return forward(images)


def _padded(images):
    """Filled up below and on the right to multiples of 32, since networks halve their input up to five times.

    With 0, the mean colour; what stands on it is to be cut off again.
    """
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % 32, 0, -height % 32))


def _forward(model, images, accelerator):
    with accelerator.autocast():
        return model(images.contiguous(memory_format=torch.channels_last)).float()


def slide(forward, images: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Mean logits over windows that lie over the whole image, a quarter of each over its neighbour.

    Args:
        forward: (B, 3, *window) -> (B, C, *window).
        images: (B, 3, H, W); smaller ones than the window are filled up with 0 and cut again.
        window: height and width in pixels.

    Returns:
        (B, C, H, W).
    """
    height, width = images.shape[-2:]
    images = functional.pad(images, (0, max(0, window[1] - width), 0, max(0, window[0] - height)))
    total, count = None, torch.zeros(images.shape[-2:], device=images.device)
    for top in _starts(images.shape[-2], window[0]):
        for left in _starts(images.shape[-1], window[1]):
            place = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            logits = forward(images[place])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *images.shape[-2:])
            total[place] += logits
            count[place] += 1
    return (total / count)[..., :height, :width]


def _starts(length, window):
    """First pixels of the windows along one side; the last window ends where the image does."""
    step = max(1, window * 3 // 4)
    return [*range(0, length - window, step), length - window]


@torch.no_grad()
def sample_predictions(model: SegmentationModel, dataset: SegmentationDataset, statistics: ClassStatistics,
                       config: RunConfig, accelerator: Accelerator) -> dict[str, np.ndarray]:
    """A few images with labels, predictions and maps, all at one small size (see `Run.samples`).

    Those with the most pixels of tail classes: chosen by their labels, never by how well they came out. They go
    through the network as in `evaluate`, and are brought to the picture's size then. The maps are of the whole image,
    where windows are used of one brought down to a window's area, which is what fits in memory.
    """
    chosen = _richest_in_tail(dataset, statistics)
    images, size = _images(dataset, config), _picture_size(config.part(DataConfig))
    samples = {name: [] for name in ("images", "labels", "predictions", "maps", "present")}
    with evaluation_mode(model):
        for index in chosen:
            image = normalised(images[index][0])[None].to(accelerator.device)
            labels = _nearest(torch.from_numpy(dataset[index][1]), size)
            predicted = _logits(model, image, config, accelerator)[0].max(dim=0).indices
            present = torch.isin(torch.arange(len(dataset.classes)), labels)
            samples["images"].append(_resized(dataset[index][0], size))
            samples["labels"].append(labels)
            samples["predictions"].append(_nearest(predicted.cpu().byte(), size))
            samples["maps"].append(activation_maps(model, image, present, size, config))
            samples["present"].append(present)
    return {name: torch.stack(parts).numpy() for name, parts in samples.items()}


def _at_most(image, pixels):
    """An image (1, 3, h, w) brought down to so many pixels."""
    scale = (pixels / (image.shape[-2] * image.shape[-1])) ** 0.5
    if scale >= 1:
        return image
    size = [max(1, int(side * scale)) for side in image.shape[-2:]]
    return functional.interpolate(image, size, mode="bilinear", antialias=True)


def activation_maps(model: SegmentationModel, image: torch.Tensor, present: torch.Tensor, size: tuple[int, int],
                    config: RunConfig) -> torch.Tensor:
    """Class activation maps (C, *size) uint8, 255 = 1, on the CPU; those of classes that are not present are 0.

    Args:
        model: in evaluation mode.
        image: (1, 3, h, w) float32, normalised.
        present: (C,) bool.
        config: the run's; where it judges in windows, the maps are of one image brought down to a window's area.
    """
    if config.evaluation == "slide":
        image = _at_most(image, config.image_height * config.image_width)
    padded = _padded(image)
    # the maps cover what was filled up as well, so they are made larger by as much, and cut
    larger = [round(side * after / before)
              for side, before, after in zip(size, image.shape[-2:], padded.shape[-2:], strict=True)]
    features = model.features(padded.contiguous(memory_format=torch.channels_last))
    classes = present.nonzero()[:, 0].to(image.device)
    maps = torch.zeros(len(present), *size, dtype=torch.uint8)
    found = class_activation_maps(features, model.classifier, classes, larger)[0, :, :size[0], :size[1]]
    maps[present] = (found * 255).round().byte().cpu()
    return maps


def _picture_size(data):
    """The network's input size, brought down to at most 256 pixels a side."""
    scale = min(1, PICTURE_SIDE / max(data.image_height, data.image_width))
    return round(data.image_height * scale), round(data.image_width * scale)


def _richest_in_tail(dataset, statistics):
    # of a large split, some evenly spread pairs: reading all of it again would take minutes
    some = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), SAMPLE_CANDIDATES)).round().astype(int))
    tail = [statistics.classes.index(name) for name in statistics.groups["pixels"]["tail"]]
    share = [np.isin(dataset[index][1], tail).mean() for index in some]
    return some[np.argsort(-np.asarray(share), kind="stable")[:SAMPLE_IMAGES]]


def _nearest(labels, size):
    return functional.interpolate(labels[None, None], size, mode="nearest")[0, 0]


def _resized(image, size):
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    tensor = functional.interpolate(tensor, size, mode="bilinear", antialias=True)
    return tensor[0].permute(1, 2, 0).round().clamp(0, 255).byte()
