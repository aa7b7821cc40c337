"""The built-in data: street scenes drawn by code, with labels, at a class imbalance one can set.

Objects are drawn over the backdrop from far to near; how many of each class follows from a calibration.
"""

from math import sqrt

import numpy as np

from . import streets_backdrop as backdrop
from . import streets_easy as easy
from . import streets_objects as objects
from .streets_drawing import (
    BICYCLE,
    BUILDING,
    CAR,
    PERSON,
    POLE,
    SKY,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    WEATHERS,
    Canvas,
    between,
    choose,
    finish,
)

CLASSES: tuple[str, ...] = (
    "sky", "building", "road", "pavement", "vegetation", "car", "person", "bicycle", "pole", "traffic sign",
    "traffic light")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (158, 208, 240), (176, 158, 140), (88, 88, 96), (214, 206, 190), (0, 130, 90), (0, 84, 166), (213, 72, 0),
    (204, 121, 167), (30, 20, 30), (240, 228, 66), (230, 159, 0))
# Raised when a scene comes out differently on purpose: scenes kept on disk are drawn again, and runs of them go stale.
DRAWING = 1
FIRST_SEED = {"train": 0, "val": 1_000_000, "test": 2_000_000}
SEEDS_PER_SPLIT = 1_000_000

# Chance of each kind of weather: a mild shift from train to test.
WEATHER_SHARES = {
    "train": {"sun": 0.50, "overcast": 0.34, "fog": 0.05, "rain": 0.06, "dusk": 0.05},
    "val": {"sun": 0.36, "overcast": 0.38, "fog": 0.11, "rain": 0.08, "dusk": 0.07},
    "test": {"sun": 0.26, "overcast": 0.28, "fog": 0.17, "rain": 0.15, "dusk": 0.14},
}

# ---- calibration of the imbalance
# Target pixels of an object class = HEAD * imbalance ** (-eighths / 8) of the image, HEAD being the share of
# the most frequent class: a geometric fall from car to traffic light, which ends at HEAD / imbalance.
# Expected objects per scene = target / VISIBLE, the share of the image that one object leaves visible on
# average. That depends on occlusion and distance and cannot be had in closed form, so `_calibrate` measured
# it over 1000 train scenes of 96x128 at each anchor and corrected it by measured / target share, in rounds.
# Between the anchors both tables are linear in log10(imbalance).
ANCHORS = (10.0, 100.0, 1000.0, 10000.0)
HEAD = (0.2495, 0.3082, 0.3289, 0.3383)
CROWDING = (0.8, 0.9, 1.0, 1.0)  # at low imbalance the street is full; all but the rarest class get less
FAR = (2.8, 4.5, 7.0, 7.0)  # cars and persons stand up to this far off (1 / relative size)
ON_ROAD = (0.55, 0.25, 0.12, 0.1)  # share of persons and bicycles on the road, where there is room near by
EIGHTHS = {CAR: 2, PERSON: 4, POLE: 5, BICYCLE: 6, TRAFFIC_SIGN: 7, TRAFFIC_LIGHT: 8}
VISIBLE = {  # at the four anchors
    CAR: (0.0137, 0.0159, 0.0108, 0.0115),
    PERSON: (0.00483, 0.00344, 0.00226, 0.00228),
    POLE: (0.0128, 0.00862, 0.00673, 0.00527),
    BICYCLE: (0.00541, 0.00581, 0.00459, 0.00424),
    TRAFFIC_SIGN: (0.00295, 0.00378, 0.00307, 0.00202),
    TRAFFIC_LIGHT: (0.00408, 0.00376, 0.00187, 0.00187),
}
NEAREST = {  # largest relative size (1 = at the lower border): rare classes stand further off
    CAR: (0.7, 0.65, 0.6, 0.55),
    PERSON: (0.8, 0.7, 0.6, 0.45),
    POLE: (0.95, 0.7, 0.55, 0.5),
    BICYCLE: (0.8, 0.72, 0.6, 0.5),
    TRAFFIC_SIGN: (0.85, 0.65, 0.55, 0.45),
    TRAFFIC_LIGHT: (0.85, 0.55, 0.34, 0.3),
}
# Fractional parts of square roots: their multiples modulo 1 fill the unit interval evenly.
SPREAD = {CAR: 0.6457513110645906, PERSON: 0.3166247903553998, POLE: 0.605551275463989,
          BICYCLE: 0.7320508075688772, TRAFFIC_SIGN: 0.41421356237309515, TRAFFIC_LIGHT: 0.6180339887498949}
DRAW = {CAR: objects.car, PERSON: objects.person, POLE: objects.pole, BICYCLE: objects.bicycle,
        TRAFFIC_SIGN: objects.traffic_sign, TRAFFIC_LIGHT: objects.traffic_light}


def _decades(imbalance: float) -> float:
    """log10(imbalance / 10) from + - * / and roots only, exact at the anchors, so that all machines agree."""
    whole = 0
    while imbalance >= 100.0:
        imbalance, whole = imbalance / 10.0, whole + 1
    root = sqrt(sqrt(imbalance / 10.0))
    part = (root - 1.0) / (root + 1.0)  # log(root) = 2 artanh(part), |part| < 0.29
    square = part * part
    series = 1.0 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11))))
    return whole + 8.0 * part * series / 2.302585092994046


