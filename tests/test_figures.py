"""Every figure is drawn from made-up runs, labelled, stored, and the same each time; tables against hand numbers."""

import base64
import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from matplotlib.colors import same_color
from PIL import Image
from synthetic_runs import make_run, make_study

from cawalib.results import ComparisonError, figures, forms, tables, write_table
from cawalib.results.figures import style
from cawalib.runs import load_run, write_metrics


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    labels = ("cross entropy", "focal", "CAWA", "frozen weights", "tau 0.3")
    return make_study(tmp_path_factory.mktemp("study"), labels=labels)


def of(runs, group="", label=""):
    return [run for run in runs if group in run.group and label in run.label]


DRAWN = {
    "class_frequencies": lambda runs: figures.class_frequencies(runs[0].statistics, runs[0].metrics["palette"]),
    "map_overlays": lambda runs: figures.map_overlays(of(runs, label="CAWA")[0]),
    "weight_trajectories": lambda runs: figures.weight_trajectories(of(runs, label="CAWA")),
    "gain_against_frequency": lambda runs: figures.gain_against_frequency(runs, "CAWA", "cross entropy", "val"),
    "group_bars": lambda runs: figures.group_bars(of(runs, "methods"), "val", by="images"),
    "qualitative": lambda runs: figures.qualitative({run.label: run for run in of(runs, "methods")}),
    "training_curves": lambda runs: figures.training_curves(runs),
    "difference_bars": lambda runs: figures.difference_bars(of(runs, "ablations") + of(runs, label="CAWA"), "CAWA",
                                                            "val", ("mIoU", "pixel accuracy")),
}
PICTURES = ("map_overlays", "qualitative")


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


@pytest.mark.parametrize("name", DRAWN)
def test_figure_is_labelled_and_stored(study, tmp_path, name):
    first = DRAWN[name](study)
    assert first.get_figwidth() in (style.COLUMN, style.PAGE)
    assert not plt.get_fignums()
    if name not in PICTURES:
        assert any(axes.get_xlabel() for axes in first.axes) or first.get_supxlabel()
    if name not in (*PICTURES, "class_frequencies"):
        assert "3 seeds" in words(first)
    figures.save(first, tmp_path / "new", name)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{name}.pdf", f"{name}.png"}
    stored = (tmp_path / "new" / f"{name}.pdf").read_bytes()
    assert b"CreationDate" not in stored and b"/Type3" not in stored and len(stored) > 5000
    assert (tmp_path / "new" / f"{name}.png").stat().st_size > 5000


def test_ipython_shows_the_picture_with_its_alternative_text(study):
    """What a notebook stores: the picture, and beside it the text that the website takes."""
    shell = InteractiveShell.instance()
    try:
        select_figure_formats(shell, {"png"})
        data, metadata = shell.display_formatter.format(figures.group_bars(study, "val"))
        photographs, _ = shell.display_formatter.format(DRAWN["qualitative"](study))
    finally:
        InteractiveShell.clear_instance()
    assert {"image/png", "text/plain"} <= set(data)
    shown, beside = (Image.open(io.BytesIO(base64.b64decode(found["image/png"])))
                     for found in (data, photographs))
    assert shown.mode == "P" and beside.mode == "RGBA"  # of a chart 256 colours, of photographs all
    assert shown.width == pytest.approx(150 * figures.PAGE, rel=0.1)
    alternative = "Head, body and tail mIoU per label: bar for the mean, line for its 95 % interval, a dot per seed."
    assert metadata == {"image/png": {"alt": alternative}}


