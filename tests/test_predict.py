"""A trained network put to use: read back, on photographs of any kind, as a file of its own, and as a start."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from cawalib.method import CAWALoss, Decision
from cawalib.predict import __main__ as command_line
from cawalib.predict import export, load_network, photographs_in, segment
from cawalib.runs import RunConfig, RunError, write_metrics
from cawalib.runs.behaviour import BASE
from cawalib.settings import ConfigError, NetworkConfig
from cawalib.training import MEAN, STD, build_model, network_file, read_network, tiny_runs, train, write_network


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    tiny_runs.write_scenes(root / "data")
    return root


@pytest.fixture(scope="module")
def config(place):
    return RunConfig(**BASE | {"method": "cawa", "data_root": str(place / "data"), "outputs_root": str(place / "out"),
                               "prepared_root": str(place / "prepared")})


@pytest.fixture(scope="module")
def run(config):
    return train(config)


@pytest.fixture(scope="module")
def network(run):
    return load_network(run)


def photograph(size=(70, 50), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def by_hand(network, image, offset):
    """Classes of a photograph with PyTorch's functions alone."""
    small = transforms.resize(torch.from_numpy(image).permute(2, 0, 1), [32, 64], antialias=True)
    normal = transforms.normalize(small.float() / 255, MEAN, STD)[None]
    logits = functional.interpolate(network.model(normal), image.shape[:2], mode="bilinear") + offset[:, None, None]
    return logits[0].argmax(dim=0).numpy()


# ---------------------------------------------------------------- photographs

@pytest.mark.parametrize("point, alpha", [("rare", 0), ("balanced", 0.5), ("accurate", 1)])
def test_masks_are_the_decision_at_the_photographs_own_size(run, network, tmp_path, point, alpha):
    image = photograph()
    Image.fromarray(image).save(tmp_path / "one.png")
    areas = run.segment(tmp_path / "one.png", tmp_path / "out", point)
    weight = run.class_weights.groupby("class", sort=False)["weight"].last()
    expected = by_hand(network, image, -alpha * torch.tensor(weight.to_numpy()).log())
    with Image.open(tmp_path / "out" / "masks" / "one.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:15] == [v for colour in network.palette for v in colour]
        assert (np.array(mask) == expected).mean() > 0.999  # of equal logits either may win
    assert areas["pixels"].sum() == 70 * 50 and areas["class"].tolist() == list(tiny_runs.CLASSES)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "areas.csv"), areas)
    np.testing.assert_allclose(areas["share"], areas["pixels"] / 3500)


def test_what_is_written_beside_the_masks(network, tmp_path):
    image = np.full((70, 50, 3), (200, 120, 40), np.uint8)  # plain, which JPEG keeps
    Image.fromarray(image).save(tmp_path / "one.png")
    segment(network, [tmp_path / "one.png"], tmp_path / "out")
    mask = np.array(Image.open(tmp_path / "out" / "masks" / "one.png"))
    overlay = np.array(Image.open(tmp_path / "out" / "overlays" / "one.jpg"), dtype=float)
    mixed = (image + np.array(network.palette)[mask]) / 2
    assert overlay.shape == mixed.shape and abs(overlay - mixed).mean() < 5
    maps = sorted((tmp_path / "out" / "maps" / "one").iterdir())
    assert [int(path.name[:3]) for path in maps] == np.unique(mask).tolist()
    assert all(np.array(Image.open(path)).shape == (32, 64) for path in maps)
    segment(network, tmp_path / "one.png", tmp_path / "plain", maps=False)
    assert not (tmp_path / "plain" / "maps").exists()


def test_photographs_of_every_kind(network, tmp_path):
    folder = tmp_path / "photographs"
    (folder / "deeper").mkdir(parents=True)
    image, exif = Image.fromarray(photograph((40, 60))), Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    image.save(folder / "turned.JPG", "JPEG", exif=exif)
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "deeper" / "alpha.webp")
    image.convert("CMYK").save(folder / "print.tif")
    Image.fromarray(np.full((9, 1), 7, np.uint8)).save(folder / "narrow.bmp")
    (folder / "notes.txt").write_text("no photograph")
    (folder / ".hidden.png").write_text("no photograph")
    areas = segment(network, folder, folder / "out", maps=False)
    again = segment(network, folder, folder / "out", maps=False)  # its own masks are no photographs
    assert areas["photograph"].unique().tolist() == ["deeper/alpha", "grey", "narrow", "print", "turned"]
    pd.testing.assert_frame_equal(areas, again)
    sizes = {path.stem: Image.open(path).size for path in (folder / "out" / "masks").rglob("*.png")}
    assert sizes["turned"] == (40, 60) and sizes["grey"] == (60, 40) and sizes["narrow"] == (1, 9)


