"""Drawing for the built-in street scenes: canvas, shapes, noise tiles and weather.

Everything here uses only + - * / and square roots of floats, integers and comparisons. IEEE 754 fixes the
result of each of these to the last bit, so a scene comes out the same on every machine; sines, logarithms,
fractional powers, long sums and matrix products do not have that guarantee and are left out.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import floor, sqrt

import numpy as np

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, PERSON, BICYCLE, POLE, TRAFFIC_SIGN, TRAFFIC_LIGHT = range(11)
VOID = 255


@dataclass(frozen=True)
class Weather:
    """Light and air of one scene; colours are factors (light) or 0..255 values (sky, haze)."""

    light: tuple[float, float, float]
    haze: float  # density per unit of inverse relative size; 0 = clear air
    haze_colour: tuple[float, float, float]
    sky_top: tuple[float, float, float]
    sky_bottom: tuple[float, float, float]
    clouds: float  # 0..1, contrast of the clouds
    sun: float  # 0..1, depth of the shadows
    wet: float  # 0..1, rain streaks and a shining road
    glow: float  # factor for lamps and lit windows


WEATHERS = {
    "sun": Weather(
        (1.08, 1.04, 0.96), 0.008, (205, 215, 225), (86, 142, 210), (190, 214, 232), 0.9, 0.45, 0.0, 1.0),
    "overcast": Weather(
        (0.86, 0.88, 0.9), 0.02, (196, 200, 204), (168, 176, 186), (212, 214, 216), 0.5, 0.0, 0.0, 1.1),
    "fog": Weather(
        (0.86, 0.88, 0.9), 0.17, (202, 206, 208), (190, 196, 200), (206, 209, 210), 0.1, 0.0, 0.0, 1.3),
    "rain": Weather(
        (0.7, 0.74, 0.8), 0.06, (160, 168, 176), (128, 138, 150), (176, 182, 188), 0.6, 0.0, 1.0, 1.5),
    "dusk": Weather(
        (0.58, 0.53, 0.62), 0.02, (210, 160, 130), (120, 128, 190), (330, 220, 150), 0.6, 0.0, 0.0, 2.0),
}


@dataclass(frozen=True)
class Look:
    """What tells vegetation from building; colours are 0..255."""

    leaves: tuple[tuple[int, int, int], ...]
    far_leaves: tuple[tuple[int, int, int], ...]  # hedge and crown in the skyline
    clumps: float  # 0..1, light and dark spots within leaves
    roughness: tuple[float, ...]  # how strongly the fine texture shows on each class


@dataclass
class Canvas:
    """One scene while it is drawn: image float32 (3, H, W), label uint8 (H, W), and the veil of air.

    The three colours are planes, since NumPy is several times faster along rows than along three values.
    """

    image: np.ndarray
    label: np.ndarray
    weather: Weather
    look: Look
    veil: float = 0.0  # 0..1, how far the object now drawn fades into the haze

    def set_distance(self, scale: float) -> None:
        """Fade what is drawn next like an object at relative size `scale` (1 = at the lower image border)."""
        self.veil = 1.0 - 1.0 / (1.0 + self.weather.haze * (1.0 / scale - 1.0))

    def faded(self, colour) -> np.ndarray:
        """A colour as seen through the veil, float32 (3, 1, 1)."""
        keep, veil, haze = 1.0 - self.veil, self.veil, self.weather.haze_colour
        return planes((colour[0] * keep + haze[0] * veil, colour[1] * keep + haze[1] * veil,
                       colour[2] * keep + haze[2] * veil))


def planes(colour) -> np.ndarray:
    """A colour as float32 (3, 1, 1), ready to meet (3, H, W)."""
    return np.array(colour, np.float32).reshape(3, 1, 1)


def between(rng: np.random.RandomState, low: float, high: float) -> float:
    return low + (high - low) * rng.random_sample()


def choose(rng: np.random.RandomState, options):
    return options[int(rng.random_sample() * len(options))]


# ---------------------------------------------------------------- noise tiles

def _blurred(grid: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Sum over a sliding window of `size` integers that wraps around."""
    return sum(np.roll(grid, shift, axis) for shift in range(size))