def test_the_same_runs_give_the_same_bytes(study, tmp_path):
    for name in ("one", "two"):
        figures.save(DRAWN["qualitative"](study), tmp_path, name)
    for suffix in (".pdf", ".png"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_one_seed_says_so_and_empty_classes_are_left_out(tmp_path):
    iou = (0.9, 0.7, 0.5, 0.3, np.nan)
    runs = [make_run(tmp_path, "cross entropy", iou=iou, splits=("val",), method="none"),
            make_run(tmp_path, iou=iou, splits=("val",))]
    gain = figures.gain_against_frequency(runs, "CAWA", "cross entropy", "val")
    assert "1 seed, no interval" in words(gain)
    assert "vegetation" in words(gain) and "pavement" not in words(gain)
    assert "no interval" in words(figures.group_bars(runs, "val"))
    assert "1 seed, no interval" in words(figures.difference_bars(runs, "CAWA", "val"))
    assert "1 seed" in words(figures.training_curves(runs))
    with pytest.raises(ComparisonError, match="split 'test': missing"):
        figures.group_bars(runs, "test")


def test_static_weights_have_one_update_and_no_score(study):
    text = words(figures.weight_trajectories(of(study, label="cross entropy")))
    assert "the weights are static" in text and "traffic sign" in text


def test_many_classes_name_only_some(tmp_path):
    runs = [make_run(tmp_path, count=60), make_run(tmp_path, "cross entropy", count=60, method="none")]
    weights = words(figures.weight_trajectories(runs[:1]))
    assert "12 rarest of 60" in weights and "road 0" not in weights
    gain = words(figures.gain_against_frequency(runs, "CAWA", "cross entropy", "test"))
    assert gain.count("road ") <= 10


def test_classes_without_pixels_or_unions_are_drawn_as_none(tmp_path):
    run = make_run(tmp_path)
    run.metrics["train_pixels"][4] = run.metrics["train_images"][4] = 0
    assert words(figures.class_frequencies(run.statistics, run.metrics["palette"])).count("none") == 2


def test_shares_within_a_decade_are_plain_numbers(tmp_path):
    runs = [make_run(tmp_path, "cross entropy", method="none"), make_run(tmp_path)]
    for run in runs:
        run.metrics["train_pixels"] = [250, 230, 120, 60, 30]
    axes = figures.gain_against_frequency(runs, "CAWA", "cross entropy", "val").axes[0]
    low, high = axes.get_xlim()
    shown = [text.get_text() for text in axes.get_xticklabels(which="both") if low <= text.get_position()[0] <= high]
    assert [text for text in shown if text] == ["5", "10", "20", "50"]


def test_one_validation_is_no_curve(tmp_path):
    run = make_run(tmp_path)
    assert len(figures.training_curves([run]).axes) == 2
    run.history.loc[run.history.index[:-1], "val_miou"] = np.nan
    alone = figures.training_curves([run])
    assert len(alone.axes) == 1 and "training loss" in words(alone)


def test_above_eight_labels_only_cawa_has_a_colour(tmp_path):
    labels = ["CAWA", *(f"focal {i}" for i in range(8))]
    runs = [make_run(tmp_path, label, focal_gamma=i, method="cawa" if label == "CAWA" else "focal")
            for i, label in enumerate(labels, start=2)]
    bars = figures.group_bars(runs, "val").axes[0].patches
    assert len({bar.get_facecolor() for bar in bars}) == 2
    assert len({bar.get_facecolor() for bar in figures.group_bars(runs[:8], "val").axes[0].patches}) > 6


def test_refusals(study, tmp_path):
    with pytest.raises(ComparisonError, match="image 9"):
        figures.map_overlays(study[0], image=9)
    with pytest.raises(ComparisonError, match="class 'boat': not in sample 0"):
        figures.map_overlays(study[0], classes=["boat"])
    with pytest.raises(ComparisonError, match="one label expected"):
        figures.weight_trajectories(study)
    with pytest.raises(ComparisonError, match="label 'x'"):
        figures.gain_against_frequency(study, "x", "CAWA", "val")
    with pytest.raises(ComparisonError, match="other images"):
        figures.qualitative({"a": study[0], "b": make_run(tmp_path)})


def test_samples_are_chosen_by_their_labels(tmp_path):
    run = make_run(tmp_path)
    run.samples["labels"][:] = 0
    run.samples["labels"][2, :5, :5] = 4  # the tail class
    run.samples["labels"][1, :2, :2] = 4
    run.samples["predictions"][:] = 4  # must not matter
    assert figures.rarest_samples(run, 3) == [2, 1, 0]


def test_maps_are_shown_rarest_first(study):
    shown = [axes.get_title() for axes in figures.map_overlays(study[0]).axes if axes.get_title()]
    assert shown[:3] == ["image", "truth", "prediction"]
    ranks = [study[0].metrics["train_pixels"][study[0].metrics["classes"].index(name)] for name in shown[3:]]
    assert ranks == sorted(ranks) and len(ranks) > 3


# ---------------------------------------------------------------- what is drawn, against the numbers

def band(collection):
    """The lower and the upper edge of a filled band, left to right."""
    points = pd.DataFrame(collection.get_paths()[0].vertices, columns=["x", "y"]).groupby("x")["y"]
    return points.min().to_numpy(), points.max().to_numpy()


def test_trajectories_are_means_within_smallest_and_largest(tmp_path):
    runs = [make_run(tmp_path, "CAWA", seed, updates=updates) for seed, updates in ((0, 9), (1, 12), (2, 9))]
    names = runs[0].metrics["classes"]
    figure = figures.weight_trajectories(runs)
    for axes, column in zip(figure.axes, ("weight", "score"), strict=True):
        found = np.stack([run.class_weights.query("update < 9").pivot(index="update", columns="class", values=column)
                          [names[::-1]].to_numpy() for run in runs])  # the updates that all seeds have, rarest first
        lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert len(lines) == len(axes.collections) == 5
        drawn = {tuple(np.round(line.get_ydata(), 6)) for line in lines}
        for place, filled in zip(range(5), sorted(range(5), key=lambda place: names[::-1][place]), strict=True):
            own = found[:, ~np.isnan(found[0, :, place]), place]
            assert tuple(np.round(own.mean(axis=0), 6)) in drawn
            own = found[:, ~np.isnan(found[0, :, filled]), filled]
            low, high = band(axes.collections[place])
            np.testing.assert_allclose(low, own.min(axis=0))
            np.testing.assert_allclose(high, own.max(axis=0))
        heights = {text.get_text(): text.xyann[1] if hasattr(text, "xyann") else text.get_position()[1]
                   for text in axes.texts if text.get_text() in names}
        ends = dict(zip(names[::-1], found[:, -1].mean(axis=0), strict=True))
        assert sorted(names, key=heights.get) == sorted(names, key=ends.get)


def test_a_legend_of_long_labels_stays_in_the_picture(tmp_path):
    labels = [f"a method with a long name, {number}" for number in range(9)]
    runs = [run for label in labels for run in flat(tmp_path, label, "cawa", (0.2,))]
    figure = figures.training_curves(runs)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.width


def test_of_many_labels_the_first_and_ours_have_colour(tmp_path):
    labels = ["cross entropy", *(f"method {number}" for number in range(6)), "inverse square root", "focal", "CAWA"]
    methods = ["none", *["recall"] * 6, "inverse_sqrt", "focal", "cawa"]
    runs = [run for label, method in zip(labels, methods, strict=True) for run in flat(tmp_path, label, method, [0.2])]
    figure = figures.training_curves(runs)
    coloured = {line.get_label(): line.get_color() for line in figure.axes[0].lines
                if not line.get_label().startswith("_")}
    assert list(coloured) == [*labels[:7], "CAWA", "2 others"] and len(set(coloured.values())) == 9
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert sum(line.get_color() == coloured["2 others"] for line in drawn) == 2 and len(drawn) == 10
    assert "others" not in words(figures.training_curves(runs[:8]))


def test_curves_of_training_are_means_within_smallest_and_largest(tmp_path):
    runs = [make_run(tmp_path, "CAWA", seed) for seed in range(3)]
    figure = figures.training_curves(runs)
    for axes, column, scale in zip(figure.axes, ("train_loss", "val_miou"), (1, 100), strict=True):
        values = scale * np.stack([run.history[column].dropna() for run in runs])
        np.testing.assert_allclose(axes.lines[0].get_ydata(), values.mean(axis=0))
        low, high = band(axes.collections[0])
        np.testing.assert_allclose(low, values.min(axis=0))
        np.testing.assert_allclose(high, values.max(axis=0))


def test_gains_by_hand(tmp_path):
    """Differences of the five classes: 0; 10, 10, 13; -5, -5, -8; 1, -1, 0; and some of a class without pixels."""
    runs, rises = [], np.array([[0, .10, -.05, .01, .20], [0, .10, -.05, -.01, .21], [0, .13, -.08, 0, .22]])
    for seed, rise in enumerate(rises):
        runs.append(make_run(tmp_path, "cross entropy", seed, [0.5] * 5, method="none"))
        runs.append(make_run(tmp_path, "CAWA", seed, 0.5 + rise))
    for run in runs:
        run.metrics["train_pixels"] = [600, 300, 80, 20, 0]
    axes = figures.gain_against_frequency(runs, "CAWA", "cross entropy", "test").axes[0]
    marks = [container.lines[0] for container in axes.containers]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([60, 30, 8, 2])
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx([0, 11, -6, 0], abs=1e-9)
    hollow = [same_color(mark.get_markerfacecolor(), "white") for mark in marks]
    assert hollow == [True, False, False, True]
    half = 4.302653 * np.sqrt(3) / np.sqrt(3)  # of 10, 10, 13, and of -5, -5, -8
    for place, middle in ((1, 11), (2, -6)):
        ends = axes.containers[place].lines[2][0].get_segments()[0][:, 1]
        assert ends == pytest.approx([middle - half, middle + half], rel=1e-5)


def test_of_many_classes_the_largest_changes_are_named_losses_too(tmp_path):
    rise = np.zeros(24)
    rise[3], rise[7:12] = -0.3, 0.2
    runs = [make_run(tmp_path, "cross entropy", iou=[0.5] * 24, count=24, method="none"),
            make_run(tmp_path, iou=0.5 + rise, count=24)]
    shown = words(figures.gain_against_frequency(runs, "CAWA", "cross entropy", "test"))
    assert runs[0].metrics["classes"][3] in shown


@pytest.mark.parametrize("by", ["pixels", "images"])
def test_bars_of_groups_by_hand(tmp_path, by):
    runs = [make_run(tmp_path, "CAWA", seed, np.array([.9, .7, .5, .3, .1]) + 0.01 * seed) for seed in range(3)]
    figure = figures.group_bars(runs, "test", by)
    # by images the second and the third class are head, the fourth and fifth body, the first tail
    means = {"pixels": [80, 40, 10], "images": [60, 20, 90]}[by]
    for axes, mean in zip(figure.axes, means, strict=True):
        assert axes.patches[0].get_width() == pytest.approx(mean + 1)
        ends = axes.containers[1].lines[2][0].get_segments()[0][:, 0]
        assert ends == pytest.approx([mean + 1 - 4.302653 / np.sqrt(3), mean + 1 + 4.302653 / np.sqrt(3)], rel=1e-5)
    names = [axes.get_title() for axes in figure.axes]
    assert names == ["head (2 classes)", "body (2 classes)", "tail (1 class)"]
    for run in runs:
        run.metrics["groups"][by]["tail"] = ["road", "sky", "building"]
    assert figures.group_bars(runs, "test", by).axes[2].get_title() == "tail (3 classes)"


# ---------------------------------------------------------------- style

def test_cawa_keeps_its_colour_and_no_ablation_takes_it(study):
    styles = style.label_styles(study)
    assert styles["CAWA"].colour == "#D55E00" and styles["cross entropy"].colour == "#7F7F7F"
    assert len({(s.colour, s.marker) for s in styles.values()}) == len(styles)
    only = style.label_styles(of(study, "ablations"))
    assert "#D55E00" not in {s.colour for s in only.values()}


def test_labels_share_a_colour_only_where_there_are_no_more(study):
    def run_of(method):
        config = dataclasses.replace(study[0].config, method=method)
        return dataclasses.replace(study[0], label=method, config=config)

    methods = ["dice", "none", "tversky", "inverse_sqrt", "cawa", "lovasz", "enet"]
    runs = [run_of(method) for method in methods]
    styles = style.label_styles([*runs, run_of("tversky")])
    assert list(styles) == methods
    assert len({found.colour for found in styles.values()}) == len(methods)
    assert styles["inverse_sqrt"].colour == "#0072B2"


def test_spread_keeps_gap_order_and_bounds():
    moved = style.spread([0.5, 0.51, 0.1, 0.99], gap=0.1, low=0, high=1)
    assert moved == pytest.approx([0.455, 0.555, 0.1, 0.99])
    crowded = style.spread(np.full(30, 0.9), gap=0.1, low=0, high=1)  # no room for such a gap
    assert np.sort(crowded) == pytest.approx(np.linspace(0, 1, 30))
    assert len(style.spread([], 0.1, 0, 1)) == 0


def test_point_names_do_not_cover_each_other(study):
    figure = figures.gain_against_frequency(study, "CAWA", "cross entropy", "val")
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text() in study[0].metrics["classes"]]
    boxes = [plt.Text.get_window_extent(text) for text in names]
    assert len(boxes) == 11
    apart = [not a.padded(-0.5).overlaps(b.padded(-0.5)) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert all(apart)


# ---------------------------------------------------------------- tables

def flat(root, label, method, tail):
    """Three seeds whose rarest class has the given IoU; all else is equal."""
    return [make_run(root, label, seed, (0.9, 0.7, 0.5, 0.3, value), method=method) for seed, value in enumerate(tail)]


def test_main_table_by_hand(tmp_path):
    runs = flat(tmp_path, "cross entropy", "none", (0.10, 0.11, 0.12))
    runs += flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25))
    table = tables.main_table(runs, "cross entropy", "test")
    assert table.at[("cross entropy", "mean ± deviation"), "tail mIoU (pixels)"] == "11.0 ± 1.0"
    assert table.at[("CAWA", "mean ± deviation"), "tail mIoU (pixels)"] == "**22.0 ± 2.6**"
    # differences 10, 10, 13: mean 11, deviation sqrt(3), half width 4.302653
    assert table.at[("CAWA", "minus cross entropy"), "tail mIoU (pixels)"] == "+11.0 [+6.7, +15.3]*"
    assert table.at[("CAWA", "minus cross entropy"), "head mIoU (pixels)"] == "+0.0 [+0.0, +0.0]"
    assert table.at[("CAWA", "mean ± deviation"), "head mIoU (pixels)"] == "80.0 ± 0.0"
    assert table.at[("CAWA", "mean ± deviation"), "seeds"] == "3"
    # by images the first class is rarest, which is 90.0 in all
    by_images = tables.main_table(runs, "cross entropy", "test", by="images")
    assert by_images.at[("CAWA", "mean ± deviation"), "tail mIoU (images)"] == "90.0 ± 0.0"


