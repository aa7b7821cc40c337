"""docs/own-decision.md: a fitted line on a torchvision, an smp and a Hugging Face network, and folded into each."""

import re
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from cawalib import fit_decision

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own-decision.md").read_text()
NETWORKS = {
    "torchvision": lambda: deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4),
    "segmentation_models.pytorch": lambda: smp.Unet("resnet18", encoder_weights=None, classes=4),
    "Hugging Face": lambda: SegformerForSemanticSegmentation(SegformerConfig(
        num_labels=4, hidden_sizes=[8, 16, 16, 32], depths=[1] * 4, num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16)),
}


def plain(output):
    return output["out"] if isinstance(output, dict) and "out" in output else getattr(output, "logits", output)


def truth(network, images):
    """Labels that the network's own logits give once their line is moved, so that there is one to find."""
    with torch.no_grad():
        logits = functional.interpolate(plain(network(images)), (64, 64), mode="bilinear")
    rarest = logits.argmax(dim=1).flatten().bincount(minlength=4).argmin()
    logits[:, rarest] += (logits.max(dim=1).values - logits[:, rarest]).quantile(0.5)
    return logits.argmax(dim=1)


@pytest.mark.parametrize("framework", NETWORKS)
def test_the_pages_three_lines(framework):
    torch.manual_seed(0)
    network = NETWORKS[framework]().eval()
    images = torch.randn(2, 3, 64, 64)
    code = re.search(rf"\*\*{re.escape(framework)}\*\*\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    lines = [line.split("#")[0].strip() for line in code.strip().splitlines()]
    assert len(lines) == 3
    head = eval(re.search(r"fold_into\((.*)\)", lines[2])[1], {"network": network})
    with torch.no_grad():  # an untrained network's logits are so near each other that any step moves all pixels
        head.weight *= 2 / plain(network(images)).std()
    batches = [(images, truth(network, images))]
    names = {"fit_decision": fit_decision, "network": network, "images": images, "batches": batches}
    with torch.no_grad():
        for line in lines:
            exec(line, names)
        logits = plain(network(images))
    assert names["decide"].offset.abs().max() > 0.01
    assert (logits.argmax(dim=1) == names["classes"]).float().mean() > 0.999  # of equal logits either may win