@lru_cache(maxsize=8)
def noise_tiles(height: int, width: int) -> dict[str, np.ndarray]:
    """Noise made once per process; scenes cut windows out of it, which is far cheaper than new noise.

    Each tile is float32, larger than (height, width) by 96 on both axes, with mean 0 and values within about
    -1..1. Sums are taken in integers, so their order cannot change the result.
    """
    rng = np.random.RandomState(20240501)
    rows, columns = height + 96, width + 96
    tiles = {}
    cells = {"grain": (1, 1), "leaf": (2, 2), "clump": (5, 5), "patch": (14, 14), "cloud": (9, 26),
             "streak": (7, 1)}
    for name, (cell_rows, cell_columns) in cells.items():
        grid = rng.randint(0, 256, (-(-rows // cell_rows), -(-columns // cell_columns))).astype(np.int64)
        grid = np.repeat(np.repeat(grid, cell_rows, 0), cell_columns, 1)[:rows, :columns]
        grid = _blurred(_blurred(grid, cell_rows, 0), cell_columns, 1)
        tiles[name] = ((grid / (cell_rows * cell_columns) - 127.5) / 127.5).astype(np.float32)
    tiles["cloud"] = tiles["cloud"] + 0.5 * tiles["clump"]
    tiles["rain"] = (tiles["streak"] > 0.86).astype(np.float32)
    return tiles


def window(tile: np.ndarray, rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    top = int(rng.random_sample() * (tile.shape[0] - height))
    left = int(rng.random_sample() * (tile.shape[1] - width))
    return tile[top:top + height, left:left + width]


# ---------------------------------------------------------------- shapes

def _box(canvas: Canvas, left: float, top: float, right: float, bottom: float):
    """Whole pixels covered by a box, at least one wide and high, cut at the image; None where outside."""
    height, width = canvas.label.shape
    x0, y0, x1, y1 = floor(left + 0.5), floor(top + 0.5), floor(right + 0.5), floor(bottom + 0.5)
    if x1 <= x0:
        x1 = x0 + 1
    if y1 <= y0:
        y1 = y0 + 1
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        return None
    return x0 if x0 > 0 else 0, y0 if y0 > 0 else 0, x1 if x1 < width else width, y1 if y1 < height else height


def rectangle(canvas, left, top, right, bottom, colour, class_id=None) -> None:
    """Fill an upright box; `class_id=None` paints the image only."""
    box = _box(canvas, left, top, right, bottom)
    if box is None:
        return
    x0, y0, x1, y1 = box
    canvas.image[:, y0:y1, x0:x1] = canvas.faded(colour)
    if class_id is not None:
        canvas.label[y0:y1, x0:x1] = class_id


def plate(canvas, x, y, half_width, half_height, colour, class_id=None) -> None:
    """Fill an upright box given by its centre."""
    rectangle(canvas, x - half_width, y - half_height, x + half_width, y + half_height, colour, class_id)


def fill(canvas, box, mask, colour, class_id=None) -> None:
    """Paint the pixels of `mask` (bool, as large as `box`)."""
    x0, y0, x1, y1 = box
    np.copyto(canvas.image[:, y0:y1, x0:x1], canvas.faded(colour), where=mask)
    if class_id is not None:
        canvas.label[y0:y1, x0:x1][mask] = class_id


def _grid(box, centre_x, centre_y, radius_x, radius_y):
    x0, y0, x1, y1 = box
    across = (np.arange(x0, x1) + (0.5 - centre_x)) / radius_x
    down = (np.arange(y0, y1) + (0.5 - centre_y)) / radius_y
    return across, down[:, None]


def ellipse(canvas, centre_x, centre_y, radius_x, radius_y, colour, class_id=None, hole=0.0) -> None:
    """Fill an ellipse, or a ring where `hole` (0..1, share of the radius) is left open."""
    radius_x, radius_y = max(radius_x, 0.6), max(radius_y, 0.6)
    box = _box(canvas, centre_x - radius_x, centre_y - radius_y, centre_x + radius_x, centre_y + radius_y)
    if box is None:
        return
    across, down = _grid(box, centre_x, centre_y, radius_x, radius_y)
    distance = across * across + down * down
    mask = distance <= 1.0
    if hole:
        mask &= distance >= hole * hole
    fill(canvas, box, mask, colour, class_id)


def shade(canvas, centre_x, centre_y, radius_x, radius_y, factor) -> None:
    """Darken an ellipse of the image: a shadow."""
    box = _box(canvas, centre_x - radius_x, centre_y - radius_y, centre_x + radius_x, centre_y + radius_y)
    if box is None:
        return
    across, down = _grid(box, centre_x, centre_y, max(radius_x, 0.6), max(radius_y, 0.6))
    x0, y0, x1, y1 = box
    inside = across * across + down * down <= 1.0
    canvas.image[:, y0:y1, x0:x1] *= np.where(inside, np.float32(factor), np.float32(1.0))


def trapezoid(canvas, top, bottom, top_span, bottom_span, colour, class_id=None) -> None:
    """Fill between two level edges; a span is (left, right). A triangle has a span of no width."""
    box = _box(canvas, min(top_span[0], bottom_span[0]), top, max(top_span[1], bottom_span[1]), bottom)
    if box is None:
        return
    x0, y0, x1, y1 = box
    part = ((np.arange(y0, y1) + (0.5 - top)) / max(bottom - top, 1.0))[:, None]
    x = np.arange(x0, x1) + 0.5
    mask = x >= top_span[0] + (bottom_span[0] - top_span[0]) * part
    mask &= x <= top_span[1] + (bottom_span[1] - top_span[1]) * part
    fill(canvas, box, mask, colour, class_id)


def gable(canvas, x, top, bottom, half_top, half_bottom, colour, class_id=None) -> None:
    """A trapezoid that is symmetric about the column `x`."""
    spans = (x - half_top, x + half_top), (x - half_bottom, x + half_bottom)
    trapezoid(canvas, top, bottom, *spans, colour, class_id)


def side_panel(canvas, near_x, far_x, near_span, far_span, colour, class_id=None) -> None:
    """Fill between two upright edges, a plane that recedes; a span is (top, bottom)."""
    left, right = min(near_x, far_x), max(near_x, far_x)
    box = _box(canvas, left, min(near_span[0], far_span[0]), right, max(near_span[1], far_span[1]))
    if box is None or right - left < 0.7:
        return
    x0, y0, x1, y1 = box
    part = (np.arange(x0, x1) + (0.5 - near_x)) / (far_x - near_x)
    y = (np.arange(y0, y1) + 0.5)[:, None]
    mask = y >= near_span[0] + (far_span[0] - near_span[0]) * part
    mask &= y <= near_span[1] + (far_span[1] - near_span[1]) * part
    fill(canvas, box, mask, colour, class_id)


def line(canvas, x0, y0, x1, y1, thickness, colour, class_id=None) -> None:
    """Draw a straight stroke `thickness` pixels wide (at least about one)."""
    half = max(thickness / 2, 0.55)
    box = _box(canvas, min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half)
    if box is None:
        return
    dx, dy = x1 - x0, y1 - y0
    length = max(sqrt(dx * dx + dy * dy), 0.5)
    x = np.arange(box[0], box[2]) + (0.5 - x0)
    y = (np.arange(box[1], box[3]) + (0.5 - y0))[:, None]
    fill(canvas, box, np.abs(x * (dy / length) - y * (dx / length)) <= half, colour, class_id)


def foliage(canvas, rng, centre_x, centre_y, radius_x, radius_y, colour) -> None:
    """A leafy mass with a ragged outline, lighter at its top."""
    box = _box(canvas, centre_x - radius_x, centre_y - radius_y, centre_x + radius_x, centre_y + radius_y)
    if box is None:
        return
    x0, y0, x1, y1 = box
    across, down = _grid(box, centre_x, centre_y, max(radius_x, 1.0), max(radius_y, 1.0))
    tiles = noise_tiles(*canvas.label.shape)
    clump, leaf = (window(tiles[name], rng, y1 - y0, x1 - x0) for name in ("clump", "leaf"))
    mask = across * across + down * down + 0.7 * clump + 0.25 * leaf <= 0.85
    spots = canvas.look.clumps
    tone = (1.0 - 0.28 * down - 0.12 * across + 0.5 * spots * clump + 0.35 * spots * leaf).astype(np.float32)
    np.copyto(canvas.image[:, y0:y1, x0:x1], tone * canvas.faded(colour), where=mask)
    canvas.label[y0:y1, x0:x1][mask] = VEGETATION


# ---------------------------------------------------------------- weather over the whole image

def finish(canvas: Canvas, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Texture, light, rain, lens blur and sensor noise; void edges in the label. Returns uint8 arrays."""
    image, label, weather = canvas.image, canvas.label, canvas.weather
    height, width = label.shape
    tiles = noise_tiles(height, width)
    rough = np.array(canvas.look.roughness + (0.0,) * 245, np.float32)[label]
    texture = window(tiles["leaf"], rng, height, width) + 0.6 * window(tiles["grain"], rng, height, width)
    light = 1.0 + rough * texture * np.float32(0.75)
    light += np.float32(0.12) * window(tiles["patch"], rng, height, width)
    exposure = between(rng, 0.88, 1.12)
    tint = [part * exposure * between(rng, 0.97, 1.03) for part in weather.light]
    image *= light
    image *= planes(tint)
    if weather.wet:
        image += np.float32(26.0) * window(tiles["rain"], rng, height, width)
    sharp = np.float32(between(rng, 0.5, 0.8) - 0.1 * (weather.wet + min(weather.haze * 6, 1.0)))
    side = (np.float32(1.0) - sharp) / np.float32(2.0)
    image[:, 1:-1] = sharp * image[:, 1:-1] + side * (image[:, :-2] + image[:, 2:])
    image[:, :, 1:-1] = sharp * image[:, :, 1:-1] + side * (image[:, :, :-2] + image[:, :, 2:])
    image += np.float32(between(rng, 3.0, 8.0)) * window(tiles["grain"], rng, height, width)
    image = (np.clip(image, 0, 255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0)), _with_void_edges(label, tiles, rng)


def _with_void_edges(label: np.ndarray, tiles: dict, rng: np.random.RandomState) -> np.ndarray:
    """Mark part of the borders between classes as void, as a hurried annotator leaves them.

    The band lies on the side of the larger classes (up to car): thin objects would vanish under it.
    """
    edge = np.zeros(label.shape, bool)
    down, across = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
    edge[1:] |= down
    edge[:, 1:] |= across
    edge &= window(tiles["patch"], rng, *label.shape) > 0.04
    edge &= label <= CAR
    return np.where(edge, np.uint8(VOID), label)
