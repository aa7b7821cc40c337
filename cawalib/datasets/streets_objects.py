"""The things that stand in a built-in street scene: cars, persons, bicycles, poles, signs, lights, trees.

Every function takes (canvas, rng, view, x, y, metre): `x` the centre and `y` the foot point in pixels,
`metre` the length of one metre in pixels at that distance. `view` tells where the street vanishes.
"""

import numpy as np

from .streets_drawing import (
    BICYCLE,
    BUILDING,
    CAR,
    PERSON,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    VOID,
    Look,
    between,
    choose,
    ellipse,
    foliage,
    gable,
    line,
    plate,
    rectangle,
    shade,
    side_panel,
    trapezoid,
)

CAR_PAINTS = ((200, 30, 36), (38, 62, 128), (232, 232, 230), (46, 46, 50), (150, 154, 160), (96, 100, 106),
              (28, 96, 84), (206, 168, 60), (120, 26, 40), (180, 190, 205))
CLOTHES = ((182, 42, 48), (40, 60, 120), (36, 36, 42), (216, 210, 196), (226, 176, 40), (70, 110, 70),
           (120, 72, 130), (222, 112, 40), (90, 96, 104), (56, 136, 150))
SKINS = ((238, 200, 172), (206, 156, 120), (150, 102, 70), (96, 64, 46))
TROUSERS = ((34, 38, 54), (60, 66, 84), (96, 84, 66), (28, 28, 30))
HAIRS = ((40, 28, 22), (96, 66, 34), (24, 22, 22), (150, 144, 138))
FRAMES = ((20, 180, 190), (214, 36, 44), (40, 150, 60), (30, 32, 38), (232, 130, 30), (240, 240, 240))
LEAVES = ((66, 108, 46), (52, 92, 44), (88, 122, 48), (104, 118, 44), (60, 100, 70), (150, 118, 44))
# Leaves are green and rough, sky and car paint are smooth.
LOOK = Look(LEAVES, ((60, 84, 50), (64, 92, 54)), 1.0,
            (0.04, 0.13, 0.17, 0.17, 0.45, 0.06, 0.2, 0.1, 0.1, 0.05, 0.05))
SIGN_RED, SIGN_BLUE, SIGN_YELLOW, SIGN_WHITE = (214, 22, 32), (24, 74, 190), (246, 200, 20), (246, 246, 246)


def _shadow(canvas, x, y, metre, half_width) -> None:
    sun = canvas.weather.sun
    if sun:
        shade(canvas, x + 0.5 * half_width * metre, y, half_width * 1.5 * metre, 0.16 * metre + 0.5, 1.0 - sun)
    else:
        shade(canvas, x, y, half_width * metre, 0.1 * metre + 0.5, 0.75)


def car(canvas, rng, view, x, y, metre) -> None:
    """A car seen from behind or in front, with the flank that faces the middle of the street."""
    paint = np.array(choose(rng, CAR_PAINTS)) * between(rng, 0.85, 1.1)
    tall = choose(rng, (1.0, 1.0, 1.06, 1.3))
    half, long = 0.9 * metre * between(rng, 0.95, 1.05), between(rng, 3.8, 4.6)
    roof, belt, floor = y - 1.5 * tall * metre, y - 0.92 * tall * metre, y - 0.28 * metre
    shade(canvas, x, y - 0.05 * metre, half * 1.15, 0.2 * metre + 0.6, 0.35)
    shrink = 1.0 / (1.0 + long * metre / view.focal)  # size of the far end against the near end
    side = 1.0 if x < view.vanish_x else -1.0
    near_x = x + side * half
    far_x = view.vanish_x + (near_x - view.vanish_x) * shrink
    far_roof, far_belt, far_floor, far_y = (
        view.horizon + (level - view.horizon) * shrink for level in (roof + 0.1 * metre, belt, floor, y))
    lean, lap = side * 0.18 * half, 0.25 * metre  # the side windows reach behind the belt line: no slit
    side_panel(canvas, near_x - lean, far_x - lean * shrink, (roof + 0.08 * metre, belt + lap),
               (far_roof, far_belt + lap * shrink), (44, 52, 62), CAR)
    side_panel(canvas, near_x, far_x, (floor, y), (far_floor, far_y), (26, 26, 28), CAR)
    side_panel(canvas, near_x, far_x, (belt, floor + 0.1 * metre), (far_belt, far_floor), paint * 0.8, CAR)
    for part in (0.2, 0.8):
        wheel_x, wheel_y = near_x + (far_x - near_x) * part, y + (far_y - y) * part
        size = metre * (1.0 + (shrink - 1.0) * part) * 0.32
        wide = max(size * abs(far_x - near_x) / (long * metre), 0.6)
        ellipse(canvas, wheel_x, wheel_y - size, wide, size, (18, 18, 20), CAR)
    _car_end(canvas, rng, x, y, metre, half, paint, (roof, belt, floor))


