"""Figures of a dataset, and of pictures, for few and for many classes; the numbers they show against hand counts."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from synthetic_runs import classes

from cawalib.datasets import SegmentationDataset
from cawalib.datasets.statistics import ClassStatistics
from cawalib.notebook import illustrations
from cawalib.results import figures
from cawalib.results.figures import COLUMN, PAGE, class_colours

# a layout that collapses and a division by zero are warnings; here they are errors
pytestmark = [pytest.mark.filterwarnings("error::UserWarning"), pytest.mark.filterwarnings("error::RuntimeWarning")]
COUNTS = (2, 11, 19, pytest.param(171, marks=pytest.mark.long))


def counted(count, size=200, absent=()):
    """Statistics and co-occurrence of made-up images with a long tail of classes."""
    names, palette, pixels, _ = classes(count)
    present = np.random.default_rng(0).random((size, count)) < np.geomspace(0.9, 0.03, count)
    present[0] = True
    present[:, list(absent)] = False
    present = present.astype(np.int64)
    images = present.sum(0)
    pixels = np.where(images > 0, pixels, 0)
    return ClassStatistics(tuple(names), pixels, images, images, size), present.T @ present, palette


def by_hand():
    """Three images: road and car; road, rider and bicycle; road and bicycle. Nothing holds a train."""
    statistics = ClassStatistics(("road", "car", "rider", "bicycle", "train"), np.array([900, 50, 5, 20, 0]),
                                 np.array([3, 1, 1, 2, 0]), np.zeros(5, int), 3)
    together = np.array([[3, 1, 1, 2, 0], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [2, 0, 1, 2, 0], [0, 0, 0, 0, 0]])
    return statistics, together


def words(found):
    return [text.get_text() for text in found.findobj(plt.Text) if text.get_text()]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def stored(figure, folder, name):
    figures.save(figure, folder, name)
    return all((folder / f"{name}{suffix}").stat().st_size > 5000 for suffix in (".pdf", ".png"))


# ---------------------------------------------------------------- the long tail

@pytest.mark.parametrize("count", COUNTS)
def test_every_class_is_named_with_its_images(tmp_path, count):
    statistics, _, palette = counted(count)
    figure = figures.class_frequencies(statistics, palette)
    text = words(figure)
    assert set(statistics.classes) <= set(text)
    assert {str(number) for number in statistics.images} <= set(text)
    assert figure.get_figwidth() == (COLUMN if count <= 54 else PAGE) and figure.get_figheight() < 9
    assert figure.axes[0].get_xscale() == "log"
    assert stored(figure, tmp_path, "class_frequencies")


def test_shares_of_pixels_and_images_by_hand():
    statistics, _ = by_hand()
    figure = figures.class_frequencies(statistics, np.zeros((5, 3)))
    pixels, images = figure.axes
    shown = [[(line.get_ydata()[0], line.get_xdata()[0], line.get_marker()) for line in axes.lines]
             for axes in (pixels, images)]
    # most pixels first: road 900 of 975, car, bicycle, rider; thirds by pixels and by images, of which car and rider
    # have as many
    np.testing.assert_allclose([mark[1] for mark in shown[0]], 100 * np.array([900, 50, 20, 5]) / 975)
    np.testing.assert_allclose([mark[1] for mark in shown[1]], 100 * np.array([3, 1, 2, 1]) / 3)
    marks = {"head": "o", "body": "s", "tail": "^"}
    for by, found in zip(("pixels", "images"), shown, strict=True):
        group = {name: marks[group] for group, names in statistics.groups[by].items() for name in names}
        assert [mark[2] for mark in found] == [group[name] for name in ("road", "car", "bicycle", "rider")]
    counts = [text.get_text() for text in images.texts if text.get_text().isdigit()]
    assert counts == ["3", "1", "2", "1", "0"]


def test_marks_of_many_classes_tell_their_group_by_images():
    statistics, _, palette = counted(60)
    images = statistics.images[::-1].copy()  # what has most pixels is in fewest images
    statistics = ClassStatistics(statistics.classes, statistics.pixels, images, images, statistics.size)
    figure = figures.class_frequencies(statistics, palette)
    for axes, marker in zip(figure.axes, "^so", strict=True):
        drawn = [line for line in axes.lines if line.get_color() == "white" and len(line.get_xdata())]
        most = max(drawn, key=lambda line: len(line.get_xdata()))
        assert most.get_marker() == marker and len(most.get_xdata()) >= 18


def test_shares_below_half_a_percent_are_no_zeros():
    statistics, together, _ = counted(2, size=1000)
    together[0, 1] = together[1, 0] = 1
    together[0, 0], statistics.images[0] = 900, 900
    assert "<1" in words(figures.co_occurrence(statistics, together))


def test_many_classes_are_three_blocks_most_pixels_first():
    statistics, _, palette = counted(171, absent=(3, 170))
    figure = figures.class_frequencies(statistics, palette)
    shown = [name for axes in figure.axes for name in ticks(axes.yaxis)]
    assert shown == [statistics.classes[i] for i in np.argsort(-statistics.pixels, kind="stable")]
    assert [axes.get_title() for axes in figure.axes] == ["head by pixels", "body by pixels", "tail by pixels"]
    assert words(figure).count("none") == 2  # and no dot for them:
    dots = sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)
    assert dots == 2 * 169


def test_names_of_many_classes_do_not_cover_each_other():
    statistics, _, palette = counted(171)
    figure = figures.class_frequencies(statistics, palette)
    figure.draw_without_rendering()
    edges = [0]
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.yaxis.get_ticklabels()]
        boxes.sort(key=lambda box: -box.y0)
        assert all(upper.y0 > lower.y0 + 0.75 * lower.height for upper, lower in zip(boxes, boxes[1:], strict=False))
        edges += [min(box.x0 for box in boxes), max(text.get_window_extent().x1 for text in axes.texts)]
    assert edges == sorted(edges) and edges[-1] <= figure.bbox.x1


# ---------------------------------------------------------------- which classes occur together

def test_co_occurrence_by_hand():
    statistics, together = by_hand()
    figure = figures.co_occurrence(statistics, together)
    axes = figure.axes[0]
    order = ["rider", "bicycle", "car", "road", "train"]  # rarest first, what is nowhere last
    assert ticks(axes.xaxis) == order
    assert ticks(axes.yaxis) == ["rider (1)", "bicycle (2)", "car (1)", "road (3)", "train (0)", "all images (3)"]
    third = 100 / 3
    expected = [[100, 100, 0, 100, 0], [50, 100, 0, 100, 0], [0, 0, 100, 100, 0],
                [third, 2 * third, third, 100, 0], [np.nan] * 5, [third, 2 * third, third, 100, 0]]
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), expected)
    written = [text.get_text() for text in axes.texts]  # not the diagonal, not what is 0
    assert written == "100 100 50 100 100 33 67 33 – – – – 33 67 33 100".split()


@pytest.mark.parametrize("count", COUNTS)
def test_co_occurrence_of_few_and_many_classes(tmp_path, count):
    statistics, together, palette = counted(count, absent=(count - 1,))
    figure = figures.co_occurrence(statistics, together, palette)
    axes = figure.axes[0]
    rows = min(count, 20)
    assert axes.images[0].get_array().shape == (rows + 1, rows if count <= 20 else 32)
    assert len(axes.texts) <= (rows + 1) * 32 - rows
    assert ("in no image, not shown: 1 of 171 classes" in " ".join(words(figure))) == (count == 171)
    assert "(%)" in figure.axes[1].get_xlabel() and axes.get_ylabel()
    assert figure.get_figwidth() == (COLUMN if count <= 11 else PAGE)
    assert stored(figure, tmp_path, "co_occurrence")


def test_a_companion_of_a_rare_class_gets_a_column():
    count, size = 60, 400
    statistics, together, _ = counted(count, size)
    rarest, companion = int(np.argmin(statistics.pixels)), 25
    together[rarest, companion] = together[companion, rarest] = statistics.images[rarest]  # now always together
    shown = ticks(figures.co_occurrence(statistics, together, most=5).axes[0].xaxis)
    assert len(shown) == 5 + 12 and statistics.classes[companion] in shown[5:]


def test_classes_that_are_everywhere_are_no_companions():
    """Twelve classes are in all of 100 images, twelve in half of them, but with three quarters of a rare class's."""
    names = ("rare", *(f"everywhere {i}" for i in range(12)), *(f"companion {i}" for i in range(12)))
    images = np.array([40] + [100] * 12 + [50] * 12)
    together = np.minimum.outer(images, images)
    together[0, 13:] = together[13:, 0] = 30
    statistics = ClassStatistics(names, np.arange(1, 26), images, images, 100)
    assert ticks(figures.co_occurrence(statistics, together, most=1).axes[0].xaxis) == ["rare", *names[13:]]


