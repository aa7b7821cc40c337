"""Losses under one contract: weights of mean 1, divided by the weight of the valid pixels (METHOD.md section 5)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from cawalib.cawa import CAWAWeighting
from cawalib.config import RunConfig
from cawalib.datasets import IGNORE
from cawalib.datasets.statistics import ClassStatistics
from cawalib.weighting import ClassDifficultyWeighting, Feedback, RecallWeighting, Weighting, static_weight


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum w[y] CE / sum w[y] over valid pixels: PyTorch's weighted mean, but 0 for a batch without any.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) int64, 255 = ignore.
        weight: (C,); it carries no gradient.
    """
    weight = weight.detach()
    total = functional.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORE, reduction="sum")
    valid = labels != IGNORE
    return total / (weight[labels.where(valid, 0)] * valid).sum().clamp_min(1e-12)


def focal(logits: torch.Tensor, labels: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss (Lin 2017) on the softmax: the mean of (1 - p)^gamma * -log p over valid pixels.

    Own code, since the ones at hand (torchvision, segmentation-models-pytorch) take a sigmoid per class, which
    is another model than the softmax of all other methods here.
    """
    entropy = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    # clamped: the gradient of 0 ** gamma is infinite for gamma < 1
    missing = (-torch.expm1(-entropy)).clamp_min(1e-12)
    return (missing**gamma * entropy * valid).sum() / valid.sum().clamp_min(1)


def ohem(logits: torch.Tensor, labels: torch.Tensor, threshold: float = 0.7) -> torch.Tensor:
    """Online hard example mining (Shrivastava 2016; for pixels, Wu 2016): the mean of -log p over the hard pixels.

    Hard are valid pixels with p < threshold, and in any case the hardest sixteenth of all pixels. Own code, since
    torchvision and segmentation-models-pytorch have none.
    """
    entropy = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none").flatten()
    least = entropy.detach().topk(max(1, len(entropy) // 16)).values[-1].clamp_max(-math.log(threshold))
    hard = (entropy >= least) & (labels.flatten() != IGNORE)
    return (entropy * hard).sum() / hard.sum().clamp_min(1)


def region_loss(name: str, logits: torch.Tensor, labels: torch.Tensor, beta: float = 0.7) -> torch.Tensor:
    """Dice (Milletari 2016), Tversky (Salehi 2017; beta weighs misses, 1 - beta false pixels) or Lovasz-softmax
    (Berman 2018), over the whole batch, as segmentation-models-pytorch has them; 0 for a batch without valid pixels.
    """
    from segmentation_models_pytorch import losses  # imported here: it takes seconds, and most methods need none of it

    if (labels == IGNORE).all():
        return 0 * logits.sum()
    function = {
        "dice": lambda: losses.DiceLoss("multiclass", ignore_index=IGNORE),
        "tversky": lambda: losses.TverskyLoss("multiclass", ignore_index=IGNORE, alpha=1 - beta, beta=beta),
        "lovasz": lambda: losses.LovaszLoss("multiclass", ignore_index=IGNORE),
    }[name]()
    return function(logits.float(), labels)


def adjusted(logits: torch.Tensor, prior: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """Logit adjustment (Menon 2021, equation 10): z_c + tau log p_c, in the loss alone; prior p (C,) sums to 1."""
    return logits.float() + tau * prior.log()[:, None, None]


def varied(logits: torch.Tensor, prior: torch.Tensor, sigma: float = 4.0) -> torch.Tensor:
    """Balanced logit variation (BLV, Wang 2023): z_c + |noise| c_c, noise N(0, sigma) cut at +-1, in the loss alone.

    c_c = log(1 / p_c) over its largest value: the rarer a class, the more noise. Prior p (C,) sums to 1.
    """
    scale = -prior.log()
    noise = (sigma * torch.randn_like(logits, dtype=torch.float32)).clamp(-1, 1).abs()
    return logits.float() + noise * (scale / scale.max())[:, None, None]


class Criterion(nn.Module):
    """A weighting and a loss: what a method is. Call `update(feedback)`, then the criterion itself.

    Args:
        statistics: of the training split, for the losses that need class frequencies.
    """

    def __init__(self, config: RunConfig, weighting: Weighting, statistics: ClassStatistics):
        super().__init__()
        self.weighting, self.config = weighting, config
        # a class that does not occur in training would have log 0: it is taken to have one pixel
        pixels = torch.as_tensor(statistics.pixels, dtype=torch.float64).clamp_min(1)
        self.register_buffer("prior", (pixels / pixels.sum()).float())

    def update(self, feedback: Feedback) -> None:
        self.weighting.update(feedback)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W), labels (B, H, W) -> scalar."""
        config, weight = self.config, self.weighting.weight
        match config.loss:
            case "cross_entropy":
                return cross_entropy(logits, labels, weight)
            case "focal":
                return focal(logits, labels, config.focal_gamma)
            case "ohem":
                return ohem(logits, labels, config.ohem_threshold)
            case "logit_adjustment":
                return cross_entropy(adjusted(logits, self.prior, config.logit_adjustment_tau), labels, weight)
            case "logit_variation":
                return cross_entropy(varied(logits, self.prior, config.logit_variation_sigma), labels, weight)
            case "cross_entropy_and_dice":
                return cross_entropy(logits, labels, weight) + region_loss("dice", logits, labels)
        share = config.cross_entropy_share
        region = region_loss(config.loss, logits, labels, config.tversky_beta)
        return region if share == 0 else share * cross_entropy(logits, labels, weight) + (1 - share) * region


def build_weighting(config: RunConfig, statistics: ClassStatistics, frozen: torch.Tensor | None = None,
                    epoch_steps: int = 1) -> Weighting:
    """The weighting a run asks for.

    Args:
        epoch_steps: training steps of an epoch.
        frozen: (C,) the weights to keep, for score_source "frozen".
    """
    num_classes = len(statistics.classes)
    if config.weighting == "recall":
        return RecallWeighting(num_classes)
    if config.weighting == "class_difficulty":
        return ClassDifficultyWeighting(num_classes, epoch_steps, config.difficulty_exponent)
    if config.weighting != "cawa":
        return Weighting(static_weight(config.weighting, statistics, config.effective_beta))
    if config.score_source == "frozen":
        return Weighting(frozen)
    return CAWAWeighting(
        num_classes, threshold=config.pseudo_mask_threshold, parts=tuple(config.score_parts.split(",")),
        momentum=config.score_momentum, stride=config.score_stride, absent_images=config.absent_images,
        max_images=config.feedback_images, layer=config.target_layer, kind=config.cam_kind,
        source=config.score_source, terms=config.weight_terms, seed=config.seed, exclusive=config.exclusive_masks,
        power=config.weight_power, prior=static_weight("inverse_frequency", statistics) ** config.frequency_prior,
        warmup=_updates(config, config.warmup_epochs, epoch_steps),
        until=_updates(config, config.epochs - config.cooldown_epochs, epoch_steps))


def _updates(config, epochs, epoch_steps):
    """Updates of the class weights in so many epochs."""
    return -(-epochs * epoch_steps // config.update_every)


class CAWALoss(nn.Module):
    """CAWA as a drop-in criterion for anybody's training loop.

        criterion = CAWALoss(num_classes=19)
        features = backbone(images)                      # the input of the last classifier
        logits = upsample(classifier(features))
        criterion.update(features, labels, classifier)   # feedback from the class activation maps
        loss = criterion(logits, labels)

    Args:
        num_classes: C.
        options: those of `cawa.CAWAWeighting`.
    """

    def __init__(self, num_classes: int, **options):
        super().__init__()
        self.weighting = CAWAWeighting(num_classes, **options)

    def update(self, features: torch.Tensor, labels: torch.Tensor, head: nn.Module,
               logits: torch.Tensor | None = None) -> None:
        """Score this step's maps and move the weights.

        Args:
            features: (B, K, h, w), the input of `head`.
            labels: (B, H, W) int64, 255 = ignore.
            head: what turns features into logits (B, C, h', w').
            logits: (B, C, H, W), needed only for source "prediction".
        """
        logits = None if logits is None else logits.detach()
        self.weighting.update(Feedback(labels, logits, features.detach(), head))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W), labels (B, H, W) -> scalar."""
        return cross_entropy(logits, labels, self.weighting.weight)
