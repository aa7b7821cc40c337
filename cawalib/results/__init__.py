"""Results: runs compared, and the tables, figures and pages made from them. Nothing here trains."""

from cawalib.extras import require

require("notebooks")

from cawalib.results import answers, figures
from cawalib.results.claims import both_halves
from cawalib.results.comparison import compare, compare_classes
from cawalib.results.decisions import at_accuracy, calibration_error, curve, decided, height
from cawalib.results.forms import displayed, html, write_table
from cawalib.results.measures import METRICS, ComparisonError, per_class, tidy
from cawalib.results.report import ReportConfig, runs_beside
from cawalib.results.tables import (
    final_weights,
    main_table,
    overview_table,
    per_class_table,
    settings_table,
    summary_table,
    verdict_table,
    weights_over_thirds,
)
from cawalib.results.verdicts import equal_accuracy_table, points_table, questions_table

__all__ = [
    "METRICS", "ComparisonError", "ReportConfig", "answers", "at_accuracy", "both_halves", "calibration_error",
    "compare", "compare_classes", "curve", "decided", "displayed", "equal_accuracy_table", "figures", "final_weights",
    "height", "html", "main_table", "overview_table", "per_class", "per_class_table", "points_table", "questions_table",
    "runs_beside", "settings_table", "summary_table", "tidy", "verdict_table", "weights_over_thirds", "write_table",
]
