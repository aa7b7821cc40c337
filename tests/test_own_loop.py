"""CAWALoss in somebody's own loop: found, captured and moved by itself; what people have, and what they get wrong."""

import copy
import io
import os
import subprocess
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cawalib.method import CAWALoss, CAWAWeighting, CAWAWeights, Feedback
from cawalib.method.capture import on_a_grid, pointwise


class Net(nn.Module):
    """A network with an auxiliary head beside the classifier, and a batch norm."""

    def __init__(self, classes=4, dimensions=2):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.body = nn.Sequential(convolution(3, 6, 3, padding=1), nn.ReLU())
        self.auxiliary, self.classifier = convolution(6, classes, 1), convolution(6, classes, 1)

    def forward(self, images):
        features = self.body(images)
        return {"aux": self.auxiliary(features), "out": self.classifier(features)}


def batch(classes=4, size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (2, *size), generator=generator)
    labels[:, :3] = 255
    return torch.randn(2, 3, *size, generator=generator), labels


def network(**options):
    torch.manual_seed(1)
    return Net(**options).train()


def by_hand(net, steps, classes=4, **options):
    """Losses and weights of the explicit loop."""
    weighting, losses = CAWAWeighting(classes, **options), []
    for seed in range(steps):
        images, labels = batch(classes, seed=seed)
        with torch.no_grad():
            features = net.body(images)
        weighting.update(Feedback(labels, None, features, net.classifier))
        weight = weighting.weight.clone()
        losses.append(functional.cross_entropy(net.classifier(features), labels, weight, ignore_index=255))
    return torch.stack(losses).detach(), weighting.weight


def by_itself(net, steps, call):
    criterion, losses = CAWALoss(4, net), []
    for seed in range(steps):
        images, labels = batch(seed=seed)
        losses.append(criterion(call(images), labels))
        losses[-1].backward()
    return torch.stack(losses).detach(), criterion.weight


@pytest.mark.parametrize("call", [
    lambda net: net, pytest.param(lambda net: torch.compile(net, backend="aot_eager"), marks=pytest.mark.long),
    lambda net: lambda images: checkpoint(net, images, use_reentrant=False)], ids=["plain", "compiled", "checkpointed"])
def test_the_loss_of_the_explicit_loop_from_one_line(call):
    net = network()
    expected, weight = by_hand(net, 3)
    found, same = by_itself(net, 3, call(net))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same, weight, rtol=1e-5, atol=1e-6)
    assert not torch.equal(weight, torch.ones(4))


@pytest.mark.parametrize("make, name", [
    ("deeplabv3_mobilenet_v3_large", "classifier.4"), ("unet", "segmentation_head.0")])
