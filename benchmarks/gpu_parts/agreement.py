"""What must come out the same on a GPU as elsewhere: steps, resumed runs, and the message when memory runs out."""

from __future__ import annotations

import contextlib
import io
import warnings
from unittest import mock

import torch

from cawalib.method import Feedback, class_activation_maps, evaluation_mode, present_classes
from cawalib.runs import RunError
from cawalib.training import TrainingInterrupted, build_accelerator, memory_errors, set_up, train, training_step
from cawalib.training import run as training_run
from gpu_parts.bench import NOT_HERE, release, row

# Deviations taken for rounding; maps: the mean over pixels, counts: their sum; the others: the largest. Between two
# ways of convolving on a CPU float32 differs by 5e-7, 3e-5, 1e-4, 0, 0; a few pixels at the edge of a mask are more.
TOLERANCE = {
    "float32": {"loss": 1e-4, "maps": 1e-3, "counts": 5e-3, "score": 5e-3, "class weights": 0.02},
    "bf16": {"loss": 0.05, "maps": 0.05, "counts": 0.1, "score": 0.05, "class weights": 0.2},
}
# Pooled features are normalised over the images of a batch alone, which blows rounding up to percents: these networks
# use what they have seen so far instead. In bf16 even that is not enough.
POOLED = ("deeplabv3plus", "pspnet")
ROOM = 32 * 2**20  # bytes left to a run that is to run out of memory: PyTorch takes 20 MiB at a time


# ---------------------------------------------------------------- the same numbers

def parity(bench):
    """The same few steps on the CPU and on the GPU in float32, and in bf16 against float32."""
    for network in bench.size.networks:
        expected = few_steps(bench, network, "cpu", "no")
        what = f"{network}: GPU against CPU, float32"
        if bench.on_gpu:
            with without_tf32():
                found = few_steps(bench, network, "cuda", "no")
            yield agreement(what, found, expected, "float32")
            expected = found
        else:
            yield row(what, "", limits("float32"), NOT_HERE)
        if network not in POOLED:
            what = f"{network}: bf16 against float32, {'GPU' if bench.on_gpu else 'CPU'}"
            yield agreement(what, few_steps(bench, network, bench.device, "bf16"), expected, "bf16")
        release()


def few_steps(bench, network, device, precision):
    """What some steps of CAWA on one batch come to, on the host."""
    # plain gradient descent: Adam makes whole steps of gradients that are nothing but rounding
    config = bench.config(network=network, optimizer="sgd", learning_rate=0.01, device=device,
                          mixed_precision=precision)
    training = set_up(config, {"train": bench.images(config)}, build_accelerator(config))
    model, weighting, accelerator = training.network, training.criterion.weighting, training.accelerator
    without_chance(model)
    training.model.train(network not in POOLED)
    pairs = [training.loader.dataset[index] for index in range(config.batch_size)]
    images, labels = (torch.stack(part).to(accelerator.device) for part in zip(*pairs, strict=True))
    losses = []
    for _ in range(bench.size.steps):
        losses.append(training_step(training, images, labels))
        training.batch += 1
    with torch.no_grad(), evaluation_mode(model), accelerator.autocast():
        features = model.features(images.contiguous(memory_format=torch.channels_last))
    maps = class_activation_maps(features, model.classifier, present_classes(labels), labels.shape[-2:])
    found = {"loss": torch.stack(losses), "maps": maps, "score": weighting.score(), "class weights": weighting.weight,
             "counts": weighting.count(Feedback(labels, None, features, model.classifier))}
    return {name: values.detach().double().cpu() for name, values in found.items()}


