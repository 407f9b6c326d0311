"""What an archive holds: every content once, and what cannot be reached with the reason why.

A symbolic link to something that is in the archive under its own name is left out. Links to contents elsewhere, as those of
git-annex into a hidden folder, count under the first name. Hidden files and folders are left out, and counted.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from microaction.storage.listing import StoredFile, list_remote
from microaction.storage.locations import absolute, is_remote

HALF_WRITTEN_SUFFIX = ".tmp"
ANNEX_FOLDER = "/annex/objects/"


@dataclass(frozen=True)
class ArchivedFile(StoredFile):
    """A file of an archive, or a folder that cannot be opened, with a slash after its name.

    `reason`: why its content cannot be reached, or empty.
    """

    reason: str = ""


@dataclass
class ArchiveListing:
    """The files of an archive. While they are iterated, `num_hidden` counts hidden files and folders."""

    location: str
    num_hidden: int = 0

    def __iter__(self) -> Iterator[ArchivedFile]:
        """Yield every file. Raises `FileNotFoundError` if there is nothing, and `StorageError` if a store refuses the listing."""
        location = absolute(self.location)
        is_empty = True
        for file in self._remote(location) if is_remote(location) else self._local(location):
            is_empty = False
            yield file
        if is_empty and not self.num_hidden:
            raise FileNotFoundError(f"no files below {location}: check the spelling, or put files there")

    def _remote(self, location: str) -> Iterator[ArchivedFile]:
        hidden: set[str] = set()
        for file in list_remote(location):
            parts = file.uri[len(location) :].split("/")
            index = next((i for i, part in enumerate(parts) if _is_hidden(part)), None)
            if index is not None:
                hidden.add("/".join(parts[: index + 1]))
                self.num_hidden = len(hidden)
            elif parts[-1] or len(parts) == 1:  # names that end in a slash stand for folders
                yield ArchivedFile(file.uri, file.size_bytes, file.version)

    def _local(self, location: str) -> Iterator[ArchivedFile]:
        if os.path.isfile(location):
            yield _local_file(location)
        elif os.path.isdir(location):
            walk = _LocalWalk(location)
            for file in walk:
                self.num_hidden = walk.num_hidden
                yield file
            self.num_hidden = walk.num_hidden


@dataclass
class _LocalWalk:
    root: str
    num_hidden: int = 0
    _links: list[str] = field(default_factory=list)
    # Contents with several names, listed under the first one.
    _hard_links: set[tuple[int, int]] = field(default_factory=set)
    # Real paths of the archive and of linked folders.
    _roots: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[ArchivedFile]:
        self._roots = [os.path.realpath(self.root)]
        yield from self._folder(self.root)
        linked: set[str] = set()
        while self._links:
            links, self._links = sorted(self._links, key=lambda link: (os.path.realpath(link), link)), []
            for link in links:
                target = os.path.realpath(link)
                if target in linked or any(_is_listed_below(target, root) for root in self._roots):
                    continue
                linked.add(target)
                if os.path.isdir(link):
                    self._roots.append(target)
                    yield from self._folder(link)
                elif os.path.isfile(link):
                    yield _local_file(link)
                else:
                    yield ArchivedFile(_printable(link), 0, "", _why_unreachable(link))

    def _folder(self, folder: str) -> Iterator[ArchivedFile]:
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:  # deleted since it was listed
            return
        except OSError as error:
            reason = f"the folder cannot be opened: {_cause(error)}"
            yield ArchivedFile(_printable(folder) + "/", 0, "", reason)
            return
        for entry in entries:
            if _is_hidden(entry.name):
                self.num_hidden += 1
            elif entry.is_symlink():
                self._links.append(entry.path)
            elif entry.is_dir():
                if os.path.realpath(entry.path) not in self._roots:  # a linked folder may hold the archive itself
                    yield from self._folder(entry.path)
            elif entry.is_file():
                yield from self._file(entry)
            else:
                yield ArchivedFile(_printable(entry.path), 0, "", "it is neither a file nor a folder")

    def _file(self, entry: os.DirEntry[str]) -> Iterator[ArchivedFile]:
        try:
            stat = entry.stat()
        except FileNotFoundError:
            return
        if stat.st_nlink > 1:
            identity = (stat.st_dev, stat.st_ino)
            if identity in self._hard_links:
                return
            self._hard_links.add(identity)
        yield _local_file(entry.path)


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name.endswith(HALF_WRITTEN_SUFFIX)


def _is_listed_below(path: str, root: str) -> bool:
    """Return whether a real path is in a folder under a name that is not hidden."""
    if path == root:
        return True
    if not path.startswith(root.rstrip("/") + "/") or not os.path.exists(path):
        return False
    return not any(_is_hidden(part) for part in path[len(root) :].split("/"))


def _local_file(path: str) -> ArchivedFile:
    name = _printable(path)
    try:
        stat = os.stat(path)
    except OSError as error:
        return ArchivedFile(name, 0, "", f"cannot be opened: {_cause(error)}")
    version = f"{stat.st_size}-{stat.st_mtime_ns}"
    if name != path:
        return ArchivedFile(
            name, stat.st_size, version, "its name is not UTF-8: rename the file or folder, then run again"
        )
    return ArchivedFile(name, stat.st_size, version)


def _why_unreachable(link: str) -> str:
    target = os.readlink(link)
    try:
        os.stat(link)
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"its content cannot be reached: it is a link to {_printable(target)}: {_cause(error)}"
    else:
        return f"it is a link to {_printable(target)}, which is neither a file nor a folder"
    what = f"its content is not here: it is a link to {_printable(target)}, which does not exist"
    return f"{what}; `git annex get` fetches it" if ANNEX_FOLDER in target else what


def _printable(path: str) -> str:
    """Return a path as text, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