def test_differences_from_a_rival_by_hand(tmp_path):
    runs = flat(tmp_path, "cross entropy", "none", (0.10, 0.11, 0.12))
    runs += flat(tmp_path, "focal", "focal", (0.15, 0.16, 0.17))
    runs += flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25))
    table = tables.main_table(runs, "cross entropy", "test", rival="focal")
    assert [key for key in table.index if key[1].startswith("minus")] == [
        ("focal", "minus cross entropy"), ("CAWA", "minus cross entropy"), ("CAWA", "minus focal")]
    # differences 5, 5, 8: mean 6, deviation sqrt(3), half width 4.302653
    assert table.at[("CAWA", "minus focal"), "tail mIoU (pixels)"] == "+6.0 [+1.7, +10.3]*"
    overview = tables.overview_table(runs, ("cross entropy", "focal"), "test")
    assert overview.at["CAWA", "tail mIoU (pixels)"] == "22.0 ± 2.6"
    assert overview.at["CAWA", "tail mIoU (pixels) minus focal"] == "+6.0 [+1.7, +10.3]*"
    assert overview.at["focal", "tail mIoU (pixels) minus cross entropy"] == "+5.0 [+5.0, +5.0]*"
    assert overview.at["focal", "tail mIoU (pixels) minus focal"] == ""
    named = tables.overview_table(runs, ("focal",), "test", ("miou",))  # as `compare` understands names
    assert named["miou"].tolist() == overview["mIoU"].tolist()


