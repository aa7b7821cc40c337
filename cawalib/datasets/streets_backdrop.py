"""The backdrop of the built-in street scenes: sky, skyline, two rows of houses, road and pavements.

A scene is a street in perspective (`View`): what stands at relative size `scale` (1 at the lower image
border, towards 0 at the horizon) has `metre * scale` pixels to the metre. All of it is computed for whole
arrays in float32, which IEEE 754 fixes to the last bit just as float64 for the operations used.
"""

from dataclasses import dataclass

import numpy as np

from .streets_drawing import (
    BUILDING,
    PAVEMENT,
    ROAD,
    VEGETATION,
    between,
    choose,
    foliage,
    noise_tiles,
    planes,
    rectangle,
    trapezoid,
    window,
)

FARTHEST = 0.055  # relative size where the street ends in the skyline
HOUSES = 26  # per side; enough for 150 m
FACADES = ((186, 160, 132), (150, 92, 74), (206, 196, 176), (160, 156, 150), (196, 172, 120), (128, 118, 112),
           (176, 124, 98), (214, 208, 200), (140, 150, 158))
ROOFS = ((92, 60, 52), (70, 70, 76), (120, 72, 54), (84, 88, 90))
FASCIAS = ((170, 40, 40), (40, 70, 140), (60, 110, 70), (200, 170, 60), (60, 56, 54), (210, 206, 196))
SLABS = ((1.04, 1.0, 0.94), (1.0, 1.0, 1.0), (1.1, 0.98, 0.9), (0.98, 0.98, 0.99))


@dataclass(frozen=True)
class View:
    """Where the street lies in the image.

    Pixels: height, width, horizon, vanish_x, focal, metre (length of one metre at scale 1). Metres: camera
    (its height), and across the street, 0 below the camera: road and wall (each left, right).
    """

    height: int
    width: int
    horizon: float
    vanish_x: float
    focal: float
    camera: float
    metre: float
    road: tuple[float, float]
    wall: tuple[float, float]

    def place(self, across: float, scale: float) -> tuple[float, float, float]:
        """Pixel position (x, y) of a point on the ground and the pixels of one metre there."""
        metre = self.metre * scale
        return self.vanish_x + across * metre, self.horizon + scale * (self.height - self.horizon), metre


def make_view(rng, height: int, width: int) -> View:
    horizon = height * between(rng, 0.37, 0.49)
    camera = between(rng, 1.7, 2.5)
    road = (-between(rng, 2.8, 4.6), between(rng, 2.2, 4.2))
    wall = (road[0] - between(rng, 2.0, 3.9), road[1] + between(rng, 2.0, 3.9))
    vanish_x, focal = width * between(rng, 0.36, 0.64), width * between(rng, 0.75, 1.0)
    return View(height, width, horizon, vanish_x, focal, camera, (height - horizon) / camera, road, wall)


