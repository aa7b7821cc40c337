"""Hugging Face's Trainer with SegFormer: logits at a quarter of the labels' size, evaluation, checkpoints, resuming."""

import pytest
import torch
from common import CLASSES, RATE, Explicit, batches, close, recorded
from torch.utils.data import Dataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation, Trainer, TrainingArguments

from cawalib.method import CAWALoss


class Pairs(Dataset):
    def __init__(self):
        self.pairs = [pair for images, labels in batches(4) for pair in zip(images, labels, strict=True)]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return dict(zip(("pixel_values", "labels"), self.pairs[index], strict=True))


def make():
    torch.manual_seed(0)
    config = SegformerConfig(num_labels=CLASSES, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, decoder_hidden_size=16,
                             num_attention_heads=[1, 2, 3, 4], drop_path_rate=0.0, classifier_dropout_prob=0.0)
    return SegformerForSemanticSegmentation(config)


def trainer_of(folder, steps, **options):
    """A new Trainer with its three lines, and the losses that it will have."""
    num_labels, model, dataset = CLASSES, make(), Pairs()
    args = TrainingArguments(folder, max_steps=steps, save_steps=2, learning_rate=RATE, per_device_train_batch_size=2,
                             train_sampling_strategy="sequential", optim="sgd", max_grad_norm=0.0, use_cpu=True,
                             lr_scheduler_type="constant", report_to=[], disable_tqdm=True, **options)
    model.criterion = CAWALoss(num_labels, model)
    trainer = Trainer(
        model, args, train_dataset=dataset, eval_dataset=dataset,
        compute_loss_func=lambda outputs, labels, **_: model.criterion(outputs, labels),
    )
    return trainer, recorded(model.criterion)


def explicit(steps, precision=None):
    network, data = make().train(), batches(4)
    criterion = Explicit(network.decode_head.classifier)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    for step in range(steps):
        images, labels = data[step % 4]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = network(images)
        output.logits = output.logits.float()  # as Accelerate gives it
        loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return criterion


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_the_losses_of_the_explicit_loop(precision, tmp_path):
    trainer, losses = trainer_of(tmp_path, 4, bf16=precision == "bf16")
    trainer.train()
    expected = explicit(4, precision)
    close(losses, expected.losses)
    close(trainer.model.criterion.weight, expected.weighting.weight)


def test_evaluation_moves_nothing(tmp_path):
    trainer, _ = trainer_of(tmp_path, 2)
    trainer.train()
    before = trainer.model.criterion.weight
    assert trainer.evaluate()["eval_loss"] > 0
    assert torch.equal(trainer.model.criterion.weight, before) and trainer.model.criterion.calls == 2


def test_a_checkpoint_resumes_as_if_nothing_had_been(tmp_path):
    whole, losses = trainer_of(tmp_path / "whole", 4)
    whole.train()
    trainer_of(tmp_path / "half", 2)[0].train()
    resumed, rest = trainer_of(tmp_path / "half", 4)
    resumed.train(resume_from_checkpoint=True)
    assert rest == losses[2:]
    assert torch.equal(resumed.model.criterion.weight, whole.model.criterion.weight)
    alone = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "half" / "checkpoint-4")
    assert torch.equal(alone.decode_head.classifier.weight, resumed.model.decode_head.classifier.weight)


def test_batches_in_parts(tmp_path):
    trainer, losses = trainer_of(tmp_path, 2, gradient_accumulation_steps=2)
    criterion = trainer.model.criterion
    criterion.update_every, criterion.loss_weight = 2, 1 / 2  # the Trainer adds the parts up
    found = trainer.train().training_loss
    assert len(losses) == 4 and found == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert criterion.calls == 4 and criterion.weighting.updates == 2
