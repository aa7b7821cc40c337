"""One run from its settings to its metrics, with checkpoints and exact resuming."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs, broadcast_object_list, set_seed
from torch.utils.data import DataLoader, DistributedSampler

from cawalib.datasets import SegmentationDataset, class_statistics, load_datasets
from cawalib.files import check_writable, sha256
from cawalib.method import layer_output
from cawalib.runs import Run, RunConfig, RunError, claim, environment, load_run, outdated, take_up
from cawalib.settings import ConfigError, DataConfig, MethodConfig, NetworkConfig, TrainingConfig
from cawalib.training.checkpoints import restore, stop_on_signal
from cawalib.training.criterion import Criterion, build_line, build_weighting
from cawalib.training.evaluation import SMOKE_BATCHES
from cawalib.training.finish import finish
from cawalib.training.launch import joined, launched, left_alone, processes_here, same_everywhere, threads
from cawalib.training.loop import Training, run_epoch
from cawalib.training.models import build_model
from cawalib.training.network_file import check_start, start_from
from cawalib.training.sampling import RareClassSampler, held_out
from cawalib.training.transforms import TrainingImages, as_it_is


def train(config: RunConfig) -> Run:
    """Train one run and write its folder; a finished run is read back, an unfinished one goes on.

    Where `processes` is above 1, it starts them (`launch.launched`); under torchrun or `accelerate launch` it is one.

    Raises:
        ConfigError, DatasetError: settings or data that cannot be used; nothing has been written then.
        RunError: the run folder cannot be written, holds something else, or memory ran out.
        TrainingInterrupted: on SIGTERM or an interrupt, after saving a checkpoint.
    """
    if config.processes > 1 and "WORLD_SIZE" not in os.environ:
        check(config)
        return launched(config)
    config = joined(config)
    check(config)
    divide_threads(config)
    with left_alone(config):
        return _train(config, build_accelerator(config))


def _train(config, accelerator):
    main = accelerator.is_main_process  # with several processes, one of them writes and is looked at
    if not main:
        os.environ["CAWALIB_HEADLESS"] = "1"
    with claim(config.folder) if main else nullcontext():
        with accelerator.main_process_first():  # what it reads and counts, the others find
            datasets = load_checked(config)
        made = environment(config, _device_name(accelerator), accelerator.mixed_precision, data_digest(datasets))
        made["initial_weights"] = sha256(config.initial_weights) if config.initial_weights else ""
        finished = take_up(config, made) if main else None
        if broadcast_object_list([finished is not None])[0]:
            accelerator.print(f"Already finished, read back: {config.folder}")
            return finished or load_run(config.folder)
        same_everywhere(config, accelerator, made)
        with memory_errors(config), stop_on_signal() as stop:
            training = set_up(config, datasets, accelerator)
            restore(training)
            while training.epoch < config.epochs:
                run_epoch(training, stop)
            return finish(training, made)


def check(config: RunConfig) -> None:
    """Find out whether this machine can do the run, before any data is read or anything is written.

    Raises:
        ConfigError: CUDA or a precision that is not there, an unknown encoder, missing or unfit weights, or layer.
        RunError: an output folder that cannot be written, or no finished run of today to take frozen weights from.
    """
    on_gpu = _on_gpu(config)
    if config.device == "cuda" and not on_gpu:
        raise ConfigError("parameter 'device': found 'cuda', but PyTorch sees no CUDA device; choose 'cpu' or 'auto'")
    if config.mixed_precision == "fp16" and not on_gpu:
        raise ConfigError("parameter 'mixed_precision': found 'fp16', which needs a GPU; choose 'no', 'bf16' or 'auto'")
    if on_gpu and processes_here(config) > torch.cuda.device_count():
        raise ConfigError(f"parameter 'processes': found {processes_here(config)}, but PyTorch sees "
                          f"{torch.cuda.device_count()} CUDA devices here; choose so many at most")
    check_writable(config.outputs_root)
    network = build_model(config.part(NetworkConfig), num_classes=2)
    if config.target_layer != "decoder":
        try:
            layer_output(network, config.target_layer, torch.zeros(1, 3, config.image_height, config.image_width))
        except ValueError as error:
            raise ConfigError(str(error)) from None
    check_start(config)
    if config.keeps_weights:
        _source_of_weights(config)
    if config.ranked and importlib.util.find_spec("rankseg") is None:
        raise ConfigError("parameter 'ranked': found True, but the package 'rankseg' is not installed; "
                          "pip install rankseg, or set it to False")


def load_checked(config: RunConfig) -> dict[str, SegmentationDataset]:
    """The run's data, see `datasets.load_datasets`; raises ConfigError if a batch is more than there is."""
    datasets = load_datasets(config.part(DataConfig), smoke=config.smoke)
    images = len(datasets["train"])
    if config.held_out_share:
        images = len(held_out(datasets["train"], config.held_out_share, config.seed)[0])
    if images < config.batch_size:
        raise ConfigError(f"parameter 'batch_size': found {config.batch_size}, more than the {images} training images; "
                          "lower it")
    return datasets


