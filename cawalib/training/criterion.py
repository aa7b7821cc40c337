"""The loss of a run: a weighting and a loss function, as a method's settings ask for them (METHOD.md, Competitors)."""

from __future__ import annotations

import torch
from torch import nn

from cawalib.datasets import IGNORE, ClassStatistics
from cawalib.method import (
    CAWAWeighting,
    ClassDifficultyWeighting,
    Feedback,
    RecallWeighting,
    Weighting,
    adjusted,
    cross_entropy,
    derangement,
    focal,
    ohem,
    static_weight,
    varied,
)
from cawalib.settings import MethodConfig

# of CAWAWeighting, by the names that the settings have as well
OPTIONS = ("pseudo_mask_threshold", "score_parts", "score_momentum", "score_stride", "absent_images", "feedback_images",
           "target_layer", "cam_kind", "score_source", "weight_terms", "exclusive_masks", "weight_power")


class Criterion(nn.Module):
    """A weighting and a loss: what a method is. Call `update(feedback)`, then the criterion itself.

    Args:
        statistics: of the training split, for the losses that need class frequencies.
        line: whose weights say where the line between classes lies; None: it goes with the class weights.
    """

    def __init__(self, config: MethodConfig, weighting: Weighting, statistics: ClassStatistics,
                 line: Weighting | None = None):
        super().__init__()
        self.weighting, self.config, self.line = weighting, config, line
        # a class that does not occur in training would have log 0; one pixel in its place would have adjustment decide
        # for it everywhere, so log 1: its logit is left alone
        pixels = torch.as_tensor(statistics.pixels, dtype=torch.float64)
        self.register_buffer("prior", torch.where(pixels > 0, pixels / pixels.sum(), 1).float())

    def update(self, feedback: Feedback) -> None:
        self.weighting.update(feedback)
        if self.line is not None:
            self.line.update(feedback)

    def divisor(self, labels: torch.Tensor) -> torch.Tensor | None:
        """What the loss divides by, a scalar: the weight of the valid pixels; None: it is no mean over pixels.

        By this, the mean over several processes' batches becomes that over the pixels of all of them.
        """
        if self.config.loss not in ("cross_entropy", "focal", "logit_adjustment", "logit_variation"):
            return None
        valid = labels != IGNORE
        return (self.weighting.weight[labels.where(valid, 0)] * valid).sum()

    def share_feedback(self, index: int, processes: int) -> None:
        """Have this process look at its part of `feedback_images`, at least one."""
        for weighting in (self.weighting, self.line):
            if isinstance(weighting, CAWAWeighting):
                count = weighting.max_images
                weighting.max_images = max(1, count // processes + (index < count % processes))

    @property
    def costs(self) -> torch.Tensor | None:
        """What the trained network's line between classes is drawn with, w (C,) of `method.Decision`; None: nothing."""
        if self.line is not None:
            return self.line.usual
        if self.config.loss == "logit_adjustment":  # softmax(z + tau log p) tends to the posterior
            return self.prior ** -self.config.logit_adjustment_tau
        return None if self.config.weighting == "uniform" else self.weighting.usual

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W), labels (B, H, W) -> scalar."""
        config, weight = self.config, self.weighting.weight
        match config.loss:
            case "cross_entropy":
                return cross_entropy(self._moved(logits), labels, weight)
            case "focal":
                return focal(logits, labels, config.focal_gamma)
            case "ohem":
                return ohem(logits, labels, config.ohem_threshold)
            case "logit_adjustment":
                return cross_entropy(adjusted(logits, self.prior, config.logit_adjustment_tau), labels, weight)
            case "logit_variation":
                return cross_entropy(varied(logits, self.prior, config.logit_variation_sigma), labels, weight)
            case "cross_entropy_and_dice":
                return cross_entropy(self._moved(logits), labels, weight) + region_loss("dice", logits, labels)
        share = config.cross_entropy_share
        region = region_loss(config.loss, logits, labels, config.tversky_beta)
        return region if share == 0 else share * cross_entropy(logits, labels, weight) + (1 - share) * region

    def _moved(self, logits):
        """Logits + log w - log v, so that what is learned goes by w, and the line lies at v (METHOD.md, section 6)."""
        if self.line is None:
            return logits
        return logits.float() + (self.weighting.weight.log() - self.line.weight.log())[:, None, None]


def build_weighting(config: MethodConfig, statistics: ClassStatistics, frozen: torch.Tensor | None = None,
                    epochs: int = 1, epoch_steps: int = 1, seed: int = 0) -> Weighting:
    """The weighting a run asks for.

    Args:
        frozen: (C,) the weights to keep, for score_source "frozen", or to keep in other places, for "permuted".
        epochs, epoch_steps: of the run, and training steps of an epoch.
        seed: of the controls that give classes another one's scores or weights.
    """
    num_classes = len(statistics.classes)
    if config.weighting == "recall":
        return RecallWeighting(num_classes, IGNORE)
    if config.weighting == "class_difficulty":
        return ClassDifficultyWeighting(num_classes, epoch_steps, config.difficulty_exponent, IGNORE)
    if config.weighting != "cawa":
        return Weighting(static_weight(config.weighting, statistics.pixels, statistics.images,
                                       statistics.pixels_where_present, config.effective_beta))
    if config.score_source == "frozen":
        return Weighting(frozen)
    if config.score_source == "permuted":
        return Weighting(frozen[derangement(num_classes, seed)])
    return CAWAWeighting(
        num_classes, **{name: getattr(config, name) for name in OPTIONS}, seed=seed,
        prior=static_weight("inverse_frequency", statistics.pixels) ** config.frequency_prior,
        warmup=updates_in(config, config.warmup_epochs, epoch_steps),
        until=updates_in(config, epochs - config.cooldown_epochs, epoch_steps), ignore_index=IGNORE)


def build_line(config: MethodConfig, num_classes: int) -> Weighting | None:
    """What sets the line between classes apart from the class weights: CAWA's feedback at its defaults, or nothing."""
    if config.line_source == "weights":
        return None
    return CAWAWeighting(num_classes, score_source=config.line_source, ignore_index=IGNORE)


def updates_in(config: MethodConfig, epochs: int, epoch_steps: int) -> int:
    """Updates of the class weights in so many epochs."""
    return -(-epochs * epoch_steps // config.update_every)


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