def _at(table: tuple[float, ...], decades: float) -> float:
    step = min(int(decades), len(table) - 2)
    return table[step] + (table[step + 1] - table[step]) * (decades - step)


def _target_share(class_id: int, imbalance: float, decades: float) -> float:
    eighth_root, share = sqrt(sqrt(sqrt(imbalance))), _at(HEAD, decades)
    for _ in range(EIGHTHS[class_id]):
        share /= eighth_root
    if class_id != TRAFFIC_LIGHT:
        share *= _at(CROWDING, decades)
    return share * (0.75 if class_id == CAR else 1.0)


def _visible(rare_classes: str) -> dict[int, tuple[float, ...]]:
    return easy.VISIBLE if rare_classes == "easy" else VISIBLE


# ---------------------------------------------------------------- what stands in it

def _count(rng, class_id: int, seed: int, imbalance: float, rare_classes: str) -> int:
    """Objects of a class in this scene, on average as many as its target share asks for.

    A rare class comes in an evenly spread share of the seeds (multiples of an irrational number, modulo 1),
    so that any 100 scenes in a row hold it and the imbalance hardly varies from one sample to the next.
    """
    decades, visible = _decades(imbalance), _visible(rare_classes)
    expected = _target_share(class_id, imbalance, decades) / _at(visible[class_id], decades)
    spread = seed * SPREAD[class_id] % 1.0
    swing = 2.0 * rng.random_sample() if expected > 1.0 else 1.0
    return int(expected * swing + spread)


def _spot(rng, view: backdrop.View, class_id: int, on_road: float = 0.0) -> float:
    """Where across the street (metres) an object of a class stands."""
    side = 0 if rng.random_sample() < 0.5 else 1
    sign = (-1.0, 1.0)[side]
    kerb, wall = view.road[side], view.wall[side]
    if class_id == CAR:
        lane = 0.75 * kerb + 0.25 * view.road[1 - side]
        return choose(rng, (lane, kerb - sign * 1.0, kerb - sign * 0.7))
    if class_id in (POLE, TRAFFIC_SIGN, TRAFFIC_LIGHT):
        return kerb + sign * between(rng, 0.25, 0.6)
    if rng.random_sample() < on_road:
        return between(rng, *view.road)
    return kerb + (wall - kerb) * between(rng, 0.2, 0.9)


def _things(rng, view: backdrop.View, seed: int, imbalance: float, rare_classes: str) -> list[tuple]:
    """(scale, across, draw function) of everything that stands in the street, but for easy classes."""
    decades, things = _decades(imbalance), []
    on_road = _at(ON_ROAD, decades)
    for class_id, draw in DRAW.items():
        if rare_classes == "easy" and class_id in easy.SIDE:
            continue
        nearest = _at(NEAREST[class_id], decades)
        for _ in range(_count(rng, class_id, seed, imbalance, rare_classes)):
            for _attempt in range(8):  # keep what would stand outside the image out of the list
                farthest = max(2.6 / nearest, _at(FAR, decades) if class_id in (CAR, PERSON) else 0.0)
                scale = 1.0 / between(rng, 1.0 / nearest, farthest)
                across = _spot(rng, view, class_id, on_road if class_id in (PERSON, BICYCLE) else 0.0)
                if 0.02 * view.width < view.place(across, scale)[0] < 0.98 * view.width:
                    side_view = class_id == CAR and rng.random_sample() < 0.12
                    things.append((scale, across, objects.side_car if side_view else draw))
                    break
    for draw, most in ((objects.tree, 3.2), (objects.bush, 3.0), (objects.bin_or_bollard, 2.5)):
        for _ in range(int(most * rng.random_sample() + 0.3)):
            things.append((1.0 / between(rng, 2.0, 9.0), _spot(rng, view, BICYCLE), draw))
    return sorted(things, key=lambda thing: thing[0])


def _wall_signs(canvas, rng, view: backdrop.View) -> None:
    for _ in range(int(rng.random_sample() * 6)):
        wall, scale = view.wall[int(rng.random_sample() * 2)], 1.0 / between(rng, 2.0, 9.0)
        x, y, metre = view.place(wall, scale)
        y -= between(rng, 2.2, 5.0) * metre
        if 0 <= x < view.width and 0 <= y < view.height and canvas.label[int(y), int(x)] == BUILDING:
            canvas.set_distance(scale)
            objects.shop_sign(canvas, rng, view, x, y, metre)


def _weather(rng, split: str):
    draw = rng.random_sample()
    for name, share in WEATHER_SHARES[split].items():
        draw -= share
        if draw < 0:
            return WEATHERS[name]
    return WEATHERS["sun"]


# ---------------------------------------------------------------- public functions

