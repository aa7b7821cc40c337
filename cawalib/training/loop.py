"""Steps and epochs: what a run carries from step to step, and how it goes on."""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader

from cawalib.datasets import ClassStatistics, SegmentationDataset
from cawalib.method import Feedback, evaluation_mode
from cawalib.progress import progress, say
from cawalib.runs import RunConfig, RunError
from cawalib.training.checkpoints import save
from cawalib.training.criterion import Criterion, updates_in
from cawalib.training.decisions import Line
from cawalib.training.evaluation import SMOKE_BATCHES, evaluate, move_line
from cawalib.training.transforms import TrainingImages

RECORDED = 50  # updates of the class weights that class_weights.csv holds: as many as a figure in print shows


class TrainingInterrupted(RuntimeError):
    """The run was told to stop (SIGTERM or an interrupt). Its checkpoint is saved; started again, it goes on there."""

    def _render_traceback_(self):
        """In a notebook one line: what to do now, not where the loop was."""
        return [f"{type(self).__name__}: {self}"]


@dataclass
class Training:
    """Everything a run carries from step to step."""

    config: RunConfig
    datasets: dict[str, SegmentationDataset]
    statistics: ClassStatistics
    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    criterion: Criterion
    loader: DataLoader
    held_out: TrainingImages | None = None  # what feedback comes from instead of the batches
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the present epoch
    loss_sum: torch.Tensor | float = 0.0  # over the batches of the present epoch, kept on the device
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of training, over all starts of the run
    history: list[dict] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)  # (updates, 4, C) per epoch
    validation: dict | None = None  # after the last epoch, where this process has been through it
    line: Line | None = None  # how the finished network's decisions are moved
    asked: torch.Tensor | float = 0.0  # with several processes: above 0 if one of them was told to stop

    @property
    def batches(self) -> int:
        return min(SMOKE_BATCHES, len(self.loader)) if self.config.smoke else len(self.loader)

    @property
    def step(self) -> int:
        return self.epoch * self.batches + self.batch

    @property
    def network(self) -> torch.nn.Module:
        """The bare network, neither distributed nor compiled."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def updates(self) -> int:
        """Updates of the class weights in the whole run."""
        return updates_in(self.config, self.config.epochs, self.batches)

    @property
    def recorded(self) -> list[int]:
        """The updates that go into class_weights.csv: evenly spaced, the first and the last among them.

        Thinned here, once, so that every figure and table, drawn now or from a published archive, sees the same ones.
        Constant weights are recorded once.
        """
        last = self.updates - 1 if self.criterion.weighting.adaptive else 0
        return np.unique(np.linspace(0, last, min(RECORDED, last + 1)).round().astype(int)).tolist()


def training_step(training: Training, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Forward pass, feedback, loss, backward pass, update. Returns the detached loss, left on its device.

    With several processes each has its part of the batch. The mean of their losses is that of the whole batch for
    losses that are means over pixels; others (`Criterion.divisor`) are taken of each part.

    Args:
        images: (B, 3, H, W) float32.
        labels: (B, H, W) int64, 255 = ignore.
    """
    config, accelerator = training.config, training.accelerator
    if accelerator.process_index:  # dropout and noise of the others: from (seed, step, process) alone
        torch.manual_seed(zlib.crc32(f"{config.seed} {training.step} {accelerator.process_index}".encode()))
    images = images.contiguous(memory_format=torch.channels_last)
    with accelerator.autocast():
        logits, features = training.model(images, return_features=True)
    if training.step % config.update_every == 0:
        training.criterion.update(_feedback(training, images, labels, logits, features))
        if training.step // config.update_every in training.recorded:
            training.criterion.weighting.record()
    loss = training.criterion(logits, labels)
    divisor = training.criterion.divisor(labels) if accelerator.num_processes > 1 else None
    if divisor is not None:  # gradients are averaged over processes, whatever number of pixels each has
        loss = loss * divisor / accelerator.reduce(divisor, "mean").clamp_min(1e-12)
    training.optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    training.optimizer.step()
    training.scheduler.step()
    return loss.detach()