def divide_threads(config: RunConfig) -> None:
    """Leave each of the run's processes and data workers a core: more threads than cores slow each other down.

    OMP_NUM_THREADS, as the batch engine and torchrun set it, has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads(config))


def build_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate on the run's device and precision, whatever an earlier run of this process had."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    # from pinned memory batches travel while the step before them is computed; several processes share each batch
    transfer = DataLoaderConfiguration(non_blocking=True, split_batches=True)
    # one of them reads and counts the data, which for large ones takes longer than the usual ten minutes
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))
    return Accelerator(cpu=not _on_gpu(config), mixed_precision=_precision(config), dataloader_config=transfer,
                       kwargs_handlers=[patience])


def _on_gpu(config):
    return config.device != "cpu" and torch.cuda.is_available()


def data_digest(datasets: dict[str, SegmentationDataset]) -> str:
    """SHA-256 over all splits."""
    return hashlib.sha256("".join(f"{split} {data.digest}" for split, data in datasets.items()).encode()).hexdigest()


def set_up(config: RunConfig, datasets: dict[str, SegmentationDataset], accelerator: Accelerator) -> Training:
    """Model, optimizer, schedule, criterion and loader of a run, seeded and on their device."""
    set_seed(config.seed)
    statistics = class_statistics(datasets["train"])
    model = build_model(config.part(NetworkConfig), len(statistics.classes)).to(memory_format=torch.channels_last)
    if config.initial_weights:
        start_from(model, config.initial_weights, statistics.classes)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), config.learning_rate, momentum=0.9,
                                    weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay,
                                      fused=True)
    frozen = _last_weights(config, data_digest(datasets)) if config.keeps_weights else None
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # PyTorch has none for a CPU
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = torch.compile(model) if config.compile else model
    trained, kept = datasets["train"], None
    if config.held_out_share:
        trained, kept = held_out(trained, config.held_out_share, config.seed)
    loader = _training_loader(config, trained, pin_memory=accelerator.device.type == "cuda")
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = min(SMOKE_BATCHES, len(loader)) if config.smoke else len(loader)
    method = config.part(MethodConfig)
    weighting = build_weighting(method, statistics, frozen, config.epochs, steps, config.seed)
    criterion = Criterion(method, weighting, statistics, build_line(method, len(statistics.classes)))
    criterion = criterion.to(accelerator.device)
    criterion.share_feedback(accelerator.process_index, accelerator.num_processes)
    training = Training(config, datasets, statistics, accelerator, model, optimizer, None, criterion, loader,
                        held_out=_augmented(kept, config) if kept else None)
    training.scheduler = torch.optim.lr_scheduler.PolynomialLR(
        optimizer.optimizer, total_iters=config.epochs * training.batches, power=0.9)
    return training


def _training_loader(config, dataset, pin_memory):
    images = _augmented(dataset, config)
    if config.sampling == "rare_classes":
        sampler = RareClassSampler(dataset, config.sampling_temperature, config.seed)
    else:
        # as a stock sampler whose order depends on (seed, epoch) alone; sharing out to processes is Accelerate's work
        sampler = DistributedSampler(images, num_replicas=1, rank=0, seed=config.seed)
    # a generator of its own: a loader without one draws from the global random state whenever it is started, and
    # dropout would go on differently in a resumed run
    return DataLoader(images, config.batch_size, sampler=sampler, drop_last=True, num_workers=config.data_workers,
                      pin_memory=pin_memory, generator=torch.Generator(), collate_fn=as_it_is)


def _augmented(dataset, config):
    return TrainingImages(dataset, config.part(DataConfig), config.part(TrainingConfig))


def _precision(config):
    if config.mixed_precision != "auto":
        return config.mixed_precision
    if not _on_gpu(config):
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _source_of_weights(config):
    """The finished run whose last weights a run with frozen ones keeps; RunError unless it is as the code computes."""
    source = load_run(config.replace(score_source="cam").folder)
    changed = outdated(source.config, source.environment)
    if changed:
        raise RunError(f"run folder {source.folder}: its weights are to be kept, but it would come out differently "
                       f"today ({', '.join(changed)}); train it again first")
    return source


def _last_weights(config, digest):
    source = _source_of_weights(config)
    if source.environment["data_digest"] != digest:
        raise RunError(f"run folder {source.folder}: its weights are to be kept, but it was made from other data of "
                       f"dataset '{config.dataset}'; train it again first")
    table = source.class_weights
    return torch.tensor(table[table["update"] == table["update"].max()]["weight"].to_numpy(), dtype=torch.float32)


def _device_name(accelerator):
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED",
                 "CUBLAS_STATUS_ALLOC_FAILED")


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
        raise RunError(
            f"run folder {config.folder}: out of memory with batch_size {config.batch_size} at {config.image_width}x"
            f"{config.image_height}; lower 'batch_size', then 'image_height' and 'image_width'") from None
