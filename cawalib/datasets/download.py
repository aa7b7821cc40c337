"""Archives: fetched with their checksum, going on where a transfer broke; unpacked so that nothing leaves the folder.

Downloading is pooch's work. What it lacks, going on with a broken transfer, is added where it lets one: a downloader.
Unpacking is done with the standard library's zipfile, after checks that neither it nor torchvision's `extract_archive`
makes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
import unicodedata
import zipfile
import zlib
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

def fetch(archive: Archive, folder, progress=progress) -> Path:
    """Download an archive; one that is there with the right checksum is not fetched again.

    What came of a broken transfer stays beside it as `.NAME.part`, and the next call goes on from there.

    Args:
        progress: makes the bar, from what `cawalib.progress.progress` takes.

    Raises:
        DatasetError: no room, a folder that cannot be written, a transfer that fails, a wrong checksum.
    """
    folder = Path(folder)
    part = folder / f".{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pooch.get_logger().setLevel("WARNING")  # it announces each file on stderr
        path = pooch.retrieve(archive.url, f"sha1:{archive.sha1}" if archive.sha1 else None, archive.name, folder,
                              downloader=lambda url, output, _: _download(url, Path(output), part, archive, progress))
    except OSError as error:
        raise DatasetError(f"parameter 'data_root': {folder} cannot be written ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        # pooch tells the checksum in words only; to find it ourselves would read 20 GB a second time
        found = re.search(r"but got (\w+)|$", str(error))[1]
        raise DatasetError(f"{archive.name}: what {archive.url} sent has sha1 {found}, expected {archive.sha1}; it was "
                           f"thrown away: try again, or put {archive.name} into {folder} by hand") from None
    if not archive.sha1:
        print(f"{archive.name}: no checksum was published for it; its members' own are checked.")
    return Path(path)


def _download(url, output, part, archive, progress):
    """Fetch a file, going on after each break as long as something new comes."""
    most = _size(part)  # ever; a server that lets nobody go on may break a little later now and then, without end
    _check_room(part.parent, archive.size - most, archive.name)
    tried, error = 0, None
    while tried < ATTEMPTS:
        try:
            _transfer(url, part, archive, progress)
            os.replace(part, output)
            _validator(part).unlink(missing_ok=True)
            return
        except requests.RequestException as found:
            error = found
        if isinstance(error, requests.HTTPError) and not _is_passing(error.response.status_code):
            break
        tried, most = (0, _size(part)) if _size(part) > most else (tried + 1, most)
        time.sleep(PAUSE if tried else 0)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    of = f" of about {archive.size / 1e6:.1f}" if archive.size else ""
    raise DatasetError(f"{archive.name}: cannot be fetched from {url} ({reason}); {_size(part) / 1e6:.1f}{of} MB came. "
                       f"Start again to go on from there, or put {archive.name} into {part.parent} by hand")


def _is_passing(status):
    return status >= 500 or status in (408, 429)  # timed out, too many requests


def _transfer(url, part, archive, progress):
    """One request; what it brings is added to the part, or begins it anew if the server does not go on."""
    have, known, headers = _size(part), None, {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        with contextlib.suppress(OSError, ValueError, KeyError):
            # asks for the rest only of the very file that the part is of
            known = headers["If-Range"] = json.loads(_validator(part).read_text())["validator"]
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing after what we have: it is whole, or of another file
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server has no more than the part at hand; it is fetched anew")
        answer.raise_for_status()
        goes_on = answer.status_code == 206
        if goes_on and not (answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
                            and _is_of(known, answer.headers)):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server sent another part, or of another file, than it was asked for")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with open(part, "ab" if goes_on else "wb") as file, progress(
                total=total or archive.size or None, desc=archive.name, initial=have, unit="B", unit_scale=True) as bar:
            if not goes_on:  # after the old part was emptied: never may a new validator stand beside old bytes
                _remember(part, answer.headers)
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


def _is_of(known, headers):
    """Whether an answer is of the version remembered, as far as it tells; some servers do not look at If-Range."""
    return not known or headers.get("ETag" if known.startswith('"') else "Last-Modified", known) == known


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
    if path.suffix.lower() != ".zip":
        raise DatasetError(f"{path}: only zip archives are unpacked, found '{path.suffix}'; unpack it by hand")
    if not path.is_file():
        raise DatasetError(f"{path}: not found, expected a zip archive")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _checked(path, member)]
            _check_unique(path, members)
            members = [member for member in members if not keep or member.filename.endswith(tuple(keep))]
            missing = [member for member in members if not _is_there(folder, member)]
            folder.mkdir(parents=True, exist_ok=True)
            # the bound for zip bombs, too: no member gets longer than the size it declares
            _check_room(folder, sum(member.file_size for member in missing), f"unpacking {path.name}")
            for member in progress(missing, len(missing), f"unpacking {path.name}"):
                _write(archive, member, folder)
    except DatasetError:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged or no zip archive ({error}); fetch it again") from None
    except OSError as error:
        if error.errno == errno.EINVAL and not error.filename:  # zipfile went where the archive's numbers sent it
            raise DatasetError(f"{path}: damaged or no zip archive (bad offset); fetch it again") from None
        raise DatasetError(f"parameter 'data_root': {folder} cannot be written ({error.strerror or error})") from None
    return len(missing)


def _checked(path, member):
    """Whether a member is a file to unpack; DatasetError if it is one that no honest archive of images has."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    parts = PurePosixPath(name).parts
    # dots and spaces at the end of a part are dropped on Windows, so that "... " may be ".." there
    if not parts or name.startswith("/") or any(not part.strip(". ") for part in parts) or any(
            letter in "\\:\x7f" or letter < " " for letter in name):
        raise DatasetError(f"{path}: its member {name!r} would leave the folder or has no plain name; nothing was "
                           "unpacked")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{path}: its member {name!r} is a link or device, no plain file; nothing was unpacked")
    if member.flag_bits & 1:
        raise DatasetError(f"{path}: its member {name!r} is encrypted, expected plain files; nothing was unpacked")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DatasetError(f"{path}: its member {name!r} is packed in a way (method {member.compress_type}) other than "
                           "deflate; nothing was unpacked")
    return not member.is_dir() and parts[0] != "__MACOSX"


def _check_unique(path, members):
    """Raises DatasetError if two members would be one file on some disk, or one would be the folder of another."""
    seen = {}
    for member in members:
        # disks may not tell apart: a//b and a/b, upper and lower case, ways to write an accent, "a" and "a. "
        parts = (part.rstrip(". ") for part in PurePosixPath(member.filename).parts)
        key = unicodedata.normalize("NFC", "/".join(parts).casefold())
        if key in seen:
            raise DatasetError(f"{path}: its members {seen[key]!r} and {member.filename!r} are of one name; nothing "
                               "was unpacked")
        seen[key] = member.filename
    for key, name in seen.items():
        for parent in map(str, PurePosixPath(key).parents):
            if parent in seen:
                raise DatasetError(f"{path}: its member {seen[parent]!r} is a file and the folder of {name!r}; nothing "
                                   "was unpacked")


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
