"""Where the line between classes lies: weights taken out exactly, a curve from one pass, a line fitted and guarded."""

import json

import numpy as np
import pytest
import torch
from rankseg import RankSEG
from sklearn.metrics import f1_score, jaccard_score
from torch import nn
from torch.nn import functional

from cawalib.datasets import ClassStatistics
from cawalib.method import POINTS, CAWALoss, Decision, adjusted, cross_entropy, decision_at, fit_decision
from cawalib.training.decisions import Tally, decide, line_of, with_others

# p(class | x) of a problem with four kinds of pixels x and three classes, and how often each kind occurs
POSTERIOR = torch.tensor([[.70, .25, .05], [.45, .50, .05], [.60, .10, .30], [.2, .2, .6]])
SHARE = torch.tensor([.5, .3, .15, .05])
WEIGHT = torch.tensor([0.2, 0.6, 2.2])


def trained(weight, line=None):
    """Logits (4, 3) that minimise the expected weighted cross entropy, with log w - log v added in the loss alone."""
    moved = torch.zeros(3) if line is None else weight.log() - line.log()
    logits = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss():
        optimizer.zero_grad()
        expected = -(SHARE[:, None] * POSTERIOR * weight * (logits + moved).log_softmax(dim=1)).sum()
        expected.backward()
        return expected

    optimizer.step(loss)
    return logits.detach()


def test_alpha_1_undoes_known_weights_exactly():
    logits = trained(WEIGHT)
    at = {name: decision_at(WEIGHT, name)(logits).tolist() for name in POINTS}
    assert at["accurate"] == POSTERIOR.argmax(dim=1).tolist() == [0, 1, 0, 2]
    assert at["rare"] == (POSTERIOR * WEIGHT).argmax(dim=1).tolist() == [1, 1, 2, 2]
    assert at["balanced"] == (POSTERIOR * WEIGHT.sqrt()).argmax(dim=1).tolist() == [0, 1, 2, 2]
    probabilities = (logits + decision_at(WEIGHT, "accurate").offset).softmax(dim=1)
    torch.testing.assert_close(probabilities.float(), POSTERIOR, atol=1e-4, rtol=0)


def test_two_weights_have_two_jobs():
    """What is weighed in the loss and where the line lies are set apart: the logits are log p + log v, whatever w."""
    line = torch.tensor([1.0, 0.5, 3.0])
    for weight in (WEIGHT, torch.ones(3)):
        logits = trained(weight, line)
        torch.testing.assert_close(logits.softmax(dim=1).float(), functional.normalize(POSTERIOR * line, p=1, dim=1),
                                   atol=1e-4, rtol=0)
        assert decision_at(line, "accurate")(logits).tolist() == [0, 1, 0, 2]


def test_a_point_by_name_or_number():
    logits = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decision_at(WEIGHT, 0.5)(logits), decision_at(WEIGHT, "balanced")(logits))
    assert torch.equal(decision_at(WEIGHT, "rare")(logits), logits.argmax(dim=1))
    expected = (logits - 1.25 * WEIGHT.log()[:, None, None]).argmax(dim=1)
    assert torch.equal(decision_at(WEIGHT, 1.25)(logits), expected)
    with pytest.raises(ValueError, match="^point: found 'rarest', expected one of rare, balanced, accurate, or a num"):
        decision_at(WEIGHT, "rarest")


def test_the_loss_offers_its_decision():
    criterion = CAWALoss(num_classes=3)
    criterion.weighting.weight.copy_(WEIGHT)
    logits = torch.randn(1, 3, 4, 4)
    assert torch.equal(criterion.decision("accurate")(logits), decision_at(WEIGHT, "accurate")(logits))


# ---------------------------------------------------------------- a line fitted to training images

def pixels(share, posterior, count=40_000):
    """Images of one pixel each, by kind, and labels drawn from the posterior; a "network" that knows log p."""
    generator = torch.Generator().manual_seed(3)
    kinds = torch.multinomial(share, count, True, generator=generator)
    labels = torch.multinomial(posterior[kinds], 1, generator=generator)
    network = nn.Conv2d(len(share), posterior.shape[1], 1, bias=False)
    network.weight.data = posterior.log().T[:, :, None, None].contiguous()
    images = functional.one_hot(kinds, len(share)).float()[:, :, None, None]
    return network, [(images.view(100, -1, len(share), 1, 1)[i], labels.view(100, -1, 1, 1)[i]) for i in range(100)]


def mean_iou(chosen, labels, classes=3):
    hits = [((chosen == c) & (labels == c)).sum() / ((chosen == c) | (labels == c)).sum() for c in range(classes)]
    return float(torch.stack(hits).mean())


