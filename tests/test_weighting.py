"""Every weighting against its published formula or numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cawalib.datasets.base import SegmentationDataset
from cawalib.datasets.statistics import class_statistics
from cawalib.method import (
    CAWALoss,
    CAWAWeighting,
    ClassDifficultyWeighting,
    Feedback,
    RecallWeighting,
    basic_weight,
    cawa_weight,
    class_activation_maps,
    count,
    csps,
    layer_activation_maps,
    prediction_masks,
    present_classes,
    pseudo_masks,
    ratio_weight,
    static_weight,
)
from cawalib.method.cawa import derangement
from cawalib.method.weighting import difficulty_weight
from cawalib.runs import RunConfig
from cawalib.training import build_model, build_weighting

# two images: class 0 has 6 + 2 pixels, class 1 has 2 + 0, class 2 has 0 + 4, class 3 none, 2 pixels void
LABELS = np.array([[[0, 0, 0, 0, 0, 0, 1, 1]], [[0, 0, 2, 2, 2, 2, 255, 255]]], np.uint8)


@pytest.fixture
def statistics():
    images = np.zeros((2, 1, 8, 3), np.uint8)
    data = SegmentationDataset("test", "train", tuple("abcd"), ((0, 0, 0),) * 4, 2,
                               lambda index: (images[index], LABELS[index]), "")
    return class_statistics(data)


def mean_one(weights):
    weights = np.asarray(weights, float)
    return pytest.approx(weights / weights.mean(), rel=1e-5)


def test_counts(statistics):
    assert statistics.pixels.tolist() == [8, 2, 4, 0]
    assert statistics.images.tolist() == [2, 1, 1, 0]
    assert statistics.pixels_where_present.tolist() == [14, 8, 6, 0]
    assert statistics.groups["pixels"] == {"head": ["a", "c"], "body": ["b"], "tail": ["d"]}
    assert statistics.groups["images"] == {"head": ["a", "b"], "body": ["c"], "tail": ["d"]}


def with_mean(*weights):
    """The class that never occurs gets the mean of the others."""
    return mean_one([*weights, np.mean(weights)])


def static_of(name, statistics, **options):
    return static_weight(name, statistics.pixels, statistics.images, statistics.pixels_where_present, **options)


def test_static_weights(statistics):
    assert static_of("uniform", statistics).tolist() == [1, 1, 1, 1]
    assert static_of("inverse_frequency", statistics).tolist() == with_mean(14 / 8, 14 / 2, 14 / 4)
    assert static_of("inverse_sqrt", statistics).tolist() == with_mean(*np.sqrt([14 / 8, 14 / 2, 14 / 4]))
    # SegNet: f = 8/14, 2/8, 4/6; the median is 8/14
    assert static_of("median_frequency", statistics).tolist() == with_mean(
        1, (8 / 14) / (2 / 8), (8 / 14) / (4 / 6))
    # the median is that of the classes that occur, also where most do not
    assert static_weight("median_frequency", [8, 0, 0], None, [8, 0, 0]).tolist() == [1, 1, 1]


def test_enet_and_effective_number(statistics):
    assert static_of("enet", statistics).tolist() == with_mean(*(1 / np.log(1.02 + np.array([8, 2, 4]) / 14)))
    # images that hold the class: 2, 1, 1, 0; (1 - b) / (1 - b^2) = 1 / (1 + b)
    assert static_of("effective_number", statistics, beta=0.5).tolist() == with_mean(1 / 1.5, 1, 1)
    many = np.array([20000, 3000])  # with the paper's beta, 0.9999
    assert static_weight("effective_number", [9, 1], many).tolist() == mean_one(1 / (1 - 0.9999**many))


def one_hot(predicted, classes=3):
    return nn.functional.one_hot(torch.tensor(predicted), classes).permute(0, 3, 1, 2).float()


def test_class_difficulty_by_hand():
    # epochs of two steps. Class 0: 4 pixels, 3 right; class 1: 2 pixels, 1 right; class 2 never; void nowhere
    steps = [([[[0, 0, 1]]], [[[0, 0, 1]]]), ([[[0, 0, 1, 255]]], [[[0, 1, 0, 2]]])]
    weighting = ClassDifficultyWeighting(3, updates=2, exponent=1.0)
    for labels, predicted in steps:
        weighting.update(Feedback(torch.tensor(labels), one_hot(predicted)))
        assert weighting.weight.tolist() == [1, 1, 1]  # the first epoch only counts
    weighting.update(Feedback(torch.tensor(steps[0][0]), one_hot(steps[0][1])))
    assert weighting.weight.tolist() == mean_one([1 / 4, 1 / 2, 1])
    for _ in range(2):  # the second epoch has seen two batches without a mistake; the class never seen keeps 0
        weighting.update(Feedback(torch.tensor(steps[0][0]), one_hot(steps[0][1])))
    assert weighting.weight.tolist() == pytest.approx([0, 0, 3], abs=1e-4)


def test_dynamic_exponent_of_class_difficulty():
    accuracy = torch.tensor([0.9, 0.5, 0.2])
    tau = 2 / (1 + np.exp(-(0.9 / 0.21 - 1)))
    assert difficulty_weight(accuracy).tolist() == mean_one([0.1**tau, 0.5**tau, 0.8**tau])


def test_power_prior_and_warm_up(statistics):
    features, labels = torch.rand(2, 2, 6, 6), torch.randint(0, 3, (2, 6, 6))
    feedback = Feedback(labels, None, features, Head())
    plain = CAWAWeighting(3)
    plain.update(feedback)
    strong, late = CAWAWeighting(3, weight_power=2.0), CAWAWeighting(3, warmup=2)
    strong.update(feedback)
    assert strong.weight.tolist() == mean_one(plain.weight.numpy() ** 2)
    for _ in range(2):
        late.update(feedback)
        assert late.weight.tolist() == [1, 1, 1]
    late.update(feedback)
    torch.testing.assert_close(late.weight, plain.weight)
    ended = CAWAWeighting(3, prior=torch.tensor([1.0, 1, 4]), until=1)
    ended.update(feedback)
    assert ended.weight.tolist() == mean_one(plain.weight.numpy() * [1, 1, 4])
    ended.update(feedback)
    assert ended.weight.tolist() == [0.5, 0.5, 2]
    # no feedback and the exponent 1/2 is inverse square root, from the start on
    config = RunConfig(weight_terms="neither", frequency_prior=0.5, warmup_epochs=1)
    weighting = build_weighting(config, statistics, epochs=10, epoch_steps=3)
    expected = static_of("inverse_frequency", statistics).sqrt()
    torch.testing.assert_close(weighting.weight, expected / expected.mean())
    assert weighting.warmup == 3 and weighting.until == 30
    assert build_weighting(RunConfig(cooldown_epochs=2), statistics, epochs=10, epoch_steps=3).until == 24


def test_recall_weights_by_hand():
    # labels 0 0 0 0 1 1 void; predictions 0 0 0 1 0 0 2: FN/N = 1/4 and 2/2; class 2 is absent: 1/1, as in the
    # authors' code
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 255]]])
    logits = nn.functional.one_hot(torch.tensor([[[0, 0, 0, 1, 0, 0, 2]]]), 3).permute(0, 3, 1, 2).float()
    weighting = RecallWeighting(3)
    weighting.update(Feedback(labels, logits))
    first = np.array([1 / 4, 2 / 2, 1]) / 0.75
    assert weighting.weight.tolist() == mean_one(first)
    assert weighting.usual.tolist() == pytest.approx((0.95 + 0.05 * first).tolist())
    weighting.update(Feedback(labels, logits))
    assert weighting.usual.tolist() == pytest.approx((0.95**2 + (0.95 * 0.05 + 0.05) * first).tolist())


@pytest.mark.parametrize("make", [RecallWeighting, lambda *options, **named: ClassDifficultyWeighting(
    *options, updates=1, **named)])
def test_any_void_label_is_left_out(make):
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 255]]])
    logits = one_hot([[[0, 0, 0, 1, 0, 0, 2]]])
    usual, other = make(3), make(3, ignore_index=300)
    for _ in range(2):
        usual.update(Feedback(labels, logits))
        other.update(Feedback(labels.where(labels != 255, 300), logits))
    assert torch.equal(other.weight, usual.weight) and not torch.equal(usual.weight, torch.ones(3))


@pytest.mark.parametrize("make", [lambda: RecallWeighting(3), lambda: ClassDifficultyWeighting(3, updates=2),
                                  lambda: CAWAWeighting(3, score_source="prediction", score_stride=1, warmup=2)])
def test_a_resumed_weighting_goes_on_where_it_was(make):
    """What is recorded, counted and remembered is in the state dict; reading the record empties it."""
    generator = torch.Generator().manual_seed(0)
    steps = [Feedback(torch.randint(3, (2, 4, 4), generator=generator), torch.randn(2, 3, 4, 4, generator=generator))
             for _ in range(5)]
    whole, first = make(), make()
    for weighting, own in ((whole, steps), (first, steps[:3])):
        for step in own:
            weighting.update(step)
            weighting.record()
    resumed = make()
    resumed.load_state_dict(first.state_dict())
    for step in steps[3:]:
        resumed.update(step)
        resumed.record()
    record = whole.read_record()
    assert record.shape == (5, 4, 3) and not np.array_equal(record[2], record[4])
    np.testing.assert_array_equal(resumed.read_record(), record)
    assert whole.read_record().shape == resumed.read_record().shape == (0, 4, 3)


def test_basic_and_ratio_weight_by_hand():
    score = torch.tensor([0.9, 0.5, 0.1])
    assert basic_weight(score).tolist() == pytest.approx([1.1, 1.5, 1.9])
    assert ratio_weight(score).tolist() == pytest.approx([0.5 / 0.9, 1.0, 5.0])
    product = [1.1 * 0.5 / 0.9, 1.5, 9.5]
    assert cawa_weight(score).tolist() == mean_one(product)
    assert cawa_weight(score, "basic").tolist() == mean_one([1.1, 1.5, 1.9])
    assert cawa_weight(score, "ratio").tolist() == mean_one([0.5 / 0.9, 1.0, 5.0])
    assert cawa_weight(score, "neither").tolist() == [1, 1, 1]


def test_product_is_the_cost_of_the_best_f1():
    # METHOD.md section 4: BW * RW = mean(S) * (2/S - 1), while nothing is clipped
    score = torch.tensor([0.9, 0.5, 0.3])
    torch.testing.assert_close(basic_weight(score) * ratio_weight(score), score.mean() * (2 / score - 1))


def test_ratio_weight_is_clipped_and_survives_zero():
    assert ratio_weight(torch.tensor([1.0, 1.0, 0.0])).tolist() == pytest.approx([2 / 3, 2 / 3, 8])
    assert ratio_weight(torch.zeros(3)).tolist() == [1, 1, 1]
    assert cawa_weight(torch.zeros(3)).tolist() == [1, 1, 1]


class Head(nn.Conv2d):
    """A 1x1 head that passes two feature channels on as the logits of classes 0 and 1, class 2 stays 0."""

    def __init__(self):
        super().__init__(2, 3, 1)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[0, 0] = self.weight[1, 1] = 1
            self.bias.zero_()


def test_cawa_update_by_hand():
    # class 0's map claims 3 of its 4 pixels and one of class 1; class 1's map claims exactly its 4 pixels
    features = torch.tensor([[[[1, 1, 1, 0, 1, 0, 0, 0]], [[0, 0, 0, 0, 1, 1, 1, 1]]]]).float()
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
    weighting = CAWAWeighting(3, score_stride=1)
    weighting.update(Feedback(labels, None, features, Head()))
    easy = 1.0
    hard = (3 / 5 + 6 / 8 + 3 / 4 + 3 / 4) / 4
    unseen = (easy + hard) / 2  # class 2: never seen, the mean of the others
    score = torch.tensor([hard, easy, unseen])
    assert weighting.score().tolist() == pytest.approx(score.tolist())
    assert weighting.weight.tolist() == mean_one((2 - score) * score.mean() / score)


def test_a_class_that_is_never_hit_is_scored_zero_and_recorded():
    # class 0's map claims class 1's pixels and the other way round; class 2 is not there
    features = torch.tensor([[[[0, 0, 1, 1]], [[1, 1, 0, 0]]]]).float()
    weighting = CAWAWeighting(3, score_stride=1)
    weighting.update(Feedback(torch.tensor([[[0, 0, 1, 1]]]), None, features, Head()))
    assert weighting.running.seen.tolist() == [True, True, False] and weighting.score().tolist() == [0, 0, 0]
    weighting.running.score.copy_(torch.tensor([0.8, 0.4, 0]))
    score, basic, ratio, weight = weighting.state()
    assert score.tolist() == pytest.approx([0.8, 0.4, 0.6])
    assert basic.tolist() == pytest.approx([1.2, 1.6, 1.4]) and ratio.tolist() == pytest.approx([0.75, 1.5, 1])
    assert torch.equal(weight, weighting.weight)


# what the weighting is told -> the arguments of maps, masks and counts, and the parts, stride and images of the score
REACHED = [
    ({}, {}), ({"pseudo_mask_threshold": 0.8}, {"threshold": 0.8}), ({"exclusive_masks": True}, {"exclusive": True}),
    ({"cam_kind": "layer_cam"}, {"kind": "layer_cam"}), ({"absent_images": "skip"}, {"absent": "skip"}),
    ({"score_parts": "precision"}, {"parts": ("precision",)}), ({"score_parts": ("recall", "iou")},
                                                                 {"parts": ("recall", "iou")}),
    ({"score_stride": 1}, {"stride": 1}), ({"score_stride": 3}, {"stride": 3}), ({"feedback_images": 2}, {"images": 2}),
    ({"score_source": "prediction"}, {"sources": ["prediction"]}),
    ({"score_source": "both"}, {"sources": ["cam", "prediction"]}),
]


def expected_score(feedback, layer="decoder", threshold=0.5, exclusive=False, kind="grad_cam", absent="count",
                   parts=("iou", "dice", "precision", "recall"), stride=2, images=8, sources=("cam",)):
    """CSPS of one batch, step by step with the functions that are tested by hand."""
    labels = feedback.labels[:images, ::stride, ::stride]
    classes = present_classes(labels)
    scores = []
    for source in sources:
        if source == "prediction":
            masks = prediction_masks(feedback.logits[:images], classes, stride)
        else:
            maps = layer_activation_maps(feedback.model, layer, feedback.images[:images], classes, kind=kind) \
                if layer != "decoder" else \
                class_activation_maps(feedback.features[:images], feedback.head, classes, kind=kind)
            masks = pseudo_masks(maps, threshold, labels.shape[1:], exclusive)
        scores.append(csps(count(masks, labels, classes, 5, absent), parts))
    return torch.stack(scores).mean(dim=0)


@pytest.fixture(scope="module")
def step():
    """Feedback of four images of a network that has learned nothing; each lacks a class."""
    torch.manual_seed(0)
    model = build_model(RunConfig(method="none"), num_classes=5).eval()
    images, labels = torch.randn(4, 3, 24, 36), torch.randint(5, (4, 24, 36))
    for index in range(4):
        labels[index][labels[index] == index] = 4
    labels[:, :3] = 255
    with torch.no_grad():
        logits, features = model(images, return_features=True)
    return Feedback(labels, logits, features, model.classifier, model, images)


@pytest.mark.parametrize("settings, reached", REACHED)
def test_every_setting_of_the_score_reaches_its_place(step, settings, reached):
    weighting = CAWAWeighting(5, **settings)
    weighting.update(step)
    torch.testing.assert_close(weighting.score(), expected_score(step, **reached))
    assert not reached or not torch.equal(weighting.score(), expected_score(step))


@pytest.mark.parametrize("kind", ["grad_cam", "layer_cam"])
def test_kind_of_maps_reaches_a_deeper_layer(step, kind):
    weighting = CAWAWeighting(5, target_layer="body.down.1", cam_kind=kind)
    weighting.update(step)
    torch.testing.assert_close(weighting.score(), expected_score(step, "body.down.1", kind=kind))
    if kind != "grad_cam":
        assert not torch.equal(weighting.score(), expected_score(step, "body.down.1"))


@pytest.mark.parametrize("settings, momentum", [({}, 0.95), ({"score_momentum": 0.5}, 0.5)])
def test_momentum_reaches_the_running_score(step, settings, momentum):
    weighting, flipped = CAWAWeighting(5, **settings), replace(step, labels=step.labels.flip(1))
    weighting.update(step)
    weighting.update(flipped)
    torch.testing.assert_close(weighting.score(),
                               momentum * expected_score(step) + (1 - momentum) * expected_score(flipped))


def test_any_void_label_is_left_out_of_the_score(step):
    weighting, labels = CAWAWeighting(5, ignore_index=7), step.labels
    weighting.update(replace(step, labels=labels.where(labels != 255, 7)))
    torch.testing.assert_close(weighting.score(), expected_score(step))


def test_all_void_batch_changes_nothing():
    weighting = CAWAWeighting(3, score_stride=1)
    weighting.update(Feedback(torch.full((1, 1, 8), 255), None, torch.rand(1, 2, 1, 8), Head()))
    assert weighting.weight.tolist() == [1, 1, 1]
    assert not weighting.running.seen.any()


def test_only_the_first_feedback_images_count():
    features, labels = torch.rand(4, 2, 6, 6), torch.randint(0, 2, (4, 6, 6))
    some, few = CAWAWeighting(3, feedback_images=2), CAWAWeighting(3)
    some.update(Feedback(labels, None, features, Head()))
    few.update(Feedback(labels[:2], None, features[:2], Head()))
    torch.testing.assert_close(some.weight, few.weight)


def test_score_from_predictions_ignores_the_features():
    labels = torch.tensor([[[0, 0, 0, 1]]])
    logits = nn.functional.one_hot(torch.tensor([[[0, 0, 1, 1]]]), 3).permute(0, 3, 1, 2).float()
    weighting = CAWAWeighting(3, score_stride=1, score_source="prediction")
    weighting.update(Feedback(labels, logits))
    expected = [csps(torch.tensor([2.0, 0.0, 1.0])).item(), csps(torch.tensor([1.0, 1.0, 0.0])).item()]
    assert weighting.score().tolist()[:2] == pytest.approx(expected)


def test_shuffled_scores_are_the_scores_of_other_classes():
    features, labels = torch.rand(2, 2, 6, 6), torch.randint(0, 2, (2, 6, 6))
    straight, shuffled = CAWAWeighting(3), CAWAWeighting(3, score_source="shuffled", seed=4)
    for weighting in (straight, shuffled):
        weighting.update(Feedback(labels, None, features, Head()))
    order = derangement(3, 4)
    assert (order != torch.arange(3)).all()
    torch.testing.assert_close(shuffled.weight, straight.weight[order])
    assert CAWAWeighting(9, score_source="shuffled", seed=4).order.tolist() == derangement(9, 4).tolist()
    assert derangement(9, 4).tolist() != derangement(9, 0).tolist()
    for seed in range(9):
        assert (derangement(4, seed) != torch.arange(4)).all()


def test_frozen_weights_stay(statistics):
    config = RunConfig(score_source="frozen")
    weighting = build_weighting(config, statistics, frozen=torch.tensor([4.0, 2.0, 1.0, 1.0]))
    weighting.update(Feedback(torch.zeros(1, 2, 2, dtype=torch.int64)))
    assert weighting.weight.tolist() == [2, 1, 0.5, 0.5]


def test_drop_in_criterion_in_a_plain_loop():
    head, criterion = Head(), CAWALoss(3, score_stride=1)
    features, labels = torch.rand(2, 2, 6, 6, requires_grad=True), torch.randint(0, 2, (2, 6, 6))
    logits = head(features)
    criterion.update(features, labels, head)
    loss = criterion(logits, labels)
    loss.backward()
    expected = nn.functional.cross_entropy(logits, labels, weight=criterion.weighting.weight)
    torch.testing.assert_close(loss, expected)
    assert features.grad is not None and criterion.weighting.weight.grad_fn is None
    assert class_activation_maps(features, head, torch.tensor([0])).grad_fn is None
