"""A LightningModule in the shape of segmentation_models.pytorch's CamVid notebook: one step for all stages."""

import lightning.pytorch as pl
import segmentation_models_pytorch as smp
import torch
from common import CLASSES, RATE, Explicit, batches
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from cawalib.method import CAWALoss

SIZE = (64, 64)  # smaller ones leave batch norm two pixels at the end of the encoder, and magnify rounding


class Segmenter(pl.LightningModule):
    """Images in bytes' range, a network of smp's, its statistics at the end of each epoch."""

    def __init__(self, out_classes, explicit=False):
        super().__init__()
        self.model = smp.create_model("FPN", "resnet18", encoder_weights=None, classes=out_classes, decoder_dropout=0.0)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.1))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 1.1))
        if explicit:
            self.loss_fn = Explicit(self.model.segmentation_head[0])
        else:
            self.loss_fn = CAWALoss(out_classes, self.model)
        self.counts, self.losses = {"train": [], "valid": []}, []

    def forward(self, image):
        return self.model((image - self.mean) / self.std)

    def shared_step(self, batch, stage):
        image, mask = batch
        logits = self.forward(image).contiguous()
        if stage == "train" or isinstance(self.loss_fn, CAWALoss):
            loss = self.loss_fn(logits, mask.long())
        else:
            loss = None  # the loop written out has nothing for evaluation
        stats = smp.metrics.get_stats(logits.argmax(dim=1), mask.long(), mode="multiclass", num_classes=CLASSES,
                                      ignore_index=255)
        self.counts[stage].append(stats)
        if stage == "train":
            self.losses.append(loss.item())
        return {"loss": loss}

    def shared_epoch_end(self, stage):
        parts = [torch.cat(part) for part in zip(*self.counts[stage], strict=True)]
        self.log(f"{stage}_iou", smp.metrics.iou_score(*parts, reduction="micro").float(), sync_dist=True)
        self.counts[stage].clear()

    def training_step(self, batch, batch_idx):
        return self.shared_step(batch, "train")

    def on_train_epoch_end(self):
        self.shared_epoch_end("train")

    def validation_step(self, batch, batch_idx):
        return self.shared_step(batch, "valid")

    def on_validation_epoch_end(self):
        self.shared_epoch_end("valid")

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), RATE)
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def module(explicit=False):
    torch.manual_seed(0)
    return Segmenter(CLASSES, explicit)


def loader():
    data = [pair for images, labels in batches(4, SIZE) for pair in zip(images, labels, strict=True)]
    return DataLoader(data, batch_size=2)


def fit(one, epochs, folder, checkpoint=None, **options):
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False,
                         enable_progress_bar=False, enable_model_summary=False, **options)
    trainer.fit(one, loader(), loader(), ckpt_path=checkpoint)
    return trainer