def _car_end(canvas, rng, x, y, metre, half, paint, levels) -> None:
    """The face of a car: `levels` are the heights of roof, belt line and floor in pixels."""
    roof, belt, floor = levels
    rear = rng.random_sample() < 0.55
    for side in (-1, 1):
        plate(canvas, x + side * 0.68 * half, y - 0.19 * metre, 0.13 * metre, 0.19 * metre, (16, 16, 18), CAR)
    glass = choose(rng, ((52, 62, 74), (84, 98, 112), (36, 42, 50)))
    gable(canvas, x, roof, belt + 0.5, 0.74 * half, 0.96 * half, paint * 0.92, CAR)
    gable(canvas, x, roof + 0.12 * metre, belt - 0.02 * metre, 0.64 * half, 0.82 * half, glass, CAR)
    rectangle(canvas, x - half, belt, x + half, floor, paint, CAR)
    rectangle(canvas, x - half, floor - 0.18 * metre, x + half, floor, paint * 0.62, CAR)
    lamp = 0.22 * metre
    bright = canvas.weather.glow
    colour = (190 * bright, 24, 22) if rear else (230 * bright, 228 * bright, 205 * bright)
    for side in (-1, 1):
        plate(canvas, x + side * (half - 0.6 * lamp), belt + 0.19 * metre, 0.6 * lamp, 0.4 * lamp, colour, CAR)
    number_plate = (226, 226, 216) if rear else (40, 40, 42)
    plate(canvas, x, floor - 0.23 * metre, 0.25 * metre, 0.07 * metre, number_plate, CAR)


def side_car(canvas, rng, view, x, y, metre) -> None:
    """A car that crosses the street, seen from its side."""
    paint = np.array(choose(rng, CAR_PAINTS)) * between(rng, 0.85, 1.1)
    half, cabin = 2.1 * metre, x + between(rng, -0.3, 0.3) * metre
    shade(canvas, x, y, half, 0.2 * metre + 0.6, 0.4)
    gable(canvas, cabin, y - 1.45 * metre, y - 0.85 * metre, 0.48 * half, 0.77 * half, paint * 0.95, CAR)
    gable(canvas, cabin, y - 1.34 * metre, y - 0.88 * metre, 0.42 * half, 0.64 * half, (58, 70, 84), CAR)
    plate(canvas, cabin, y - 1.12 * metre, 0.06 * metre, 0.28 * metre, paint * 0.9, CAR)
    rectangle(canvas, x - half, y - 0.9 * metre, x + half, y - 0.3 * metre, paint, CAR)
    rectangle(canvas, x - half, y - 0.42 * metre, x + half, y - 0.26 * metre, paint * 0.55, CAR)
    for side in (-0.62, 0.62):
        ellipse(canvas, x + side * half, y - 0.33 * metre, 0.35 * metre, 0.35 * metre, (18, 18, 20), CAR)
        ellipse(canvas, x + side * half, y - 0.33 * metre, 0.17 * metre, 0.17 * metre, (150, 152, 156), CAR)


def person(canvas, rng, view, x, y, metre) -> None:
    tall = metre * between(rng, 1.5, 1.9)
    top, trousers, hair = choose(rng, CLOTHES), choose(rng, TROUSERS), choose(rng, HAIRS)
    broad, stride = tall * between(rng, 0.115, 0.15), tall * between(rng, 0.0, 0.09)
    _shadow(canvas, x, y, metre, 0.35)
    hip, neck = y - 0.48 * tall, y - 0.83 * tall
    for side in (-1, 1):
        thigh, foot = x + side * 0.45 * broad, x + side * (0.4 * broad + stride)
        trapezoid(canvas, hip - 0.03 * tall, y, (thigh - 0.5 * broad, thigh + 0.5 * broad),
                  (foot - 0.3 * broad, foot + 0.45 * broad), trousers, PERSON)
    gable(canvas, x, neck, hip, broad, 0.82 * broad, top, PERSON)
    sleeve = (top[0] * 0.8, top[1] * 0.8, top[2] * 0.8)
    for side in (-1, 1):
        hand = x + side * (broad + 0.5 * stride)
        line(canvas, x + side * broad, neck + 0.04 * tall, hand, hip, 0.06 * tall, sleeve, PERSON)
    ellipse(canvas, x, y - 0.91 * tall, 0.062 * tall, 0.085 * tall, choose(rng, SKINS), PERSON)
    plate(canvas, x, y - 0.97 * tall, 0.055 * tall, 0.03 * tall, hair, PERSON)