def grouped(root, group, label, tail):
    made = flat(root / group, label, {"CAWA": "cawa", "focal": "focal"}.get(label, "none"), tail)
    return [dataclasses.replace(run, group=group) for run in made]


def test_one_label_across_groups(tmp_path):
    runs = []
    for group, tails in {"big": (0.20, 0.21, 0.25), "small": (0.05, 0.12, 0.16)}.items():
        runs += grouped(tmp_path, group, "cross entropy", (0.10, 0.11, 0.12)) + grouped(tmp_path, group, "CAWA", tails)
    # big: differences 10, 10, 13, mean 11 +- 4.3; small: -5, 1, 4, mean 0 +- 11.4
    figure = figures.across_groups(runs, "CAWA", ("cross entropy",), "test", ("tail mIoU (pixels)", "pixel accuracy"))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["big", "small"]
    big, small = (container.lines[0] for container in figure.axes[0].containers)
    assert (big.get_xdata()[0], small.get_xdata()[0]) == pytest.approx((11, 0))
    assert (big.get_markerfacecolor() == "white", small.get_markerfacecolor() == "white") == (False, True)
    ends = figure.axes[0].containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([11 - 4.302653, 11 + 4.302653])

    table = tables.verdict_table(runs, ("cross entropy",), "test", ("tail mIoU (pixels)",))
    assert table["tail mIoU (pixels) against cross entropy"].to_dict() == {"cross entropy": "", "CAWA": "1 / 1 / 0"}
    table = tables.verdict_table(runs, ("CAWA",), "test", ("tail mIoU (pixels)",))
    assert table.loc["cross entropy"].tolist() == ["2", "0 / 1 / 1"]


