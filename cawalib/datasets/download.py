"""Archives: fetched with their checksum, going on where a transfer broke; unpacked so that nothing leaves the folder.

Downloading is pooch's work. What it lacks, going on with a broken transfer, is added where it lets one: a downloader.
Unpacking is done with the standard library's zipfile, after checks that neither it nor torchvision's `extract_archive`
makes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
import zipfile
from pathlib import Path, PurePosixPath

import pooch
import requests

from cawalib.datasets.base import DatasetError
from cawalib.datasets.layouts import Archive
from cawalib.files import atomic
from cawalib.progress import progress

ATTEMPTS = 5  # to go on with a transfer that brought nothing new
PAUSE = 2.0  # seconds before the next one
TIMEOUT = (10, 60)  # seconds to connect, and between two blocks
BLOCK = 1 << 16  # bytes; what is lost at most when a transfer breaks


# ---------------------------------------------------------------- fetching

def fetch(archive: Archive, folder) -> Path:
    """Download an archive; one that is there with the right checksum is not fetched again.

    What came of a broken transfer stays beside it as `.NAME.part`, and the next call goes on from there.

    Raises:
        DatasetError: no room, a folder that cannot be written, a transfer that fails, a wrong checksum.
    """
    folder = Path(folder)
    part = folder / f".{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, archive.size - _size(part), archive.name)
        pooch.get_logger().setLevel("WARNING")  # it announces each file on stderr
        path = pooch.retrieve(archive.url, f"sha1:{archive.sha1}" if archive.sha1 else None, archive.name, folder,
                              downloader=lambda url, output, _: _download(url, Path(output), part, archive))
    except OSError as error:
        raise DatasetError(f"parameter 'data_root': {folder} cannot be written ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{archive.name}: what {archive.url} sent has another checksum than sha1 {archive.sha1}, so "
                           "it was thrown away; try again, or put the file there by hand") from None
    if not archive.sha1:
        print(f"{archive.name}: no checksum was published for it; its members' own are checked.")
    return Path(path)


def _download(url, output, part, archive):
    """Fetch a file, going on after each break as long as something new comes."""
    tried, error = 0, None
    while tried < ATTEMPTS:
        before = _size(part)
        try:
            _transfer(url, part, archive)
            os.replace(part, output)
            _validator(part).unlink(missing_ok=True)
            return
        except requests.HTTPError as found:
            if found.response.status_code < 500:
                error = found
                break
            error = found
        except requests.RequestException as found:
            error = found
        tried = 0 if _size(part) > before else tried + 1
        time.sleep(PAUSE if tried else 0)
    reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
    raise DatasetError(f"{archive.name}: cannot be fetched from {url} ({reason}); {_size(part) / 1e6:.1f} MB came. "
                       f"Start again to go on from there, or put {archive.name} into {part.parent} by hand")


def _transfer(url, part, archive):
    """One request; what it brings is added to the part, or begins it anew if the server does not go on."""
    have, headers = _size(part), {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        with contextlib.suppress(OSError, ValueError, KeyError):
            # asks for the rest only of the very file that the part is of
            headers["If-Range"] = json.loads(_validator(part).read_text())["validator"]
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing after what we have: it is whole, or of another file
            part.unlink()
            raise requests.ConnectionError("the server has no more than the part at hand; it is fetched anew")
        answer.raise_for_status()
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status_code == 206 and not goes_on:
            part.unlink()
            raise requests.ConnectionError("the server sent another range than it was asked for")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _remember(part, answer.headers)
        with open(part, "ab" if goes_on else "wb") as file, progress(
                total=total or archive.size or None, desc=archive.name, initial=have, unit="B", unit_scale=True) as bar:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) != total:
        raise requests.ConnectionError(f"the transfer ended after {_size(part)} of {total} bytes")


def _validator(part):
    return part.with_name(f"{part.name}.json")


def _remember(part, headers):
    """Keep by what the server tells this version of the file from another one."""
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    _validator(part).unlink(missing_ok=True)
    if validator:
        _validator(part).write_text(json.dumps({"validator": validator}))


def _size(path):
    return path.stat().st_size if path.is_file() else 0


def _check_room(folder, needed, name):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(f"parameter 'data_root': {name} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are "
                           f"free in {folder}; make room or choose another folder")


def verify(archive: Archive, path) -> None:
    """Raises DatasetError if a file has another SHA-1 than the archive's; without a known one, nothing is checked."""
    if not archive.sha1:
        return
    path, digest = Path(path), hashlib.sha1()
    bar = progress(total=path.stat().st_size, desc=f"checking {archive.name}", unit="B", unit_scale=True)
    with open(path, "rb") as file, bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != archive.sha1:
        raise DatasetError(f"{path}: found sha1 {digest.hexdigest()}, expected {archive.sha1}; the file is damaged, or "
                           "another one: fetch it again")


# ---------------------------------------------------------------- unpacking

def unpack(path, folder, keep: tuple[str, ...] = ()) -> int:
    """Unpack a zip file, every member below the folder; what is there already in the right size is left.

    Args:
        keep: endings of the members that are needed; () for all.

    Returns:
        How many files were written.

    Raises:
        DatasetError: a member that would leave the folder or is no plain file (then nothing was written), a damaged
            archive, no room, another file in a member's place.
    """
    path, folder = Path(path), Path(folder)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _checked(path, member)]
            members = [member for member in members if not keep or member.filename.endswith(tuple(keep))]
            _check_unique(path, members)
            missing = [member for member in members if not _is_there(folder, member)]
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(folder, sum(member.file_size for member in missing), f"unpacking {path.name}")
            for member in progress(missing, len(missing), f"unpacking {path.name}"):
                _write(archive, member, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zipfile.zlib.error) as error:
        raise DatasetError(f"{path}: damaged or no zip archive ({error}); fetch it again") from None
    except OSError as error:
        raise DatasetError(f"parameter 'data_root': {folder} cannot be written ({error.strerror or error})") from None
    return len(missing)


def _checked(path, member):
    """Whether a member is a file to unpack; DatasetError if it is one that no honest archive of images has."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or any(":" in one for one in parts)
    if outside or not parts:
        raise DatasetError(f"{path}: its member {name!r} would leave the folder; nothing was unpacked")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{path}: its member {name!r} is a link or device, no plain file; nothing was unpacked")
    if member.flag_bits & 1:
        raise DatasetError(f"{path}: its member {name!r} is encrypted, expected plain files; nothing was unpacked")
    return not member.is_dir() and parts[0] != "__MACOSX"


def _check_unique(path, members):
    seen = {}
    for member in members:
        if (key := member.filename.casefold()) in seen:  # one file on a disk that does not tell cases apart
            raise DatasetError(f"{path}: its members {seen[key]!r} and {member.filename!r} are of one name; nothing "
                               "was unpacked")
        seen[key] = member.filename


def _is_there(folder, member):
    target = folder / member.filename
    for parent in target.relative_to(folder).parents:
        if (folder / parent).is_symlink() and parent != Path("."):
            raise DatasetError(f"{folder / parent}: is a link, through which an archive is not unpacked")
    if target.is_file() and target.stat().st_size == member.file_size:
        return True
    if target.exists() or target.is_symlink():
        raise DatasetError(f"{target}: is there but not as in the archive (expected {member.file_size} bytes); it is "
                           "not overwritten: move it away")
    return False


def _write(archive, member, folder):
    target = folder / member.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, atomic(target) as partial:
        with open(partial, "wb") as file:
            shutil.copyfileobj(source, file, BLOCK)  # reading to the end checks the member's CRC
