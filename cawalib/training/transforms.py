"""From pairs to what the network sees: augmentation with torchvision's kernels, repeatable image by image.

The random numbers and the arithmetic are those of torchvision's transforms v2 (RandomResize, RandomCrop,
RandomHorizontalFlip, ColorJitter, Normalize; `tests/test_transforms.py` compares to the last bit). Its transform
objects are left out: on small images they take as long as the work itself. Everything up to the normalisation is done
on bytes, and the normalisation once for the whole batch.
"""

from __future__ import annotations

import zlib

import torch
from torch.utils.data import Dataset

from cawalib.datasets import IGNORE, SegmentationDataset
from cawalib.settings import DataConfig, EvaluationConfig, TrainingConfig
from cawalib.training.sampling import CROP_SHARE, Draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as every pretrained encoder expects
MEAN_COLOUR = torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8)[:, None, None]
VOID = torch.tensor(IGNORE, dtype=torch.uint8)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# no change of hue: it costs more time than all the rest together
COLOUR_KERNELS = {BRIGHTNESS: "adjust_brightness_image", CONTRAST: "adjust_contrast_image",
                  SATURATION: "adjust_saturation_image"}
COLOUR_CHANGE = 0.4  # factors are drawn from 1 - 0.4 to 1 + 0.4


def _kernels():
    """torchvision's functions on images; imported when one is made: it takes as long as torch itself."""
    from torchvision.transforms.v2 import functional

    return functional