def bicycle(canvas, rng, view, x, y, metre) -> None:
    """A parked bicycle; as in street data sets, its wheels count whole, spokes and gaps included."""
    paint = choose(rng, FRAMES)
    turn = between(rng, 0.65, 1.0) * choose(rng, (-1, 1))  # foreshortening and direction
    radius, reach = 0.36 * metre, 0.54 * metre * turn
    _shadow(canvas, x, y, metre, 0.8)
    hub = y - radius
    rear, front, pedal = (x - reach, hub), (x + reach, hub), (x - 0.05 * reach, hub)
    seat, bars = (x - 0.35 * reach, y - 0.88 * metre), (x + 0.75 * reach, y - 0.9 * metre)
    wide, tyre = radius * abs(turn), max(0.45, 1.0 - 1.2 / max(radius, 1.2))
    for wheel, _ in (rear, front):
        ellipse(canvas, wheel, hub, wide, radius, (112, 112, 110), BICYCLE)
        ellipse(canvas, wheel, hub, wide, radius, (20, 20, 22), BICYCLE, hole=tyre)
    for start, end in ((rear, seat), (seat, bars), (bars, front), (seat, pedal), (pedal, bars), (rear, pedal)):
        line(canvas, *start, *end, 0.07 * metre, paint, BICYCLE)
    plate(canvas, seat[0], seat[1] - 0.05 * metre, 0.16 * metre, 0.05 * metre, (24, 22, 22), BICYCLE)
    plate(canvas, bars[0], bars[1] - 0.09 * metre, 0.12 * metre, 0.05 * metre, (24, 22, 22), BICYCLE)


def _post(canvas, rng, x, y, metre, tall, thick=0.13) -> float:
    """An upright pole; returns the height of its top in pixels."""
    tone = choose(rng, (70, 96, 128, 150))
    half = max(thick * metre, 1.0) / 2
    top = y - tall * metre
    rectangle(canvas, x - half, top, x + half, y, (tone, tone + 2, tone + 4), POLE)
    if half > 1.2:
        rectangle(canvas, x - half, top, x - 0.2 * half, y, (tone * 1.25, tone * 1.25, tone * 1.28), POLE)
    return top


def pole(canvas, rng, view, x, y, metre) -> None:
    """A lamp post with an arm, or a bare post."""
    _shadow(canvas, x, y, metre, 0.15)
    tall = between(rng, 4.5, 7.0)
    top = _post(canvas, rng, x, y, metre, tall, between(rng, 0.12, 0.2))
    if rng.random_sample() < 0.7:
        side = 1.0 if x < view.vanish_x else -1.0
        lamp, glow = x + side * 1.3 * metre, 120 * canvas.weather.glow
        line(canvas, x, top, lamp, top - 0.15 * metre, 0.1 * metre, (110, 112, 116), POLE)
        plate(canvas, lamp, top - 0.18 * metre, 0.3 * metre, 0.12 * metre, (glow, glow, glow * 0.85), POLE)


def traffic_sign(canvas, rng, view, x, y, metre) -> None:
    tall, size = between(rng, 2.4, 3.1), max(0.42 * metre, 1.6)
    top = _post(canvas, rng, x, y, metre, tall, 0.1)
    _shadow(canvas, x, y, metre, 0.12)
    sign_face(canvas, rng, x, top + 0.3 * size, size, TRAFFIC_SIGN)


def sign_face(canvas, rng, x, y, size, class_id) -> None:
    """A round, three-cornered, square or diamond plate of half-width `size` pixels."""
    kind = int(rng.random_sample() * 6)
    if kind == 0:
        ellipse(canvas, x, y, size, size, SIGN_RED, class_id)
        ellipse(canvas, x, y, 0.6 * size, 0.6 * size, SIGN_WHITE, class_id)
    elif kind == 1:
        ellipse(canvas, x, y, size, size, SIGN_RED, class_id)
        plate(canvas, x, y, 0.6 * size, 0.2 * size, SIGN_WHITE, class_id)
    elif kind == 2:
        gable(canvas, x, y - size, y + 0.8 * size, 0, 1.1 * size, SIGN_RED, class_id)
        gable(canvas, x, y - 0.35 * size, y + 0.5 * size, 0, 0.55 * size, SIGN_WHITE, class_id)
    elif kind == 3:
        plate(canvas, x, y, 0.9 * size, 0.9 * size, SIGN_BLUE, class_id)
        plate(canvas, x, y, 0.3 * size, 0.5 * size, SIGN_WHITE, class_id)
    elif kind == 4:
        ellipse(canvas, x, y, size, size, SIGN_BLUE, class_id)
        plate(canvas, x, y, 0.15 * size, 0.5 * size, SIGN_WHITE, class_id)
    else:
        gable(canvas, x, y - 1.1 * size, y, 0, 1.1 * size, SIGN_YELLOW, class_id)
        gable(canvas, x, y, y + 1.1 * size, 1.1 * size, 0, SIGN_YELLOW, class_id)