def _veiled(canvas, colour: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Fade colours (3, H, W) into the haze by relative size, an array that broadcasts to (H, W)."""
    veil = 1 - 1 / (1 + canvas.weather.haze * (np.maximum(1 / scale, 1) - 1))
    veil = veil.astype(np.float32)
    return colour * (1 - veil) + planes(canvas.weather.haze_colour) * veil


def sky(canvas, rng, view: View) -> None:
    weather, height, width = canvas.weather, view.height, view.width
    part = np.clip((np.arange(height) + 0.5) / view.horizon, 0, 1)[:, None].astype(np.float32)
    canvas.image[:] = planes(weather.sky_top) * (1 - part) + planes(weather.sky_bottom) * part
    last = int(view.horizon) + 1
    cloud = window(noise_tiles(height, width)["cloud"], rng, last, width) - between(rng, -0.15, 0.25)
    cloud = np.clip(cloud, 0, 0.4) * np.float32(weather.clouds * 200)
    canvas.image[:, :last] += cloud * planes((1.0, 0.9, 0.75))


def skyline(canvas, rng, view: View) -> None:
    """Far houses and trees that close the street and show over low walls."""
    canvas.set_distance(0.05)
    x, foot = 0, view.horizon + 0.08 * view.height
    while x < view.width:
        wide = int(between(rng, 0.04, 0.14) * view.width) + 1
        tall, tone = between(rng, 0.03, 0.2) * view.height, between(rng, 90, 190)
        if rng.random_sample() < 0.55:
            plaster = (tone, tone * 0.93, tone * 0.86)
            rectangle(canvas, x, view.horizon - tall, x + wide, foot, plaster, BUILDING)
        else:
            rectangle(canvas, x, view.horizon, x + wide, foot, canvas.look.far_leaves[0], VEGETATION)
            foliage(canvas, rng, x + wide / 2, view.horizon, 0.8 * wide, 0.8 * tall, canvas.look.far_leaves[1])
        x += wide


@dataclass(frozen=True)
class Row:
    """One row of houses in columns first..last of the image; arrays hold one value per column."""

    first: int
    last: int
    scale: np.ndarray
    metre: np.ndarray  # pixels
    distance: np.ndarray  # metres from the camera
    house: np.ndarray  # number of the house, 0 = nearest
    park: np.ndarray  # True: hedges and trees instead of a house
    top: np.ndarray  # metres


def walls(canvas, rng, view: View, side: int) -> None:
    """One row of houses in perspective: per column its distance, house and height; then whole arrays."""
    scale = (np.arange(view.width) + (0.5 - view.vanish_x)) / (view.metre * view.wall[side])
    columns = np.nonzero(scale > FARTHEST)[0]
    ends = np.cumsum(6.0 + 12.0 * rng.random_sample(HOUSES))  # metres from the camera
    low, spread = choose(rng, ((4.5, 4.5), (6.0, 7.0), (8.0, 11.0)))
    park = rng.random_sample(HOUSES) < 0.24
    hedge = view.camera + 0.3 + 2.0 * rng.random_sample(HOUSES)
    tops = np.where(park, hedge, low + spread * rng.random_sample(HOUSES))
    _gables(canvas, rng, view, side, ends, tops, park)
    if not len(columns):  # a narrow image may show the far end of the street only
        return
    first, last = int(columns[0]), int(columns[-1]) + 1
    scale = scale[first:last]
    distance = view.focal / (view.metre * scale)
    house = np.minimum(np.searchsorted(ends, distance), HOUSES - 1)
    metre, distance, top = (part.astype(np.float32) for part in (view.metre * scale, distance, tops[house]))
    row = Row(first, last, scale, metre, distance, house, park[house], top)
    y = (np.arange(view.height) + (0.5 - view.horizon)).astype(np.float32)[:, None]
    up = view.camera - y / metre  # metres above the ground, (H, columns)
    clump = window(noise_tiles(view.height, view.width)["clump"], rng, view.height, last - first)
    mask = (up > 0) & (up < top + row.park * (np.float32(0.8) * clump))
    colour = _veiled(canvas, _facade(canvas, rng, view, side, row, up, clump), scale)
    np.copyto(canvas.image[:, :, first:last], colour, where=mask)
    class_ids = np.where(row.park, np.uint8(VEGETATION), np.uint8(BUILDING))
    np.copyto(canvas.label[:, first:last], class_ids, where=mask)


def _gables(canvas, rng, view: View, side: int, ends, tops, park) -> None:
    """End walls that face the camera, seen where the next nearer house is lower; far ones first."""
    sign = (-1.0, 1.0)[side]
    for number in range(HOUSES - 1, 0, -1):
        scale = view.focal / (view.metre * float(ends[number - 1]))
        hidden = not park[number - 1] and tops[number - 1] >= tops[number]
        if hidden or park[number] or not FARTHEST < scale < 1.2:
            continue
        x, y, metre = view.place(view.wall[side], scale)
        tall = float(tops[number])
        far_x, roof = x + sign * between(rng, 7.0, 11.0) * metre, y - tall * metre
        left, right = min(x, far_x), max(x, far_x)
        tone = between(rng, 0.62, 0.95)
        plaster = [part * tone for part in choose(rng, FACADES)]
        canvas.set_distance(min(scale, 1.0))
        if rng.random_sample() < 0.5:
            tip = 0.5 * (left + right)
            trapezoid(canvas, roof - 2.2 * metre, roof, (tip, tip), (left, right), plaster, BUILDING)
        rectangle(canvas, left, roof, right, y, plaster, BUILDING)
        pane = 0.14 * (right - left)
        for storey in range(1, int(tall / 3.0) if pane > 1.0 else 0):
            for part in (0.25, 0.6):
                glass_x, glass_y = left + part * (right - left), y - (3.0 * storey + 1.0) * metre
                rectangle(canvas, glass_x, glass_y - 1.3 * metre, glass_x + pane, glass_y, (58, 62, 68))


def _facade(canvas, rng, view: View, side: int, row: Row, up, clump) -> np.ndarray:
    """Colour of the walls, float32 (3, H, columns): plaster, windows in rows, shop fronts, roofs, hedges."""

    def per_house(low: float, high: float) -> np.ndarray:
        return (low + (high - low) * rng.random_sample(HOUSES)).astype(np.float32)[row.house]

    def colours(options, factor) -> np.ndarray:
        """One of the colours for each house, float32 (3, 1, columns)."""
        drawn = np.array([choose(rng, options) for _ in range(HOUSES)], np.float32)
        return (drawn[row.house] * np.float32(factor)).T[:, None, :]

    sunny_side = int(rng.random_sample() * 2)
    lit = 1.0 if not canvas.weather.sun else (1.12 if side == sunny_side else 0.66)
    plaster = colours(FACADES, lit) * per_house(0.8, 1.15)
    storey, bay, sill = per_house(2.8, 3.7), per_house(1.6, 3.4), per_house(0.25, 0.4)
    shop, roofed = per_house(0, 1) < 0.45, per_house(0, 1) < 0.6
    floors, bays = up / storey, row.distance / bay
    floor, room = np.floor(floors), np.floor(bays)
    level, step = floors - floor, bays - room
    pane = (level > sill) & (level < 0.82) & ((step > 0.28) & (step < 0.76))
    pane = np.where((floor < 1) & shop, (level > 0.12) & (level < 0.72) & (step > 0.1), pane)
    pane &= up < row.top - 1.2
    # Far windows are narrower than a pixel and blend into the wall.
    sharp = np.clip((row.metre * row.metre * bay / view.focal - 0.5) * 0.6, 0.12, 1.0)
    glow = canvas.weather.glow
    bright = np.float32(min(75.0 * glow, 150.0) if glow > 1 else 140.0)
    glass = np.where((floor * 5 + room * 3) % 7 == 0, bright, np.float32(56.0))
    amount = pane * sharp
    colour = plaster * (1 - amount) + planes((0.92, 1.0, 1.1)) * (glass * amount)
    np.copyto(colour, planes(choose(rng, ROOFS)), where=roofed & (up > row.top - 1.3))
    joint = np.nonzero(row.house[1:] != row.house[:-1])[0]
    colour[:, :, joint] *= np.float32(0.55)  # dark upright lines between houses: look-alikes of poles
    np.copyto(colour, colours(FASCIAS, lit), where=shop & (level > 0.78) & (floor == 0))
    spots = 1 + np.float32(0.5 * canvas.look.clumps) * clump
    np.copyto(colour, planes(choose(rng, canvas.look.leaves)) * spots, where=row.park)
    return colour


def ground(canvas, rng, view: View) -> None:
    """Road with markings, kerbs and pavements below the walls."""
    first = int(view.horizon + FARTHEST * (view.height - view.horizon)) + 1
    metre = ((np.arange(first, view.height) + (0.5 - view.horizon)) / view.camera).astype(np.float32)[:, None]
    across = (np.arange(view.width) + (0.5 - view.vanish_x)).astype(np.float32) / metre
    along = view.focal / metre
    inside = (across > view.wall[0]) & (across < view.wall[1])
    road = (across > view.road[0]) & (across < view.road[1])
    grey = _surface(rng, view, across, along, metre, road)
    patch = noise_tiles(view.height, view.width)["patch"]
    grey = grey + np.float32(16.0) * window(patch, rng, *grey.shape)
    if canvas.weather.sun and rng.random_sample() < 0.7:
        edge = between(rng, *view.wall)  # the shadow of one row of houses
        dark = across < edge if rng.random_sample() < 0.5 else across > edge
        grey = np.where(dark, grey * (1 - canvas.weather.sun), grey)
    if canvas.weather.wet:
        shine = between(rng, 0.1, 0.3)
        mirror = canvas.weather.sky_bottom[0] * (1 + window(patch, rng, *grey.shape))
        grey = grey * (1 - shine) + mirror * shine
    tint = np.where(road, planes((0.98, 0.99, 1.03)), planes(choose(rng, SLABS)))
    colour = _veiled(canvas, grey * tint, metre / view.metre)
    np.copyto(canvas.image[:, first:], colour, where=inside)
    np.copyto(canvas.label[first:], np.where(road, np.uint8(ROAD), np.uint8(PAVEMENT)), where=inside)


def _surface(rng, view: View, across, along, metre, road) -> np.ndarray:
    """Grey values of asphalt, slabs, kerbs and lane markings, float32 (rows, W)."""
    left, right = view.road
    asphalt, slab = between(rng, 74, 122), between(rng, 112, 178)
    if rng.random_sample() < 0.25:
        slab = asphalt * 1.12  # pavement with the colour of the road: only its place tells
    seam = (along * 0.8 % 1.0 < 0.07 + 0.02 / metre) | (across * 0.9 % 1.0 < 0.05)
    kerb = ((across > left - 0.22) & (across < left)) | ((across > right) & (across < right + 0.22))
    grey = np.where(road, np.float32(asphalt), np.where(seam, np.float32(slab * 0.86), np.float32(slab)))
    grey[kerb] = 190.0
    paint = np.abs(across - 0.5 * (left + right)) < 0.09 + 0.15 / metre
    paint &= (along + between(rng, 0, 6)) * between(rng, 0.16, 0.3) % 1.0 < 0.55
    if rng.random_sample() < 0.5:
        paint |= (np.abs(across - left - 0.35) < 0.08) | (np.abs(across - right + 0.35) < 0.08)
    if rng.random_sample() < 0.35:
        start = between(rng, 5.0, 14.0)  # a zebra crossing
        paint |= (along > start) & (along < start + 3.0) & (across * 0.9 % 1.0 < 0.5)
    grey[paint & road] = 205.0
    return grey
