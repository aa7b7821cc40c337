"""CAWASeg, step by step: class activation maps drive adaptive class weights for segmentation with rare classes.

Seven rooms, each importing only those before it: `method`, `datasets`, `runs`, `training`, `predict`, `results`,
`notebook`. What somebody's own training loop needs of `method` is offered here as well, and imports torch when it is
asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cawalib.method import CAWALoss, CAWAWeights, Decision, fit_decision

__version__ = "0.2.0"
__all__ = ["CAWALoss", "CAWAWeights", "Decision", "fit_decision"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'cawalib' has no attribute {name!r}")
    from cawalib import method
    return getattr(method, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
