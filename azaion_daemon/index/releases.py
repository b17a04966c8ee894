"""What the records beside a lost ledger still know of releases: above all, which serial numbers were given."""

from collections.abc import Sequence

from azaion_daemon.errors import StorageError
from azaion_daemon.publish.record import RecordError, ReleaseRecord, ReleaseRecords
from azaion_daemon.store.layout import Layout
from azaion_daemon.store.records import Model, Release


def read_releases(layout: Layout, models: Sequence[Model]) -> tuple[list[Release], list[str]]:
    """The releases that were begun, and what cannot be read; such a serial was given all the same.

    The last one, if it was under way, waits again when its model is the current one: it is finished by the next start.
    """
    records, found, unreadable = ReleaseRecords(layout.releases), [], []
    serials = records.serials()
    current = next((model.sha256 for model in models if model.current), None)
    for serial in serials:
        moment = _changed(layout, serial)
        try:
            record = records.load(serial)
        except (StorageError, RecordError) as error:
            unreadable.append(f"{layout.releases.name}/{serial}.json: {type(error).__name__}: {error}")
            record = None
        if record is None:
            found.append(Release(serial, "", "superseded", moment, moment, "its record cannot be read"))
        else:
            found.append(_release(record, moment, waits=serial == serials[-1] and record.model_sha256 == current))
    return found, unreadable


def _release(record: ReleaseRecord, moment: float, *, waits: bool) -> Release:
    if record.published is None:
        return Release(record.serial, record.model_sha256, "waiting" if waits else "superseded", moment, moment)
    published = record.published.published_at.timestamp()
    return Release(record.serial, record.model_sha256, "published", published, published, details=record.published.document())


def _changed(layout: Layout, serial: int) -> float:
    try:
        return (layout.releases / f"{serial}.json").stat().st_mtime
    except OSError:
        return 0.0
