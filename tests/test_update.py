"""The weight update as a guest in somebody's training: no growth, no waiting, compiled, over two processes."""

import copy
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cawalib.method import CAWALoss, CAWAWeighting, Feedback, RecallWeighting, count, cross_entropy, score_labels
from cawalib.method.cam import KINDS
from cawalib.runs import RunConfig
from cawalib.training import build_model


def batch(seed=0, classes=5, size=(32, 48)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (4, *size), generator=generator)
    labels[:, :4] = 255
    return torch.randn(4, 3, *size, generator=generator), labels


def network():
    torch.manual_seed(0)
    return build_model(RunConfig(method="none"), num_classes=5)


def live_bytes():
    gc.collect()
    return sum(item.untyped_storage().nbytes() for item in gc.get_objects() if isinstance(item, torch.Tensor))


@pytest.mark.long
@pytest.mark.parametrize("layer", ["decoder", "body.down.1"])
def test_a_thousand_updates_leave_memory_where_it_was(layer):
    model, weighting, (images, labels) = network().train(), CAWAWeighting(5, target_layer=layer), batch()
    _, features = model(images, return_features=True)
    feedback = Feedback(labels, None, features.detach(), model.classifier, model, images)
    del features
    for _ in range(3):
        weighting.update(feedback)
    before = live_bytes()
    for _ in range(1000 if layer == "decoder" else 100):
        weighting.update(feedback)
    assert live_bytes() == before


@pytest.mark.parametrize("make", [
    lambda: CAWAWeighting(5), *[lambda kind=kind: CAWAWeighting(5, cam_kind=kind) for kind in KINDS],
    lambda: CAWAWeighting(5, score_source="prediction"), lambda: CAWAWeighting(5, absent_images="skip"),
    lambda: RecallWeighting(5)])
def test_a_step_on_a_gpu_never_waits_for_a_number(make):
    """Fake tensors on CUDA know shapes only: whatever the host would have to wait for raises an error."""
    model, weighting, (images, labels) = network(), make(), batch()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        def to_gpu(tensor):
            return fake.from_tensor(tensor).to("cuda")

        for module in (model, weighting):
            for owner in module.modules():
                for name, value in owner._buffers.items():
                    owner._buffers[name] = to_gpu(value)
                for name, value in dict(owner.named_parameters(recurse=False)).items():
                    owner._parameters[name] = nn.Parameter(to_gpu(value.detach()))
        labels = to_gpu(labels)
        logits, features = model(to_gpu(images), return_features=True)
        weighting.update(Feedback(labels, logits.detach(), features.detach(), model.classifier))
        weighting.record()
        cross_entropy(logits, labels, weighting.weight)
        with pytest.raises(Exception, match="DataDependent|data-dependent|_local_scalar_dense"):
            weighting.weight.sum().item()  # the check itself can fail