def test_photographs_that_cannot_be_used_are_named(network, tmp_path):
    Image.fromarray(photograph()).save(tmp_path / "a.png")
    Image.fromarray(photograph()).save(tmp_path / "a.jpg")
    (tmp_path / "empty").mkdir()
    for given, message in ((tmp_path / "none.jpg", "none.jpg is not there, expected an image file"),
                           (tmp_path / "empty", "empty holds no image, expected files ending in .png"),
                           ([], "photographs: found none"), (tmp_path, "a.jpg and .*a.png would be written to one")):
        with pytest.raises(ConfigError, match=message):
            photographs_in(given)
    with pytest.raises(ConfigError, match="parameter 'out': .*a.png is not a folder that can be written"):
        segment(network, tmp_path / "a.png", tmp_path / "a.png")
    with pytest.raises(ValueError, match="point: found 'best', expected one of rare, balanced, accurate"):
        segment(network, tmp_path / "a.png", tmp_path / "out", "best")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- where networks come from

def test_a_network_judges_as_its_run_did(run, network):
    samples = run.samples
    for image, predicted in zip(samples["images"], samples["predictions"], strict=True):  # at the network's own size
        assert (network.logits(image).argmax(dim=0).numpy() == predicted).mean() > 0.99
    assert not run.load_model().training and network.classes == tiny_runs.CLASSES


def test_runs_without_a_network_are_refused_and_the_best_one_is_found(run, config, place, tmp_path, capsys):
    with pytest.raises(RunError, match="found no finished run with its network, expected one; train it first"):
        load_network(tmp_path)
    worse = tmp_path / "runs" / "seed0"
    shutil.copytree(run.folder, worse)
    splits = run.metrics["splits"]
    write_metrics(worse, run.metrics | {"splits": splits | {"val": splits["val"] | {"miou": 0.0}}})
    shutil.copytree(run.folder, tmp_path / "runs" / "seed1")
    assert load_network(tmp_path / "runs").source.name == "seed1"
    assert "of 2 runs the one with the best mean IoU on validation" in capsys.readouterr().out
    shutil.rmtree(worse / "checkpoint")
    with pytest.raises(RunError, match="seed0: found no network .checkpoint/last.pt., which published runs do not hav"):
        load_network(worse)


