"""CAWA as a criterion for anybody's training loop: `loss = criterion(output, labels)`, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cawalib.method.capture import Capture, candidates
from cawalib.method.cawa import CAWAWeighting, in_choices, in_range
from cawalib.method.decision import Decision, decision_at
from cawalib.method.inputs import at_size, class_labels, main_logits, two_classes
from cawalib.method.losses import cross_entropy
from cawalib.method.weighting import Feedback


class CAWAWeights(nn.Module):
    """Class weights from predictions, for people with a loss of their own::

        weights = CAWAWeights(num_classes=19)
        weight = weights.update(logits, labels)          # (C,), mean 1, no gradient

    Args:
        num_classes: C; 1: sigmoid, with two weights, background's first.
        ignore_index: label of void pixels.
        update_every: calls of `update` between two changes of the weights.
        options: of `cawa.CAWAWeighting`, named as in the notebooks: score_momentum, score_stride, feedback_images (at
            most so many images of a batch are scored), ...

    Raises:
        ValueError: an option out of its range.
    """

    calls: torch.Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255, update_every: int = 1, **options: Any):
        super().__init__()
        in_range("num_classes", num_classes, 1)
        in_range("update_every", update_every, 1)
        self.num_classes, self.ignore_index, self.update_every = num_classes, ignore_index, update_every
        classes = max(num_classes, 2)
        options.setdefault("score_source", "prediction")
        if type(self) is CAWAWeights:
            in_choices("score_source", options["score_source"], ("prediction",))  # there is nothing to make maps of
        self.weighting = CAWAWeighting(classes, ignore_index=classes, **options)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._calls = 0  # the same number on the host, so that no step waits for it

    def update(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """Score a batch, move the weights, and give them.

        Args:
            output: see `inputs.main_logits` for what is taken.
            labels: see `inputs.class_labels`.

        Returns:
            (C,) float32 of mean 1, without a gradient.
        """
        logits, labels = self._prepared(main_logits(output, self.num_classes), labels)
        self._move(Feedback(labels, logits.detach()))
        return self.weight

    @property
    def weight(self) -> torch.Tensor:
        """(C,) float32 of mean 1, a copy that later updates do not change."""
        return self.weighting.weight.clone()

    @property
    def score(self) -> torch.Tensor:
        """S (C,) in [0, 1], the running mean of how well each class is found."""
        return self.weighting.score()

    def table(self, class_names: Iterable[str]) -> str:
        """Score and weight of every class in Markdown, the heaviest first."""
        rows = sorted(zip(self.weight.tolist(), self.score.tolist(), class_names, strict=True), key=lambda row: -row[0])
        lines = [f"| {name} | {score:.2f} | {weight:.2f} |" for weight, score, name in rows]
        return "\n".join(["| class | score | weight |", "|:-|-:|-:|", *lines])

    def _prepared(self, logits, labels):
        """Logits (B, C, ...) float32 at the labels' size, and labels with C for void."""
        labels = class_labels(labels, self.num_classes, self.ignore_index, logits.dim())
        if len(labels) != len(logits):
            raise ValueError(f"labels: found {len(labels)} images, expected {len(logits)} as in output")
        logits = at_size(logits.float(), labels.shape[1:])
        return (two_classes(logits) if self.num_classes == 1 else logits), labels

    def _move(self, feedback):
        if self._calls % self.update_every == 0:
            self.weighting.update(feedback)
        self._calls += 1
        self.calls += 1

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self._calls = int(self.calls)

    def _apply(self, function, recurse=True):
        """Moves to another device; the state stays in float32, in which a running mean of thousands of steps is one."""
        kept = {name: buffer for name, buffer in self.named_buffers() if buffer.is_floating_point()}
        super()._apply(function, recurse)
        for name, buffer in kept.items():
            owner, _, own = name.rpartition(".")
            module = self.get_submodule(owner)
            setattr(module, own, buffer.to(getattr(module, own).device))
        return self