def test_groups_side_by_side(tmp_path):
    runs = []
    for group, labels in {"big": ("cross entropy", "CAWA"), "small": ("cross entropy", "focal")}.items():
        for label in labels:
            gain = 0.05 * (label != "cross entropy")
            runs += grouped(tmp_path, group, label, (0.10 + gain, 0.11 + gain, 0.12 + gain))
    table = tables.summary_table(runs, "cross entropy", "test", "tail mIoU (pixels)")
    assert table.columns.tolist() == ["big", "small"] and table.index.tolist() == ["cross entropy", "CAWA", "focal"]
    assert table.loc["cross entropy"].tolist() == ["11.0 ± 1.0"] * 2
    assert table.loc["CAWA"].tolist() == ["+5.0 [+5.0, +5.0]*", "–"]
    assert table.loc["focal"].tolist() == ["–", "+5.0 [+5.0, +5.0]*"]


def test_labels_with_fewer_seeds_are_paired_on_those_they_have(tmp_path):
    runs = flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25))
    runs += flat(tmp_path, "tau 0.3", "cawa", (0.10, 0.11))
    with pytest.raises(ComparisonError, match="'tau 0.3': lacks seed 2"):
        tables.main_table(runs, "CAWA", "test")
    table = tables.main_table(runs, "CAWA", "test", shared_seeds=True)
    assert table.at[("tau 0.3", "minus CAWA"), "tail mIoU (pixels)"] == "−10.0 [−10.0, −10.0]*"
    assert table["seeds"].tolist() == ["3", "2", ""]
    overview = tables.overview_table(runs, ("CAWA",), "test", shared_seeds=True)
    assert overview.at["tau 0.3", "tail mIoU (pixels) minus CAWA"] == "−10.0 [−10.0, −10.0]*"