def without_chance(network):
    """Two devices draw different numbers: nothing is dropped."""
    for module in network.modules():
        for name in ("p", "drop_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@contextlib.contextmanager
def without_tf32():
    """Float32 with all its digits."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def agreement(what, found, expected, precision):
    different = deviations(found, expected)
    shown = ", ".join(f"{name} {value:.1e}" for name, value in different.items())
    return row(what, shown, limits(precision),
               all(value <= TOLERANCE[precision][name] for name, value in different.items()))


def limits(precision):
    return "at most " + ", ".join(f"{name} {value:g}" for name, value in TOLERANCE[precision].items())


def deviations(found, expected):
    """Quantity -> how far apart; loss, counts and class weights relative, maps and scores as they are, in 0..1."""
    # of classes that are there: a GPU also counts the masks of absent ones, which are not scored
    there = expected["counts"][:, 0] + expected["counts"][:, 2] > 0
    apart = {name: (found[name] - expected[name]).abs() for name in expected}
    return {"loss": (apart["loss"] / expected["loss"]).max().item(), "maps": apart["maps"].mean().item(),
            "counts": (apart["counts"][there].sum() / expected["counts"][there].sum()).item(),
            "score": apart["score"].max().item(),
            "class weights": (apart["class weights"] / expected["class weights"]).max().item()}


# ---------------------------------------------------------------- memory that runs out

def out_of_memory(bench):
    """A run for which there is too little memory, and one right after it in the same process."""
    aim = "one line that names the settings to lower"
    config = bench.config(epochs=1)
    what = "a run for which the card's memory is too small"
    if not bench.on_gpu:
        yield row(what, "", aim, NOT_HERE)
        yield row("the message, of an error raised by hand", message_by_hand(config), aim,
                  names_settings(message_by_hand(config)))
        return
    quietly(train, config.replace(seed=1))  # what the libraries keep for themselves is there before
    release()
    before = torch.cuda.memory_allocated()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + ROOM) / whole))
    try:
        message = refused(config.replace(batch_size=len(bench.images(config))))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield row(what, message, aim, names_settings(message))
    release()
    kept = (torch.cuda.memory_allocated() - before) / 2**20
    quietly(train, config)
    yield row("what it leaves behind, and a run right after it", f"{kept:.0f} MiB; the run went through", "none",
              kept < 1)


def refused(config):
    try:
        quietly(train, config)
    except RunError as error:
        return str(error)
    return "it went through"


def message_by_hand(config):
    try:
        with memory_errors(config):
            raise torch.OutOfMemoryError("CUDA out of memory")
    except RunError as error:
        return str(error)


def names_settings(message):
    return "\n" not in message and all(name in message for name in ("batch_size", "image_height", "image_width"))


def quietly(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


# ---------------------------------------------------------------- going on after an interruption

class Stop:
    """Tells a run to stop at its n-th look."""

    def __init__(self, looks):
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks == 0


def resuming(bench):
    """A run that is interrupted within its second epoch and gone on with, against two that are not."""
    for number, settings in enumerate(bench.size.resumed):
        whole, again, broken = (bench.config(**settings, outputs_root=str(bench.folder / f"resumed{number}{name}"))
                                for name in ("whole", "again", "broken"))
        with deterministic() as disordered:
            expected, repeated = (quietly(train, config) for config in (whole, again))
            steps = len(bench.images(whole)) // whole.batch_size
            resumed = interrupted_and_resumed(broken, steps + steps // 2)
        found = differences(resumed, expected)
        shown = "; ".join(f"{name} {value:.1e}" for name, value in found.items())
        noise = max(differences(repeated, expected).values())
        yield row(f"{whole.network}, {whole.epochs} epochs: interrupted and resumed against never stopped",
                  f"largest differences: {shown}; of two runs that were never stopped: {noise:.1e}; without a fixed "
                  f"order: {', '.join(sorted(disordered)) or 'no operation'}",
                  "parameters and metrics equal, bit for bit", found["parameters"] == found["metrics"] == 0)


def interrupted_and_resumed(config, looks):
    stop = contextlib.nullcontext(Stop(looks))
    with mock.patch.object(training_run, "stop_on_signal", lambda: stop):
        try:
            quietly(train, config)
        except TrainingInterrupted:
            pass
        else:
            raise RuntimeError(f"the run did not stop after {looks} steps")
    torch.manual_seed(1234)  # whatever happens in between must not matter
    return quietly(train, config)


def differences(run, expected):
    """Quantity -> the largest difference between two runs."""
    states = [torch.load(one.folder / "checkpoint" / "last.pt", map_location="cpu", weights_only=True)["model"]
              for one in (run, expected)]
    parameters = max((states[0][name].double() - value.double()).abs().max().item()
                     for name, value in states[1].items())
    splits = expected.metrics["splits"]
    # confusion matrices: every metric follows from them
    metrics = max(abs(one - other) for split in splits
                  for mine, theirs in zip(run.metrics["splits"][split]["confusion"], splits[split]["confusion"],
                                          strict=True) for one, other in zip(mine, theirs, strict=True))
    return {"parameters": parameters, "metrics": float(metrics),
            "losses": (run.history["train_loss"] - expected.history["train_loss"]).abs().max()}


@contextlib.contextmanager
def deterministic():
    """Operations in a fixed order, where PyTorch has one; yields the names of those for which it has none."""
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    cudnn, disordered = torch.backends.cudnn.deterministic, set()

    def note(message, *_, **__):
        if "deterministic" in str(message):
            disordered.add(str(message).split()[0])

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        try:
            yield disordered
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.deterministic = cudnn