def _feedback(training, images, labels, logits, features):
    """What the weights are moved by: the step's batch, or images that no step trains on, other ones in every step."""
    config, accelerator, network = training.config, training.accelerator, training.network
    if training.held_out is not None:
        # from (seed, step) alone, so that a resumed run goes on as if it never stopped
        random = np.random.default_rng((config.seed, training.step, 0))
        count = min(config.feedback_images, len(training.held_out))
        chosen = random.choice(len(training.held_out), count, replace=False)
        # each process its part; with fewer images than processes, some look at the same one
        chosen = np.resize(chosen, max(count, accelerator.num_processes))
        chosen = chosen[accelerator.process_index::accelerator.num_processes]
        training.held_out.epoch = training.epoch
        batch = training.held_out.__getitems__([int(index) for index in chosen])
        images, labels = (part.to(accelerator.device) for part in batch)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), evaluation_mode(network), accelerator.autocast():
            logits, features = network(images, return_features=True)
    return Feedback(labels, logits.detach(), features.detach(), network.classifier, network, images)


def run_epoch(training: Training, stop: threading.Event) -> None:
    """The rest of the present epoch, its evaluation, and a checkpoint."""
    config = training.config
    training.model.train()
    training.loader.set_epoch(training.epoch)
    training.loader.dataset.epoch = training.epoch
    started = time.perf_counter()
    batches = skip_first_batches(training.loader, training.batch) if training.batch else training.loader
    batches = itertools.islice(batches, training.batches - training.batch)
    # counted over the whole run, so that the time left is that of the run
    bar = progress(batches, config.epochs * training.batches, f"epoch {training.epoch + 1} of {config.epochs}, step",
                   initial=training.step)
    for images, labels in bar:
        loss, stopping = _together(training, training_step(training, images, labels), stop)
        training.loss_sum = training.loss_sum + loss
        training.batch += 1
        if stopping:
            _add_time(training, started)
            save(training)
            raise TrainingInterrupted(f"stopped in epoch {training.epoch + 1}, checkpoint saved in "
                                      f"{config.folder / 'checkpoint'}; start the same run again to go on")
    _add_time(training, started)
    _end_epoch(training)
    save(training)


def _together(training, loss, stop):
    """A step's loss, and whether the run is to stop now, the same in all processes."""
    if training.accelerator.num_processes == 1:
        return loss, stop.is_set()
    loss, asked = training.accelerator.reduce(torch.stack([loss, loss.new_tensor(float(stop.is_set()))]), "mean")
    # what was asked in the step before: a GPU has added that up by now, and need not be waited for
    asked, training.asked = training.asked, asked
    return loss, bool(asked)


def _add_time(training, started):
    training.epoch_seconds += time.perf_counter() - started
    training.seconds += time.perf_counter() - started


def _end_epoch(training):
    config = training.config
    if training.accelerator.num_processes > 1:
        for buffer in training.network.buffers():  # running means are each process's own after the last step
            torch.distributed.broadcast(buffer, 0)
    training.weights.append(training.criterion.weighting.read_record())
    row = {"epoch": training.epoch + 1, "learning_rate": training.scheduler.get_last_lr()[0],
           "train_loss": float(training.loss_sum) / training.batches}
    names = ("miou", "mean_accuracy", "pixel_accuracy")
    row |= {f"val_{name}": float("nan") for name in names}
    if (training.epoch + 1) % config.validate_every == 0 or training.epoch + 1 == config.epochs:
        last = training.epoch + 1 == config.epochs
        training.validation = judged(training, "val") if last else on_split(evaluate, training, "val")
        row |= {f"val_{name}": training.validation[name] for name in names}
    if not np.isfinite(row["train_loss"]):
        raise RunError(f"run folder {config.folder}: the training loss is {row['train_loss']} in epoch "
                            f"{row['epoch']}; lower 'learning_rate', or set mixed_precision to 'no'")
    training.history.append(row | {"seconds": round(training.epoch_seconds, 3)})
    if training.accelerator.is_main_process:
        shown = f", val mIoU {row['val_miou']:.3f}" if row["val_miou"] == row["val_miou"] else ""
        say(f"epoch {row['epoch']:3d}: loss {row['train_loss']:.3f}{shown}")
    training.epoch, training.batch = training.epoch + 1, 0
    training.loss_sum, training.epoch_seconds = 0.0, 0.0


def on_split(function, training: Training, split: str, *arguments):
    """A function of `evaluation` on one split of the run."""
    return function(training.network, training.datasets[split], training.statistics, training.config,
                    training.accelerator, *arguments)


def judged(training: Training, split: str) -> dict:
    """All metrics of the finished network on a split, with its line between classes moved as well."""
    if training.line is None:
        training.line = on_split(move_line, training, "train", training.criterion.costs)
    return on_split(evaluate, training, split, training.line)
