"""Losses and metrics against PyTorch, scikit-learn and numbers worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import jaccard_score, precision_score, recall_score
from torch.nn import functional

from cawalib.datasets.statistics import ClassStatistics
from cawalib.method import adjusted, cross_entropy, focal, ohem, varied
from cawalib.runs import RunConfig
from cawalib.settings import METHODS, MethodConfig
from cawalib.training import Criterion, build_weighting, class_table, confusion_matrix, summary
from cawalib.training.criterion import region_loss, updates_in


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
    for factor in (7, 1e-3):  # only ratios of weights matter
        torch.testing.assert_close(cross_entropy(logits, labels, factor * weight), expected)


@pytest.mark.parametrize("void", [255, 3, -1])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_options_of_cross_entropy_are_pytorchs(batch, void, smoothing):
    logits, labels = batch[0], batch[1].where(batch[1] != 255, void)
    weight = torch.tensor([0.2, 1.0, 0.8, 2.0])
    expected = functional.cross_entropy(logits, labels, weight, ignore_index=void, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, labels, weight, void, smoothing), expected)


def test_weights_carry_no_gradient(batch):
    logits, weight = batch[0].requires_grad_(), torch.ones(4, requires_grad=True)
    cross_entropy(logits, batch[1], weight).backward()
    assert logits.grad.any() and weight.grad is None


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
    assert focal(logits, labels, gamma=2).item() == focal(logits, labels).item() == pytest.approx(expected, rel=1e-5)
    logits, labels = batch  # gamma 0 is cross entropy
    plain = functional.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(focal(logits, labels, gamma=0), plain)


def logits_of(*probabilities):
    """Logits (1, C, 1, n) whose softmax gives these probabilities per pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().float().T[None, :, None]


def test_ohem_by_hand():
    # p of the true class: 0.9, 0.6, 0.2, void: hard below 0.7 are the second and the third
    logits = logits_of((0.9, 0.1), (0.4, 0.6), (0.2, 0.8), (0.5, 0.5))
    labels = torch.tensor([[[0, 1, 0, 255]]])
    assert ohem(logits, labels).item() == pytest.approx(-(np.log(0.6) + np.log(0.2)) / 2, rel=1e-5)
    # all are easy: a sixteenth of 32 pixels, the two hardest, is left
    easy = logits_of(*[(p, 1 - p) for p in (0.8, 0.75, *[0.95] * 30)])
    assert ohem(easy, torch.zeros(1, 1, 32, dtype=torch.int64)).item() == pytest.approx(
        -(np.log(0.8) + np.log(0.75)) / 2, rel=1e-4)
    # one labelled pixel of 32: void pixels, though they are among the hardest two, do not count
    alone = torch.full((1, 1, 32), 255)
    alone[0, 0, 1] = 0
    assert ohem(easy, alone).item() == pytest.approx(-np.log(0.75), rel=1e-4)


def test_dice_and_tversky_by_hand():
    # class 0 at pixels 1, 2 with p 0.8, 0.4; class 1 at pixel 3 with p 0.6; class 2 nowhere; the last pixel void
    logits = logits_of((0.8, 0.1, 0.1), (0.4, 0.4, 0.2), (0.3, 0.6, 0.1), (0.1, 0.1, 0.8))
    labels = torch.tensor([[[0, 0, 1, 255]]])
    # overlap / (overlap + a FP + b FN): class 0 overlap 1.2, FP 0.3, FN 0.8; class 1 overlap 0.6, FP 0.5, FN 0.4
    def loss(a, b):
        return (2 - 1.2 / (1.2 + a * 0.3 + b * 0.8) - 0.6 / (0.6 + a * 0.5 + b * 0.4)) / 3
    assert region_loss("dice", logits, labels).item() == pytest.approx(loss(0.5, 0.5), rel=1e-4)
    assert region_loss("tversky", logits, labels, beta=0.7).item() == pytest.approx(loss(0.3, 0.7), rel=1e-4)


def test_lovasz_of_sure_predictions_is_one_minus_jaccard(batch):
    logits, labels = batch
    predicted = logits.argmax(dim=1)
    sure = 100.0 * functional.one_hot(predicted, 4).permute(0, 3, 1, 2)
    valid = labels != 255
    expected = 1 - jaccard_score(labels[valid], predicted[valid], average="macro")
    assert region_loss("lovasz", sure, labels).item() == pytest.approx(expected, rel=1e-4)


def test_logit_adjustment_by_hand():
    # with equal logits, adjusted probabilities are the prior itself
    prior = torch.tensor([0.7, 0.2, 0.1])
    entropy = functional.cross_entropy(adjusted(torch.zeros(1, 3, 1, 1), prior), torch.tensor([[[2]]]))
    assert entropy.item() == pytest.approx(-np.log(0.1), rel=1e-5)
    twice = adjusted(torch.zeros(1, 3, 1, 1), prior, tau=2.0).softmax(dim=1).flatten()
    assert twice.tolist() == pytest.approx([0.49 / 0.54, 0.04 / 0.54, 0.01 / 0.54], rel=1e-5)