def test_notebook_05_takes_labels_with_fewer_seeds(tmp_path):
    runs = flat(tmp_path, "cross entropy", "none", (0.20, 0.21, 0.25)) + flat(tmp_path, "focal", "focal", (0.10, 0.11))
    report = SimpleNamespace(tables=tmp_path, figures=tmp_path, target=lambda *_: None,
                             baselines=lambda _: ["cross entropy"])
    names = {"runs": runs, "baseline": "cross entropy", "rival": "", "split": "test", "report": report}
    calls = ("main_table(", "difference_bars(", "counted_labels(", "overview_table(")
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks/05_figures.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for source in (source for source in cells if any(call in source for call in calls)):
        exec(source, names)
    assert names["table"].at["focal", "tail mIoU (pixels) minus cross entropy"] == "−10.0 [−10.0, −10.0]*"


def test_precision_and_recall_per_class(tmp_path):
    runs = flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25))
    assert tables.per_class_table(runs, "val", "precision").at["road", "CAWA"] == "100.0 ± 0.0"
    assert tables.per_class_table(runs, "val", "recall").at["vegetation", "CAWA"] == "35.0 ± 0.0"


def test_weights_over_thirds_by_hand(tmp_path):
    runs = [make_run(tmp_path, "CAWA", seed) for seed in (0, 1)]
    weights = {0: [7, 1, 3, 2, 2, 2, 4, 4, 4], 1: [7, 1, 3, 2, 2, 2, 4, 4, 7]}
    for run in runs:
        names = run.metrics["classes"]
        table = pd.DataFrame({"update": np.repeat(range(9), len(names)), "class": names * 9,
                              "weight": np.repeat(weights[run.config.seed], len(names))})
        table.to_csv(run.folder / "class_weights.csv", index=False)
        write_metrics(run.folder, run.metrics)
    runs = [load_run(run.folder, run.label) for run in runs]
    table = tables.weights_over_thirds(runs)
    # the first update is left out; last third: means 4 and 5, deviations within 0 and sqrt(2), root mean square 1
    assert table.iloc[0].tolist() == ["2.00 ± 1.00", "2.00 ± 0.00", "4.50 ± 1.00", "5.50 ± 2.12"]
    for run in runs:  # of updates 0 to 4, a third is 5/3: after the first left out, 1, 2 and 3, 4
        run.class_weights.drop(run.class_weights[run.class_weights["update"] > 4].index, inplace=True)
    assert tables.weights_over_thirds(runs).iloc[0].tolist()[:3] == ["1.00 ± 0.00", "2.50 ± 0.50", "2.00 ± 0.00"]
    assert table.index[-1] == "learning rate" and table.iloc[-1, 0].startswith(f"{runs[0].config.learning_rate:.4f} to")