def test_a_file_is_the_same_network(run, network, tmp_path):
    path = run.export(tmp_path / "net.safetensors")
    again = load_network(path)
    image = photograph()
    assert torch.equal(again.logits(image), network.logits(image))
    assert (again.classes, again.palette) == (network.classes, network.palette)
    assert torch.equal(again.decision("accurate").offset, network.decision("accurate").offset)
    data = path.read_bytes()
    turned = data[:-9] + bytes([data[-9] ^ 64]) + data[-8:]  # a bit of a weight
    for damaged, message in ((turned, "is not what was written .its checksum is another one"),
                             (data.replace(b"bush", b"tree", 1), "is not what was written"),
                             (data[:len(data) // 2], "cannot be read as safetensors"),
                             (data.replace(b"cawalib network 1", b"cawalib network 9"), "found format 'cawalib netw")):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=message):
            load_network(path)


@pytest.mark.long
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_files_for_other_programs_hold_the_decision(network, tmp_path, ending):
    path = export(network, tmp_path / f"net.{ending}", "accurate")
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(4))
    normal = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = network.model(normal) - network.weight.log()[:, None, None]
    if ending == "onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(path)
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        said = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    else:
        extra = {"network.json": ""}
        found = torch.export.load(path, extra_files=extra).module()(images)
        said = json.loads(extra["network.json"])["classes"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert tuple(said) == tiny_runs.CLASSES


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(network, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="found 'net.h5', expected a file name ending in .safetensors, .onnx, .pt2"):
        export(network, tmp_path / "net.h5")
    with pytest.raises(ConfigError, match="folder .*none is not there; make it first"):
        export(network, tmp_path / "none" / "net.pt2")
    monkeypatch.setattr("cawalib.predict.formats.torch.export.load",
                        lambda path: type("", (), {"module": lambda self: lambda images: torch.zeros(1)})())
    with pytest.raises(RunError, match="gives other logits than the network it was made from .largest difference 1.0e"):
        export(network, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- a start for another run

def test_a_run_starts_from_a_file(run, network, config, tmp_path, place, capsys):
    path = run.export(tmp_path / "net.safetensors")
    start = config.replace(initial_weights=str(path), epochs=1, learning_rate=1e-8)
    begun = train(start)
    for name, value in begun.load_model().named_parameters():
        torch.testing.assert_close(value, dict(network.model.named_parameters())[name])
    table = place / "data" / "classes.csv"
    before = table.read_text()
    try:
        table.write_text(before.replace("bush", "hedge"))
        other = load_network(train(start.replace(outputs_root=str(tmp_path / "other")))).model
    finally:
        table.write_text(before)
    assert "has other classes, so the last layer starts at random" in capsys.readouterr().out
    assert not torch.equal(other.body.stem[0].weight, network.model.body.stem[0].weight)  # a few tiny steps
    torch.testing.assert_close(other.body.stem[0].weight, network.model.body.stem[0].weight)
    assert (other.classifier.weight - network.model.classifier.weight).abs().max() > 0.01
    changed = torch.load(run.folder / "checkpoint" / "last.pt", weights_only=True)["model"]
    said = read_network(path)[1]
    network_of = load_network(run).model
    network_of.load_state_dict({name: value + 1 if value.is_floating_point() else value
                                for name, value in changed.items()})
    write_network(path, network_of, said)
    with pytest.raises(RunError, match="started from another file than"):
        train(start)


def test_a_start_that_does_not_fit_is_refused(run, config, tmp_path):
    path = run.export(tmp_path / "net.safetensors")
    for changes, message in (({"network": "unet"}, "holds a network with network 'small', expected 'unet'; set netw"),
                             ({"initial_weights": str(tmp_path / "no.safetensors")}, "not found, expected a network"),
                             ({"network": "unet", "encoder_weights": "imagenet"}, "'encoder_weights': found 'image")):
        with pytest.raises(ConfigError, match=message):
            train(config.replace(**{"initial_weights": str(path)} | changes))


SAID = {"classes": ["a", "b", "c"], "palette": [[0, 0, 0]] * 3, "weight": [1, 1, 1],
        "settings": {"network": "unet", "encoder": "resnet18"}}


@pytest.mark.parametrize("change, words", [
    ({}, "its checksum is another one"),
    ({"network": json.dumps(SAID | {"classes": ["c", "b", "a"]})}, "its checksum is another one"),
    ({"checksum": "0" * 64}, "its checksum is another one"),
    ({"format": "cawalib network 0"}, "found format 'cawalib network 0' in its metadata, expected"),
])
def test_a_file_is_told_from_what_was_written(tmp_path, change, words):
    path, model = tmp_path / "net.safetensors", build_model(NetworkConfig(), 3)
    write_network(path, model, SAID)
    tensors, said = read_network(path)
    assert said == SAID and all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if not change:
        tensors["classifier.bias"][0] += 1
    safetensors.torch.save_file(tensors, path, metadata | change)
    with pytest.raises(ConfigError, match=words):
        read_network(path)


def test_a_start_from_another_encoder_or_other_classes(tmp_path, capsys):
    path, model = tmp_path / "net.safetensors", build_model(NetworkConfig(), 3)
    write_network(path, model, SAID)
    network_file.check_start(RunConfig(network="unet", encoder="resnet18", initial_weights=str(path)))
    with pytest.raises(ConfigError, match="holds a network with encoder 'resnet18', expected 'mobilenet_v2'"):
        network_file.check_start(RunConfig(network="unet", encoder="mobilenet_v2", initial_weights=str(path)))
    for classes, taken in (("a", "b", "c"), True), (("a", "b", "d"), False):
        other = build_model(NetworkConfig(), 3)
        network_file.start_from(other, path, classes)
        assert torch.equal(other.body.stem[0].weight, model.body.stem[0].weight)
        assert torch.equal(other.classifier.weight, model.classifier.weight) == taken
    assert "has other classes" in capsys.readouterr().out


# ---------------------------------------------------------------- networks of somebody else, and the command line

@pytest.mark.parametrize("head", [torch.nn.Conv2d(6, 4, 1), torch.nn.Conv2d(6, 4, 1, bias=False)])
def test_a_decision_folded_into_the_last_layer(head):
    decision = Decision(torch.tensor([0.5, 1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 1.0, 1.0]))
    features = torch.randn(2, 6, 5, 7)
    expected = decision(functional.interpolate(head(features), scale_factor=4, mode="bilinear"))
    decision.fold_into(head)
    assert torch.equal(functional.interpolate(head(features), scale_factor=4, mode="bilinear").argmax(1), expected)
    with pytest.raises(ValueError, match="head: found Conv2d with 4 outputs, expected the last classifier, with 3"):
        CAWALoss(3).decision().fold_into(head)


def test_the_command_line(run, tmp_path, capsys):
    Image.fromarray(photograph()).save(tmp_path / "one.png")
    call = [str(run.folder), str(tmp_path / "one.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert command_line.main([*call, "--no-maps", "--export", str(tmp_path / "net.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "written and checked" in said and "1 photograph: " in said and (tmp_path / "out" / "areas.csv").is_file()
    assert command_line.main([str(tmp_path / "nothing"), *call[1:]]) == 1
    assert capsys.readouterr().err.startswith("cawalib.predict: error: folder")
    for wrong in ([call[0]], call[:2]):
        with pytest.raises(SystemExit):
            command_line.main(wrong)
