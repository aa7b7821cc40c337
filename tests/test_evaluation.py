"""Judging images of any size: windows, chunks of classes and padding change nothing that they should not."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from cawalib.datasets.base import SegmentationDataset
from cawalib.datasets.statistics import ClassStatistics, survey
from cawalib.runs import RunConfig
from cawalib.training import (
    EvaluationImages,
    SegmentationModel,
    build_accelerator,
    evaluate,
    sample_predictions,
    whole_logits,
)
from cawalib.training.evaluation import _richest_in_tail, slide
from cawalib.training.transforms import augment, random_crop


def pixelwise(images):
    """Logits that depend on the pixel alone, so that windows and padding cannot matter."""
    return torch.cat([images, images.flip(1) * 2 - 1], dim=1)


@pytest.mark.parametrize("size", [(32, 64), (33, 64), (50, 100), (20, 40), (130, 65), (32, 30)])
def test_windows_cover_every_pixel(size):
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(slide(pixelwise, images, (32, 64)), pixelwise(images))


def test_windows_overlap_by_a_quarter_and_are_averaged():
    places, number = [], iter(range(100))

    def forward(window):
        """As many as the number of the window."""
        places.append(tuple(window.shape[-2:]))
        return torch.full((1, 1, *window.shape[-2:]), float(next(number)))

    found = slide(forward, torch.zeros(1, 3, 32, 112), (32, 64))[0, 0]
    assert places == [(32, 64)] * 2  # from 0 and from 48
    expected = torch.cat([torch.zeros(48), torch.full((16,), 0.5), torch.ones(48)])
    torch.testing.assert_close(found[0], expected)
    number = iter(range(100))
    config = RunConfig(image_height=32, image_width=64, evaluation="slide")
    found = whole_logits(forward, torch.zeros(1, 3, 32, 160), config)[0, 0]
    assert places == [(32, 64)] * 5  # from 0, 48 and 96
    expected = torch.tensor([0.0] * 48 + [0.5] * 16 + [1.0] * 32 + [1.5] * 16 + [2.0] * 48)
    torch.testing.assert_close(found[0], expected)


class Pixelwise(SegmentationModel):
    """Judges each pixel by its colour: red is class 0, green 1, blue 2."""

    def __init__(self):
        super().__init__(torch.nn.Identity(), torch.nn.Conv2d(3, 3, 1, bias=False))
        self.classifier.weight.data = torch.eye(3)[:, :, None, None]


def coloured_squares(sizes):
    """Images of three coloured stripes in several sizes, labelled by colour."""
    pairs = []
    for height, width in sizes:
        labels = (np.arange(width) * 3 // width)[None].repeat(height, axis=0).astype(np.uint8)
        pairs.append((np.eye(3, dtype=np.uint8)[labels] * 255, labels))
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    dataset = SegmentationDataset("stripes", "val", ("red", "green", "blue"), colours, len(pairs),
                                  partial(list.__getitem__, pairs), "digest")
    return dataclasses.replace(dataset, survey=survey(dataset))


@pytest.mark.parametrize("mode, short_side", [("resize", 0), ("whole", 48), ("slide", 48), ("whole", 0)])
def test_images_of_any_size_are_judged_at_their_own(mode, short_side):
    dataset = coloured_squares([(48, 72), (60, 48), (100, 150), (48, 301)])
    config = RunConfig(image_height=32, image_width=64, evaluation=mode, short_side=short_side, device="cpu")
    accelerator = build_accelerator(config)
    metrics = evaluate(Pixelwise(), dataset, dataset.survey.statistics, config, accelerator)
    assert np.sum(metrics["confusion"]) == 48 * 72 + 60 * 48 + 100 * 150 + 48 * 301
    assert metrics["pixel_accuracy"] > 0.97  # all but the borders of the stripes
    samples = sample_predictions(Pixelwise(), dataset, dataset.survey.statistics, config, accelerator)
    assert samples["maps"].shape == (4, 3, 32, 64) and samples["present"].all()
    assert (samples["predictions"] == samples["labels"]).mean() > 0.95
    # the map of a colour is where the colour is, also where the image was padded
    on = samples["maps"].astype(float)
    inside = samples["labels"][:, None] == np.arange(3)[:, None, None]
    assert on[inside].mean() > 200


def test_networks_are_judged_and_pictured_in_evaluation_mode():
    flags = []

    class Watched(Pixelwise):
        def features(self, images):
            flags.append(self.training)
            return super().features(images)

    dataset, config = coloured_squares([(32, 64)] * 2), RunConfig(image_height=32, image_width=64, device="cpu")
    model = Watched().train()
    for judge in (evaluate, sample_predictions):
        judge(model, dataset, dataset.survey.statistics, config, build_accelerator(config))
        assert flags and not any(flags) and model.training
        flags.clear()


def test_samples_are_the_images_with_the_most_pixels_of_tail_classes():
    shares = (0, 20, 10, 50, 30, 5)  # pixels of the rarest class, of 100
    pairs = [(np.zeros((10, 10, 3), np.uint8), np.r_[[2] * share, [0] * (100 - share)].astype(np.uint8).reshape(10, 10))
             for share in shares]
    read = partial(list.__getitem__, pairs)
    dataset = SegmentationDataset("test", "val", tuple("abc"), ((0, 0, 0),) * 3, 6, read, "")
    statistics = ClassStatistics(tuple("abc"), np.array([900, 90, 10]), np.array([9, 9, 3]), np.full(3, 900), 9)
    assert _richest_in_tail(dataset, statistics).tolist() == [3, 4, 1, 2]


def test_whole_images_keep_their_proportions():
    dataset = coloured_squares([(48, 96), (60, 48)])
    config = RunConfig(evaluation="whole", short_side=32)
    assert [EvaluationImages(dataset, config, config)[index][0].shape for index in (0, 1)] == [(3, 32, 64), (3, 40, 32)]
    assert [EvaluationImages(dataset, config, config)[index][1].shape for index in (0, 1)] == [(48, 96), (60, 48)]


def test_no_class_above_its_share_of_a_crop():
    torch.manual_seed(0)
    labels = torch.zeros(64, 256, dtype=torch.uint8)
    labels[:, 200:] = 1  # a crop of 64 pixels far to the left holds class 0 alone
    both = {}
    for limit in (0.75, 1.0):
        shares = []
        for _ in range(200):
            picture, mask = random_crop(labels.expand(3, -1, -1), labels, (64, 64), limit)
            assert torch.equal(picture[0], mask)  # image and labels are cut at one place
            shares.append(float(torch.bincount(mask.flatten().long(), minlength=2).max()) / mask.numel())
        both[limit] = np.mean(np.array(shares) > 0.75)
    # by hand: of the 193 places, the 33 from 152 to 184 hold at most 75 % of one class; drawn ten times at most
    assert both[1.0] == pytest.approx(1 - 33 / 193, abs=0.1)
    assert both[0.75] == pytest.approx((1 - 33 / 193) ** 10, abs=0.1)


def test_void_is_left_out_of_the_share_of_a_crop():
    labels = torch.full((64, 256), 255, dtype=torch.uint8)
    labels[:, ::8], labels[:, 1::8] = 0, 1  # three quarters void, of the rest half and half
    image = torch.arange(256, dtype=torch.uint8).expand(3, 64, -1)
    first = []
    for limit in (1.0, 0.6):
        torch.manual_seed(2)
        first.append(random_crop(image, labels, (64, 64), limit)[0])
    assert torch.equal(*first)  # no crop was drawn again


def test_void_does_not_count_as_a_class_of_a_crop():
    labels = torch.full((64, 64), 255, dtype=torch.uint8)
    _, mask = random_crop(torch.zeros(3, 64, 64, dtype=torch.uint8), labels, (32, 32), 0.75)
    assert mask.shape == (32, 32)


def test_scale_is_relative_to_the_short_side():
    config = RunConfig(image_height=32, image_width=32, short_side=64, evaluation="whole", scale_min=1.0, scale_max=1.0)
    labels = torch.arange(128, dtype=torch.uint8)[None].repeat(64, 1) // 4  # 32 stripes of 4 pixels
    _, mask = augment(torch.zeros(3, 64, 128, dtype=torch.uint8), labels, config, config)
    assert len(mask.unique()) in (8, 9)  # 32 pixels of stripes that are still 4 pixels wide
