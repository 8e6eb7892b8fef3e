"""Data sets that torchvision reads and downloads, and what went wrong where one could not be read."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

from stabdeq.data.batches import Parts
from stabdeq.errors import DataError

# What torchvision's readers raise on missing, truncated, corrupt or foreign files, and on a failed download.
READ_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    EOFError,
    HTTPException,
    UnpicklingError,
)


@dataclass(frozen=True)
class DownloadedSet:
    """The set ``name``, read from a folder by ``read_files(folder, download)``.

    ``files`` are those that torchvision stores, within the folder: they tell a set that is missing from one that is unreadable.
    """

    name: str
    files: tuple[str, ...]
    read_files: Callable[[Path, bool], Parts]

    def __call__(self, data_dir: Path | None, download: bool) -> Parts:
        """Return the parts of the set in ``data_dir``, fetched first where it is missing and ``download`` asks for it.

        Raises DataError where it is missing, unreadable, or could not be fetched.
        """
        if data_dir is None:
            raise DataError(
                f"data set {self.name!r} is not embedded: say with --data-dir DIR where it lies (add --download to fetch it)"
            )
        try:
            return self.read_files(data_dir, download)
        except READ_ERRORS as error:
            raise self._failure(data_dir, error, download) from error

    def _failure(self, root: Path, error: Exception, download: bool) -> DataError:
        """Tell apart a download that failed, data that are missing, and data that are there but unreadable."""
        name = self.name
        cause = " ".join(str(error).split()) or type(error).__name__
        command = f"`stabdeq train {name} --data-dir {shlex.quote(str(root))} --download`"
        missing = [root / file for file in self.files if not (root / file).is_file()]
        if download and (missing or isinstance(error, URLError | HTTPException)):
            return DataError(
                f"{name} could not be downloaded into {root}: {cause}: "
                f"check the network, or put {', '.join(self.files)} there yourself"
            )
        if missing:
            return DataError(f"no {name} data: looked for {missing[0]}; download them with {command}")
        return DataError(
            f"{name} in {root} is truncated or corrupt: {cause}; delete its files and download them again with {command}"
        )
