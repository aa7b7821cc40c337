"""Training: networks, images on their way in, the loop, and the evaluation at its end. `train` is one run."""

from cawalib.extras import require

require("train")

from cawalib.training.criterion import Criterion, build_weighting
from cawalib.training.evaluation import evaluate, sample_predictions
from cawalib.training.loop import Training, TrainingInterrupted, run_epoch, training_step
from cawalib.training.metrics import class_table, confusion_matrix, counted, summary
from cawalib.training.models import SegmentationModel, build_model
from cawalib.training.run import build_accelerator, check, load_checked, memory_errors, set_up, train
from cawalib.training.transforms import MEAN, STD, EvaluationImages, TrainingImages

__all__ = [
    "MEAN", "STD", "Criterion", "EvaluationImages", "SegmentationModel", "Training", "TrainingImages",
    "TrainingInterrupted", "build_accelerator", "build_model", "build_weighting", "check", "class_table",
    "confusion_matrix", "counted", "evaluate", "load_checked", "memory_errors", "run_epoch", "sample_predictions",
    "set_up", "summary", "train", "training_step",
]
