"""The explorer shows what training computes, wherever its controls stand, and leaves no widget where nobody looks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cawalib.datasets import ClassStatistics, SegmentationDataset
from cawalib.method import CAWAWeighting, Feedback, evaluation_mode
from cawalib.notebook import explorer_panel
from cawalib.notebook.explorer import KINDS, LAYERS, Explorer
from cawalib.notebook.explorer_panel import PANEL, Panel, Picture, explore
from cawalib.runs import RunConfig
from cawalib.settings import ConfigError, NetworkConfig
from cawalib.training import build_model

CLASSES = ("road", "car", "pole", "sign", "boat")  # no boat in the batch


@pytest.fixture(scope="module")
def explorer():
    """Three random images with blocks of random labels, and a network with two sets of random weights."""
    torch.manual_seed(0)
    config = RunConfig(image_height=32, image_width=64)
    weights = [build_model(NetworkConfig(), len(CLASSES)).state_dict() for _ in range(2)]
    labels = torch.randint(0, 4, (3, 8, 16)).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    labels[:, :4], labels[0][labels[0] == 3] = 255, 0  # void above, and an image without a sign
    pixels = np.array([400, 300, 20, 10, 5])
    statistics = ClassStatistics(CLASSES, pixels, pixels, pixels, 400)
    palette = tuple((40 * index, 200 - 40 * index, 90) for index in range(5))
    dataset = SegmentationDataset("tiny", "val", CLASSES, palette, 3, None, "")
    return Explorer(config, dataset, statistics, build_model(NetworkConfig(), len(CLASSES)), weights,
                    [torch.rand(4, len(CLASSES)) for _ in weights], torch.randn(3, 3, 32, 64), labels, LAYERS["small"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", LAYERS["small"])
def test_numbers_are_those_of_one_update_in_training(explorer, layer, kind):
    network = build_model(NetworkConfig(), len(CLASSES))
    network.load_state_dict(explorer.weights[0])
    with torch.no_grad(), evaluation_mode(network):
        logits, features = network(explorer.images, return_features=True)
    weighting = CAWAWeighting(len(CLASSES), pseudo_mask_threshold=0.35, target_layer=layer, cam_kind=kind)
    feedback = Feedback(explorer.labels, logits, features, network.classifier, network, explorer.images)
    weighting.update(feedback)
    found = explorer.numbers(explorer.pick(tau=0.35, layer=layer, kind=kind, epoch=1))
    np.testing.assert_array_equal(found[["TP", "FP", "FN"]], weighting.count(feedback).numpy())
    np.testing.assert_allclose(found[["S", "BW", "RW", "weight"]].T, weighting.state().numpy(), rtol=1e-5)
    assert 0 < found["CSPS"]["sign"] < 1 and found["CSPS"]["boat"] == 0 and found["S"]["boat"] > 0


def test_numbers_by_hand(explorer, monkeypatch):
    # one image of 1 x 8 pixels on the score grid: road road car car | car pole sign void, and maps of its four classes
    labels = torch.tensor([[[0, 0, 1, 1, 1, 2, 3, 255]]]).repeat_interleave(2, 1).repeat_interleave(2, 2)
    maps = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 1],      # road: right, and once on void
                         [0.0, 0, 0.2, 0.6, 1, 1, 0, 0],  # car: 2 of 3, and one pole
                         [1.0, 1, 1, 0, 0, 0, 0, 0],      # pole: nowhere right
                         [0.0, 0, 0, 0.6, 0.6, 0.6, 1, 0]])  # sign: right, and three others
    tiny = Explorer(explorer.config, explorer.dataset, explorer.statistics, explorer.network, explorer.weights,
                    explorer.states, torch.randn(1, 3, 2, 16), labels, ("decoder",))
    monkeypatch.setattr(tiny, "_maps", {(1, "decoder", "grad_cam"): maps[None, :, None]})
    found = tiny.numbers(tiny.pick(tau=0.5, epoch=1))
    assert found[["TP", "FP", "FN", "TN"]].to_numpy().tolist() == [
        [2, 0, 0, 5], [2, 1, 1, 3], [0, 3, 1, 3], [1, 3, 0, 3], [0, 0, 0, 7]]
    score = np.array([1, (2 / 4 + 2 / 3 + 2 / 3 + 2 / 3) / 4, 0, (1 / 4 + 2 / 5 + 1 / 4 + 1) / 4])
    np.testing.assert_allclose(found["CSPS"][:4], score)
    score = np.append(score, score.mean())  # of a class that is not there
    product = (2 - score) * np.clip(score.mean() / np.maximum(score, 1e-12), 1 / 8, 8)
    np.testing.assert_allclose(found["weight"], product / product.mean(), rtol=1e-6)
    # below 0.2 the car claims its third pixel as well
    assert tiny.numbers(tiny.pick(tau=0.15, epoch=1)).loc["car", ["TP", "FP", "FN"]].tolist() == [3, 1, 0]


def test_every_place_of_every_control(explorer):
    picture = Picture(explorer, explorer.pick())
    valid = int((explorer.grid_labels != 255).sum())
    for control, places in explorer.choices.items():
        for place in places:
            pick = explorer.pick(**{control: place})
            table = explorer.numbers(pick)
            assert (table[["TP", "FP", "FN", "TN"]].sum(axis=1) == valid).all()
            assert table["weight"].mean() == pytest.approx(1, abs=1e-6) and table["BW"].between(1, 2).all()
            assert table["CSPS"].between(0, 1).all() and table["RW"].between(1 / 8, 8).all()
            picture.update(pick, table)
            trained = explorer.training_state(pick.epoch)
            for column, (_, bars, ticks, _) in picture.columns.items():
                ends = [path.get_extents().x1 for path in bars.get_paths()]
                np.testing.assert_allclose(ends, np.maximum(table[column], 1 if column in ("RW", "weight") else 0))
                np.testing.assert_array_equal(ticks[1].get_xdata(), trained[column])
            assert picture.rows[np.argmax(bars.get_linewidths())] == pick.name
            assert explorer.sentence(pick, table).startswith(f"{pick.name}: TP {table['TP'][pick.name]:,}, FP ")


def test_a_larger_tau_cuts_masks_down(explorer):
    for before, after in zip(explorer.choices["tau"], explorer.choices["tau"][1:], strict=False):
        low, high = (explorer.masks(explorer.pick(tau=tau)) for tau in (before, after))
        assert (high <= low).all() and high.any()


def test_maps_made_in_the_background_are_those_asked_for(explorer):
    keys = [(epoch, layer, kind) for epoch in (1, 2) for layer in LAYERS["small"] for kind in KINDS]
    asked = {key: explorer.maps(*key) for key in keys}
    explorer._maps.clear()
    assert len(list(explorer.all_maps())) == len(keys) and set(explorer._maps) == set(keys)
    assert all(torch.equal(explorer._maps[key], asked[key]) for key in keys)
    assert not torch.equal(asked[1, "decoder", "grad_cam"], asked[2, "decoder", "grad_cam"])


def test_maps_leave_memory_when_there_are_too_many(explorer, monkeypatch):
    monkeypatch.setattr("cawalib.notebook.explorer.MAPS_BYTES", 3 * explorer.maps(1, "decoder", "grad_cam").nbytes)
    explorer._maps.clear()
    for epoch, kind in ((1, "grad_cam"), (1, "hires_cam"), (1, "layer_cam"), (2, "grad_cam"), (2, "hires_cam")):
        explorer.maps(epoch, "decoder", kind)
    assert [key[::2] for key in explorer._maps] == [(1, "layer_cam"), (2, "grad_cam"), (2, "hires_cam")]


def test_start(explorer):
    pick = explorer.pick()
    assert (pick.name, pick.tau, pick.layer, pick.kind, pick.epoch) == ("sign", 0.5, "decoder", "grad_cam", 2)
    pixels = [(labels == 3).sum() for labels in explorer.labels]
    assert pixels[pick.image - 1] == max(pixels) and pixels[0] == 0
    assert explorer.choices["name"] == ("sign", "pole", "car", "road")  # the rarest first, and no boat


@pytest.mark.parametrize("given, words", [
    ({"layer": "body.fuse"}, "parameter 'layer': found 'body.fuse'; did you mean 'body.fuse.1'"),
    ({"name": "boat"}, "parameter 'name': found 'boat'"), ({"image": 4}, "parameter 'image': found '4'"),
    ({"tau": 1.5}, "parameter 'tau': found '1.5'"), ({"taw": 0.5}, "parameter 'control': found 'taw'; did you mean"),
])
def test_where_no_control_can_stand(explorer, given, words):
    with pytest.raises(ConfigError, match=words) as refused:
        explorer.pick(**given)
    assert "\n" not in str(refused.value)


def test_answers_are_made_from_the_numbers(explorer):
    table = explorer.sweep("tau", name="pole")
    numbers = explorer.numbers(explorer.pick(tau=0.7)).loc["pole"]
    np.testing.assert_allclose(table.loc[0.7], numbers, atol=6e-4)
    answer = explorer.answer("tau", 0.3, 0.7, name="pole")
    assert f"weight from {table['weight'][0.3]:.2f} to {table['weight'][0.7]:.2f}" in answer
    assert f"mask from {table['TP'][0.3] + table['FP'][0.3]} to {table['TP'][0.7] + table['FP'][0.7]}" in answer
    assert f"largest at tau {table['CSPS'].idxmax()}, {table['CSPS'].max():.2f}." in answer
    assert list(explorer.sweep("layer", ("decoder", "body.down.0")).index) == ["decoder", "body.down.0"]


# ---------------------------------------------------------------- the still picture, and the panel

def test_still_picture_where_nobody_looks(explorer, monkeypatch):
    monkeypatch.setenv("CAWALIB_HEADLESS", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    monkeypatch.setattr(explorer_panel, "Panel", None)
    figure = explore(explorer, name="pole", tau=0.3, image=2)
    assert len([image for axes in figure.axes for image in axes.images]) == 4
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    table = explorer.numbers(explorer.pick(name="pole", tau=0.3))
    assert "pole, image 2, tau 0.3, decoder, grad_cam, epoch 2" in texts and f"TP {table['TP']['pole']:,}" in texts
    assert f"weight {table['weight']['pole']:.2f}" in texts


def test_masks_in_the_picture_are_the_counts(explorer):
    """A batch of one image: pixels of each colour are the four counts."""
    one = Explorer(**{name: getattr(explorer, name) for name in explorer.__dataclass_fields__ if name != "_maps"}
                   | {"images": explorer.images[1:2], "labels": explorer.labels[1:2]})
    pick = one.pick(name="car", tau=0.3)
    picture = Picture(one, pick)
    pixels = picture.images[2].get_array().reshape(-1, 3)
    counts = [int((pixels == colour).all(axis=1).sum()) for colour in explorer_panel.OUTCOMES.values()]
    assert counts[:4] == one.numbers(pick).loc["car", ["TP", "FP", "FN", "TN"]].tolist()


def test_a_moved_picture_is_the_one_drawn_anew(explorer):
    pick = explorer.pick(name="road", tau=0.2, layer="body.down.2", epoch=1, image=2)
    moved, anew = Picture(explorer, explorer.pick()), Picture(explorer, pick)
    before = moved.png()
    moved.update(pick, explorer.numbers(pick))
    assert moved.png() == anew.png() != before


@pytest.mark.long
def test_panel_in_a_live_notebook(explorer, monkeypatch):
    monkeypatch.delenv("CAWALIB_HEADLESS", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    explore(explorer, name="car")
    first = Panel.last
    assert list(shown[0]) == ["text/html", "text/plain"] and f"<style class='{PANEL}'>" in shown[0]["text/html"]
    assert set(shown[1]) == {"application/vnd.jupyter.widget-view+json", "text/plain"} and len(shown) == 2
    assert PANEL in first.root._dom_classes  # by which the style knows it
    for name, control in first.controls.items():  # the kind of map last: at the decoder, two kinds are the same
        control.value = explorer.choices[name][0]
        picture, words = first.image.value, first.words.value
        control.value = explorer.choices[name][1]
        assert picture != first.image.value and (words != first.words.value or name == "image"), name
    explore(explorer)
    assert Panel.last is not first and first.stop.is_set() and first.root.comm is None
    Panel.last.close()


def test_committed_notebook_shows_the_still_picture_alone():
    nb = json.loads((Path(__file__).parents[1] / "notebooks" / "06_explorer.ipynb").read_text())
    [cell] = [cell for cell in nb["cells"] if "explore(explorer)" in "".join(cell["source"])]
    assert [set(output["data"]) for output in cell["outputs"]] == [{"image/png", "text/plain"}]


# ---------------------------------------------------------------- training

def test_training_is_remembered_and_nothing_written(tmp_path, capsys):
    config = RunConfig(data_root=str(tmp_path / "data"), outputs_root=str(tmp_path / "outputs"), image_height=32,
                       image_width=64, epochs=2, smoke=True, device="cpu", imbalance=30.0)
    with pytest.raises(ValueError, match="parameter 'target_layer': found 'body.up'"):
        Explorer.train(config, layers=("body.up",))
    explorer = Explorer.train(config, images=4)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch   1", "epoch   2"]
    assert not (tmp_path / "outputs").exists()
    key = "classifier.weight"
    assert len(explorer.weights) == 2 and not torch.equal(explorer.weights[0][key], explorer.weights[1][key])
    assert torch.equal(explorer.weights[1][key], explorer.network.state_dict()[key])
    assert not torch.equal(*(state[3] for state in explorer.states))  # training's weights moved
    tail = [explorer.dataset.classes.index(name) for name in explorer.statistics.groups["pixels"]["tail"]]
    held = [np.isin(tail, labels).sum() for labels in explorer.labels]
    assert len(held) == 4 and min(held) >= 2 and held == sorted(held, reverse=True)
    assert explorer.images.shape == (4, 3, 32, 64) and len(explorer.sweep("epoch")) == 2