def test_final_weights_by_hand(tmp_path):
    runs = flat(tmp_path, "CAWA", "cawa", (0.20, 0.21))
    for run, weight in zip(runs, (0.5, 1.5), strict=True):
        table = run.class_weights
        last = table["update"] == table["update"].max()
        table.loc[last & (table["class"] == "road"), "weight"] = weight
    table = tables.final_weights(runs)
    assert table.columns.tolist() == runs[0].metrics["classes"] and table.index.tolist() == ["CAWA"]
    assert table.at["CAWA", "road"] == "1.00"


def test_settings_are_chosen_by_their_mean(tmp_path):
    runs = flat(tmp_path, "focal", "focal", (0.10, 0.11, 0.12)) + flat(tmp_path, "Dice", "dice", (0.1, 0.2, 0.3))
    runs += [make_run(tmp_path, "focal, gamma 3", seed, (0.9, 0.7, 0.5, 0.3, 0.2), method="focal", focal_gamma=3.0)
             for seed in range(3)]
    table = tables.settings_table(runs)
    assert table.index.tolist() == [("focal", "focal"), ("focal", "focal, gamma 3")]
    assert table["seeds"].tolist() == ["3", "3"]
    assert table["chosen"].tolist() == ["", "✓"] and table["val mIoU"].tolist() == ["50.2 ± 0.2", "52.0 ± 0.0"]


def test_nothing_is_bold_inside_the_noise(tmp_path):
    runs = flat(tmp_path, "cross entropy", "none", (0.10, 0.11, 0.12))
    runs += flat(tmp_path, "focal", "focal", (0.20, 0.21, 0.25)) + flat(tmp_path, "CAWA", "cawa", (0.20, 0.22, 0.25))
    assert not tables.main_table(runs, "cross entropy", "test").map(lambda cell: "**" in cell).any(axis=None)


def test_per_class_table(tmp_path):
    runs = flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25)) + [
        make_run(tmp_path, "cross entropy", 0, (0.9, 0.7, 0.5, 0.3, np.nan), method="none")]
    table = tables.per_class_table(runs, "val")
    assert list(table.columns) == ["pixels (%)", "images (%)", "CAWA", "cross entropy"]
    assert table.index.tolist() == runs[0].metrics["classes"] and table.index.name == "val IoU (%)"
    # pixels 10^7 to 10^3, 11 111 000 together; images 18, 300, 150, 75, 37 of 320
    assert table["pixels (%)"].tolist() == ["90", "9", "0.9", "0.09", "0.009"]
    assert table["images (%)"].tolist() == ["5.6", "93.8", "46.9", "23.4", "11.6"]
    assert table.at["pavement", "CAWA"] == "22.0 ± 2.6"
    assert table.at["pavement", "cross entropy"] == "–" and table.at["road", "cross entropy"] == "90.0"


def test_tables_are_written_three_ways(tmp_path):
    runs = flat(tmp_path, "cross entropy", "none", (0.10, 0.11, 0.12))
    runs += flat(tmp_path, "CAWA", "cawa", (0.20, 0.21, 0.25))
    write_table(tables.main_table(runs, "cross entropy", "test"), tmp_path / "t", "main")
    text = {path.suffix: path.read_text() for path in (tmp_path / "t").iterdir()}
    assert set(text) == {".csv", ".md", ".tex"}
    assert "22.0 ± 2.6" in text[".csv"] and "**" not in text[".csv"]
    assert "**22.0 ± 2.6**" in text[".md"] and r"15.3]\*" in text[".md"]
    assert r"\textbf{22.0 $\pm$ 2.6}" in text[".tex"] and r"\toprule" in text[".tex"]
    assert "±" not in text[".tex"] and "+15.3]$^{*}$" in text[".tex"]
    worse = forms.latex(tables.main_table(runs, "CAWA", "test"))
    assert "$-$11.0 [$-$15.3, $-$6.7]$^{*}$" in worse and "−" not in worse
