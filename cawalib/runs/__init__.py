"""Runs: the settings of one, what it leaves on disk and where that came from, and which runs a study has."""

from cawalib.extras import require

require("train")

from cawalib.runs import behaviour
from cawalib.runs.archive import NAME as ARCHIVE
from cawalib.runs.archive import read_archive, unpack, write_archive
from cawalib.runs.behaviour import EVERY_RUN, outdated, versions
from cawalib.runs.config import PLACE_FIELDS, SHARED_FIELDS, RunConfig, config_from
from cawalib.runs.folders import Run, is_stale, load_run, set_aside, take_up, write_metrics
from cawalib.runs.grids import load_study
from cawalib.runs.locks import RunError, alone, claim
from cawalib.runs.provenance import environment
from cawalib.runs.studies import Entry, Study, group_folder, load_runs

__all__ = [
    "ARCHIVE", "EVERY_RUN", "PLACE_FIELDS", "SHARED_FIELDS", "Entry", "Run", "RunConfig", "RunError", "Study",
    "alone", "behaviour", "claim", "config_from", "environment", "group_folder", "is_stale", "load_run", "load_runs",
    "load_study", "outdated", "read_archive", "set_aside", "take_up", "unpack", "versions", "write_archive",
    "write_metrics",
]