def test_rarer_classes_get_more_logit_variation():
    prior, zeros = torch.tensor([0.7, 0.2, 0.1]), torch.zeros(1, 3, 200, 200)
    torch.manual_seed(0)
    noise = varied(zeros, prior, sigma=1e4)[0].flatten(1)
    # with a huge sigma every draw is cut at 1: what is left is the scale, log(1/p) over its largest
    assert noise.mean(dim=1).tolist() == pytest.approx((-np.log([0.7, 0.2, 0.1]) / -np.log(0.1)).tolist(), rel=1e-3)
    # with a small one the mean of |N(0, sigma)| is sigma sqrt(2 / pi)
    assert varied(zeros, prior, sigma=0.1)[0, 2].mean().item() == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.02)
    assert noise.min() >= 0


@pytest.fixture
def statistics():
    counts = np.array([60, 20, 4, 0])
    return ClassStatistics(tuple("abcd"), counts, np.array([3, 2, 1, 0]), np.array([84, 60, 30, 0]), 3)


@pytest.mark.parametrize("method", [method for method in METHODS if METHODS[method].sampling == "uniform"])
def test_every_method_ignores_void_and_learns_from_the_rest(method, batch, statistics):
    """A class without a training pixel is among them; neither it nor a batch of void only makes a NaN."""
    config = RunConfig(method=method)
    labels = batch[1].where(batch[1] != 3, 0)
    void = (labels == 255)[:, None]
    for truth in (labels, torch.full_like(labels, 255)):
        gradients = []
        for change in (0.0, 5.0):
            torch.manual_seed(0)
            logits = (batch[0] + change * void).requires_grad_()
            criterion = Criterion(config, build_weighting(config, statistics), statistics)
            loss = criterion(logits, truth)
            loss.backward()
            assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
            gradients.append(logits.grad)
        if truth is labels:
            assert (gradients[0] * ~void).abs().max() > 0 and not (gradients[0] * void).any()
            torch.testing.assert_close(*gradients)
        else:
            assert not gradients[0].any()


def test_share_of_cross_entropy(batch, statistics):
    logits, labels = batch
    parts = [Criterion(RunConfig(method=method, **settings), build_weighting(RunConfig(method=method), statistics),
                       statistics)(logits, labels)
             for method, settings in (("none", {}), ("dice", {}), ("dice", {"cross_entropy_share": 0.25}))]
    torch.testing.assert_close(parts[2], 0.25 * parts[0] + 0.75 * parts[1])
    for method in ("inverse_sqrt_dice", "cawa_dice"):
        both = RunConfig(method=method)
        weighting = build_weighting(both, statistics)
        weighting.weight.copy_(torch.linspace(0.5, 1.5, len(weighting.weight)))  # as if feedback had moved them
        torch.testing.assert_close(Criterion(both, weighting, statistics)(logits, labels),
                                   cross_entropy(logits, labels, weighting.weight) + parts[1])


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
    table = class_table(np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1))
    for name, reference in (("iou", jaccard_score), ("precision", precision_score), ("recall", recall_score)):
        np.testing.assert_allclose(table[name], reference(labels[valid], predicted[valid], average=None))


def test_means_are_over_the_classes_that_occur_in_the_labels():
    # class 2 is neither in the labels nor predicted; class 3 is predicted once, wrongly
    confusion = np.array([[6, 1, 0, 1], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    statistics = ClassStatistics(tuple("abcd"), np.array([8, 4, 2, 1]), np.array([1, 1, 2, 3]), np.full(4, 9), 3)
    result = summary(confusion, statistics)
    np.testing.assert_allclose(result["iou"], [6 / 9, 3 / 5, np.nan, np.nan])
    assert result["miou"] == pytest.approx((6 / 9 + 3 / 5) / 2)
    assert result["mean_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert result["pixel_accuracy"] == pytest.approx(9 / 12)
    assert result["group_miou"]["pixels"]["head"] == pytest.approx((6 / 9 + 3 / 5) / 2)
    assert np.isnan(result["group_miou"]["pixels"]["body"])
    assert np.isnan(result["group_miou"]["pixels"]["tail"])
    assert result["group_miou"]["images"] == pytest.approx({"head": np.nan, "body": 6 / 9, "tail": 3 / 5}, nan_ok=True)


@pytest.mark.parametrize("count", [17, 200])
def test_confusion_of_many_classes_in_bytes(count):
    """As labels and decisions come: a byte a pixel, in which class times count has no room."""
    random = np.random.default_rng(0)
    labels, predicted = (random.integers(0, count, (30, 40), np.uint8) for _ in range(2))
    labels[:5] = 255
    found = confusion_matrix(torch.from_numpy(predicted), torch.from_numpy(labels), count).numpy()
    expected = reference_confusion(labels[5:].ravel(), predicted[5:].ravel(), labels=range(count))
    np.testing.assert_array_equal(found, expected)


def test_updates_of_a_run_by_hand():
    # ten steps: 0, 3, 6, 9 with one every three
    assert [updates_in(MethodConfig(update_every=every), 2, 5) for every in (1, 3, 4, 10, 11)] == [10, 4, 3, 1, 1]
