"""Archives from a server that breaks, lies and changes its mind; and archives that nobody should unpack."""

import dataclasses
import hashlib
import io
import os
import socket
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from cawalib.datasets import DatasetError, ade20k, cityscapes, cocostuff, download, layouts, preparation
from cawalib.datasets.download import fetch, unpack, verify
from cawalib.datasets.layouts import Archive
from cawalib.progress import progress

HALF = 150_000 // download.BLOCK * download.BLOCK  # what is kept of a transfer that breaks half way
CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))


class Server(ThreadingHTTPServer):
    """Serves `files`; `behave` names what is done wrong, `requests` are (path, Range header) as they came."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.behave, self.requests, self.etag = {}, set(), [], '"one"'
        self.closing = threading.Event()

    def archive(self, name, content=CONTENT, **changes):
        self.files[f"/{name}"] = content
        return Archive(name, hashlib.sha1(content).hexdigest(),
                       f"http://127.0.0.1:{self.server_address[1]}/{name}", len(content), **changes)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append((self.path, asked))
        if "hang" in server.behave:
            return server.closing.wait(30)
        if self.path not in server.files or "nothing" in server.behave or len(server.requests) > 50:  # so that it ends
            return self.send_error(404)
        content = server.files[self.path]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and "no ranges" not in server.behave else 0
        other = self.headers.get("If-Range", server.etag) != server.etag
        if start and other and "no If-Range" not in server.behave:
            start = 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            first = 0 if "other range" in server.behave else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if "no length" not in server.behave:
            length = len(content) - (first if start else 0)
            self.send_header("Content-Length", "many" if "bad length" in server.behave else str(length))
        self.send_header("ETag", server.etag)
        self.end_headers()
        body = content[first if start else 0:]
        if "break once" in server.behave or "break always" in server.behave:
            server.behave.discard("break once")
            body = body[:len(body) // 2 if "break once" not in server.behave and start == 0 else 0]
        if "break in turn" in server.behave:
            body = body[:len(body) * (4 if len(server.requests) % 2 else 8) // 10]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def refused(words):
    return pytest.raises(DatasetError, match=words)


def one_line(caught):
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- fetching

def test_a_broken_transfer_goes_on_half_way(server, tmp_path):
    server.behave.add("break once")
    path = fetch(server.archive("a.zip"), tmp_path / "new")
    assert path == tmp_path / "new" / "a.zip" and path.read_bytes() == CONTENT
    assert server.requests == [("/a.zip", None), ("/a.zip", f"bytes={HALF}-")]
    assert os.listdir(tmp_path / "new") == ["a.zip"]  # nothing else is left


def test_a_later_call_goes_on_where_the_last_one_gave_up(server, tmp_path):
    server.behave.add("break always")
    archive = server.archive("a.zip")
    with refused("a.zip: cannot be fetched from .*; 0.1 of about 0.3 MB came. Start again to go on from there, or put "
                 "a.zip into") as caught:
        fetch(archive, tmp_path)
    one_line(caught)
    assert not (tmp_path / "a.zip").exists() and (tmp_path / ".a.zip.part").read_bytes() == CONTENT[:HALF]
    server.behave.clear()
    server.requests.clear()
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a.zip", f"bytes={HALF}-")]


@pytest.mark.parametrize("behaviour", [{"no ranges", "break in turn"}, {"other range", "break in turn"}])
def test_a_server_that_never_gets_further_is_given_up(server, tmp_path, behaviour):
    server.behave |= behaviour
    with refused("a.zip: cannot be fetched"):
        fetch(server.archive("a.zip"), tmp_path)
    assert len(server.requests) < 4 * download.ATTEMPTS


def test_a_server_that_says_nothing_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (10, 0.05))
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.behave.add("hang")
    with refused("a.zip: cannot be fetched .*ReadTimeout.*0.0 of about 0.3 MB came") as caught:
        fetch(server.archive("a.zip"), tmp_path)
    one_line(caught)


def test_the_bar_can_be_another(server, tmp_path):
    bars = []

    def bar(**settings):
        bars.append(settings)
        return progress(**settings)

    server.behave.add("break once")
    fetch(server.archive("a.zip"), tmp_path, bar)
    assert [(one["initial"], one["total"]) for one in bars] == [(0, len(CONTENT)), (HALF, len(CONTENT))]


def test_what_is_there_is_not_fetched_again(server, tmp_path, monkeypatch):
    archive = server.archive("a.zip")
    fetch(archive, tmp_path)
    server.requests.clear()
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: _Free(5))  # what is there needs no room
    assert fetch(archive, tmp_path).read_bytes() == CONTENT and server.requests == []


def test_another_file_is_thrown_away(server, tmp_path):
    archive = dataclasses.replace(server.archive("a.zip"), sha1="0" * 40)
    found = hashlib.sha1(CONTENT).hexdigest()
    with refused(f"a.zip: what .* sent has sha1 {found}, expected {'0' * 40}; .*: try again, or put") as caught:
        fetch(archive, tmp_path)
    one_line(caught)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("behaviour", [set(), {"no If-Range"}])
def test_a_file_changed_on_the_server_is_not_glued_to_the_old_part(server, tmp_path, behaviour):
    server.behave.add("break always")
    with refused("cannot be fetched"):
        fetch(server.archive("a.zip"), tmp_path)
    server.behave = behaviour
    server.etag, other = '"two"', CONTENT[::-1]
    server.requests.clear()
    assert fetch(server.archive("a.zip", other), tmp_path).read_bytes() == other
    assert len(server.requests) == 1 + len(behaviour)  # the first one is enough where If-Range is understood


@pytest.mark.parametrize("behaviour", [{"no ranges", "break once"}, {"no length"}, {"no ranges", "no length"},
                                       {"bad length"}, {"other range", "break once"}])
def test_servers_that_can_do_less(server, tmp_path, behaviour):
    server.behave |= behaviour
    assert fetch(server.archive("a.zip"), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT + b"more")
    assert fetch(server.archive("a.zip"), tmp_path).read_bytes() == CONTENT


def test_without_a_checksum_it_is_said(server, tmp_path, capfd):
    archive = dataclasses.replace(server.archive("a.zip"), sha1="")
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    out, err = capfd.readouterr()
    assert "no checksum was published" in out and err == ""


def test_missing_unreachable_unwritable_full(server, tmp_path, monkeypatch):
    archive = server.archive("a.zip")
    server.behave.add("nothing")
    with refused("a.zip: cannot be fetched .*404") as caught:
        fetch(archive, tmp_path)
    one_line(caught)
    assert len(server.requests) == 1  # what is not there is not asked for again
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        with refused("a.zip: cannot be fetched .*ConnectionError") as caught:
            fetch(dataclasses.replace(archive, url=f"http://127.0.0.1:{taken.getsockname()[1]}/a.zip"), tmp_path)
    one_line(caught)
    (tmp_path / "file").write_text("")
    with refused("parameter 'data_root': .*file cannot be written") as caught:
        fetch(archive, tmp_path / "file")
    one_line(caught)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: _Free(5))
    with refused("parameter 'data_root': a.zip needs 0.0 GB more, 0.0 GB are free"):
        fetch(archive, tmp_path)


@dataclasses.dataclass
class _Free:
    free: int


def test_a_file_put_there_by_hand(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    verify(Archive("a.zip", hashlib.sha1(CONTENT).hexdigest()), path)
    verify(Archive("a.zip", ""), path)
    with refused(f"a.zip: found sha1 {hashlib.sha1(CONTENT).hexdigest()}, expected 1111"):
        verify(Archive("a.zip", "1" * 40), path)


# ---------------------------------------------------------------- unpacking

def zipped(path, members):
    """A zip file of name (or ZipInfo) -> content."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # that a name is there twice
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def squeezed(name, method):
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info


