"""The training loop: one run from its settings to its metrics, with checkpoints and exact resuming."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader, DistributedSampler

from cawalib import runs
from cawalib.cam import evaluation_mode, layer_output
from cawalib.checkpoints import restore, save, stop_on_sigterm
from cawalib.config import ConfigError, RunConfig
from cawalib.datasets import SegmentationDataset, load_datasets
from cawalib.datasets.statistics import ClassStatistics, class_statistics
from cawalib.evaluation import SMOKE_BATCHES, evaluate, sample_predictions
from cawalib.files import write_arrays, write_json, write_table
from cawalib.losses import Criterion, build_weighting
from cawalib.models import build_model
from cawalib.progress import is_watched, progress
from cawalib.sampling import RareClassSampler, held_out
from cawalib.transforms import TrainingImages
from cawalib.weighting import Feedback

WEIGHT_ROWS = 500_000  # of class_weights.csv, about


class TrainingInterrupted(RuntimeError):
    """The run was told to stop (SIGTERM). Its checkpoint is saved; the same run started again goes on there."""


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
        return -(-self.config.epochs * self.batches // self.config.update_every)

    def is_recorded(self, update: int) -> bool:
        """Whether an update goes into class_weights.csv: of a long run with many classes every so many, and the last.

        A gigabyte of weights is nobody's help, neither on disk nor, until then, in memory.
        """
        every = -(-self.updates * len(self.statistics.classes) // WEIGHT_ROWS)
        last = self.updates if self.criterion.weighting.adaptive else 1  # constant weights are recorded once
        return update < last and (update % every == 0 or update == last - 1)


# ---------------------------------------------------------------- one run

def train(config: RunConfig) -> runs.Run:
    """Train one run and write its folder; a finished run is read back, an unfinished one goes on.

    Raises:
        ConfigError, DatasetError: settings or data that cannot be used; nothing has been written then.
        RunError: the run folder cannot be written, holds something else, or memory ran out.
        TrainingInterrupted: on SIGTERM, after saving a checkpoint.
    """
    check(config)
    divide_threads(config)
    accelerator = build_accelerator(config)
    main = accelerator.is_main_process  # with several processes, one of them writes
    with runs.claim(config.folder) if main else nullcontext():
        with accelerator.main_process_first():  # what it reads and counts, the others find
            datasets = load_checked(config)
        environment = runs.environment(_device_name(accelerator), accelerator.mixed_precision, data_digest(datasets))
        finished = runs.prepare(config, environment) if main else None
        accelerator.wait_for_everyone()
        if finished is not None or (config.folder / "metrics.json").is_file():
            accelerator.print(f"Already finished, read back: {config.folder}")
            return finished or runs.load_run(config.folder)
        with memory_errors(config), stop_on_sigterm() as stop:
            training = set_up(config, datasets, accelerator)
            restore(training)
            while training.epoch < config.epochs:
                run_epoch(training, stop)
            return finish(training, environment)


def check(config: RunConfig) -> None:
    """Find out whether this machine can do the run, before any data is read or anything is written.

    Raises:
        ConfigError: CUDA or a precision that is not there, an unknown encoder, missing weights, an unfit layer.
        RunError: an output folder that cannot be written, or no finished run to take frozen weights from.
    """
    on_gpu = _on_gpu(config)
    if config.device == "cuda" and not on_gpu:
        raise ConfigError("parameter 'device': found 'cuda', but PyTorch sees no CUDA device; choose 'cpu' or 'auto'")
    if config.mixed_precision == "fp16" and not on_gpu:
        raise ConfigError("parameter 'mixed_precision': found 'fp16', which needs a GPU; choose 'no', 'bf16' or 'auto'")
    runs.check_writable(config.outputs_root)
    network = build_model(config, num_classes=2)
    if config.target_layer != "decoder":
        layer_output(network, config.target_layer, torch.zeros(1, 3, config.image_height, config.image_width))
    if config.score_source == "frozen":
        _last_weights(config)


def load_checked(config: RunConfig) -> dict[str, SegmentationDataset]:
    """The run's data, see `datasets.load_datasets`; raises ConfigError if a batch is more than there is."""
    datasets = load_datasets(config)
    images = len(datasets["train"])
    if config.held_out_share:
        images = len(held_out(datasets["train"], config.held_out_share, config.seed)[0])
    if images < config.batch_size:
        raise ConfigError(f"parameter 'batch_size': found {config.batch_size}, more than the {images} training images; "
                          "lower it")
    return datasets