def judged(decision, network, batches):
    chosen = torch.cat([decision(network(images)).flatten() for images, _ in batches])
    return mean_iou(chosen, torch.cat([labels.flatten() for _, labels in batches]))


# one rare class that is never the most likely one, but often enough where it can be
SELDOM = torch.tensor([[.95, .04, .01], [.05, .94, .01], [.60, .0, .40], [.1, .88, .02]]).clamp_min(1e-6)


def test_a_fitted_line_finds_a_class_that_never_was_the_most_likely():
    network, batches = pixels(torch.tensor([.60, .3, .02, .08]), SELDOM)
    plain, fitted = Decision(torch.ones(3)), fit_decision(network, batches)
    # by hand from the shares: IoU .905, .872 and 0; claiming the third kind for the third class, .898, .872 and .261
    assert judged(plain, network, batches) == pytest.approx(0.592, abs=0.01)
    assert judged(fitted, network, batches) == pytest.approx(0.677, abs=0.01)
    assert fitted.line[2] > fitted.line[0] and torch.isfinite(fitted.offset).all()
    # what a network was trained with drops out
    weighted = nn.Conv2d(4, 3, 1)
    weighted.weight, weighted.bias = network.weight, nn.Parameter(WEIGHT.log())
    again = fit_decision(weighted, batches, WEIGHT)
    torch.testing.assert_close(again.line, fitted.line, rtol=1e-4, atol=1e-4)


def test_a_fitted_line_does_not_run_away():
    """A class that nothing tells apart: more weight would claim more pixels in vain, and ask for still more weight."""
    hopeless = torch.tensor([[.90, .04, .06], [.04, .90, .06], [.87, .07, .06], [.07, .87, .06]])
    network, batches = pixels(SHARE, hopeless)
    fitted = fit_decision(network, batches, rounds=7)  # after 7 it would be in one of its excursions
    assert judged(fitted, network, batches) >= judged(Decision(torch.ones(3)), network, batches)
    assert fitted.line[2] / fitted.line[0] < 14.5  # from 14.5 on it claims the pixels of another class, and all lose


def test_a_fitted_line_asks_for_labels_and_leaves_out_void():
    network, batches = pixels(SHARE, POSTERIOR, 400)
    with pytest.raises(ValueError, match="found no labelled pixel"):
        fit_decision(network, [(images, torch.full_like(labels, 255)) for images, labels in batches])
    void = [(torch.cat([images, images]), torch.cat([labels, torch.full_like(labels, 255)]))
            for images, labels in batches]
    assert torch.equal(fit_decision(network, void).line, fit_decision(network, batches).line)


def test_softened_is_half_way_to_the_most_likely_class():
    decision = Decision(WEIGHT, torch.tensor([1.0, 4.0, 9.0]))
    torch.testing.assert_close(decision.softened().offset, torch.tensor([1.0, 2.0, 3.0]).log() - WEIGHT.log())
    quarter = torch.tensor([1.0, 2.0, 3.0]).sqrt()
    torch.testing.assert_close(decision.softened(0.25).offset, quarter.log() - WEIGHT.log())


@pytest.mark.parametrize("head", [nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Linear(2, 3)])
def test_folded_into_the_last_classifier_its_plain_argmax_is_the_decision(head):
    decision = Decision(WEIGHT, torch.tensor([1.0, 4.0, 9.0]))
    images = torch.randn(40, 2) if isinstance(head, nn.Linear) else torch.randn(4, 2, 6, 6)
    expected = decision(head(images))
    assert not torch.equal(head(images).argmax(dim=1), expected)
    decision.fold_into(head)
    assert torch.equal(head(images).argmax(dim=1), expected) and head.bias.requires_grad


def scores(logits, labels, offset, score):
    """A score of scikit-learn's for each class that the labels hold; its mean for every other."""
    chosen = (logits + offset).argmax(axis=1)
    occurs = np.unique(labels)
    found = np.full(logits.shape[1], np.nan)
    found[occurs] = score(labels, chosen, labels=occurs, average=None, zero_division=0)
    return np.where(np.isnan(found), np.nanmean(found), found), np.nanmean(found)


def fitted_plainly(logits, labels, weight, rounds):
    """METHOD.md, section 6, word by word; log v (C,)."""
    line = np.zeros(logits.shape[1])
    for _ in range(rounds):
        dice = scores(logits, labels, line - np.log(weight), f1_score)[0]
        goal = np.log((2 - dice) * np.clip(dice.mean() / np.maximum(dice, 1e-12), 1 / 8, 8))
        goal -= np.log(np.exp(goal).mean())
        before = scores(logits, labels, line - np.log(weight), jaccard_score)[1]
        tried = [line + share * (goal - line) for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16)]
        good = [one for one in tried if scores(logits, labels, one - np.log(weight), jaccard_score)[1] >= before]
        if not good:
            break
        line = good[0]
    return line - line.mean()


