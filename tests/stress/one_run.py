"""The CAWA run of the small study, in a script of its own, for torchrun too: settings as name=value."""

import sys
from pathlib import Path

from cawalib.runs import load_study
from cawalib.training import train

settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
train(load_study(Path(__file__).with_name("grid.yaml"), **settings).configs()[2][1])