def _check(split, height, width, imbalance, rare_classes) -> None:
    if split not in tuple(FIRST_SEED):
        raise ValueError(f"split: found {split!r}, expected one of 'train', 'val', 'test'")
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, (int, np.integer)) or value < 32:
            raise ValueError(f"{name}: found {value!r}, expected a whole number of at least 32 pixels")
    number = isinstance(imbalance, (int, float, np.integer, np.floating))
    if not number or not 10 <= imbalance <= 10000:
        raise ValueError(f"imbalance: found {imbalance!r}, expected a number from 10 to 10000")
    if rare_classes not in ("hard", "easy"):
        raise ValueError(f"rare_classes: found {rare_classes!r}, expected 'hard' or 'easy'")


def draw_scene(seed: int, split: str = "train", height: int = 96, width: int = 128,
               imbalance: float = 1000.0, rare_classes: str = "hard") -> tuple[np.ndarray, np.ndarray]:
    """Draw one street scene with its label; the same arguments give the same arrays on every machine.

    seed: whole number from 0 to 2**32 - 1; the street, its objects and its weather follow from it.
    split: "train", "val" or "test"; sets only how likely fog, rain and dusk are.
    height, width: pixels, at least 32. The shares are calibrated at 96x128.
    imbalance: pixels of the most frequent over pixels of the rarest class in train, 10..10000.
    rare_classes: "hard" or "easy"; with "easy", at the same shares, the three rarest classes are large, near and of
        a colour of their own, and vegetation looks much like building.

    Returns (image, label): uint8 (height, width, 3) RGB, 0..255, and uint8 (height, width) with class ids
    0..10 in the order of CLASSES, or 255 for void.
    Raises ValueError if an argument is outside its range.
    """
    _check(split, height, width, imbalance, rare_classes)
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: found {seed!r}, expected a whole number from 0 to 2**32 - 1")
    rng = np.random.RandomState(seed)
    image, label = np.empty((3, height, width), np.float32), np.full((height, width), SKY, np.uint8)
    look = easy.LOOK_ALIKE if rare_classes == "easy" else objects.LOOK
    canvas = Canvas(image, label, _weather(rng, split), look)
    view = backdrop.make_view(rng, height, width)
    backdrop.sky(canvas, rng, view)
    backdrop.skyline(canvas, rng, view)
    backdrop.ground(canvas, rng, view)
    for side in (0, 1):
        backdrop.walls(canvas, rng, view, side)
    _wall_signs(canvas, rng, view)
    seed, imbalance = int(seed), float(imbalance)
    for scale, across, draw in _things(rng, view, seed, imbalance, rare_classes):
        canvas.set_distance(scale)
        draw(canvas, rng, view, *view.place(across, scale))
    if rare_classes == "easy":
        for class_id, side in easy.SIDE.items():
            for _ in range(_count(rng, class_id, seed, imbalance, rare_classes)):
                easy.draw(canvas, rng, view, class_id, _at(side, _decades(imbalance)))
    return finish(canvas, rng)


def draw_split(split: str, count: int, height: int = 96, width: int = 128,
               imbalance: float = 1000.0, rare_classes: str = "hard") -> tuple[np.ndarray, np.ndarray]:
    """Draw the first `count` scenes of a split; no two splits share a seed.

    Returns (images, labels): uint8 (count, height, width, 3) RGB, and uint8 (count, height, width) with class
    ids 0..10 or 255 for void. The other arguments are those of `draw_scene`.
    Raises ValueError if an argument is outside its range (count: 1..1000000).
    """
    _check(split, height, width, imbalance, rare_classes)
    if not isinstance(count, (int, np.integer)) or not 1 <= count <= SEEDS_PER_SPLIT:
        raise ValueError(f"count: found {count!r}, expected a whole number from 1 to {SEEDS_PER_SPLIT}")
    images = np.empty((count, height, width, 3), np.uint8)
    labels = np.empty((count, height, width), np.uint8)
    for index in range(count):
        images[index], labels[index] = draw_scene(FIRST_SEED[split] + index, split, height, width, imbalance,
                                                  rare_classes)
    return images, labels


def _calibrate(rare_classes: str = "hard", count: int = 1000, rounds: int = 4) -> None:
    """Measure and print HEAD and VISIBLE anew; needed after any change to what is drawn (some minutes).

    "hard" comes first: its HEAD is that of both, so that their shares are the same.
    """
    table = _visible(rare_classes)
    head, visible = list(HEAD), {class_id: list(row) for class_id, row in table.items()}
    for _ in range(rounds):
        for step, imbalance in enumerate(ANCHORS):
            _, labels = draw_split("train", count, imbalance=imbalance, rare_classes=rare_classes)
            share = np.bincount(labels.ravel(), minlength=256) / labels.size
            for class_id in table:
                target = _target_share(class_id, imbalance, float(step))
                visible[class_id][step] *= float(share[class_id]) / target
            if rare_classes == "hard":
                head[step] = float(share[:11].max())
        globals()["HEAD"] = tuple(head)
        table.update({class_id: tuple(row) for class_id, row in visible.items()})
    print([round(value, 4) for value in HEAD])
    for class_id, row in table.items():
        print(CLASSES[class_id], [float(f"{value:.3g}") for value in row])