def augment(image: torch.Tensor, labels: torch.Tensor, data: DataConfig,
            training: TrainingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scale, crop, flip and colour as in torchvision's segmentation reference; or only a resize.

    The short side becomes scale_min to scale_max times `short_side` (or the short side of the network's input); then a
    crop of that input's size is cut, filled up with the mean colour and ignored labels where the image is too small.

    Args:
        image: (3, H, W) uint8.
        labels: (H, W) uint8.

    Returns:
        image (3, h, w) uint8, labels (h, w) uint8, at the size of the network's input.
    """
    size = [data.image_height, data.image_width]
    if not training.augment:
        return _kernels().resize_image(image, size), _kernels().resize_mask(labels, size)
    short = base_size(data)
    scaled = [int(torch.randint(round(short * training.scale_min), round(short * training.scale_max) + 1, ()))]
    image, labels = _kernels().resize_image(image, scaled), _kernels().resize_mask(labels, scaled)
    image, labels = random_crop(image, labels, size, training.largest_class_share)
    if torch.rand(1) < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    return _random_colour(image.contiguous()), labels


def random_crop(image: torch.Tensor, labels: torch.Tensor, size: tuple[int, int],
                largest_class_share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A random part (3, h, w) and (h, w) of an image and its labels, filled up where they are smaller than that.

    A crop of which one class covers more than a share of the labelled pixels is drawn again, ten times at most, as in
    the recipes for Cityscapes and ADE20K. Empty crops are taken as they are.
    """
    for _ in range(10):
        place = [_random_start(*lengths) for lengths in zip(labels.shape, size, strict=True)]
        part = _cut(labels, *place, VOID.expand(*size))
        if largest_class_share == 1:
            break
        counts = torch.bincount(part.flatten(), minlength=256)[:IGNORE]
        if counts.max() <= largest_class_share * counts.sum():
            break
    return _cut(image, *place, MEAN_COLOUR.expand(3, *size)), part


def _random_start(length, wanted):
    """A side that is too short is filled up at both ends by what it lacks, and cut again somewhere."""
    lacking = max(0, wanted - length)
    room = length + 2 * lacking - wanted
    return (int(torch.randint(0, room + 1, ())) if room else 0) - lacking


def _cut(image, top, left, empty):
    """The part (..., h, w) of an image that begins at (top, left), and `empty` where there is no image."""
    height, width = empty.shape[-2:]
    inside = image[..., max(0, top):top + height, max(0, left):left + width]
    if inside.shape == empty.shape:
        return inside
    canvas = empty.clone()
    canvas[..., max(0, -top):, max(0, -left):][..., :inside.shape[-2], :inside.shape[-1]] = inside
    return canvas


def _random_colour(image):
    """Brightness, contrast and saturation, in random order."""
    order = torch.randperm(4).tolist()
    low, high = 1 - COLOUR_CHANGE, 1 + COLOUR_CHANGE
    factors = {change: torch.empty(1).uniform_(low, high).item() for change in COLOUR_KERNELS}
    for change in order:
        if change in COLOUR_KERNELS:
            image = getattr(_kernels(), COLOUR_KERNELS[change])(image, factors[change])
    return image


def base_size(data: DataConfig) -> int:
    """The short side of images, in pixels, before they are scaled at random."""
    return data.short_side or min(data.image_height, data.image_width)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Images (..., 3, h, w) uint8 as the network sees them: float32, minus the mean, over the deviation of ImageNet."""
    scaled = _kernels().to_dtype_image(images, torch.float32, scale=True)
    return _kernels().normalize_image(scaled, MEAN, STD, inplace=True)


class TrainingImages(Dataset):
    """Augmented pairs: image (3, h, w) float32, labels (h, w) int64; several at once with a batch dimension in front.

    The random numbers of a pair come from (seed, epoch, index) alone, so that the number of worker processes,
    the order and an interrupted epoch change nothing. Asked with a `sampling.Draw`, they come from its number as well,
    and the augmentation is drawn again, ten times at most, until enough of the wanted class is left.
    """

    def __init__(self, dataset: SegmentationDataset, data: DataConfig, training: TrainingConfig):
        self.dataset = dataset
        self.data, self.training = data, training
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.__getitems__([item])
        return images[0], labels[0]

    def __getitems__(self, items: list[int | Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, as PyTorch's loader asks for it: images (B, 3, h, w) float32, labels (B, h, w) int64."""
        state = torch.get_rng_state()
        try:
            images, labels = zip(*(self._augmented(item) for item in items), strict=True)
        finally:
            torch.set_rng_state(state)
        return normalised(torch.stack(images)), torch.stack(labels).long()

    def _augmented(self, item):
        draw = item if isinstance(item, Draw) else None
        index = draw.index if draw else item
        image, labels = (torch.from_numpy(array) for array in self.dataset[index])
        # PyTorch's CPU generator takes 32 bits of its seed, so the numbers are hashed into those
        key = f"{self.training.seed} {self.epoch} {index}" + (f" {draw.number}" if draw else "")
        torch.default_generator.manual_seed(zlib.crc32(key.encode()))
        for _ in range(10 if draw else 1):
            result = augment(image.permute(2, 0, 1), labels, self.data, self.training)
            if draw is None or (result[1] == draw.wanted).float().mean() > CROP_SHARE:
                break
        return result


class EvaluationImages(Dataset):
    """Pairs as they are judged: image (3, h, w) uint8, labels (H, W) uint8 at their own size.

    Evaluation "resize": the image at the size of the network's input, whatever that does to its proportions. Else its
    short side becomes the base size.
    """

    def __init__(self, dataset: SegmentationDataset, data: DataConfig, evaluation: EvaluationConfig):
        self.dataset, self.data, self.evaluation = dataset, data, evaluation

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, labels = (torch.from_numpy(array) for array in self.dataset[index])
        return as_judged(image, self.data, self.evaluation), labels


def as_judged(image: torch.Tensor, data: DataConfig, evaluation: EvaluationConfig) -> torch.Tensor:
    """An image (H, W, 3) uint8 at the size at which the network judges it, (3, h, w) uint8; see `EvaluationImages`."""
    whole = evaluation.evaluation == "resize"
    size = [data.image_height, data.image_width] if whole else [base_size(data)]
    return _kernels().resize_image(image.permute(2, 0, 1), size)


def collate_evaluation(pairs):
    """Images (B, 3, h, w) float32 as the network sees them, all of one size, and a list of their labels."""
    images, labels = zip(*pairs, strict=True)
    return normalised(torch.stack(images)), list(labels)


def as_it_is(batch):
    """For a loader whose dataset gives whole batches."""
    return batch
