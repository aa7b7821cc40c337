"""One process of a run: `torchrun --nproc-per-node 2 -m cawalib.training SETTINGS`.

SETTINGS is a YAML or JSON file of settings, name: value, such as a run's config.json. Started by itself it is a run in
one process, or in as many as its setting `processes` says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from cawalib.runs import config_from
from cawalib.settings import ConfigError
from cawalib.training.launch import FORESEEN, end_with_parent
from cawalib.training.run import train


def main() -> int:
    parser = argparse.ArgumentParser(prog="cawalib.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", type=Path, help="YAML or JSON file of settings, name: value")
    path = parser.parse_args().settings
    end_with_parent()
    try:
        train(config_from(_read(path), where=str(path)))
    except FORESEEN as error:
        print(f"cawalib.training: error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _read(path):
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"settings file {path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"settings file {path}: found {type(found).__name__}, expected settings, name: value")
    return found


if __name__ == "__main__":
    sys.exit(main())
