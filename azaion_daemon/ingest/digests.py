"""Digests of images that were in the tree before the ledger: indexing opens no image, so its rows have `UNKNOWN_DIGEST`.

The rules compare digests, so they must never meet an unknown one beside the image of a message: `resolve` reads those few before a batch
is planned.
"""

from collections.abc import Iterable, Mapping

from azaion_daemon.store.digests import file_digest
from azaion_daemon.store.durable import storage
from azaion_daemon.store.layout import Home, Layout
from azaion_daemon.store.records import UNKNOWN_DIGEST, Annotation


def digest_of(row: Annotation, layout: Layout) -> str | None:
    """The digest of a row's image, which may still lie in the home it had before; None when it is nowhere.

    Raises:
        StorageError: It cannot be read, or a directory is gone: that is no loss of an image.
    """
    paths = [layout.image(home, row.name, row.extension) for home in (row.home, *Home, row.home)]  # it may be moved meanwhile
    with storage("reading the digest of"):
        for path in paths:
            try:
                return file_digest(path)
            except FileNotFoundError:
                path.parent.stat()
    return None


def resolve(rows: Mapping[str, Annotation], names: Iterable[str], layout: Layout) -> dict[str, Annotation]:
    """These rows, with the digests that are unknown filled in for `names`. An image that is not there is missing."""
    found = dict(rows)
    for name in names:
        row = rows.get(name)
        if row is not None and row.image == UNKNOWN_DIGEST:
            digest = digest_of(row, layout)
            found[name] = row._replace(image=digest, image_missing=digest is None)
    return found
