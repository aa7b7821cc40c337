"""segmentation_models.pytorch's CamVid notebook in shape, under Lightning: fit, checkpoint, resume, precisions, DDP."""

import pytest
import torch
from common import CLASSES, batches, close, two_processes
from lightning_module import SIZE, fit, module


def test_the_losses_of_the_explicit_loop_and_validation_moves_nothing(tmp_path):
    one, reference = module(), module(explicit=True)
    fit(one, 2, tmp_path)
    optimizers = reference.configure_optimizers()
    for _ in range(2):
        reference.train()
        for images, labels in batches(4, SIZE):
            loss = reference.loss_fn(reference(images), labels)
            optimizers["optimizer"].zero_grad()
            loss.backward()
            optimizers["optimizer"].step()
            optimizers["lr_scheduler"]["scheduler"].step()
    close(one.losses, reference.loss_fn.losses)
    close(one.loss_fn.weight, reference.loss_fn.weighting.weight)
    assert one.loss_fn.calls == 8  # the batches of training, and no others
    assert not torch.equal(one.loss_fn.weight, torch.ones(CLASSES))


def test_a_checkpoint_resumes_as_if_nothing_had_been(tmp_path):
    whole, half, resumed = module(), module(), module()
    fit(whole, 2, tmp_path)
    fit(half, 1, tmp_path).save_checkpoint(tmp_path / "half.ckpt")
    fit(resumed, 2, tmp_path, tmp_path / "half.ckpt")
    assert resumed.losses == whole.losses[4:] and torch.equal(resumed.loss_fn.weight, whole.loss_fn.weight)
    again = type(whole).load_from_checkpoint(tmp_path / "half.ckpt", out_classes=CLASSES, weights_only=True)
    assert torch.equal(again.loss_fn.weight, half.loss_fn.weight)


# on a CPU Lightning makes bf16-mixed of 16-mixed, and says so: float16 with a scaler is in check_plain
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true", "16-true"])
def test_precisions(precision, tmp_path):
    one, reference = module(), module(explicit=True)
    for each in (one, reference):
        fit(each, 1, tmp_path, precision=precision)
    close(one.losses[0], reference.losses[0])
    if precision.endswith("mixed"):
        close(one.losses, reference.losses)
    else:  # 2e-7 more or less in a loss moves a parameter in half by its last bit
        assert one.losses == pytest.approx(reference.losses, rel=0.02)
    weight = one.loss_fn.weight
    assert weight.dtype == torch.float32 and not torch.equal(weight, torch.ones(CLASSES))


def test_two_processes(tmp_path):
    one, other = two_processes("two_lightning.py", tmp_path, torchrun=False)
    assert torch.equal(one["weight"], other["weight"]) and torch.equal(one["parameters"], other["parameters"])
    for found in (one, other):
        close(found["losses"], found["explicit"])
