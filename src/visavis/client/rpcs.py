"""The calls of the contract, as the generated descriptors have them."""

from __future__ import annotations

from typing import Any, Final

from visavis.client.steps import Rpc
from visavis.v1 import (
    catalog_service_pb2,
    job_service_pb2,
    match_service_pb2,
    profile_service_pb2,
)

__all__ = [
    "CANCEL_JOB",
    "CREATE_RESCORE_JOB",
    "EXPLAIN",
    "FIND_AUDIENCE",
    "FORGET_CUSTOMER",
    "GET_JOB",
    "GET_SERVING_INFO",
    "LIST_CAPABILITIES",
    "LIST_JOBS",
    "MATCH_CUSTOMER",
    "MATCH_CUSTOMERS",
    "PUBLISH_VERSION",
    "READ_RESULTS",
    "RECORD_FACTS",
    "STREAM_MATCHES",
    "WATCH_JOB",
]


def _rpc(module: Any, service: str, name: str) -> Rpc:
    within = module.DESCRIPTOR.services_by_name[service]
    method = within.methods_by_name[name]
    asked, told = (
        "stream" if streams else "unary"
        for streams in (method.client_streaming, method.server_streaming)
    )
    answer = getattr(module, method.output_type.name)
    return Rpc(f"/{within.full_name}/{name}", answer, f"{asked}_{told}")


MATCH_CUSTOMER: Final = _rpc(match_service_pb2, "MatchService", "MatchCustomer")
MATCH_CUSTOMERS: Final = _rpc(match_service_pb2, "MatchService", "MatchCustomers")
STREAM_MATCHES: Final = _rpc(match_service_pb2, "MatchService", "StreamMatches")
EXPLAIN: Final = _rpc(match_service_pb2, "MatchService", "Explain")
FIND_AUDIENCE: Final = _rpc(match_service_pb2, "MatchService", "FindAudience")
RECORD_FACTS: Final = _rpc(profile_service_pb2, "ProfileService", "RecordFacts")
FORGET_CUSTOMER: Final = _rpc(profile_service_pb2, "ProfileService", "ForgetCustomer")
GET_SERVING_INFO: Final = _rpc(catalog_service_pb2, "CatalogService", "GetServingInfo")
LIST_CAPABILITIES: Final = _rpc(catalog_service_pb2, "CatalogService", "ListCapabilities")
PUBLISH_VERSION: Final = _rpc(catalog_service_pb2, "CatalogService", "PublishVersion")
CREATE_RESCORE_JOB: Final = _rpc(job_service_pb2, "JobService", "CreateRescoreJob")
GET_JOB: Final = _rpc(job_service_pb2, "JobService", "GetJob")
LIST_JOBS: Final = _rpc(job_service_pb2, "JobService", "ListJobs")
CANCEL_JOB: Final = _rpc(job_service_pb2, "JobService", "CancelJob")
WATCH_JOB: Final = _rpc(job_service_pb2, "JobService", "WatchJob")
READ_RESULTS: Final = _rpc(job_service_pb2, "JobService", "ReadResults")
