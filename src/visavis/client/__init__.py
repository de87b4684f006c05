"""The client of the gateway: `Client` for threads, `AsyncClient` for an event loop.

::

    arguments ─► encoding, columns, recording ─► messages ─┐
                                                           ├─ plans: what a method means, once
    results ◄── decoding ◄── messages ◄────────────────────┘
                                 ▲
              sync.py  aio.py  ──┴── channel: TLS, token, what is repeated

    requests.py   what is asked, as types          results.py    what is answered, as types
    plans.py      records, catalog, publishing     matches.py    matches, audiences, explanations
    jobs.py       jobs and their results           steps.py      what a plan is made of
    pieces.py     batches larger than a message    frames.py     streams, bounded on both sides
    columns.py    tables of profiles → columns     reading.py    results, digests verified
    errors.py     Status → exceptions              rpcs.py       the calls of the contract
    state.py      what a client holds              carrying.py   plans → methods
    congestion.py how many calls may be open, once the server sheds load

It needs neither Ray nor the compiled core. See docs/client.md.
"""

from visavis.client.aio import AsyncClient
from visavis.client.channel import Certificates
from visavis.client.errors import (
    AccessError,
    DamageError,
    DeadlineError,
    GatewayError,
    OverloadedError,
    RequestError,
    ServerError,
    StateError,
    UnavailableError,
    UnknownIdError,
    UnsupportedError,
    VersionChangedError,
)
from visavis.client.requests import (
    Capability,
    Fact,
    HistoryTerm,
    Profile,
    RequestContext,
    Selection,
    Source,
)
from visavis.client.results import (
    AudienceMember,
    AudiencePage,
    Batch,
    CapabilityPage,
    CreatedJob,
    CustomerMatches,
    Explanation,
    Forgotten,
    Frame,
    Job,
    JobState,
    Opportunity,
    Published,
    Recorded,
    ResultFrame,
    ServingInfo,
    Version,
)
from visavis.client.sync import Client

__all__ = [
    "AccessError",
    "AsyncClient",
    "AudienceMember",
    "AudiencePage",
    "Batch",
    "Capability",
    "CapabilityPage",
    "Certificates",
    "Client",
    "CreatedJob",
    "CustomerMatches",
    "DamageError",
    "DeadlineError",
    "Explanation",
    "Fact",
    "Forgotten",
    "Frame",
    "GatewayError",
    "HistoryTerm",
    "Job",
    "JobState",
    "Opportunity",
    "OverloadedError",
    "Profile",
    "Published",
    "Recorded",
    "RequestContext",
    "RequestError",
    "ResultFrame",
    "Selection",
    "ServerError",
    "ServingInfo",
    "Source",
    "StateError",
    "UnavailableError",
    "UnknownIdError",
    "UnsupportedError",
    "Version",
    "VersionChangedError",
]
