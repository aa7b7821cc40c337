"""Own images: what masks and class tables may look like, who is in which split, and every mistake told in one line."""

import json
import os
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import DatasetError, folder
from cawalib.datasets.base import UnknownLabels
from cawalib.datasets.statistics import survey

CSV = "id,name,colour\n0,road,128 64 128\n3,car,#0000Ff\n700,sky, \"70, 130, 180\"\n9,Void,0 0 0\n"
PALETTE = ((128, 64, 128), (0, 0, 255), (70, 130, 180))
IDS = np.array([[0, 3, 9], [3, 700, 255]])
COLOURS = np.array([[PALETTE[0], PALETTE[1], (0, 0, 0)], [PALETTE[1], PALETTE[2], (0, 0, 0)]], np.uint8)
LABELS = [[0, 1, 255], [1, 2, 255]]
SMALL_IDS, SMALL_LABELS = np.array([[0, 3, 9], [3, 3, 255]], np.uint8), [[0, 1, 255], [1, 1, 255]]


def write(root, masks=None, classes=CSV, image=None):
    """A folder with an image for each mask; without masks, the two pairs a and b.c."""
    masks = {"a.png": SMALL_IDS, "b.c.png": SMALL_IDS} if masks is None else masks
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        mask.save(root / "masks" / name)
        shown = Image.new("RGB", mask.size, (10, 20, 30)) if image is None else image
        shown.save(root / "images" / f"{name.rpartition('.')[0]}.png")
    (root / ("classes.csv" if isinstance(classes, str) else "classes.json")).write_text(
        classes if isinstance(classes, str) else json.dumps(classes))
    return root


def read(root, mask, classes=CSV, **settings):
    """Labels of a mask in a folder of its own."""
    write(root, {"a.png": mask, "b.png": mask}, classes, **settings)
    image, labels = folder.load(root, "train")[0]
    assert image.dtype == labels.dtype == np.uint8 and image.shape == (*labels.shape, 3)
    return labels.tolist()


def palette_mask(indices, colours):
    mask = Image.fromarray(np.array(indices, np.uint8), "P")
    mask.putpalette(np.array(colours, np.uint8).tobytes())
    return mask


def message(root, **settings):
    with pytest.raises(DatasetError) as caught:
        dataset = folder.load(root, "train", **settings)
        for index in range(len(dataset)):
            dataset[index]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- masks

def test_classes_are_numbered_in_the_order_of_the_rows(tmp_path):
    data = folder.load(write(tmp_path), "train")
    assert (data.name, data.split, data.classes, data.palette) == ("folder", "train", ("road", "car", "sky"), PALETTE)
    image, labels = data[0]
    assert len(data) == 1 and image.tolist() == [[[10, 20, 30]] * 3] * 2 and labels.tolist() == SMALL_LABELS


@pytest.mark.parametrize("mask, labels", [
    (IDS.astype(np.uint16), LABELS),
    (SMALL_IDS, SMALL_LABELS),
    (palette_mask([[0, 3], [9, 0]], [(1, 1, 1)] * 10), [[0, 1], [255, 0]]),  # a palette of its own counts for nothing
    (palette_mask([[0, 3]], [(0, 0, 0)] * 4), [[0, 1]]),  # nor does one in the colour of void
    (palette_mask([[0, 3], [9, 0]], [PALETTE[0], *[(1, 1, 1)] * 2, PALETTE[1], *[(0, 0, 0)] * 6]), [[0, 1], [255, 0]]),
    (COLOURS, LABELS),
    (np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)]), LABELS),
])
def test_ids_and_colours(tmp_path, mask, labels):
    assert read(tmp_path, mask) == labels


def test_32_bit_and_bitmap_files(tmp_path):
    write(tmp_path, {"a.tif": Image.fromarray(IDS.astype(np.int32)), "b.bmp": COLOURS, "c.TIFF": COLOURS})
    (tmp_path / "val.txt").write_text("c")
    (tmp_path / "train.txt").write_text("a\nb")
    assert [labels.tolist() for _, labels in map(folder.load(tmp_path, "train").__getitem__, range(2))] == [LABELS] * 2


