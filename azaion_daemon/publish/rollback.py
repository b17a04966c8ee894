"""Which release is gone back to: pure decisions on what the ledger knows."""

from collections.abc import Sequence

from azaion_daemon.errors import OperatorError
from azaion_daemon.store.records import Release


def published_release(releases: Sequence[Release], serial: int) -> Release:
    """The release of a serial number, if it was published.

    Raises:
        OperatorError: It was not.
    """
    for release in releases:
        if release.serial == serial and release.state == "published":
            return release
    known = ", ".join(str(release.serial) for release in releases if release.state == "published") or "none"
    raise OperatorError(f"release {serial} was never published, so there is nothing to go back to. Published are: {known}")


def release_before(releases: Sequence[Release]) -> Release:
    """The last release before the present one that has another model.

    While a newer model waits that was never published, it is that one which is taken back: consumers keep the last that was published.
    Where the present one goes back to an older release itself, what counts is what was before that: to roll back twice leads further back,
    and not to the model that was rolled back from.

    Raises:
        OperatorError: There is none.
    """
    published = [release for release in releases if release.state == "published"]
    if not published:
        raise OperatorError("nothing was published yet, so there is nothing to go back to")
    model = published[-1].model_sha256
    if releases[-1].state == "waiting" and releases[-1].model_sha256 not in {release.model_sha256 for release in published}:
        return published[-1]
    first = next(release.serial for release in published if release.model_sha256 == model)
    before = [release for release in published if release.serial < first]
    if not before:
        raise OperatorError(
            f"release {published[-1].serial} has the first model that was published, so there is none before it. To have a certain one "
            "published, name its serial number"
        )
    return before[-1]
