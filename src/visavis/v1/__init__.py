"""The public contract in Python, generated from ``proto/visavis/v1`` by ``make proto``.

::

    profile, context, opportunity, capability, version, errors     messages
    match_service, profile_service, catalog_service, job_service   the calls, and their messages

``*_pb2`` hold messages, ``*_pb2.pyi`` their types, and ``*_service_pb2_grpc`` grpc's stubs and
servicers. What everything means stands in the .proto files. Nothing here is written by hand, except
this page.
"""