def test_the_last_classifier_of_known_networks_is_found(make, name):
    if make == "unet":
        import segmentation_models_pytorch as smp
        net = smp.Unet("resnet18", encoder_weights=None, classes=5)
    else:
        from torchvision.models import segmentation
        net = getattr(segmentation, make)(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    criterion = CAWALoss(5, net)
    criterion(net.train()(torch.randn(2, 3, 64, 64)), torch.randint(5, (2, 64, 64))).backward()
    assert list(criterion.capture.heads) == [name] and not torch.equal(criterion.weight, torch.ones(5))


def test_several_that_fit_are_named_and_one_may_be_chosen():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    labels = torch.ones(2, 64, 64).long()
    with pytest.raises(ValueError, match="found 2 layers that may be the last classifier .classifier.high_classifier, "
                                         "classifier.low_classifier., expected one; pass it as 'head'"):
        CAWALoss(5, net)(net(torch.randn(2, 3, 64, 64)), labels)
    chosen = CAWALoss(5, net, head="classifier.low_classifier")
    chosen(net(torch.randn(2, 3, 64, 64)), labels)
    assert chosen.capture.heads == {"classifier.low_classifier": net.classifier.low_classifier}
    for wrong, message in ((lambda: CAWALoss(6, net), "model: found no convolution or linear layer that makes 6 c"),
                           (lambda: CAWALoss(5, net, head="last"), "head: found 'last', expected a layer, or the nam")):
        with pytest.raises(ValueError, match=message):
            wrong()


class Patches(nn.Module):
    """Tokens of patches of 4 x 4 pixels, a linear layer on them, and logits at the image's size."""

    def __init__(self, form="tokens"):
        super().__init__()
        self.form, self.patch = form, nn.Conv2d(3, 6, 4, stride=4)
        self.mix, self.head = nn.Linear(6, 4), nn.Linear(4, 4)  # the first is as wide as the second, and none

    def forward(self, images):
        features = self.patch(images).movedim(1, -1)
        tokens = self.mix(features if self.form == "channels last" else features.flatten(1, 2)).relu()
        if self.form == "one too many":
            tokens = torch.cat([tokens, tokens[:, :1]], dim=1)
        logits = self.head(tokens).movedim(-1, 1)
        if self.form == "mixed":
            logits = logits * 2
        if self.form == "one too many":
            logits = logits[:, :, 1:]
        logits = logits if self.form == "channels last" else logits.unflatten(2, (4, 6))
        return functional.interpolate(logits, images.shape[2:], mode="bilinear")


@pytest.mark.parametrize("form", ["tokens", "channels last"])
def test_a_linear_layer_on_tokens_is_a_convolution_of_one_pixel(form):
    torch.manual_seed(0)
    net, twin = Patches(form).train(), nn.Conv2d(4, 4, 1)
    twin.load_state_dict({"weight": net.head.weight[:, :, None, None], "bias": net.head.bias})
    criterion, weighting = CAWALoss(4, net), CAWAWeighting(4)
    for seed in range(3):
        images, labels = batch(seed=seed)
        with torch.no_grad():
            patches = functional.linear(net.patch(images).movedim(1, 3), net.mix.weight, net.mix.bias)
            logits = twin(patches.relu().movedim(3, 1))
        weighting.update(Feedback(labels, None, patches.relu().movedim(3, 1), twin))
        expected = functional.cross_entropy(functional.interpolate(logits, (16, 24), mode="bilinear"), labels,
                                            weighting.weight, ignore_index=255)
        torch.testing.assert_close(criterion(net(images), labels), expected)
    torch.testing.assert_close(criterion.weight, weighting.weight)
    assert list(criterion.capture.heads) == ["head"] and criterion.weight.std() > 0.01


@pytest.mark.parametrize("form, message", [
    ("mixed", "model: found MulBackward0 between the linear layer head and the output, expected nothing but reshaping"),
    ("one too many", "model: found (SliceBackward0 between the linear|25 tokens before the last classifier)")])
def test_linear_layers_that_are_no_classifier_are_refused(form, message):
    net, (images, labels) = Patches(form).train(), batch()
    with pytest.raises(ValueError, match=message):
        CAWALoss(4, net)(net(images), labels)
    if form == "mixed":
        CAWALoss(4, net, head="head")(net(images), labels)  # who names it knows
    else:
        with pytest.raises(ValueError, match="model: found 25 tokens before the last classifier, expected a grid"):
            CAWALoss(4, net, head="head")(net(images), labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", ["1", "1.2"])
def test_networks_in_half_and_half_as_the_default(dtype, head):
    """As Lightning's `bf16-true` has it; the weights are in float32 all the same."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), layers).to(dtype)
    images, labels = batch()
    whole = copy.deepcopy(net).float()
    expected = CAWALoss(4, whole, head)
    expected(whole(images.to(dtype).float()), labels)
    torch.set_default_dtype(dtype)
    try:
        criterion = CAWALoss(4, net, head)
        loss = criterion(net(images.to(dtype)), labels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert loss.dtype == criterion.weight.dtype == torch.float32
    torch.testing.assert_close(criterion.weight, expected.weight, rtol=0.05, atol=0.02)


def test_copies_storage_and_moving_keep_their_hands_off_each_other():
    net = network()
    criterion = CAWALoss(4, net)
    average = copy.deepcopy(net)  # as an exponential moving average keeps one
    images, labels = batch()
    output = net(images)
    average(torch.randn_like(images))  # between forward and loss: it must not be taken for the network
    criterion(output, labels)
    expected = by_hand(network(), 1)[1]
    torch.testing.assert_close(criterion.weight, expected)
    both = nn.ModuleDict({"net": net, "criterion": criterion})
    other = copy.deepcopy(both)
    assert other["criterion"].capture.heads["classifier"] is other["net"].classifier
    stored = io.BytesIO()
    torch.save(both, stored)
    stored.seek(0)
    again = torch.load(stored, weights_only=False)
    other_images, other_labels = batch(seed=9)
    again["criterion"](again["net"](other_images), other_labels)
    assert not torch.equal(again["criterion"].weight, criterion.weight)
    assert "classifier.weight" not in criterion.state_dict() and not list(criterion.parameters())
    resumed = CAWALoss(4, network())
    resumed.load_state_dict(criterion.state_dict())
    assert torch.equal(resumed.weight, criterion.weight) and resumed._calls == 1
    assert all(buffer.dtype == torch.float32 for buffer in criterion.half().buffers() if buffer.is_floating_point())


@pytest.mark.parametrize("between", [
    lambda net, other: net(other), lambda net, other: torch.no_grad()(net)(other),
    lambda net, other: net.eval()(other) and net.train()], ids=["trains", "without a gradient", "evaluates"])
@pytest.mark.parametrize("first", [True, False])
def test_features_are_those_of_the_latest_pass_that_trains(between, first, request):
    net, (images, labels), (other, _) = network(), batch(), batch(seed=5)
    criterion = CAWALoss(4, net)
    trains = "trains" in request.node.callspec.id
    if first or trains:  # a training pass after the one whose output is judged would be taken instead of it
        between(net, other)
    output = net(images)
    if not first and not trains:
        between(net, other)
    stored = io.BytesIO()
    torch.save(criterion, stored)  # between forward and loss: features are not stored
    criterion(output, labels)
    torch.testing.assert_close(criterion.weight, by_hand(network(), 1)[1])
    with pytest.warns(UserWarning, match="saw no forward pass of its model in training mode since its last call"):
        criterion(output, labels)  # they were let go


def test_a_layer_that_classifies_images_is_no_candidate():
    class Gated(Net):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(6, 4)

        def forward(self, images):
            return super().forward(images)["out"] + self.gate(self.body(images).mean((2, 3)))[..., None, None]

    net, (images, labels) = Gated().train(), batch()
    criterion = CAWALoss(4, net)
    criterion(net(images), labels)
    assert list(criterion.capture.heads) == ["classifier"] and not torch.equal(criterion.weight, torch.ones(4))


@pytest.mark.parametrize("grid", [(2, 3), (7, 5), (14, 14), (3, 11), (2, 3, 5), (4, 4, 2)])
@pytest.mark.parametrize("factor", [1, 3, 10, 16])
def test_tokens_row_by_row_are_a_grid(grid, factor):
    features = torch.arange(2 * torch.tensor(grid).prod() * 3).view(2, *grid, 3)
    size = tuple(factor * length for length in grid)
    found = on_a_grid(features.flatten(1, -2), size)
    assert torch.equal(found, features.movedim(-1, 1))
    assert torch.equal(on_a_grid(features, size), found)


def test_tokens_of_an_image_that_patches_do_not_fill():
    assert on_a_grid(torch.zeros(1, 8, 3), (33, 65)).shape == (1, 3, 2, 4)  # 2.02 by 3.97


def test_a_linear_layer_as_a_convolution_gives_what_it_gives():
    linear, tokens = nn.Linear(6, 4), torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(pointwise(linear)(tokens.movedim(-1, 1)), linear(tokens).movedim(-1, 1))


def test_a_head_alone_and_an_update_by_hand():
    net, (images, labels) = network(), batch()
    expected = by_hand(network(), 1)[1]
    alone = CAWALoss(4, head=net.classifier)
    alone(net(images), labels)
    torch.testing.assert_close(alone.weight, expected)
    criterion = CAWALoss(4, net)
    criterion.update(net.body(images), labels, net.classifier)
    output, other = net(images), batch(seed=5)[1]
    loss = criterion(output, other)  # from then on the loss does not move them by itself
    torch.testing.assert_close(criterion.weight, expected)
    torch.testing.assert_close(loss, functional.cross_entropy(output["out"], other, expected, ignore_index=255))


def test_when_weights_move_and_when_not():
    net, (images, labels) = network(), batch()
    criterion = CAWALoss(4, net, update_every=2)
    criterion(net(images), labels)
    first = criterion.weight
    criterion(net(images), torch.where(labels == 1, 2, labels))
    assert torch.equal(criterion.weight, first)  # every second call
    with torch.no_grad():
        criterion(net(images), labels)
    criterion.eval()(net(images), labels)
    assert torch.equal(criterion.weight, first)
    criterion.train()(net(images), torch.where(labels == 1, 2, labels))
    assert not torch.equal(criterion.weight, first)
    loss = criterion(net(images), labels)
    criterion(net(images), labels)  # an update between a forward and its backward
    loss.backward()
    for without in (lambda criterion, *batch: criterion.eval()(*batch), torch.no_grad()(CAWALoss.__call__)):
        alone = CAWALoss(4)
        without(alone, net(images), labels)
        assert torch.equal(alone.weight, torch.ones(4))
    unlabelled = criterion(net(images), torch.full_like(labels, 255))
    assert unlabelled == 0 and torch.isfinite(criterion.weight).all()


TWO = """
import sys

import torch
import torch.distributed as distributed
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from cawalib.method import CAWALoss

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank, found = distributed.get_rank(), {}
for kind in ("ddp", "fsdp"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    criterion = CAWALoss(4, net)
    if kind == "ddp":
        wrapped = DistributedDataParallel(net)
    else:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
        fully_shard(net[2], mesh=mesh)  # alone, so that it is shared out again right after its forward pass
        wrapped = fully_shard(net, mesh=mesh)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    images, labels = torch.load(sys.argv[1] + "/batch.pt")
    mine = slice(2 * rank, 2 * rank + 2)
    for step in range(3):
        # in the second step one process has no label at all
        truth = torch.full_like(labels[mine], 255) if step == 1 and rank == 1 else labels[mine]
        loss = criterion(wrapped(images[mine]), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    full = [value.full_tensor() if hasattr(value, "full_tensor") else value for value in net.parameters()]
    found[kind] = {"weight": criterion.weight, "parameters": torch.cat([value.detach().flatten() for value in full])}
    wrapped.eval(), criterion.eval()
    with torch.no_grad():  # one process alone evaluates, which must wait for nobody
        found[kind]["evaluated"] = criterion(net(images), labels) if kind == "ddp" and rank == 0 else None
    if kind == "fsdp":
        criterion(wrapped(images), labels)
    found[kind]["after"] = criterion.weight
torch.save(found, f"{sys.argv[1]}/found{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes_stay_alike_under_ddp_and_fsdp(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(4, 3, 16, 16, generator=generator), torch.randint(3, (4, 16, 16), generator=generator)
    labels[3, 4:] = 3  # a class that only the second process has
    torch.save((images, labels), tmp_path / "batch.pt")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           tmp_path / "two.py", tmp_path], env=os.environ | {"OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(tmp_path / f"found{rank}.pt", weights_only=True) for rank in (0, 1))
    for kind in ("ddp", "fsdp"):
        assert torch.equal(one[kind]["weight"], other[kind]["weight"])
        assert torch.equal(one[kind]["parameters"], other[kind]["parameters"])
        assert not torch.equal(one[kind]["weight"], torch.ones(4))
        assert torch.equal(one[kind].pop("after"), one[kind]["weight"])  # evaluation moves nothing
    assert torch.isfinite(one["ddp"].pop("evaluated")) and one["fsdp"].pop("evaluated") is None
    torch.testing.assert_close(one["fsdp"], one["ddp"], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- what people have

def test_logits_and_labels_alone():
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(4, (2, 8, 8))
    criterion, weighting = CAWALoss(4), CAWAWeighting(4, score_source="prediction")
    loss = criterion(logits, labels)
    weighting.update(Feedback(labels, logits))
    assert torch.equal(criterion.weight, weighting.weight)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels, weighting.weight))
    assert torch.equal(CAWAWeights(4).update(logits, labels), weighting.weight)
    table = criterion.table(["a", "b", "c", "d"]).splitlines()
    assert len(table) == 6 and table[0] == "| class | score | weight |"
    heaviest = int(criterion.weight.argmax())
    assert table[2] == (f"| {'abcd'[heaviest]} | {criterion.score[heaviest].item():.2f} | "
                        f"{criterion.weight[heaviest].item():.2f} |")


@pytest.mark.parametrize("output", [
    lambda logits: {"out": logits, "aux": logits * 2}, lambda logits: types.SimpleNamespace(logits=logits, loss=None)])
def test_outputs_of_frameworks(output):
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(4, (2, 16, 16))
    large = functional.interpolate(logits, (16, 16), mode="bilinear")  # SegFormer's logits are smaller than the labels
    assert torch.equal(CAWALoss(4)(output(logits), labels), CAWALoss(4)(large, labels))
    half = logits.bfloat16()  # made larger in float32
    assert torch.equal(CAWALoss(4)(output(half), labels), CAWALoss(4)(output(half.float()), labels))


@pytest.mark.parametrize("change, options", [
    (lambda labels: labels.byte(), {}), (lambda labels: labels.int(), {}), (lambda labels: labels[:, None], {}),
    (lambda labels: torch.where(labels == 255, -100, labels), {"ignore_index": -100}),
    (lambda labels: torch.where(labels == 255, 4, labels), {"ignore_index": 4}),
    (lambda labels: torch.where(labels == 255, 0, labels + 1) - 1, {"ignore_index": -1}),
    (lambda labels: functional.one_hot(labels.where(labels < 4, 4), 5)[..., :4].movedim(-1, 1), {}),
    (lambda labels: functional.one_hot(labels.where(labels < 4, 4), 5)[..., :4].movedim(-1, 1).float(), {})])
def test_labels_in_every_form_are_the_same(change, options):
    logits, labels = torch.randn(2, 4, 16, 24), batch()[1]
    plain, other = CAWALoss(4), CAWALoss(4, **options)
    assert torch.equal(other(logits, change(labels)), plain(logits, labels))
    assert torch.equal(other.weight, plain.weight)


def test_void_may_lie_among_the_classes():
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(4, (2, 8, 8))
    criterion = CAWALoss(4, ignore_index=0)
    loss = criterion(logits, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels, criterion.weight, ignore_index=0))


def test_one_class_is_a_sigmoid():
    net = network(classes=1)
    criterion = CAWALoss(1, net, head=net.classifier)
    images, labels = batch(2)
    logits = net(images)["out"]
    loss = criterion(logits, labels)
    background, foreground = criterion.weight
    pixel = torch.where(labels == 1, foreground, background) * (labels != 255)
    truth = (labels == 1).float()
    each = functional.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
    torch.testing.assert_close(loss, (pixel * each).sum() / pixel.sum())
    assert background != foreground and torch.equal(CAWALoss(1)(logits, labels[:, None]), CAWALoss(1)(logits, labels))
    with pytest.raises(ValueError, match="decision: found num_classes 1, expected at least 2"):
        criterion.decision()


def test_volumes_slice_by_slice():
    """Maps of a volume are scaled over all of it; a volume of one slice is an image."""
    net, (images, labels) = network(dimensions=3), batch()
    flat = network()
    for name, value in flat.state_dict().items():
        own = net.state_dict()[name]
        value.copy_(own[:, :, 1] if own.dim() == 5 and own.shape[2] == 3 else own[:, :, 0] if own.dim() == 5 else own)
    volume, image = CAWALoss(4, net), CAWALoss(4, flat)
    one = volume(net(images[:, :, None]), labels[:, None])
    torch.testing.assert_close(one, image(flat(images), labels))
    torch.testing.assert_close(volume.weight, image.weight)
    deep = volume(net(torch.randn(2, 3, 5, 16, 24)), torch.randint(4, (2, 5, 16, 24)))
    assert torch.isfinite(deep) and torch.isfinite(volume.weight).all()


# ---------------------------------------------------------------- what people get wrong

GOOD = torch.randn(2, 4, 8, 8), torch.randint(4, (2, 8, 8))


@pytest.mark.parametrize("output, labels, message", [
    ([GOOD[0]], GOOD[1], "output: found list, expected a tensor of logits, a dict with 'out', or an object with .log"),
    (GOOD[0][:, :3], GOOD[1], r"output: found float32 of shape \(2, 3, 8, 8\), expected logits \(B, 4, height, widt"),
    (GOOD[1], GOOD[1], r"output: found int64 of shape \(2, 8, 8\), expected logits"),
    (GOOD[0].long(), GOOD[1], r"output: found int64 of shape \(2, 4, 8, 8\), expected logits"),
    (GOOD[0], GOOD[1].numpy(), "labels: found ndarray, expected a tensor of integers"),
    (GOOD[0], GOOD[1].float(), r"labels: found float32, expected integers; call .long\(\) on them"),
    (GOOD[0], GOOD[1] + 1, "labels: found 4, expected 0 to 3, or 255 for void"),
    (GOOD[0], GOOD[1] - 1, "labels: found -1, expected 0 to 3, or 255 for void"),
    (GOOD[0], GOOD[1][0], r"labels: found shape \(8, 8\), expected \(B, height, width\)"),
    (GOOD[0], GOOD[1][:1], "labels: found 1 images, expected 2 as in output"),
    *((GOOD[0], torch.full((2, 4, 8, 8), each), "labels: found channels that are not one 1 among zeros, expected integ")
      for each in (0.125, 0.25, 1.0)),  # soft labels are none
])
def test_wrong_inputs_are_refused_in_one_line_and_change_nothing(output, labels, message):
    criterion = CAWALoss(4)
    with pytest.raises((ValueError, TypeError), match=message) as refusal:
        criterion(output, labels)
    assert "\n" not in str(refusal.value) and torch.equal(criterion.weight, torch.ones(4)) and criterion._calls == 0


@pytest.mark.parametrize("options, message", [
    ({"score_source": "predictions"}, "score_source: found 'predictions', expected one of cam, prediction, both, shuf"),
    ({"cam_kind": "gradcam"}, "cam_kind: found 'gradcam', expected one of grad_cam, hires_cam, layer_cam"),
    ({"absent_images": "skipp"}, "absent_images: found 'skipp', expected one of count, skip"),
    ({"pseudo_mask_threshold": 50}, "pseudo_mask_threshold: found 50, expected a number, 0.001 to 0.999"),
    ({"score_momentum": 5}, "score_momentum: found 5, expected a number, 0 to 0.99999"),
    ({"score_parts": "iou,f1"}, "score_parts: found 'f1', expected one of iou, dice, precision, recall"),
    ({"update_every": 0}, "update_every: found 0, expected a number, at least 1"),
    ({"label_smoothing": 2}, "label_smoothing: found 2, expected a number, 0 to 1")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CAWALoss(4, **options)
    with pytest.raises(ValueError, match="num_classes: found 0, expected a number, at least 1"):
        CAWALoss(0)


def test_maps_without_a_network_are_not_taken_for_granted():
    logits, labels = GOOD
    for source in ("cam", "both"):
        with pytest.raises(ValueError, match=f"score_source: found '{source}', which needs class activation maps, exp"):
            CAWALoss(4, score_source=source)(logits, labels)
        with pytest.raises(ValueError, match=f"score_source: found '{source}', expected one of prediction"):
            CAWAWeights(4, score_source=source)
    criterion = CAWALoss(4, network())
    with pytest.warns(UserWarning, match="saw no forward pass of its model in training mode since its last call"):
        criterion(logits, labels)
    with pytest.raises(ValueError, match=r"features: found shape \(2, 3, 8, 8\), expected the head's input \(B, 6, "):
        criterion.update(torch.randn(2, 3, 8, 8), labels, network().classifier)
    with pytest.raises(ValueError, match="model: found no convolution or linear layer that makes 4 channels"):
        CAWALoss(4, nn.Conv2d(3, 6, 1))


def test_smoothing_and_weight_of_the_loss():
    logits, labels = GOOD
    criterion = CAWALoss(4, label_smoothing=0.1, loss_weight=3.0)
    loss = criterion(logits, labels)
    plain = functional.cross_entropy(logits, labels, criterion.weight, label_smoothing=0.1)
    torch.testing.assert_close(loss, 3 * plain)
