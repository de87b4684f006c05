"""PublishVersion: sources below the server's roots, opened, checked, put in place."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.errors import InputError, ReusedError, VisavisError
from visavis.gateway.answers import version_of
from visavis.gateway.errors import RefusedError
from visavis.gateway.fellows import Published
from visavis.gateway.profile_service import check_request_id
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Expected, Serving
from visavis.v1 import catalog_service_pb2 as v1

__all__ = ["Publishing", "follow"]

#: Requests that are answered again as before where there is no journal to keep them: in memory, so
#: that a restart forgets them.
_KEPT_MAX: Final = 1_000

_SOURCES: Final = ("base", "catalog", "policy")


class Publishing:
    """Changes what is served.

    Parameters
    ----------
    roots : sequence of str
        Folders and URLs below which sources may lie.
    journal : Journal, optional
        Where it is kept what requests were answered with.
    announce : callable, optional
        Told where what is served now lies, before PublishVersion is answered.
    """

    def __init__(
        self,
        roots: Sequence[str],
        journal: Journal | None,
        announce: Callable[[Published], None] | None = None,
    ) -> None:
        self._announce = announce
        self._roots = [_Root(each) for each in roots]
        self._journal = journal
        self._answered: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def publish(
        self, serving: Serving, request: v1.PublishVersionRequest
    ) -> v1.PublishVersionResponse:
        """Load, check and serve; or check only.

        Raises
        ------
        VisavisError
            Nothing has changed then.
        """
        check_request_id(request.request_id)
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        with self._lock:
            known = self._known(request.request_id, digest)
            if known is not None:
                known.is_repeated = True
                return known
            replaced = serving.name
            name = self._swapped(serving, request)
            if self._announce is not None and not request.validate_only:
                self._announce(self._located(serving, request))
            response = v1.PublishVersionResponse(
                version=version_of(name), replaced_version=version_of(replaced)
            )
            if not request.validate_only:
                # Before the answer. Whoever hears nothing sends it again, and publishes the same.
                self._keep(request.request_id, digest, response)
            return response

    def _known(self, request_id: str, digest: bytes) -> v1.PublishVersionResponse | None:
        """What a request was answered with before, whichever process did it."""
        if self._journal is not None:
            content = self._journal.answer(request_id, digest)
        else:
            kept = self._answered.get(request_id)
            if kept is not None and kept[0] != digest:
                raise ReusedError("was used before, for something else", field="request_id")
            content = None if kept is None else kept[1]
        return None if content is None else v1.PublishVersionResponse.FromString(content)

    def _keep(self, request_id: str, digest: bytes, response: v1.PublishVersionResponse) -> None:
        content = response.SerializeToString()
        if self._journal is not None:
            self._journal.keep_answer(request_id, digest, content)
            return
        self._answered[request_id] = digest, content
        if len(self._answered) > _KEPT_MAX:
            self._answered.popitem(last=False)

    def _swapped(self, serving: Serving, request: v1.PublishVersionRequest) -> Any:
        named = [each for each in _SOURCES if request.HasField(each)]
        if not named:
            raise InputError("at least one source must be given", field="base")
        if request.base_version < 0 or (request.base_version and "base" not in named):
            reason = "is a positive version of the base that is given, or 0"
            raise InputError(reason, field="base_version")
        opened = {each: self._opened(each, request) for each in named}
        digests = {each: getattr(request, each).digest or None for each in named}
        for each, wanted in digests.items():
            found = opened[each].digest
            held = found if isinstance(found, str) else found()
            if wanted is not None and wanted != held:
                raise _mismatch(each, held)
        try:
            if request.validate_only:
                return serving.check(**opened)
            return serving.publish(**opened, expected=Expected(**digests))
        except InputError as error:
            raise _unfit(error) from error

    def _opened(self, kind: str, request: v1.PublishVersionRequest) -> Any:
        source, field = getattr(request, kind), f"{kind}.location"
        location = self._allowed(source.location, field)
        try:
            if kind == "base":
                return StoredBase.open(location, version=request.base_version or None)
            return (Catalog if kind == "catalog" else Policy).read(location)
        except InputError as error:
            raise _unfit(error, field) from error

    def _located(self, serving: Serving, request: v1.PublishVersionRequest) -> Published:
        """Where what was published now lies; None where something stayed."""
        found = {
            each: self._allowed(getattr(request, each).location, f"{each}.location")
            for each in _SOURCES
            if request.HasField(each)
        }
        served = serving.version
        base_version = served.customers.stored.version if "base" in found else None
        return Published(**found, base_version=base_version, as_of=served.as_of.isoformat())

    def _allowed(self, location: str, field: str) -> str:
        if location and "\0" not in location:
            for root in self._roots:
                if (inside := root.inside(location)) is not None:
                    return inside
        raise InputError("lies under no root that the server was started with", field=field)


def follow(serving: Serving, published: Published) -> None:
    """Serve what another process has published: loaded and checked here as well.

    Raises
    ------
    VisavisError
        Nothing has changed then.
    """
    base, catalog, policy = published.base, published.catalog, published.policy
    serving.publish(
        base=None if base is None else StoredBase.open(base, version=published.base_version),
        catalog=None if catalog is None else Catalog.read(catalog),
        policy=None if policy is None else Policy.read(policy),
        as_of=published.as_of,
    )


class _Root:
    """Where sources may lie."""

    def __init__(self, root: str) -> None:
        self._url = root.rstrip("/") if "://" in root else None
        self._folder = None if self._url is not None else Path(root).resolve()

    def inside(self, location: str) -> str | None:
        """The location, if it lies below."""
        if self._url is not None:
            is_below = location == self._url or location.startswith(f"{self._url}/")
            return location if is_below and ".." not in location.split("/") else None
        if "://" in location or self._folder is None:
            return None
        try:
            # Links are followed first: what counts is where the bytes lie.
            found = (self._folder / location).resolve()
            # A name that no file can have is the client's mistake, and no trouble of the disk.
            found.exists()
        except (OSError, RuntimeError, ValueError):
            return None
        return str(found) if found.is_relative_to(self._folder) else None


def _mismatch(kind: str, held: str) -> RefusedError:
    return RefusedError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "DIGEST_MISMATCH",
        f"the {kind} that was found has another digest",
        metadata={"source": kind, "digest": held},
    )


def _unfit(error: VisavisError, field: str | None = None) -> RefusedError:
    where = field or getattr(error, "field", None)
    return RefusedError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERSION_UNFIT",
        f"{where}: {getattr(error, 'reason', error)}" if where else str(error),
        metadata={"field": where or ""},
    )