class Noisy(nn.Module):
    """Logits at half the size of images that are logits; in training mode they are worth nothing."""

    def forward(self, images):
        assert not torch.is_grad_enabled()
        logits = functional.avg_pool2d(images, 2)
        return {"out": logits + 100 * torch.randn_like(logits) if self.training else logits}


def shown(seed, classes=5, size=(12, 16)):
    """Three images of one batch and labels, of classes 0 to 3; the third is rare, class 4 is nowhere, void is 7."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor([.6, .25, .12, .03]), 3 * 12 * 16, True, generator=generator).view(3, *size)
    images = 2 * torch.randn(3, classes, *size, generator=generator)
    images += 2 * functional.one_hot(labels, classes).movedim(-1, 1) + torch.tensor([2, 1, -0.5, -2, 0])[:, None, None]
    labels[:, :2] = 7
    return images, labels


@pytest.mark.parametrize("options", [{}, {"rounds": 1}, {"rounds": 3}], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_fitted_line_against_the_plain_definition(seed, options):
    images, labels = shown(seed)
    model, weight = Noisy().train(), torch.tensor([0.4, 0.8, 1.0, 2.0, 0.8])
    found = fit_decision(model, [(images, labels)], weight, ignore_index=7, **options)
    assert model.training
    large = functional.interpolate(functional.avg_pool2d(images, 2), (12, 16), mode="bilinear")
    valid = labels != 7
    expected = fitted_plainly(large.movedim(1, -1)[valid].double().numpy(), labels[valid].numpy(),
                              weight.double().numpy(), options.get("rounds", 8))
    np.testing.assert_allclose(found.line.log().numpy(), expected, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_of_more_logits_than_are_kept_every_second_row_and_column():
    images, labels = shown(0)
    count = images.numel()
    half = fit_decision(nn.Identity(), [(images[..., ::2, ::2], labels[..., ::2, ::2])], ignore_index=7).line
    whole = fit_decision(nn.Identity(), [(images, labels)], ignore_index=7).line
    assert not torch.equal(half, whole)
    for values, expected in ((count, whole), (count - 1, half), (count // 4, half)):
        found = fit_decision(nn.Identity(), [(images, labels)], ignore_index=7, values=values)
        assert torch.equal(found.line, expected)


# ---------------------------------------------------------------- the curve, from one pass

STATISTICS = ClassStatistics(tuple("abc"), np.array([900, 90, 10]), np.array([9, 9, 3]), np.array([900, 900, 300]), 9)


def test_every_decision_of_a_pass_against_one_by_one():
    torch.manual_seed(5)
    logits, truth = torch.randn(3, 6, 8), torch.randint(0, 3, (12, 16))
    truth[0] = 255
    line = line_of(WEIGHT, STATISTICS, "cpu", ranked=True)
    line.others = {"some": torch.tensor([0.3, 0.0, -0.4])}
    tally = Tally(line, 3, "cpu")
    tally.add(logits, truth)
    found = json.loads(json.dumps(tally.result(), default=np.ndarray.tolist))
    large = functional.interpolate(logits[None], (12, 16), mode="bilinear")[0]
    valid = truth != 255

    def counted(offset):
        chosen = (large + offset[:, None, None]).argmax(dim=0)
        return ([int(((chosen == c) & (truth == c)).sum()) for c in range(3)],
                [int(((chosen == c) & valid).sum()) for c in range(3)])

    assert found["alphas"] == [-0.5, 0, 0.25, 0.5, 0.75, 1, 1.5]
    for alpha, hits, predicted in zip(found["alphas"], found["hits"], found["predicted"], strict=True):
        assert (hits, predicted) == counted(-alpha * WEIGHT.log())
    assert tuple(found["others"]["some"].values()) == counted(line.others["some"])
    assert np.diag(found["points"]["accurate"]).tolist() == counted(-WEIGHT.log())[0]
    assert set(found["points"]) == {"balanced", "accurate"}
    assert np.diag(tally.confusion).tolist() == counted(torch.zeros(3))[0]
    # the package itself, on the posterior, for the IoU
    ranked = RankSEG(metric="iou")((large - WEIGHT.log()[:, None, None]).softmax(dim=0)[None])[0]
    assert found["others"]["RankSEG"]["predicted"] == [int(((ranked == c) & valid).sum()) for c in range(3)]
    assert found["others"]["RankSEG"]["hits"] == [int(((ranked == c) & (truth == c)).sum()) for c in range(3)]
    for alpha in (0, 1):
        confidence, chosen = (large - alpha * WEIGHT.log()[:, None, None]).softmax(dim=0).max(dim=0)
        seen = valid[::2, ::2]
        confidence, right = confidence[::2, ::2][seen].numpy(), (chosen == truth)[::2, ::2][seen].numpy()
        bins = np.minimum((confidence * 15).astype(int), 14)
        error = sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(15)) / len(right)
        assert found["calibration_error"][str(alpha)] == pytest.approx(error, abs=1e-6)


def test_a_network_without_weights_borrows_those_of_the_inverse_square_root():
    line = line_of(None, STATISTICS, "cpu")
    assert not line.own and line.alphas[0] == -1 and line.alphas[-1] == 1
    torch.testing.assert_close(line.weight[2] / line.weight[0], torch.tensor(90**0.5))
    tally = Tally(line, 3, "cpu")
    tally.add(torch.randn(3, 4, 4), torch.randint(0, 3, (4, 4)))
    assert tally.result()["points"] == {} and list(tally.result()["calibration_error"]) == ["0"]


def test_logit_adjustment_after_training_is_that_of_its_paper():
    """Menon 2021, section 4.2: argmax f_y(x) - tau log prior_y, f the posterior's logits."""
    network, batches = pixels(SHARE, POSTERIOR, 400)
    prior = torch.tensor([.9, .09, .01])
    for costs, logits in ((None, POSTERIOR.log()), (WEIGHT, (POSTERIOR * WEIGHT).log())):
        line = with_others(line_of(costs, STATISTICS, "cpu"), network, batches, prior)
        chosen = (logits + line.others["logit adjustment"]).argmax(dim=1)
        assert chosen.tolist() == (POSTERIOR / prior).argmax(dim=1).tolist()
        half = line.others["half fitted"]
        torch.testing.assert_close(half, (line.others["fitted"] + line.posterior) / 2)


