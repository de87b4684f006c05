"""Every file and object operation of visavis, in one place.

::

    files.py    single files and folders: digests, atomic writes, Parquet, CSV, JSON
    places.py   where bases and results live: a folder
    buckets.py  or a prefix of an object store, with a cache of what was fetched
    locks.py    one process at a time
    faults.py   points at which tests let an operation fail or the process die

What is published for others (parts, manifests) goes through `Place.create`: durable, whole, and
never over something that stands there already.
"""

from visavis.store.buckets import local_file, open_place
from visavis.store.files import (
    check_readable,
    check_writable,
    file_digest,
    json_bytes,
    new_folder,
    parsed_json,
    read_bytes,
    read_json,
    read_parquet,
    reading,
    remove,
    write_bytes,
    write_csv,
    write_json,
    write_parquet,
)
from visavis.store.locks import FolderLock
from visavis.store.places import Folder, Place, bytes_digest

__all__ = [
    "Folder",
    "FolderLock",
    "Place",
    "bytes_digest",
    "check_readable",
    "check_writable",
    "file_digest",
    "json_bytes",
    "local_file",
    "new_folder",
    "open_place",
    "parsed_json",
    "read_bytes",
    "read_json",
    "read_parquet",
    "reading",
    "remove",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_parquet",
]