def test_one_bit(tmp_path):
    assert read(tmp_path, np.array([[True, False]]), "id,name\n1,crack\n0,wall\n") == [[0, 1]]


def test_255_is_void_unless_it_is_a_class(tmp_path):
    assert read(tmp_path / "a", np.array([[255, 7]], np.uint8), "id,name\n7,car\n") == [[255, 0]]
    assert read(tmp_path / "b", np.array([[255, 7]], np.uint8), "\ufeffid,name\n7,car\n255,sky\n") == [[1, 0]]


@pytest.mark.parametrize("classes", [
    "id;name;colour\n1;road;128,64,128\n2;car;0 0 255\n;void;9,9,9\n",
    "\ufeffID,Name,Color,supercategory\r\n1,road,#804080,flat\r\n\r\n2,car,#0000ff,vehicle\r\n0,VOID,9 9 9,-\r\n",
    "name,r,g,b,id\nroad,128,64,128,1\nvoid,9,9,9,\ncar,0,0,255,2\n",
    "green,red,name,blue\n9,9,void,9\n64,128,road,128\n8,8,void,8\n0,0,car,255\n9,9,void,9\n",
    [{"name": "road", "colour": [128, 64, 128]}, {"name": "void", "color": "#090909"},
     {"name": "car", "colour": "0 0 255"}],
    {"classes": [{"id": 4, "name": "road", "color": "128,64,128"}, {"id": 5, "name": "car", "color": "#0000FF"},
                 {"id": 6, "name": "void", "color": [9, 9, 9]}], "author": "somebody"},
])
def test_tables_that_say_the_same(tmp_path, classes):
    mask = np.array([[(128, 64, 128), (9, 9, 9), (0, 0, 255)]], np.uint8)
    assert read(tmp_path, mask, classes) == [[0, 255, 1]]
    table = folder.read_classes(tmp_path)
    assert table.names == ("road", "car") and table.palette == ((128, 64, 128), (0, 0, 255))


def test_palette_file_of_a_table_without_ids(tmp_path):
    mask = palette_mask([[0, 1], [2, 1]], [(0, 0, 255), (9, 9, 9), (128, 64, 128)])
    assert read(tmp_path, mask, "name,colour\nroad,128 64 128\ncar,0 0 255\nvoid,9 9 9\n") == [[1, 255], [0, 255]]


def test_colours_are_made_up_where_there_are_none(tmp_path):
    write(tmp_path, classes="id,name\n" + "".join(f"{number},class {number}\n" for number in range(254)))
    palette = folder.read_classes(tmp_path).palette
    assert len(set(palette)) == 254 and palette[:3] == ((242, 61, 61), (45, 84, 178), (79, 115, 29))


def test_unknown_values_are_counted(tmp_path):
    write(tmp_path, {"a.png": np.array([[0, 5, 5, 6]], np.uint8), "b.png": SMALL_IDS,
                     "c.png": np.array([[5]], np.uint8)})
    (tmp_path / "train.txt").write_text("a\nc\n")
    (tmp_path / "val.txt").write_text("b\n")
    data = folder.load(tmp_path, "train")
    with pytest.raises(UnknownLabels, match="one of the 3 classes; add a row named void to classes.csv") as caught:
        data[0]
    assert caught.value.counts == {5: 2, 6: 1} and caught.value.path == tmp_path / "masks" / "a.png"
    with pytest.raises(DatasetError, match=r"5 \(3 pixels in 2 files\), 6 \(1 pixels in 1 files\)"):
        survey(data)
    Image.fromarray(np.array([[(1, 2, 3), PALETTE[0], (1, 2, 3), (4, 4, 4)]], np.uint8)).save(caught.value.path)
    with pytest.raises(UnknownLabels) as caught:
        folder.load(tmp_path, "train")[0]
    assert caught.value.counts == {(1, 2, 3): 2, (4, 4, 4): 1}


