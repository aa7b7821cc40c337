"""Training: networks, images on their way in, the loop, and the evaluation at its end. `train` is one run."""

from cawalib.extras import require

require("train")

from cawalib.training.checkpoints import read_checkpoint
from cawalib.training.criterion import Criterion, build_weighting
from cawalib.training.evaluation import activation_maps, evaluate, sample_predictions, whole_logits
from cawalib.training.loop import Training, TrainingInterrupted, run_epoch, training_step
from cawalib.training.metrics import class_table, confusion_matrix, counted, summary
from cawalib.training.models import SegmentationModel, build_model
from cawalib.training.network_file import read_network, write_network
from cawalib.training.run import build_accelerator, check, load_checked, memory_errors, set_up, train
from cawalib.training.transforms import MEAN, STD, EvaluationImages, TrainingImages, as_judged, normalised

__all__ = [
    "MEAN", "STD", "Criterion", "EvaluationImages", "SegmentationModel", "Training", "TrainingImages",
    "TrainingInterrupted", "activation_maps", "as_judged", "build_accelerator", "build_model", "build_weighting",
    "check", "class_table", "confusion_matrix", "counted", "evaluate", "load_checked", "memory_errors", "normalised",
    "read_checkpoint", "read_network", "run_epoch", "sample_predictions", "set_up", "summary", "train", "training_step",
    "whole_logits", "write_network",
]
