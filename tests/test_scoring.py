"""Pseudo masks, counts, CSPS and the running score against numbers worked by hand."""

import pytest
import torch

from cawalib.method import RunningScore, count, csps, prediction_masks, present_classes, pseudo_masks, score_labels

VOID = 255


def test_threshold_is_inclusive_and_masks_may_overlap():
    maps = torch.tensor([[[[0.49, 0.5]], [[1.0, 0.5]]]])
    assert pseudo_masks(maps, 0.5).tolist() == [[[[False, True]], [[True, True]]]]


def test_exclusive_masks_hold_a_pixel_once():
    maps = torch.tensor([[[[0.49, 0.6, 0.9]], [[1.0, 0.5, 0.8]]]])
    assert pseudo_masks(maps, 0.5, exclusive=True).tolist() == [[[[False, True, True]], [[True, False, False]]]]
    peaks = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    assert pseudo_masks(peaks, 0.5, exclusive=True).sum(dim=1).tolist() == [[[1, 0]]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # two peaks in one place, as often happens, are both 1
        larger = pseudo_masks(torch.rand(2, 5, 4, 6, generator=generator), 0.3, (8, 12), exclusive=True)
        assert larger.shape == (2, 5, 8, 12) and larger.sum(dim=1).max() == 1


def test_threshold_where_the_size_stays():
    maps = torch.tensor([[[[0.6, 0.7, 0.8]]]])
    assert pseudo_masks(maps, 0.7).tolist() == [[[[False, True, True]]]]


# twice as wide, by bilinear upsampling: 0 1/4 3/4 3/4 1/4 0 | 1 3/4 1/4 1/4 3/4 1 | 1 .95 .85 .6 .2 0 | 0 0 0 0 0 0,
# and to [0, 1] again: 0 1/3 1 1 1/3 0 | 1 2/3 0 0 2/3 1 | as it is | as it is, in no mask at all
WIDENED = torch.tensor([[[[0, 1, 0]], [[1, 0, 1]], [[1, 0.8, 0]], [[0, 0, 0]]]])


@pytest.mark.parametrize("threshold, expected", [
    (0.3, [[0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0], [0] * 6]),
    (0.7, [[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 0], [0] * 6])])
def test_maps_of_another_size_are_scaled_again_before_the_threshold(threshold, expected):
    assert pseudo_masks(WIDENED, threshold, (1, 6))[0, :, 0].int().tolist() == expected


def test_exclusive_masks_of_another_size_compare_maps_scaled_again():
    masks = pseudo_masks(WIDENED[:, [0, 2]], 0.5, (1, 6), exclusive=True)
    # at the third pixel 3/4, scaled 1, against 0.85
    assert masks[0, :, 0].int().tolist() == [[0, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_score_grid_takes_every_second_pixel():
    labels = torch.arange(24).reshape(1, 4, 6)
    assert score_labels(labels, 2).tolist() == [[[0, 2, 4], [12, 14, 16]]]


def counts_of(mask, labels, absent_images="count", classes=(0,)):
    masks = torch.tensor(mask, dtype=torch.bool)[:, None]
    return count(masks, torch.tensor(labels), torch.tensor(classes), 3, absent_images)


def test_counts_by_hand():
    # one image, class 0: labels 0 0 0 1 void; mask 1 1 0 1 1  ->  TP 2, FN 1, FP 1, void left out
    counts = counts_of([[[1, 1, 0, 1, 1]]], [[[0, 0, 0, 1, VOID]]])
    assert counts.tolist() == [[2, 1, 1], [0, 0, 0], [0, 0, 0]]
    # the same mask, asked for class 1: TP 1, FP 2
    assert counts_of([[[1, 1, 0, 1, 1]]], [[[0, 0, 0, 1, VOID]]], classes=(1,))[:2].tolist() == [[0, 0, 0], [1, 2, 0]]


def test_images_without_the_class():
    # the second image has no class 0, and its map claims two pixels
    mask, labels = [[[1, 0]], [[1, 1]]], [[[0, 1]], [[1, 2]]]
    assert counts_of(mask, labels, "count")[0].tolist() == [1, 2, 0]
    assert counts_of(mask, labels, "skip")[0].tolist() == [1, 0, 0]


def test_image_all_void():
    assert present_classes(torch.full((2, 3, 3), VOID)).numel() == 0
    assert counts_of([[[1, 1]]], [[[VOID, VOID]]]).sum() == 0


def test_csps_by_hand():
    # TP 6, FP 2, FN 4: IoU 6/12, Dice 12/18, precision 6/8, recall 6/10
    expected = (6 / 12 + 12 / 18 + 6 / 8 + 6 / 10) / 4
    assert csps(torch.tensor([6.0, 2.0, 4.0])).item() == pytest.approx(expected)
    for part, share in {"iou": 6 / 12, "dice": 12 / 18, "precision": 6 / 8, "recall": 6 / 10}.items():
        assert csps(torch.tensor([6.0, 2.0, 4.0]), (part,)).item() == pytest.approx(share), part
    assert csps(torch.tensor([6.0, 2.0, 4.0]), ("precision", "recall")).item() == pytest.approx((6 / 8 + 6 / 10) / 2)


def test_csps_of_a_perfect_and_of_an_empty_mask():
    assert csps(torch.tensor([[10.0, 0.0, 0.0], [0.0, 0.0, 5.0], [0.0, 3.0, 5.0]])).tolist() == [1.0, 0.0, 0.0]


def test_running_score_by_hand():
    running = RunningScore(3, momentum=0.75)
    assert running.value().tolist() == [1.0, 1.0, 1.0]  # nothing seen yet
    running.update(torch.tensor([0.4, 0.8, 0.0]), torch.tensor([True, True, False]))
    # first seen: taken as it is; never seen: the mean of the seen, not 0
    assert running.value().tolist() == pytest.approx([0.4, 0.8, 0.6])
    running.update(torch.tensor([0.8, 0.0, 0.0]), torch.tensor([True, False, False]))
    # 0.75 * 0.4 + 0.25 * 0.8; the absent class keeps its score
    assert running.value().tolist() == pytest.approx([0.5, 0.8, 0.65])
    resumed = RunningScore(3, momentum=0.75)
    resumed.load_state_dict(running.state_dict())
    resumed.update(torch.tensor([0.1, 0.0, 0.3]), torch.tensor([True, False, True]))
    assert resumed.value().tolist() == pytest.approx([0.4, 0.8, 0.3])


def test_momentum_by_itself_is_that_of_the_documentation():
    running = RunningScore(1)
    for score in (0.4, 0.8):
        running.update(torch.tensor([score]), torch.tensor([True]))
    assert running.value().item() == pytest.approx(0.95 * 0.4 + 0.05 * 0.8)


def test_masks_from_predictions():
    logits = torch.zeros(1, 3, 2, 4)
    logits[0, 2, :, 2:] = 1
    masks = prediction_masks(logits, torch.tensor([0, 2]), stride=2)
    assert masks.tolist() == [[[[True, False]], [[False, True]]]]