def test_only_the_most_frequent_unknown_values_are_kept(tmp_path):
    levels = np.tile(np.arange(1000, dtype=np.uint16), (2, 1))
    levels[1] = 950
    write(tmp_path, {"a.png": levels, "b.png": levels})
    with pytest.raises(UnknownLabels) as caught:
        folder.load(tmp_path, "train")[0]
    assert len(caught.value.counts) == 256 and caught.value.counts[950] == 1001


# ---------------------------------------------------------------- images

def test_exif_orientation(tmp_path):
    write(tmp_path, {"a.png": np.array([[0], [3], [9]], np.uint8)})
    pixels = np.array([[(1, 1, 1), (2, 2, 2), (3, 3, 3)]], np.uint8)  # lies on its side: to be turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "b.png")
    shutil.copy(tmp_path / "masks" / "a.png", tmp_path / "masks" / "b.png")
    image, labels = folder.load(tmp_path, "train")[0]
    assert image.tolist() == [[[1] * 3], [[2] * 3], [[3] * 3]] and labels.tolist() == [[0], [1], [255]]
    for name in "ab":
        Image.fromarray(np.array([[0, 3, 9]], np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    assert "labels are 3x1, its image" in message(tmp_path) and "EXIF orientation" in message(tmp_path)


@pytest.mark.parametrize("image, expected", [
    (Image.fromarray(np.array([[0, 257 * 7 - 128, 65535]], np.uint16)), [0, 7, 255]),  # 16 bits
    (Image.fromarray(np.array([[4, 5, 6]], np.uint8)), [4, 5, 6]),
    (Image.fromarray(np.array([[0, 1, 1]], bool)), [0, 255, 255]),
    (Image.fromarray(np.array([[(8, 99), (9, 99), (7, 0)]], np.uint8)), [8, 9, 7]),  # grey with alpha
    (palette_mask([[2, 1, 0]], [(1, 1, 1), (2, 2, 2), (3, 3, 3)]), [3, 2, 1]),
])
def test_images_of_other_modes(tmp_path, image, expected):
    write(tmp_path, dict.fromkeys(("a.png", "b.png"), np.array([[0, 3, 9]], np.uint8)), image=image)
    assert folder.load(tmp_path, "train")[0][0].tolist() == [[[level] * 3 for level in expected]]


# ---------------------------------------------------------------- splits

def many(root, count):
    write(root, {f"{number:02}.png": np.array([[0]], np.uint8) for number in range(count)})
    return root


def members(data):
    return {image.stem for image, _ in data.read.args[0]}


def test_drawn_split(tmp_path):
    many(tmp_path, 20)
    assert folder.splits(tmp_path) == ("train", "val")
    train, val = (members(folder.load(tmp_path, split)) for split in ("train", "val"))
    # the four lowest of `echo -n "0 00" | sha256sum` and so on
    assert val == {"02", "14", "05", "03"} and train == {f"{number:02}" for number in range(20)} - val
    assert members(folder.load(tmp_path, "val", split_seed=1)) != val
    assert len(folder.load(tmp_path, "val", 0.001)) == 1 and len(folder.load(tmp_path, "train", 0.999)) == 1
    assert len(folder.load(tmp_path, "val", 0.5, 7)) == 10
    many(tmp_path, 21)
    assert len(members(folder.load(tmp_path, "val")) - {"20"} ^ val) <= 1


def test_lists(tmp_path):
    write(tmp_path, {"a.png": SMALL_IDS, "b.c.png": SMALL_IDS, "d.png": SMALL_IDS, "e.png": SMALL_IDS,
                     "f.png.png": SMALL_IDS})
    (tmp_path / "masks" / "e.png").unlink()  # not annotated yet, and in no list
    for folder_name in ("images", "masks"):
        (tmp_path / folder_name / "deep").mkdir()
        shutil.move(tmp_path / folder_name / "d.png", tmp_path / folder_name / "deep")
    (tmp_path / "train.txt").write_text("# by hand\n\na.PNG\n  b.c\r\nf.png")
    (tmp_path / "val.txt").write_text("images/deep/d.jpg")
    assert folder.splits(tmp_path) == ("train", "val")
    assert members(folder.load(tmp_path, "train", 0.9, 5)) == {"a", "b.c", "f.png"}
    assert members(folder.load(tmp_path, "val")) == {"d"}
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "test.txt").write_text("b.c.png")
    assert folder.splits(tmp_path) == ("train", "val", "test") and members(folder.load(tmp_path, "test")) == {"b.c"}


def test_digest_and_pickle(tmp_path):
    write(tmp_path)
    data = folder.load(tmp_path, "train")
    assert folder.load(tmp_path, "train").digest == data.digest != folder.load(tmp_path, "val").digest
    again = pickle.loads(pickle.dumps(data))
    assert again[0][1].tolist() == SMALL_LABELS
    digests = {data.digest}
    for old, new in (("0,road", "1,road"), ("road", "street"), ("128 64 128", "128 64 129"), ("9,Void", "8,void"),
                     ("0 0 0", "0 0 1")):
        write(tmp_path, classes=CSV.replace(old, new))
        digests.add(folder.load(tmp_path, "train").digest)
    assert len(digests) == 6


# ---------------------------------------------------------------- mistakes

def remove(*names):
    def damage(root):
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return damage


def empty(name):
    return lambda root: [path.unlink() for path in (root / name).iterdir()]


def text(**files):
    return lambda root: [(root / f"{name}.txt").write_text(content) for name, content in files.items()]


def copied(source, target):
    return lambda root: shutil.copy(root / source, root / target)


def masks(array, classes=CSV, ending=".png"):
    return lambda root: (empty("masks")(root), write(root, {f"a{ending}": array, f"b.c{ending}": array}, classes))


def image(picture, name="a.tif"):
    def damage(root):
        (root / "images" / "a.png").unlink()
        picture.save(root / "images" / name)
        text(train="a", val="b.c")(root)
    return damage


def instead(name, make):
    """Something else where a file was."""
    return lambda root: ((root / name).unlink(), make(root / name))


def of_size(side):
    """The beginning of a PNG file in grey, which says its size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
                                         + struct.pack(">II", zlib.crc32(header), 0) + b"IDAT")


def as_jpeg(*names):
    return lambda root: [(Image.fromarray(SMALL_IDS).save(root / "masks" / name, "JPEG"),
                          name.endswith("png") or (root / "masks" / name).with_suffix(".png").unlink())
                         for name in names]


def named_in_bytes(root):
    for name in ("images", "masks"):
        try:
            os.rename(root / name / "a.png", os.fsencode(root / name) + b"/caf\xe9.png")
        except OSError:
            pytest.skip("this file system takes no name that is no UTF-8")


@pytest.mark.parametrize("damage, words", [
    (instead("images/a.png", lambda path: path.symlink_to("nowhere")), "{}/images/a.png: found a broken link or no"),
    (instead("masks/a.png", os.mkfifo), "{}/masks/a.png: found a broken link or no plain file"),
    (instead("classes.csv", os.mkfifo), "{}: found neither classes.csv nor classes.json"),
    (instead("images/a.png", lambda path: path.mkdir()), "{}/masks/a.png: label without its image"),
    (instead("images/a.png", lambda path: path.touch()), "{}/images/a.png: cannot be read as an image"),
    (instead("masks/a.png", lambda path: path.touch()), "{}/masks/a.png: cannot be read as an image"),
    (named_in_bytes, "{}/images/caf\\xe9.png: found a file name that is no UTF-8, expected one that is; rename it"),
    (as_jpeg("a.jpg"), "{}/masks/a.jpg: found a mask as JPEG or WebP, which change ids and colours, expected PNG"),
    (as_jpeg("a.jpg", "b.c.jpg"), "{}/masks/a.jpg: found a mask as JPEG"),
    (as_jpeg("a.png", "b.c.png"), "{}/masks/a.png: found JPEG or WebP, which change ids and colours, expected PNG"),
    (lambda root: [instead(f"masks/{name}.png", of_size(13000))(root) for name in ("a", "b.c")],
     "{}/masks/a.png: labels are 13000x13000, its image a.png is 3x2"),
    (lambda root: [instead(f"masks/{name}.png", of_size(14000))(root) for name in ("a", "b.c")],
     "{}/masks/a.png: found more than 178 million pixels, expected fewer; cut the image and its mask into tiles"),
    (remove("images"), "parameter 'data_root': folder {}/images not found, expected your images there"),
    (remove("masks"), "{}/masks not found, expected your masks there"),
    (empty("images"), "{}/images: found no image, expected files that end with .png, .jpg"),
    (empty("masks"), "{}/masks: found no mask, expected files that end with .png, .bmp"),
    (remove("masks/a.png", "masks/b.c.png", "images"), "images not found"),
    (remove("masks/a.png"), "{}/images/a.png: image without its label, expected one of the same name in {}/masks"),
    (remove("images/b.c.png"), "{}/masks/b.c.png: label without its image"),
    (lambda root: (remove("masks/a.png")(root), copied("images/a.png", "images/c.png")(root)), "1 more files"),
    (copied("images/a.png", "images/a.jpg"), "{}/images/a.png: a file of the same name"),
    (copied("masks/a.png", "masks/a.tif"), "{}/masks/a.tif: a file of the same name"),
    (remove("images/a.png", "masks/a.png"), "{}/images: found 1 image, expected at least 2"),
    (remove("classes.csv"), "found neither classes.csv nor classes.json"),
    (copied("classes.csv", "classes.json"), "found both classes.csv and classes.json"),
    (masks(np.array([[7, 128, 128]], np.uint8)), "{}/masks/a.png: found label value 128 (2 pixels), expected one"),
    (masks(np.array([[-1, 70000]], np.int32), ending=".tif"), "found label value -1"),
    (masks(np.full((1, 2, 3), 3, np.uint8)), "found colour (3, 3, 3) of no class, and only greys that are ids"),
    (masks(np.full((1, 2, 3), 4, np.uint8)), "found label value (4, 4, 4)"),
    (masks(np.array([[(0, 0, 5)]], np.uint8)), "found label value (0, 0, 5)"),
    (masks(COLOURS, "id,name\n1,a\n"), "found colours (mode RGB), of which classes.csv has none"),
    (masks(SMALL_IDS, "name,colour\na,1 2 3\n"), "found ids (mode L), of which classes.csv has none"),
    (masks(np.full((1, 2, 2), 4, np.uint8)), "found mode LA (2 channels), expected one channel"),
    (masks(np.full((1, 2, 4), 4, np.uint8)), "found 2 pixels that are not opaque"),
    (masks(np.array([[(0, 0, 0, 255), (0, 0, 0, 254)]], np.uint8)), "found 1 pixels that are not opaque"),
    (masks(palette_mask([[3, 0]], [PALETTE[1], (0, 0, 0), (0, 0, 0), PALETTE[0]])),
     "found palette number 0, the id of 'road', in the colour of 'car'"),
    (image(Image.new("RGB", (5, 4))), "{}/masks/a.png: labels are 3x2, its image a.tif is 5x4; they must be of one"),
    (image(Image.new("F", (3, 2))), "{}/images/a.tif: found 32 bits a pixel (mode F)"),
    (lambda root: text(train="a", val="b.c")(root) + [(root / "images" / "a.png").write_text("?")],
     "{}/images/a.png: cannot be read as an image"),
    (lambda root: text(train="a", val="b.c")(root) + [(root / "masks" / "a.png").write_bytes(
        (root / "masks" / "a.png").read_bytes()[:50])], "{}/masks/a.png: cannot be read as an image"),
    (text(train="a"), "{}/val.txt: not found, but train.txt is there"),
    (text(test="a"), "{}/train.txt: not found, but test.txt is there"),
    (text(train="a\nc.png", val="b.c"), "{}/train.txt, line 2: found name 'c.png' of no file, expected one name"),
    (text(train="a", val="b.c\na"), "{}/val.txt, line 2: found name 'a', which is in train.txt, line 1, too"),
    (text(train="a\na.png", val="b.c"), "{}/train.txt, line 2: found name 'a', which is in train.txt, line 1, too"),
    (text(train="a", val="#\n"), "{}/val.txt: found no names"),
    (lambda root: (text(train="a", val="b.c")(root), remove("masks/a.png")(root)), "a.png: image without its label"),
    (lambda root: (root / "classes.csv").write_bytes("id,name\n1,Stra\u00dfe".encode("latin-1")),
     "{}/classes.csv: cannot be read"),
])
def test_mistakes_in_files(tmp_path, damage, words):
    damage(write(tmp_path))
    assert words.replace("{}", str(tmp_path)) in message(tmp_path)


def test_what_else_may_lie_there(tmp_path):
    write(tmp_path)
    (tmp_path / "images" / "x.png").mkdir()
    for name in ("images", "masks"):
        os.rename(tmp_path / name / "a.png", tmp_path / name / "a.PnG")
    Image.fromarray(SMALL_IDS).save(tmp_path / "masks" / "a.jpg")  # a preview
    assert [folder.load(tmp_path, split)[0][1].tolist() for split in ("train", "val")] == [SMALL_LABELS] * 2


def test_masks_that_are_void_everywhere(tmp_path):
    write(tmp_path, {"a.png": np.full((2, 3), 255, np.uint8), "b.png": SMALL_IDS})
    text(train="a", val="b")(tmp_path)
    with pytest.raises(DatasetError, match="^folder, split 'train': found no pixel of a class, all 6 are void; exp"):
        survey(folder.load(tmp_path, "train"))
    assert survey(folder.load(tmp_path, "val")).all_pixels == 6


def test_names_are_taken_as_they_are_written(tmp_path):
    names = ("$x$", "a|b", "<b>", "50%", "back\\slash", "a/b", "Case", "case", "\u6c7d\u8f66 \U0001f697", "x" * 300,
             "a \t b ")
    write(tmp_path, classes=[{"id": number, "name": name} for number, name in enumerate(names)])
    assert folder.read_classes(tmp_path).names == (*names[:-1], "a b")


@pytest.mark.parametrize("classes, words", [
    ('id,name\n1,"a\nb"\n', "classes.csv, line 3: found name 'a\\nb', which has a line break, expected a name on one"),
    ("id,name\n1,a\0b\n", "line 2: found name 'a\\x00b', which has a control character"),
    ([{"id": 1, "name": "a\ud800"}], "entry 1: found name 'a\\ud800', which has a control character"),
    ([{"id": [{"a": [1]}], "name": "x"}], "entry 1: found id [{'a': [1]}], expected a whole number"),
    ([{"id": 1, "name": {"a": [{}]}}], "entry 1: found name {'a': [{}]}, expected the name of a class"),
    ("", "classes.csv, line 1: found columns ''"),
    ("id,title\n1,a\n", "classes.csv, line 1: found columns 'id, title', expected id, name and colour"),
    ("name\na\n", "classes.csv, line 1: found columns 'name'"),
    ("id,name,r,g\n1,a,1,2\n", "classes.csv, line 1: found columns"),
    ("id,name,colour,color\n1,a,1 2 3,1 2 3\n", "classes.csv, line 1: found columns"),
    ("id,name,colour\n1,a,1,2,3\n", "classes.csv, line 2: found 5 cells, expected 3 as in line 1"),
    ('id,name\n1,"a\n2,b\n', "classes.csv, line 3: cannot be read (unexpected end of data), check its quotes"),
    ("id,name\n1,a\n\nx,b\n", "classes.csv, line 4: found id 'x', expected a whole number from 0 to 65535"),
    ("id,name\n1.0,a\n", "found id '1.0'"),
    ("id,name\n-1,a\n", "found id '-1'"),
    ("id,name\n65536,a\n", "found id '65536'"),
    ("id,name\n" + "9" * 5000 + ",a\n", "found id '999"),
    ("id,name\n1,a\n01,b\n", "line 3: found id 1, which an earlier row has, expected each id once"),
    ("id,name\n1,a\n2,a\n", "line 3: found name 'a', which an earlier row has"),
    ("id,name\n1, \n", "line 2: found name ''"),
    ("id,name,colour\n1,a,1 2 3\n2,b,#010203\n", "line 3: found colour '#010203', which an earlier row has"),
    ("name,colour\na,1 2 3\nvoid,1 2 3\n", "line 3: found colour '1 2 3', which an earlier row has"),
    ("name,colour\na,1 2 256\n", "line 2: found colour '1 2 256', expected three whole numbers from 0 to 255"),
    ("name,colour\na,red\n", "found colour 'red'"),
    ("name,colour\na,#12345\n", "found colour '#12345'"),
    ("name,r,g,b\na,1,,3\n", "found colour '1  3'"),
    ("id,name,colour\n1,a,1 2 3\n2,b,\n", "line 3: found id of 'b', expected id and colour as in the first"),
    ("id,name,colour\n1,a,\n,void,\n", "line 3: found neither id nor colour of 'void', expected id"),
    ("id,name\n0,void\n", "classes.csv: found 0 classes (void is none), expected 1 to 254"),
    ("id,name\n" + "".join(f"{n},c{n}\n" for n in range(300)), "found 300 classes (void is none), expected 1 to 254"),
    ([], "classes.json: found 0 classes"),
    ({"names": []}, "classes.json: found {'names': []}, expected a list"),
    ({"classes": {"road": 1}}, "classes.json: found {'classes': {'road': 1}}, expected a list"),
    (3, "classes.json: found 3, expected a list: [{\"id\": 0"),
    (["road"], "classes.json, entry 1: found 'road', expected entries"),
    ([{"id": 1, "name": "a"}, {"id": 2}], "classes.json, entry 2: found name None"),
    ([{"id": 1, "name": 5}], "found name 5"),
    ([{"id": 1.0, "name": "a"}], "found id 1.0"),
    ([{"id": True, "name": "a"}], "found id True"),
    ([{"name": "a b", "colour": [1, 2]}], "found colour [1, 2]"),
    ([{"name": "a", "colour": [0.5, 0, 0]}], "found colour [0.5, 0, 0]"),
    ([{"name": "a", "colour": {"r": 1}}], "found colour {'r': 1}"),
    ([{"name": "a"}], "found neither id nor colour of 'a'"),
])
def test_mistakes_in_the_class_table(tmp_path, classes, words):
    write(tmp_path, classes=classes)
    assert words in message(tmp_path)


def test_malformed_json(tmp_path):
    write(tmp_path, classes=[])
    (tmp_path / "classes.json").write_text('[{"id": 1,\n}]')
    assert "classes.json: cannot be read as JSON (" in message(tmp_path) and "line" in message(tmp_path)
    (tmp_path / "classes.json").write_text("[" * 10**5)
    assert "classes.json: cannot be read as JSON (maximum recursion depth" in message(tmp_path)


def test_unknown_split(tmp_path):
    with pytest.raises(DatasetError, match="found no split 'test', expected one of train, val; test needs a list"):
        folder.load(write(tmp_path), "test")