@pytest.mark.parametrize("bad, words", [
    ([("../evil.txt", "x")], "member '../evil.txt' would leave the folder"),
    ([("a/../../evil.txt", "x")], "would leave the folder"),
    ([("/evil.txt", "x")], "member '/evil.txt' would leave the folder"),
    ([("..\\evil.txt", "x")], "would leave the folder"),
    ([("C:/evil.txt", "x")], "would leave the folder"),
    ([("... /evil.txt", "x")], "would leave the folder"),
    ([("new\nline.txt", "x")], "member 'new\\\\nline.txt' would leave the folder or has no plain name"),
    ([(special("evil", 0o120777), "/etc/passwd")], "member 'evil' is a link or device"),
    ([(special("evil", 0o020666), "")], "member 'evil' is a link or device"),
    ([(squeezed("b.txt", zipfile.ZIP_LZMA), "x")], "member 'b.txt' is packed in a way"),
    ([("a.txt", "y")], "members 'a.txt' and 'a.txt' are of one name"),
    ([("A.txt", "y")], "members 'a.txt' and 'A.txt' are of one name"),
    ([("./a.txt", "y")], "members 'a.txt' and './a.txt' are of one name"),
    ([("b/c.txt", "y"), ("b//c.txt", "z")], "members 'b/c.txt' and 'b//c.txt' are of one name"),
    ([("\u00e9.txt", "y"), ("e\u0301.txt", "z")], "are of one name"),
    ([("a.txt/b.txt", "y")], "member 'a.txt' is a file and the folder of 'a.txt/b.txt'"),
    ([("dropped.json", "y"), ("dropped.json", "z")], "are of one name"),
])
def test_nothing_is_unpacked_of_a_bad_archive(tmp_path, bad, words):
    path = zipped(tmp_path / "bad.zip", [("a.txt", "fine"), *bad])
    with refused(words) as caught:
        unpack(path, tmp_path / "in" / "here", (".txt", "evil"))
    one_line(caught)
    assert sorted(os.listdir(tmp_path)) == ["bad.zip"] and not os.path.exists("/evil.txt")