def divide_threads(config: RunConfig) -> None:
    """Leave each of the run's data workers a core: more threads than cores slow each other down many times.

    OMP_NUM_THREADS, as the batch engine and torchrun set it, has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, cores - config.data_workers))


def build_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate on the run's device and precision, whatever an earlier run of this process had."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    # from pinned memory batches travel while the step before them is computed
    transfer = DataLoaderConfiguration(non_blocking=True)
    return Accelerator(cpu=not _on_gpu(config), mixed_precision=_precision(config), dataloader_config=transfer)


def _on_gpu(config):
    return config.device != "cpu" and torch.cuda.is_available()


def data_digest(datasets: dict[str, SegmentationDataset]) -> str:
    """SHA-256 over all splits."""
    return hashlib.sha256("".join(f"{split} {data.digest}" for split, data in datasets.items()).encode()).hexdigest()


def set_up(config: RunConfig, datasets: dict[str, SegmentationDataset], accelerator: Accelerator) -> Training:
    """Model, optimizer, schedule, criterion and loader of a run, seeded and on their device."""
    set_seed(config.seed)
    statistics = class_statistics(datasets["train"])
    model = build_model(config, len(statistics.classes)).to(memory_format=torch.channels_last)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, momentum=0.9,
                                    weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay,
                                      fused=True)
    frozen = _last_weights(config) if config.score_source == "frozen" else None
    model = torch.compile(model) if config.compile else model
    trained, kept = datasets["train"], None
    if config.held_out_share:
        trained, kept = held_out(trained, config.held_out_share, config.seed)
    loader = _training_loader(config, trained, pin_memory=accelerator.device.type == "cuda")
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = min(SMOKE_BATCHES, len(loader)) if config.smoke else len(loader)
    criterion = Criterion(config, build_weighting(config, statistics, frozen, steps), statistics)
    criterion = criterion.to(accelerator.device)
    training = Training(config, datasets, statistics, accelerator, model, optimizer, None, criterion, loader,
                        held_out=TrainingImages(kept, config) if kept else None)
    training.scheduler = torch.optim.lr_scheduler.PolynomialLR(
        optimizer.optimizer, total_iters=config.epochs * training.batches, power=0.9)
    return training


def _training_loader(config, dataset, pin_memory):
    images = TrainingImages(dataset, config)
    if config.sampling == "rare_classes":
        sampler = RareClassSampler(dataset, config.sampling_temperature, config.seed)
    else:
        # as a stock sampler whose order depends on (seed, epoch) alone; sharing out to processes is Accelerate's work
        sampler = DistributedSampler(images, num_replicas=1, rank=0, seed=config.seed)
    # a generator of its own: a loader without one draws from the global random state whenever it is started, and
    # dropout would go on differently in a resumed run
    return DataLoader(images, config.batch_size, sampler=sampler, drop_last=True, num_workers=config.data_workers,
                      pin_memory=pin_memory, generator=torch.Generator())


def _precision(config):
    if config.mixed_precision != "auto":
        return config.mixed_precision
    if not _on_gpu(config):
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _last_weights(config):
    source = runs.load_run(config.replace(score_source="cam").folder)
    table = source.class_weights
    return torch.tensor(table[table["update"] == table["update"].max()]["weight"].to_numpy(), dtype=torch.float32)


# ---------------------------------------------------------------- steps and epochs

def training_step(training: Training, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Forward pass, feedback, loss, backward pass, update. Returns the detached loss, left on its device.

    Args:
        images: (B, 3, H, W) float32.
        labels: (B, H, W) int64, 255 = ignore.
    """
    config, accelerator = training.config, training.accelerator
    images = images.contiguous(memory_format=torch.channels_last)
    with accelerator.autocast():
        logits, features = training.model(images, return_features=True)
    if training.step % config.update_every == 0:
        training.criterion.update(_feedback(training, images, labels, logits, features))
        if training.is_recorded(training.step // config.update_every):
            training.criterion.weighting.record()
    loss = training.criterion(logits, labels)
    training.optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    training.optimizer.step()
    training.scheduler.step()
    return loss.detach()


def _feedback(training, images, labels, logits, features):
    """What the weights are moved by: the step's batch, or images that no step trains on, other ones in every step."""
    config, accelerator, network = training.config, training.accelerator, training.network
    if training.held_out is not None:
        # from (seed, step, process) alone, so that a resumed run goes on as if it never stopped
        random = np.random.default_rng((config.seed, training.step, accelerator.process_index))
        count = min(config.feedback_images, len(training.held_out))
        chosen = random.choice(len(training.held_out), count, replace=False)
        training.held_out.epoch = training.epoch
        pairs = [training.held_out[int(index)] for index in chosen]
        images, labels = (torch.stack(part).to(accelerator.device) for part in zip(*pairs, strict=True))
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
    bar = progress(batches, training.batches, f"epoch {training.epoch + 1} of {config.epochs}", initial=training.batch)
    for images, labels in bar:
        training.loss_sum = training.loss_sum + training_step(training, images, labels)
        training.batch += 1
        if stop.is_set():
            _add_time(training, started)
            save(training)
            raise TrainingInterrupted(f"stopped in epoch {training.epoch + 1}, checkpoint saved in "
                                      f"{config.folder / 'checkpoint'}; start the same run again to go on")
    _add_time(training, started)
    _end_epoch(training)
    save(training)


def _add_time(training, started):
    training.epoch_seconds += time.perf_counter() - started
    training.seconds += time.perf_counter() - started


def _end_epoch(training):
    config = training.config
    training.weights.append(training.criterion.weighting.read_record())
    row = {"epoch": training.epoch + 1, "learning_rate": training.scheduler.get_last_lr()[0],
           "train_loss": float(training.loss_sum) / training.batches}
    names = ("miou", "mean_accuracy", "pixel_accuracy")
    row |= {f"val_{name}": float("nan") for name in names}
    if (training.epoch + 1) % config.validate_every == 0 or training.epoch + 1 == config.epochs:
        validation = _on_split(evaluate, training, "val")
        row |= {f"val_{name}": validation[name] for name in names}
    if not np.isfinite(row["train_loss"]):
        raise runs.RunError(f"run folder {config.folder}: the training loss is {row['train_loss']} in epoch "
                            f"{row['epoch']}; lower 'learning_rate', or set mixed_precision to 'no'")
    training.history.append(row | {"seconds": round(training.epoch_seconds, 3)})
    if not is_watched() or training.epoch + 1 == config.epochs:
        shown = f", val mIoU {row['val_miou']:.3f}" if row["val_miou"] == row["val_miou"] else ""
        training.accelerator.print(f"epoch {row['epoch']:3d}: loss {row['train_loss']:.3f}{shown}", flush=True)
    training.epoch, training.batch = training.epoch + 1, 0
    training.loss_sum, training.epoch_seconds = 0.0, 0.0


# ---------------------------------------------------------------- the end of a run

def finish(training: Training, environment: dict) -> runs.Run:
    """Final evaluation and every file of the run folder; metrics.json last."""
    config, statistics, folder = training.config, training.statistics, training.config.folder
    started = time.perf_counter()
    splits = {split: _on_split(evaluate, training, split) for split in training.datasets if split != "train"}
    if not training.accelerator.is_main_process:
        training.accelerator.wait_for_everyone()
        return runs.load_run(folder)
    write_table(folder / "history.csv", pd.DataFrame(training.history))
    write_table(folder / "class_weights.csv", _weights_table(training))
    write_arrays(folder / "samples.npz", **_on_split(sample_predictions, training, "val"))
    environment = environment | {"duration_seconds": round(training.seconds + time.perf_counter() - started, 1),
                                 "peak_memory_bytes": _peak_memory()}
    write_json(folder / "environment.json", environment)
    write_json(folder / "metrics.json", {
        "dataset": config.dataset, "method": config.method, "seed": config.seed, "config_hash": config.hash,
        "smoke": config.smoke, "epochs": config.epochs, "steps": config.epochs * training.batches,
        "classes": statistics.classes, "palette": training.datasets["train"].palette,
        "train_pixels": statistics.pixels, "train_images": statistics.images,
        "train_pixels_where_present": statistics.pixels_where_present, "train_size": statistics.size,
        "groups": statistics.groups, "splits": splits,
    })
    training.accelerator.wait_for_everyone()
    return runs.load_run(folder)


def _on_split(function, training, split):
    return function(training.network, training.datasets[split], training.statistics, training.config,
                    training.accelerator)


def _weights_table(training):
    values = np.concatenate(training.weights)
    updates = [update * training.config.update_every for update in range(training.updates)
               if training.is_recorded(update)]
    table = pd.DataFrame({"update": np.repeat(updates, len(training.statistics.classes)),
                          "class": np.tile(training.statistics.classes, len(values))})
    for index, name in enumerate(("score", "basic_weight", "ratio_weight", "weight")):
        table[name] = values[:, index].reshape(-1)
    return table


def _device_name(accelerator):
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def _peak_memory():
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED")


@contextmanager
def memory_errors(config: RunConfig):
    """Says of memory that ran out, in one line, which settings to lower.

    Raises:
        RunError: instead of what PyTorch raises.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) \
                and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise runs.RunError(
            f"run folder {config.folder}: out of memory with batch_size {config.batch_size} at {config.image_width}x"
            f"{config.image_height}; lower 'batch_size', then 'image_height' and 'image_width'") from None