def traffic_light(canvas, rng, view, x, y, metre) -> None:
    tall = between(rng, 2.7, 3.4)
    top = _post(canvas, rng, x, y, metre, tall, 0.12)
    wide, high = max(0.5 * metre, 3.0), max(1.3 * metre, 7.0)
    left, roof = int(x - wide / 2 + 0.5), int(top + 0.5)
    rectangle(canvas, left, roof, left + wide, roof + high, (22, 24, 24), TRAFFIC_LIGHT)
    lit, glow = int(rng.random_sample() * 3), 0.5 + 0.7 * canvas.weather.glow
    colours = ((255 * glow, 40, 30), (255 * glow, 190 * glow, 20), (30, 250 * glow, 110))
    for row in range(3):
        colour = colours[row] if row == lit else (52, 54, 52)
        centre = roof + high * (row + 0.5) / 3
        if wide < 5:
            rectangle(canvas, left + 1, centre - 0.5, left + wide - 1, centre + 0.5, colour, TRAFFIC_LIGHT)
        else:
            ellipse(canvas, left + wide / 2, centre, 0.32 * wide, 0.32 * wide, colour, TRAFFIC_LIGHT)


def tree(canvas, rng, view, x, y, metre) -> None:
    """Trunk and crown are vegetation; the trunk is a look-alike of a pole."""
    tall, spread = between(rng, 4.5, 7.5), between(rng, 1.5, 2.6)
    _shadow(canvas, x, y, metre, spread * 0.6)
    half = max(between(rng, 0.1, 0.2) * metre, 0.5)
    tone = between(rng, 60, 110)
    rectangle(canvas, x - half, y - 0.7 * tall * metre, x + half, y, (tone, tone * 0.84, tone * 0.68), VEGETATION)
    leaves = choose(rng, canvas.look.leaves)
    wide, aside = spread * metre, between(rng, -0.8, 0.8) * metre
    foliage(canvas, rng, x, y - (tall - 0.8) * metre, wide, 0.9 * wide, leaves)
    foliage(canvas, rng, x + aside, y - (tall - 2.2) * metre, 0.9 * wide, 0.7 * wide, leaves)


def bush(canvas, rng, view, x, y, metre) -> None:
    wide, tall = between(rng, 0.6, 1.3), between(rng, 0.5, 0.9)
    foliage(canvas, rng, x, y - tall * 0.7 * metre, wide * metre, tall * metre, choose(rng, canvas.look.leaves))


def bin_or_bollard(canvas, rng, view, x, y, metre) -> None:
    """Street furniture of no class (void): bins, and bollards, which look like short poles."""
    half, tall = choose(rng, ((0.3, 1.0), (0.1, 0.9), (0.1, 1.0), (0.4, 1.3)))
    colour = choose(rng, ((60, 66, 62), (140, 140, 138), (44, 70, 54), (150, 60, 40)))
    rectangle(canvas, x - half * metre, y - tall * metre, x + half * metre, y, colour, VOID)
    plate(canvas, x, y - 0.92 * tall * metre, half * metre, 0.07 * tall * metre, (210, 210, 206), VOID)


def shop_sign(canvas, rng, view, x, y, metre) -> None:
    """Posters, shop signs and vents on a wall: look-alikes of signs and lights that are building."""
    kind = rng.random_sample()
    if kind < 0.3:
        sign_face(canvas, rng, x, y, max(0.4 * metre, 1.6), BUILDING)
    elif kind < 0.65:
        colour = choose(rng, (SIGN_RED, SIGN_BLUE, SIGN_YELLOW, (30, 140, 80), SIGN_WHITE))
        wide, high = choose(rng, ((1.4, 0.35), (0.5, 0.8), (0.3, 1.0)))
        letters = (235, 232, 225) if colour != SIGN_WHITE else (40, 40, 44)
        plate(canvas, x, y, wide * metre, high * metre, colour, BUILDING)
        plate(canvas, x, y, 0.6 * wide * metre, 0.25 * high * metre, letters, BUILDING)
    else:
        wide, high = max(0.25 * metre, 1.0), max(0.6 * metre, 2.0)
        plate(canvas, x, y, wide, high, (26, 28, 32), BUILDING)
        plate(canvas, x, y, 0.5 * wide, 0.3 * high, choose(rng, ((60, 62, 66), (190, 160, 80))), BUILDING)