def test_encrypted_damaged_and_no_archives(tmp_path):
    content = zipped(tmp_path / "a.zip", [("a.txt", "some text")]).read_bytes()
    directory = content.index(b"PK\x01\x02")
    flagged = bytearray(content)
    flagged[6] |= 1
    flagged[directory + 8] |= 1
    badly_named = zipped(tmp_path / "u.zip", [("\u00e9.txt", "")]).read_bytes().replace(b"\xc3\xa9", b"\xc3\x28")
    end = content.index(b"PK\x05\x06")  # a directory longer than the file
    for name, damaged, words in (
            ("end.zip", content[:end + 12] + b"\xff\xff\xff\x00" + content[end + 16:], "damaged or no zip archive"),
            ("name.zip", badly_named, "damaged or no zip archive .*decode"),
            ("flag.zip", flagged, "member 'a.txt' is encrypted"),
            ("crc.zip", content.replace(b"some text", b"same text"), "damaged or no zip archive .*CRC"),
            ("cut.zip", content[:50], "damaged or no zip archive"), ("text.zip", b"text", "damaged or no zip archive")):
        (tmp_path / name).write_bytes(damaged)
        with refused(f"{name}: .*{words}") as caught:
            unpack(tmp_path / name, tmp_path / "out")
        one_line(caught)
        assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_other_kinds_of_archives_and_none(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    for name, folder, words in (("a.tar", "out", "a.tar: only zip archives are unpacked, found '.tar'; unpack it by"),
                                ("gone.zip", "out", "gone.zip: not found, expected a zip archive"),
                                ("a.zip", "a.tar", "parameter 'data_root': .*a.tar cannot be written")):
        zipped(tmp_path / "a.zip", [("a.txt", "some text")])
        with refused(words) as caught:
            unpack(tmp_path / name, tmp_path / folder)
        one_line(caught)


def test_unpacking_takes_what_is_needed_and_goes_on(tmp_path, monkeypatch):
    members = [("d/", ""), ("d/a.png", "1"), ("d/b.json", "2"), ("e/c.png", "3"), ("__MACOSX/d/._a.png", "4")]
    path, folder = zipped(tmp_path / "a.zip", members), tmp_path / "out"
    original, written = download._write, []

    def stop_at_the_second(archive, member, folder):
        if written:
            raise KeyboardInterrupt
        written.append(member.filename)
        original(archive, member, folder)

    monkeypatch.setattr(download, "_write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        unpack(path, folder, (".png",))
    monkeypatch.setattr(download, "_write", original)
    assert unpack(path, folder, (".png",)) == 1 and unpack(path, folder, (".png",)) == 0
    found = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert found == {"d/a.png": "1", "e/c.png": "3"}


def test_what_is_there_is_not_overwritten(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", "new"), ("b.png", "new")])
    (tmp_path / "b.png").write_text("mine, and longer")
    with refused("b.png: is there but not as in the archive"):
        unpack(path, tmp_path)
    assert (tmp_path / "b.png").read_text() == "mine, and longer" and not (tmp_path / "a.png").exists()


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").symlink_to(tmp_path / "elsewhere")
    with refused("out/d: is a link"):
        unpack(zipped(tmp_path / "a.zip", [("d/a.png", "1")]), tmp_path / "out")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_no_room_to_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: _Free(5))
    with refused("unpacking a.zip needs"):
        unpack(zipped(tmp_path / "a.zip", [("a.png", "123456")]), tmp_path / "out")


# ---------------------------------------------------------------- the official archives in miniature

def picture(ending, value=None):
    array = np.full((4, 6), value, np.uint8) if value is not None else np.full((4, 6, 3), 90, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG" if ending == ".jpg" else "PNG")
    return stream.getvalue()


def miniature(tmp_path, name, members):
    return zipped(tmp_path / f"{name}.tmp", members).read_bytes()


ADE = [(f"ADEChallengeData2016/{kind}/{split}/ADE_{split[:5]}_0{number}{ending}",
        picture(ending, 1 if ending == ".png" else None))
       for kind, ending in (("images", ".jpg"), ("annotations", ".png"))
       for split in ("training", "validation") for number in (1, 2)]
ADE += [("ADEChallengeData2016/objectInfo150.txt", "text")]
CITY = {
    "leftImg8bit_trainvaltest.zip": [(f"leftImg8bit/{split}/ulm/ulm_{n}_leftImg8bit.png", picture(".png"))
                                     for split in ("train", "val", "test") for n in (1, 2)],
    "gtFine_trainvaltest.zip": [(f"gtFine/{split}/ulm/ulm_{n}_gtFine_{kind}.png", picture(".png", 7))
                                for split in ("train", "val", "test") for n in (1, 2)
                                for kind in ("labelIds", "instanceIds", "color")],
}
COCO = {
    "train2017.zip": [(f"train2017/00000000000{n}.jpg", picture(".jpg")) for n in (1, 2, 3)],
    "val2017.zip": [("val2017/000000000009.jpg", picture(".jpg"))],
    "stuffthingmaps_trainval2017.zip": [(f"{split}2017/00000000000{n}.png", picture(".png", 181))
                                        for split, n in (("train", 1), ("train", 2), ("train", 3), ("val", 9))],
}


def config(root, dataset, **settings):
    return preparation.PreparationConfig(dataset=dataset, data_root=str(root), outputs_root=str(root.parent),
                                         **settings)


def test_ade20k_from_a_server_that_breaks(server, tmp_path, capsys):
    server.behave.add("break once")
    archive = server.archive("ADEChallengeData2016.zip", miniature(tmp_path, "ade", ADE))
    dataset = dataclasses.replace(ade20k.DATASET, archives=(archive,))
    root = tmp_path / "ade20k"
    root.mkdir()
    preparation.obtain(config(root, "ade20k"), dataset)
    assert server.requests == []  # not asked to
    preparation.obtain(config(root, "ade20k", download=True), dataset)
    assert len(server.requests) == 2 and "files unpacked" in capsys.readouterr().out
    train = layouts.load(dataset, root, "train")
    assert len(train) == 2 and (train[0][1] == 0).all()
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    preparation.obtain(config(root, "ade20k", download=True), dataset)
    assert len(server.requests) == 2 and {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    for count, words in ((2, "Nothing to fetch"), (3, "unpacked before")):  # a split that is whole is not all of it
        capsys.readouterr()
        preparation.obtain(config(root, "ade20k"), dataclasses.replace(dataset, expected={"train": 2, "val": count}))
        assert words in capsys.readouterr().out


def test_cityscapes_archives_by_hand(tmp_path):
    root, archives = tmp_path / "cityscapes", []
    root.mkdir()
    for archive in cityscapes.DATASET.archives:
        (root / archive.name).write_bytes(content := miniature(tmp_path, archive.name, CITY[archive.name]))
        archives.append(dataclasses.replace(archive, sha1=hashlib.sha1(content).hexdigest()))
    preparation.obtain(config(root, "cityscapes"), dataclasses.replace(cityscapes.DATASET, archives=tuple(archives)))
    assert (layouts.load(cityscapes.DATASET, root, "val")[1][1] == 0).all()  # 7 is road
    assert not list(root.rglob("*_color.png")) and not list(root.rglob("*_instanceIds.png"))  # not needed
    with refused("gtFine_trainvaltest.zip: found sha1|leftImg8bit_trainvaltest.zip: found sha1"):
        preparation.obtain(config(root, "cityscapes"), cityscapes.DATASET)  # these are not the official ones


def test_cityscapes_says_what_to_fetch(tmp_path):
    table = preparation.inventory(config(tmp_path, "cityscapes"))
    for name in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
        assert name in table.loc[name, "state"] and "cityscapes-dataset.com" in table.loc[name, "state"]


@pytest.mark.parametrize("lists", [False, True])
def test_coco_archives(server, tmp_path, lists):
    dataset = cocostuff.DATASET_10K if lists else cocostuff.DATASET
    archives, contents = [], dict(COCO)
    if lists:
        contents["cocostuff-10k-v1.1.zip"] = [("imageLists/train.txt", "COCO_train2014_000000000001\n000000000002\n"),
                                              ("imageLists/test.txt", "COCO_train2014_000000000003\n")]
    for archive in dataset.archives:
        here = server.archive(archive.name, miniature(tmp_path, archive.name, contents[archive.name]))
        archives.append(dataclasses.replace(archive, url=here.url, sha1=here.sha1, size=here.size))
    root = tmp_path / "coco"
    root.mkdir()
    served = dataclasses.replace(dataset, archives=tuple(archives))
    preparation.obtain(config(root, dataset.name, download=True), served)
    sizes = {split: len(layouts.load(dataset, root, split)) for split in ("train", "val")}
    assert sizes == ({"train": 2, "val": 1} if lists else {"train": 3, "val": 1})
    assert (layouts.load(dataset, root, "train")[0][1] == 170).all()  # 181 is the last class
