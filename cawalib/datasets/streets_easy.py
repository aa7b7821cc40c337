"""Rare classes that are easy, and a frequent one that is hard: the other kind of built-in street scenes.

By default the rare classes of these scenes are also the hard ones: small, thin, far off, hidden. Here the three rarest
come in fewer, larger, compact pieces of one flat colour that nothing else has, in front of everything, and vegetation
has nearly the colours and texture of the houses. Every class keeps its share of the pixels, and the street its labels.
"""

from dataclasses import replace

from .streets_drawing import (
    BICYCLE,
    CAR,
    PERSON,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    Look,
    between,
    ellipse,
    gable,
    plate,
    rectangle,
)
from .streets_objects import LOOK

# Saturated, and far from every colour of streets_objects and streets_backdrop.
COLOURS = {BICYCLE: (255, 0, 200), TRAFFIC_SIGN: (0, 235, 245), TRAFFIC_LIGHT: (130, 255, 0)}
# Diameter of a wheel, and side of a square as large as a sign or light, in image heights, at the four anchors of the
# imbalance: less where it is high, or else a split of a hundred scenes might hold none.
SIDE = {
    BICYCLE: (0.13, 0.12, 0.1, 0.08),
    TRAFFIC_SIGN: (0.15, 0.13, 0.105, 0.075),
    TRAFFIC_LIGHT: (0.15, 0.12, 0.09, 0.06),
}
VISIBLE = {  # as in streets: share of the image that one object leaves visible on average, at the four anchors
    CAR: (0.0105, 0.0156, 0.011, 0.0116),
    PERSON: (0.00432, 0.00333, 0.00231, 0.00227),
    POLE: (0.00869, 0.00787, 0.00676, 0.00595),
    BICYCLE: (0.0203, 0.019, 0.0134, 0.00844),
    TRAFFIC_SIGN: (0.0145, 0.0127, 0.00837, 0.00412),
    TRAFFIC_LIGHT: (0.0165, 0.0108, 0.00596, 0.0029),
}

# Leaves nearly as pale and smooth as plaster; a trace of green and some roughness keep them from being impossible.
LOOK_ALIKE: Look = replace(
    LOOK, leaves=((158, 148, 112), (128, 98, 68), (178, 174, 144), (138, 142, 116), (164, 152, 96), (108, 112, 90)),
    far_leaves=((132, 130, 110), (136, 134, 114)), clumps=0.6,
    roughness=(0.04, 0.16, 0.17, 0.17, 0.27, 0.06, 0.2, 0.03, 0.1, 0.03, 0.03))


def draw(canvas, rng, view, class_id: int, side: float) -> None:
    """Draw one easy bicycle, sign or light of size `side` (as in SIDE) to the left or right of the street."""
    canvas.set_distance(1.0)  # no haze
    side, colour = side * view.height * between(rng, 0.9, 1.1), COLOURS[class_id]
    aside = between(rng, 0.03, 0.38)
    x = view.width * (aside if rng.random_sample() < 0.5 else 1.0 - aside)
    foot = view.height * between(rng, 0.57, 0.95)
    if class_id == BICYCLE:
        for wheel in (-0.55, 0.55):
            ellipse(canvas, x + wheel * side, foot - 0.5 * side, 0.5 * side, 0.5 * side, colour, BICYCLE)
        gable(canvas, x, foot - 1.1 * side, foot - 0.3 * side, 0.3 * side, 0.5 * side, colour, BICYCLE)
        return
    y, half = view.height * between(rng, 0.26, 0.58), view.height / 192
    rectangle(canvas, x - half, y, x + half, foot, (96, 98, 100), POLE)
    if class_id == TRAFFIC_SIGN:
        ellipse(canvas, x, y, 0.565 * side, 0.565 * side, colour, TRAFFIC_SIGN)
    else:
        plate(canvas, x, y, 0.42 * side, 0.6 * side, colour, TRAFFIC_LIGHT)
