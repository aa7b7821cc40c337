"""From pairs to what the network sees: augmentation on torchvision v2, repeatable image by image."""

from __future__ import annotations

import zlib

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from cawalib.datasets import IGNORE, SegmentationDataset
from cawalib.settings import DataConfig, EvaluationConfig, TrainingConfig
from cawalib.training.sampling import CROP_SHARE, Draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as every pretrained encoder expects


class RandomCropOfClasses(v2.RandomCrop):
    """A random crop of which no class covers more than a share of the labelled pixels.

    A crop that does is drawn again, ten times at most, as in the recipes for Cityscapes and ADE20K. Empty crops are
    taken as they are.
    """

    def __init__(self, size, largest_class_share: float, fill: dict):
        super().__init__(size, pad_if_needed=True, fill=fill)
        self.largest_class_share = largest_class_share

    def make_params(self, flat_inputs):
        labels = next(part for part in flat_inputs if isinstance(part, tv_tensors.Mask))
        for _ in range(10):
            params = super().make_params(flat_inputs)
            counts = torch.bincount(self.transform(labels, params).flatten(), minlength=256)[:IGNORE]
            if counts.max() <= self.largest_class_share * counts.sum():
                break
        return params


def training_transform(data: DataConfig, training: TrainingConfig) -> v2.Transform:
    """Random scale, crop, flip and colour as in torchvision's segmentation reference; or only a resize.

    The short side becomes scale_min to scale_max times `short_side` (or the short side of the network's input); then a
    crop of that input's size is cut, filled up with the mean colour and ignored labels where the image is too small.
    """
    size = (data.image_height, data.image_width)
    steps = [v2.Resize(size, antialias=True)]
    if training.augment:
        short = base_size(data)
        fill = {tv_tensors.Image: tuple(round(255 * value) for value in MEAN), tv_tensors.Mask: IGNORE}
        crop = v2.RandomCrop(size, pad_if_needed=True, fill=fill)
        if training.largest_class_share < 1:
            crop = RandomCropOfClasses(size, training.largest_class_share, fill)
        steps = [
            v2.RandomResize(round(short * training.scale_min), round(short * training.scale_max) + 1, antialias=True),
            crop,
            v2.RandomHorizontalFlip(),
            # no change of hue: it costs more time than all the rest together
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        ]
    return v2.Compose([*steps, *_to_network()])


def base_size(data: DataConfig) -> int:
    """The short side of images, in pixels, before they are scaled at random."""
    return data.short_side or min(data.image_height, data.image_width)


def evaluation_transform(data: DataConfig, evaluation: EvaluationConfig) -> v2.Transform:
    """The image at the size it is judged at; the labels are left at their own.

    Evaluation "resize": the size of the network's input, whatever that does to its proportions. Else its short side
    becomes the base size.
    """
    size = (data.image_height, data.image_width) if evaluation.evaluation == "resize" else base_size(data)
    return v2.Compose([v2.Resize(size, antialias=True), *_to_network()])


def _to_network():
    return [v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD)]


class TrainingImages(Dataset):
    """Augmented pairs: image (3, h, w) float32, labels (h, w) int64.

    The random numbers of a pair come from (seed, epoch, index) alone, so that the number of worker processes,
    the order and an interrupted epoch change nothing. Asked with a `sampling.Draw`, they come from its number as well,
    and the augmentation is drawn again, ten times at most, until enough of the wanted class is left.
    """

    def __init__(self, dataset: SegmentationDataset, data: DataConfig, training: TrainingConfig):
        self.dataset = dataset
        self.transform = training_transform(data, training)
        self.seed = training.seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        draw = item if isinstance(item, Draw) else None
        index = draw.index if draw else item
        image, labels = self.dataset[index]
        state = torch.get_rng_state()
        # PyTorch's CPU generator takes 32 bits of its seed, so the numbers are hashed into those
        key = f"{self.seed} {self.epoch} {index}" + (f" {draw.number}" if draw else "")
        torch.default_generator.manual_seed(zlib.crc32(key.encode()))
        try:
            image, labels = self._augmented(_image(image), tv_tensors.Mask(torch.from_numpy(labels)), draw)
        finally:
            torch.set_rng_state(state)
        return image.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)

    def _augmented(self, image, labels, draw):
        for _ in range(10 if draw else 1):
            result = self.transform(image, labels)
            if draw is None or (result[1] == draw.wanted).float().mean() > CROP_SHARE:
                break
        return result


class EvaluationImages(Dataset):
    """Pairs as they are: image (3, h, w) float32, see `evaluation_transform`; labels (H, W) uint8 at their own size."""

    def __init__(self, dataset: SegmentationDataset, data: DataConfig, evaluation: EvaluationConfig):
        self.dataset = dataset
        self.transform = evaluation_transform(data, evaluation)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, labels = self.dataset[index]
        return self.transform(_image(image)).as_subclass(torch.Tensor), torch.from_numpy(labels)


def collate_evaluation(pairs):
    """Images stacked (B, 3, h, w) where they are of one size, else a list; labels a list."""
    images, labels = zip(*pairs, strict=True)
    same = len({image.shape for image in images}) == 1
    return torch.stack(images) if same else list(images), list(labels)


def _image(array):
    return tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1))