def test_logit_adjustment_leaves_a_class_alone_that_training_never_saw():
    """Taken to have one pixel of 1000, a class that the network gives a chance of 1 % would win everywhere."""
    from cawalib.method import Weighting
    from cawalib.settings import MethodConfig
    from cawalib.training import Criterion

    seen = ClassStatistics(tuple("abc"), np.array([900, 100, 0]), np.array([9, 9, 0]), np.array([900, 900, 0]), 9)
    prior = Criterion(MethodConfig(), Weighting(torch.ones(3)), seen).prior
    network, batches = pixels(SHARE, POSTERIOR, 400)
    line = with_others(line_of(None, seen, "cpu"), network, batches, prior)
    torch.testing.assert_close(line.others["logit adjustment"], torch.tensor([0.9, 0.1, 1]).reciprocal().log())
    torch.testing.assert_close(adjusted(torch.zeros(1, 3, 1, 1), prior).flatten(), torch.tensor([.9, .1, 1]).log())


def test_classes_in_parts_and_at_another_size():
    logits, offsets = torch.randn(50, 7, 9), torch.stack([torch.zeros(50), torch.randn(50)])
    large = functional.interpolate(logits[None], (30, 41), mode="bilinear", align_corners=False)
    for size, expected in (((7, 9), logits[None]), ((30, 41), large)):
        chosen, best = decide(logits, size, offsets)
        expected = expected + offsets[:, :, None, None]
        assert torch.equal(chosen.long(), expected.argmax(dim=1))
        torch.testing.assert_close(best, expected.amax(dim=1))


def test_weights_in_the_loss_and_line_apart_give_the_plain_loss_where_both_are_alike():
    from cawalib.method import Weighting
    from cawalib.settings import MethodConfig
    from cawalib.training import Criterion

    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    config = MethodConfig(method="inverse_sqrt", line_source="prediction")
    alike = Criterion(config, Weighting(WEIGHT), STATISTICS, Weighting(WEIGHT))
    torch.testing.assert_close(alike(logits, labels), cross_entropy(logits, labels, WEIGHT))
    apart = Criterion(config, Weighting(WEIGHT), STATISTICS, Weighting(torch.ones(3)))
    moved = logits + WEIGHT.log()[:, None, None]
    torch.testing.assert_close(apart(logits, labels), functional.cross_entropy(moved, labels, WEIGHT))
    assert torch.equal(apart.costs, torch.ones(3)) and torch.equal(alike.costs, alike.weighting.weight)
