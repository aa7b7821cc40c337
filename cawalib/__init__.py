"""CAWASeg, step by step: class activation maps drive adaptive class weights for segmentation with rare classes.

Seven rooms, each importing only those before it: `method`, `datasets`, `runs`, `training`, `predict`, `results`,
`notebook`.
"""

__version__ = "0.2.0"
