"""Losses and metrics against PyTorch, scikit-learn and numbers worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import jaccard_score, precision_score, recall_score
from torch.nn import functional

from cawalib.datasets.statistics import ClassStatistics
from cawalib.losses import cross_entropy, focal
from cawalib.metrics import class_table, confusion_matrix, summary


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 6, 7), generator=generator)
    labels[0, :2] = 255
    return torch.randn(2, 4, 6, 7, generator=generator), labels


def test_weighted_cross_entropy_is_pytorchs_weighted_mean(batch):
    logits, labels = batch
    weight = torch.tensor([0.2, 1.0, 0.8, 2.0])
    expected = functional.cross_entropy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, labels, weight), expected)
    torch.testing.assert_close(cross_entropy(logits, labels, 7 * weight), expected)  # only ratios of weights matter


def test_batch_without_a_valid_pixel_gives_zero_not_nan(batch):
    logits, labels = batch[0].requires_grad_(), torch.full_like(batch[1], 255)
    for loss in (cross_entropy(logits, labels, torch.ones(4)), focal(logits, labels)):
        loss.backward()
        assert loss.item() == 0 and torch.isfinite(logits.grad).all()


def test_focal_by_hand(batch):
    # logits 0, ln 3: p = 1/4 and 3/4
    logits = torch.tensor([0.0, np.log(3)]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, 255]]])
    expected = ((3 / 4) ** 2 * np.log(4) + (1 / 4) ** 2 * np.log(4 / 3)) / 2
    assert focal(logits, labels, gamma=2).item() == pytest.approx(expected, rel=1e-5)
    logits, labels = batch  # gamma 0 is cross entropy
    plain = functional.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(focal(logits, labels, gamma=0), plain)


def test_focal_gradient_is_finite_on_a_pixel_that_is_sure():
    logits = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    focal(logits, torch.zeros(1, 1, 1, dtype=torch.int64), gamma=0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_metrics_against_scikit_learn():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 4, 200), generator.integers(0, 4, 200)
    labels[:20] = 255
    matrix = confusion_matrix(torch.tensor(predicted), torch.tensor(labels), 4).numpy()
    valid = labels != 255
    np.testing.assert_array_equal(matrix, reference_confusion(labels[valid], predicted[valid]))
    table = class_table(matrix)
    for name, reference in (("iou", jaccard_score), ("precision", precision_score), ("recall", recall_score)):
        np.testing.assert_allclose(table[name], reference(labels[valid], predicted[valid], average=None))


def test_classes_with_an_empty_union_are_left_out():
    # class 2 is neither in the labels nor predicted; class 3 is predicted once, wrongly
    confusion = np.array([[6, 1, 0, 1], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    statistics = ClassStatistics(tuple("abcd"), np.array([8, 4, 2, 1]), np.array([3, 2, 1, 1]), np.full(4, 9), 3)
    result = summary(confusion, statistics)
    np.testing.assert_allclose(result["iou"], [6 / 9, 3 / 5, np.nan, 0])
    assert result["miou"] == pytest.approx((6 / 9 + 3 / 5 + 0) / 3)
    assert result["mean_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert result["pixel_accuracy"] == pytest.approx(9 / 12)
    assert result["group_miou"]["pixels"]["head"] == pytest.approx((6 / 9 + 3 / 5) / 2)
    assert np.isnan(result["group_miou"]["pixels"]["body"])
    assert result["group_miou"]["pixels"]["tail"] == 0
