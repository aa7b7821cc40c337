"""The method (METHOD.md): maps, scores, class weights and losses. It needs torch and numpy alone.

`CAWALoss` (in `cawa_loss`) is the whole of it for somebody's own loop; the files are its steps: `cam` and `layers`,
`scoring`, `weighting` and `cawa`, `losses`; and `decision`, where the finished network draws the line between classes.
"""

from cawalib.method.cam import class_activation_maps, evaluation_mode
from cawalib.method.cawa import CAWAWeighting, basic_weight, cawa_weight, derangement, ratio_weight
from cawalib.method.cawa_loss import CAWALoss, CAWAWeights
from cawalib.method.decision import POINTS, Decision, decision_at, fit_decision
from cawalib.method.layers import find_layer, layer_activation_maps, layer_output
from cawalib.method.losses import adjusted, cross_entropy, focal, ohem, varied
from cawalib.method.scoring import (
    RunningScore,
    count,
    csps,
    prediction_masks,
    present_classes,
    pseudo_masks,
    score_labels,
)
from cawalib.method.weighting import (
    STATIC,
    ClassDifficultyWeighting,
    Feedback,
    RecallWeighting,
    Weighting,
    static_weight,
)

__all__ = [
    "POINTS", "STATIC", "CAWALoss", "CAWAWeighting", "CAWAWeights", "ClassDifficultyWeighting", "Decision",
    "Feedback", "RecallWeighting", "RunningScore", "Weighting", "adjusted", "basic_weight", "cawa_weight",
    "class_activation_maps", "count", "cross_entropy", "csps", "decision_at", "derangement", "evaluation_mode",
    "find_layer", "fit_decision", "focal", "layer_activation_maps", "layer_output", "ohem", "prediction_masks",
    "present_classes", "pseudo_masks", "ratio_weight", "score_labels", "static_weight", "varied",
]