class CAWALoss(CAWAWeights):
    """Weighted cross entropy whose class weights move by themselves, in training mode, with each call::

        criterion = CAWALoss(num_classes=19, model=net)  # net: images -> logits
        loss = criterion(net(images), labels)

    With `model`, scores come from the class activation maps of its last classifier, which is found by itself; without,
    from predictions. Whoever calls `update` by hand has the maps of what is given there. After training,
    `criterion.decision("balanced")` turns logits into classes, at one of three points between rare classes and overall
    accuracy (METHOD.md, section 6).

    Args:
        num_classes: C; 1: sigmoid.
        model: the network, before it is wrapped or compiled. Its last classifier is the convolution, or the
            linear layer on tokens or channels last, that makes C channels on the way to the main output.
        head: that layer, or its name in the model, where several fit.
        ignore_index: label of void pixels; any number.
        update_every: calls between two updates of the weights; with gradients accumulated over n batches: n.
        label_smoothing: as PyTorch has it.
        loss_weight: the loss is multiplied with it.
        options: see `CAWAWeights`.

    Raises:
        ValueError: no such layer in the model, or an option out of its range.
    """

    def __init__(self, num_classes: int, model: nn.Module | None = None, head: nn.Module | str | None = None,
                 ignore_index: int = 255, *, update_every: int = 1, label_smoothing: float = 0.0,
                 loss_weight: float = 1.0, **options: Any):
        mapped = model is not None or head is not None
        options.setdefault("score_source", "cam" if mapped else "prediction")
        super().__init__(num_classes, ignore_index, update_every, **options)
        in_range("label_smoothing", label_smoothing, 0, 1)
        self.label_smoothing, self.loss_weight, self.by_hand = label_smoothing, loss_weight, False
        # no submodule: the network's parameters are not the loss's
        self.capture = Capture(_heads(num_classes, model, head), sure=head is not None) if mapped else None

    def forward(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """What the network gives (`inputs.main_logits`) and labels (`inputs.class_labels`) -> scalar."""
        raw = main_logits(output, self.num_classes)
        logits, labels = self._prepared(raw, labels)
        if self.training and torch.is_grad_enabled() and not self.by_hand:
            self._move_by_itself(raw, logits, labels)
        weight = self.weight  # a copy: an update before the backward pass does not disturb it
        loss = cross_entropy(logits, labels, weight, self.weighting.ignore_index, self.label_smoothing)
        return self.loss_weight * loss

    def _move_by_itself(self, raw, logits, labels):
        features, head = (self.capture.take(raw) if self.capture else None) or (None, None)
        if head is not None or self.weighting.source == "prediction":
            self._move(Feedback(labels, logits.detach(), features, self._as_softmax(head)))
        elif self.capture is None:
            raise ValueError(f"score_source: found {self.weighting.source!r}, which needs class activation maps, "
                             "expected 'model' as well, or a call of update, or 'prediction'")
        else:
            warnings.warn("CAWALoss saw no forward pass of its model in training mode since its last call, and leaves "
                          "the class weights as they are; is it the model that makes the output?", stacklevel=3)

    def _as_softmax(self, head):
        return (lambda features: two_classes(head(features))) if self.num_classes == 1 and head is not None else head

    def update(self, features: torch.Tensor, labels: torch.Tensor, head: nn.Module,  # type: ignore[override]
               logits: torch.Tensor | None = None) -> None:
        """Score this step's maps and move the weights. From then on the loss does not do it by itself.

        Args:
            features: (B, K, h, w), the input of `head`.
            labels: see `inputs.class_labels`.
            head: what turns features into logits (B, C, h', w'), best its last convolution alone.
            logits: (B, C, H, W), needed only for scores from predictions.
        """
        wanted = getattr(head, "in_channels", features.shape[1])
        if features.dim() not in (4, 5) or features.shape[1] != wanted:
            raise ValueError(f"features: found shape {tuple(features.shape)}, expected the head's input (B, {wanted}, "
                             "h, w)")
        labels = class_labels(labels, self.num_classes, self.ignore_index, features.dim())
        if logits is None:
            self.weighting.source = "shuffled" if self.weighting.source == "shuffled" else "cam"
        else:
            logits = at_size(logits.detach().float(), labels.shape[1:])
        self.by_hand = True
        self._move(Feedback(labels, logits, features.detach(), self._as_softmax(head)))

    def decision(self, point: str | float = "balanced") -> Decision:
        """What turns logits into classes, with the present weights: "rare" as trained, "balanced", or "accurate".

        Raises:
            ValueError: with one class, whose sigmoid has a threshold instead.
        """
        if self.num_classes == 1:
            raise ValueError("decision: found num_classes 1, expected at least 2; move the sigmoid's threshold instead")
        return decision_at(self.weighting.weight, point)


def _heads(num_classes, model, head):
    """Name -> layer: those that may be the last classifier."""
    if isinstance(head, nn.Module):
        return {"head": head}
    if head is not None:
        known = dict(model.named_modules()) if model is not None else {}
        if head not in known:
            raise ValueError(f"head: found {head!r}, expected a layer, or the name of one in the model")
        return {head: known[head]}
    found = candidates(model, num_classes)
    if not found:
        raise ValueError(f"model: found no convolution or linear layer that makes {num_classes} channels, expected the "
                         "last classifier to; pass it as 'head', or leave out 'model' for scores from predictions")
    return found