def test_no_images_at_all():
    statistics, together = by_hand()
    nothing = ClassStatistics(statistics.classes, *(np.zeros(5, int) for _ in range(3)), 0)
    assert words(figures.co_occurrence(nothing, 0 * together)).count("–") == 25
    assert words(figures.class_frequencies(nothing, np.zeros((5, 3)))).count("none") == 10


# ---------------------------------------------------------------- pictures

def pictured(count, sizes, seed=0):
    """A dataset of blocks of random classes, one picture for each (height, width)."""
    names, palette, *_ = classes(count)

    def read(index):
        height, width = sizes[index]
        blocks = np.random.default_rng([seed, index]).integers(0, count, (8, 8)).astype(np.uint8)
        labels = blocks[np.arange(height)[:, None] * 8 // height, np.arange(width) * 8 // width]
        return np.array(palette, np.uint8)[labels], labels

    return SegmentationDataset("made up", "train", tuple(names), tuple(map(tuple, palette)), len(sizes), read, "d")


def images_of(figure):
    return [image for axes in figure.axes for image in axes.images]


@pytest.mark.parametrize("count, sizes", [
    (2, [(48, 64), (64, 48)]), (11, [(48, 64)] * 9), (19, [(1024, 2048)] * 4), (171, [(50, 40), (40, 130), (60, 60)]),
    (171, [(30, 30)])])
def test_sample_sheet_of_any_sizes(tmp_path, count, sizes):
    dataset = pictured(count, sizes)
    figure = illustrations.sample_sheet(dataset)
    shown = images_of(figure)
    assert len(shown) == 2 * min(8, len(sizes))
    assert all(image.get_array().shape[1] <= 400 for image in shown)
    assert figure.get_figwidth() <= PAGE + 1e-9
    for image in shown:  # drawn as wide as it is high, within the page
        box, (height, width) = image.axes.get_window_extent(), image.get_array().shape[:2]
        assert box.width / box.height == pytest.approx(width / height, rel=0.02)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and legend.y0 >= 0
    assert legend.y1 <= min(image.axes.get_window_extent().y0 for image in shown) + 1
    assert stored(figure, tmp_path, "samples")


def test_legend_names_the_largest_classes_and_counts_the_rest():
    dataset = pictured(171, [(80, 80)] * 2)
    counts = sum(np.bincount(dataset[i][1].ravel(), minlength=171) for i in range(2))
    legend = [text.get_text() for text in illustrations.sample_sheet(dataset).legends[0].texts]
    assert legend[:30] == [dataset.classes[i] for i in np.argsort(-counts, kind="stable")[:30]]
    assert legend[30:] == [f"and {np.count_nonzero(counts) - 30} more"]
    image, labels = dataset[0]
    labels = labels.astype(np.int64)
    labels[:9] = 255
    legend = [text.get_text() for text in illustrations.image_and_labels(image, labels, dataset).legends[0].texts]
    assert legend[30] == "void" and legend[31].startswith("and ")


def test_large_images_are_shrunk():
    dataset = pictured(19, [(1024, 2048)])
    for image in images_of(illustrations.image_and_labels(*dataset[0], dataset)):
        assert image.get_array().shape[1] <= 700


@pytest.mark.parametrize("number", (3, 11, 34))
def test_galleries_show_the_first_maps_and_say_so(number):
    random, names = np.random.default_rng(0), [f"class {i}" for i in range(number)]
    maps, image = random.random((number, 40, 60), np.float32), random.integers(0, 255, (40, 60, 3), np.uint8)
    labels = random.integers(0, number, (40, 60))
    gallery = illustrations.map_gallery(image, maps, names)
    masks = illustrations.mask_outcomes(maps > 0.5, labels, list(range(number)), names)
    few = illustrations.map_gallery(image, maps, names, most=2)
    for figure, most, before in ((gallery, 11, ["image"]), (masks, 11, []), (few, 2, ["image"])):
        assert [axes.get_title() for axes in figure.axes if axes.get_title()] == before + names[:most]
        assert (f"{most} of {number} classes" in words(figure)) == (number > most)


@pytest.mark.parametrize("count", (11, 40, 171))
def test_weight_bars_stay_readable(count):
    names, palette, *_ = classes(count)
    weights = np.random.default_rng(0).permutation(count).astype(float)
    table = pd.DataFrame({"score S": 1 / (1 + weights), "weight w": weights}, index=names)
    figure = illustrations.weight_bars(table, class_colours(names, palette))
    shown = ticks(figure.axes[0].yaxis)
    assert figure.get_figheight() < 8
    if count <= 40:
        assert shown == names
        return
    order = np.argsort(-weights)
    assert shown == [names[i] for i in (*order[:20], *order[-20:])]
    assert [bar.get_width() for bar in figure.axes[1].patches if isinstance(bar, plt.Rectangle)][:20] == list(
        weights[order[:20]])
    assert any("20 highest" in text and "of 171 classes" in text for text in words(figure))