def test_counts_are_those_of_whole_masks():
    """Against the plain definition, pixel by pixel, with all images at once."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(3, 4, 10, 12, generator=generator) > 0.5
    labels = torch.randint(6, (3, 10, 12), generator=generator)
    labels[0, :3] = 255
    labels[1][labels[1] == 2] = 5  # an image without a class that is asked for
    classes = torch.tensor([0, 2, 3, 5])
    for absent in ("count", "skip"):
        expected = np.zeros((7, 3))
        for place, index in enumerate(classes.tolist()):
            for mask, truth in zip(masks[:, place].numpy(), labels.numpy(), strict=True):
                own, valid = truth == index, truth != 255
                if absent == "count" or own.any():
                    expected[index] += [(mask & own).sum(), (mask & ~own & valid).sum(), (~mask & own).sum()]
        assert np.array_equal(count(masks, labels, classes, 7, absent).numpy(), expected)


def test_images_in_parts_change_nothing(monkeypatch):
    model, (images, labels) = network().eval(), batch()
    with torch.no_grad():
        features = model.features(images)
    feedback = Feedback(labels, None, features, model.classifier, model, images)
    for layer in ("decoder", "body.down.1"):
        weighting = CAWAWeighting(5, target_layer=layer)
        whole = weighting.count(feedback)
        with monkeypatch.context() as patch:
            patch.setattr("cawalib.method.cawa.MASK_PIXELS", {False: 1})
            assert torch.equal(weighting.count(feedback), whole)
        valid = (score_labels(labels, 2) != 255).sum()
        assert whole[:, 0].sum() + whole[:, 2].sum() == valid  # every labelled pixel is hit or missed once


@pytest.mark.long
def test_gradient_accumulation_and_compiled_network():
    """The same gradients with an update in between as without; and a compiled network gives the same weights."""
    halves = [batch(1), batch(2)]

    def gradients(model, update, wrap=lambda model: model):
        criterion, wrapped = CAWALoss(5), wrap(model)
        for images, labels in halves:
            logits, features = wrapped(images, return_features=True)
            if update:
                criterion.update(features, labels, model.classifier)
            # without class weights, so that the gradients may be compared
            cross_entropy(logits, labels, torch.ones(5)).backward()
        return [parameter.grad.clone() for parameter in model.parameters()], criterion.weighting.weight

    plain, _ = gradients(network().train(), update=False)
    updated, weight = gradients(network().train(), update=True)
    assert all(torch.equal(one, other) for one, other in zip(plain, updated, strict=True))
    compiled, same = gradients(network().train(), True, lambda model: torch.compile(model, backend="aot_eager"))
    assert not torch.equal(weight, torch.ones(5))
    torch.testing.assert_close(same, weight, rtol=1e-4, atol=1e-4)
    for one, other in zip(compiled, updated, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


TWO = """
import sys
import torch
import torch.distributed as distributed
from cawalib.method import CAWAWeighting, Feedback
from cawalib.runs import RunConfig
from cawalib.training import Criterion, build_accelerator, load_checked, set_up, training_step

config = RunConfig(train_images=16, image_height=32, image_width=64, batch_size=4, device="cpu", data_root=sys.argv[1])
accelerator = build_accelerator(config)
rank = accelerator.process_index

# what two processes count together is what one counts that has both batches
torch.manual_seed(0)
head, features = torch.nn.Conv2d(6, 5, 1), torch.randn(4, 6, 8, 8)
labels = torch.randint(2, (4, 16, 16))
labels[3, 5:] = 4  # a class that only the second process has
half = slice(2 * rank, 2 * rank + 2)
weighting = CAWAWeighting(5, score_momentum=0.5)
weighting.update(Feedback(labels[half], None, features[half], head))
torch.save(weighting.weight, f"{sys.argv[2]}/weight{rank}.pt")
if rank == 0:
    torch.save({"features": features, "labels": labels, "head": head.state_dict()}, f"{sys.argv[2]}/whole.pt")

with accelerator.main_process_first():
    datasets = load_checked(config)
training = set_up(config, datasets, accelerator)
for images, labels in training.loader:
    training_step(training, images, labels)
state = {"weights": training.criterion.weighting.weight, "first": labels, **training.network.state_dict()}
torch.save(state, f"{sys.argv[2]}/state{rank}.pt")
accelerator.end_training()
"""


@pytest.mark.long
def test_two_processes_hold_the_same_weights(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           tmp_path / "two.py", tmp_path / "data", tmp_path], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]

    def read(name):
        return torch.load(tmp_path / name, weights_only=True)

    whole = read("whole.pt")
    head = nn.Conv2d(6, 5, 1)
    head.load_state_dict(whole["head"])
    alone = CAWAWeighting(5, score_momentum=0.5)
    alone.update(Feedback(whole["labels"], None, whole["features"], head))
    assert torch.equal(read("weight0.pt"), read("weight1.pt"))
    torch.testing.assert_close(read("weight0.pt"), alone.weight, rtol=1e-5, atol=1e-6)
    one, other = read("state0.pt"), read("state1.pt")
    assert not torch.equal(one["first"], other["first"])  # they saw different images
    learnt = [name for name in one if not name.endswith(("first", "running_mean", "running_var", "tracked"))]
    assert "weights" in learnt and all(torch.equal(one[name], other[name]) for name in learnt)
    assert not torch.equal(one["weights"], torch.ones_like(one["weights"]))


def test_state_that_two_weightings_could_share():
    """A weighting is copied with its running score: training two networks from one criterion must not mix them."""
    weighting, (images, labels) = CAWAWeighting(5), batch()
    model = network().eval()
    other = copy.deepcopy(weighting)
    weighting.update(Feedback(labels, None, model.features(images).detach(), model.classifier))
    assert torch.equal(other.weight, torch.ones(5)) and not other.running.seen.any()
