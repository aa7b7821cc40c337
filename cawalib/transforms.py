"""From pairs to what the network sees: augmentation on torchvision v2, repeatable image by image."""

from __future__ import annotations

import zlib

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from cawalib.config import RunConfig
from cawalib.datasets import IGNORE, SegmentationDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as every pretrained encoder expects


def training_transform(config: RunConfig) -> v2.Transform:
    """Random scale, crop, flip and colour as in torchvision's segmentation reference; or only a resize.

    The short side becomes scale_min to scale_max times that of the network's input; then a crop of that
    input's size is cut, filled up with the mean colour and ignored labels where the image is too small.
    """
    size = (config.image_height, config.image_width)
    steps = [v2.Resize(size, antialias=True)]
    if config.augment:
        short = min(size)
        fill = {tv_tensors.Image: tuple(round(255 * value) for value in MEAN), tv_tensors.Mask: IGNORE}
        steps = [
            v2.RandomResize(round(short * config.scale_min), round(short * config.scale_max) + 1, antialias=True),
            v2.RandomCrop(size, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(),
            # no change of hue: it costs more time than all the rest together
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        ]
    return v2.Compose([*steps, *_to_network()])


def evaluation_transform(config: RunConfig) -> v2.Transform:
    """The image at the network's size; the labels are left at their own, where they are judged."""
    return v2.Compose([v2.Resize((config.image_height, config.image_width), antialias=True), *_to_network()])


def _to_network():
    return [v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD)]


class TrainingImages(Dataset):
    """Augmented pairs: image (3, h, w) float32, labels (h, w) int64.

    The random numbers of a pair come from (seed, epoch, index) alone, so that the number of worker processes,
    the order and an interrupted epoch change nothing.
    """

    def __init__(self, dataset: SegmentationDataset, config: RunConfig):
        self.dataset = dataset
        self.transform = training_transform(config)
        self.seed = config.seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, labels = self.dataset[index]
        state = torch.get_rng_state()
        # PyTorch's CPU generator takes 32 bits of its seed, so the three numbers are hashed into those
        torch.default_generator.manual_seed(zlib.crc32(f"{self.seed} {self.epoch} {index}".encode()))
        try:
            image, labels = self.transform(_image(image), tv_tensors.Mask(torch.from_numpy(labels)))
        finally:
            torch.set_rng_state(state)
        return image.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)


class EvaluationImages(Dataset):
    """Pairs as they are: image (3, h, w) float32 at the network's size, labels (H, W) uint8 at their own."""

    def __init__(self, dataset: SegmentationDataset, config: RunConfig):
        self.dataset = dataset
        self.transform = evaluation_transform(config)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, labels = self.dataset[index]
        return self.transform(_image(image)).as_subclass(torch.Tensor), torch.from_numpy(labels)


def collate_evaluation(pairs):
    """Images stacked (B, 3, h, w); labels a list, since their sizes may differ."""
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), list(labels)


def _image(array):
    return tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1))
