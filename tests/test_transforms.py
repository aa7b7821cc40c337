"""Augmentation against torchvision's own transform objects, to the last bit."""

import zlib

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from cawalib.datasets import SegmentationDataset
from cawalib.runs import RunConfig
from cawalib.training import MEAN, STD, EvaluationImages, TrainingImages
from cawalib.training.transforms import normalised


def noise(size):
    """Images of noise with labels in blocks, some of them void."""
    def read(index):
        random = np.random.default_rng(index)
        labels = random.integers(0, 4, (size[0] // 8 + 1, size[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)
        labels[labels == 3] = 255
        return random.integers(0, 256, (*size, 3), np.uint8), labels[:size[0], :size[1]].astype(np.uint8)
    return SegmentationDataset("noise", "train", ("a", "b", "c"), ((0, 0, 0),) * 3, 12, read, "")


def to_network():
    return [v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD)]


def reference(config):
    size, short = (config.image_height, config.image_width), config.short_side or min(config.image_height,
                                                                                      config.image_width)
    if not config.augment:
        return v2.Compose([v2.Resize(size), *to_network()])
    fill = {tv_tensors.Image: tuple(round(255 * value) for value in MEAN), tv_tensors.Mask: 255}
    return v2.Compose([
        v2.RandomResize(round(short * config.scale_min), round(short * config.scale_max) + 1),
        v2.RandomCrop(size, pad_if_needed=True, fill=fill), v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4), *to_network()])


def as_torchvision_does(dataset, config, index, epoch):
    image, labels = dataset[index]
    torch.manual_seed(zlib.crc32(f"{config.seed} {epoch} {index}".encode()))
    return reference(config)(tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
                             tv_tensors.Mask(torch.from_numpy(labels)))


@pytest.mark.parametrize("size", [(48, 64), (37, 101), (130, 70)])
@pytest.mark.parametrize("settings", [{}, {"scale_min": 0.3, "scale_max": 0.6}, {"scale_min": 1.5}, {"augment": False},
                                      {"short_side": 100, "evaluation": "whole"}])
def test_training_images_are_torchvisions(size, settings):
    config = RunConfig(image_height=64, image_width=96, seed=5, **settings)
    dataset = noise(size)
    images = TrainingImages(dataset, config, config)
    images.epoch = 3
    batch = images.__getitems__(list(range(12)))
    assert batch[0].dtype == torch.float32 and batch[1].dtype == torch.int64
    for index in range(12):
        expected = as_torchvision_does(dataset, config, index, epoch=3)
        assert torch.equal(batch[0][index], expected[0]) and torch.equal(batch[1][index], expected[1])
        assert all(torch.equal(*parts) for parts in zip(images[index], expected, strict=True))


@pytest.mark.parametrize("settings", [{}, {"evaluation": "whole", "short_side": 40}])
def test_evaluation_images_are_torchvisions(settings):
    config = RunConfig(image_height=64, image_width=96, **settings)
    dataset = noise((48, 64))
    size = (64, 96) if config.evaluation == "resize" else 40
    expected, _ = v2.Compose([v2.Resize(size), *to_network()])(
        tv_tensors.Image(torch.from_numpy(dataset[0][0]).permute(2, 0, 1)), tv_tensors.Mask(torch.zeros(48, 64)))
    image, labels = EvaluationImages(dataset, config, config)[0]
    assert torch.equal(normalised(image), expected) and np.array_equal(labels, dataset[0][1])
