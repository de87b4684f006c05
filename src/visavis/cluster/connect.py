"""Ray itself: how it is started, joined and kept from strangers, and what its failures are here.

A cluster of Ray runs what anybody says who reaches it, on every interface of its machines. So all
that visavis starts or joins wants a token (``RAY_AUTH_MODE=token``, the token from
``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token``), and a cluster elsewhere that
answers without one is refused. A driver that holds a token is also let in by a cluster that asks
for none, so the cluster is asked, by a process that has no token to give away.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from visavis import __version__
from visavis.errors import InputError, SetupError
from visavis.kernel import CONTRACT_VERSION

__all__ = [
    "check_same_version",
    "connected",
    "errors_of_ray",
    "held_once",
    "import_ray",
    "processor_count",
]

#: How long a head may take to accept a connection; Ray itself would wait for minutes.
REACH_WAIT_S: Final = 10.0

#: How long a head may take to say whether it wants a token: 0.5 s here, nearly all of it imports.
ASK_WAIT_S: Final = 30.0

#: Asks the head at argv[1] for something harmless.
_ASK: Final = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(sys.argv[1]).internal_kv_exists(b"session", b"session", 5)
except AuthenticationError:
    print("closed")
else:
    print("open")
"""

_REMEDY: Final = (
    "start it with RAY_AUTH_MODE=token and give its token to this process (RAY_AUTH_TOKEN or"
    " RAY_AUTH_TOKEN_PATH), or allow it with --insecure"
)


@contextmanager
def connected(address: str = "local", *, insecure: bool = False) -> Iterator[int]:
    """Be connected to Ray for the block; yield how many processors it has.

    Parameters
    ----------
    address : str
        ``local``: start Ray here, with the processors of this process, and stop it at the end. Or
        ``host:port`` of a running head, or ``auto``: join it as a driver. Where this process is
        connected already, that connection is used and stays.
    insecure : bool
        Allow a cluster that lets everybody in.

    Raises
    ------
    InputError
        If it is no such address, or one of a Ray client, through which nothing of size should go.
    SetupError
        If Ray cannot be started or reached, or lets everybody in and is not on a loopback address.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address.startswith("ray://"):
        raise InputError("must be the head's host:port, not a Ray client's", field="address")
    ray = import_ray()
    if ray.is_initialized():
        yield processor_count()
        return
    _check_reachable(address)
    if not insecure:
        _refuse_open(address)
    _start(address)
    try:
        if address == "auto" and not insecure:
            _refuse_open(ray.get_runtime_context().gcs_address)
        yield processor_count()
    finally:
        ray.shutdown()


def _start(address: str) -> None:
    ray = import_ray()
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == "local":
        processors = len(os.sched_getaffinity(0))
        options |= {"num_cpus": processors, "include_dashboard": False}
    try:
        ray.init(address, **options)
    except ray.exceptions.AuthenticationError as error:
        reason = f"Ray at {address!r} does not take the token of this process, or there is none"
        raise SetupError(f"{reason}: {_REMEDY}") from error
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise SetupError(f"Ray at {address!r} cannot be reached: {error}") from error


def processor_count() -> int:
    """How many processors the cluster has now; 0 where only a head without any has come yet."""
    return int(import_ray().cluster_resources().get("CPU", 0))


def _check_reachable(address: str) -> None:
    """Say at once what Ray takes minutes to say: that nobody listens there."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        reason = f"must be 'local', 'auto' or host:port, got {address!r}"
        raise InputError(reason, field="address")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_WAIT_S).close()
    except (OSError, OverflowError) as error:
        raise SetupError(f"Ray at {address!r} cannot be reached: {error}") from error


def _refuse_open(address: str) -> None:
    """Refuse what lets everybody in: others would run what they like beside us, and as us."""
    if address == "auto":  # known when it is joined
        return
    tokens = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if address == "local":
        # Whatever starts it, Ray listens on every interface of the machine.
        if not tokens:
            raise SetupError(f"Ray at {address!r} would let everybody in: {_REMEDY}")
        return
    if _is_loopback(address.rpartition(":")[0]):
        return
    if not tokens or _asked(address, with_token=False) != "closed":
        raise SetupError(f"Ray at {address!r} is not seen to want a token: {_REMEDY}")
    if _asked(address, with_token=True) == "closed":  # Ray itself would try for 20 s
        raise SetupError(f"Ray at {address!r} does not take the token of this process: {_REMEDY}")


def _is_loopback(host: str) -> bool:
    """Whether everything that a name stands for is this machine alone."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


def _asked(address: str, *, with_token: bool) -> str:
    """What a head says to us: ``open``, ``closed``, or nothing that can be understood."""
    environment = dict(os.environ)
    if not with_token:
        for name in [name for name in environment if name.startswith("RAY_AUTH_")]:
            del environment[name]
        environment["RAY_AUTH_MODE"] = "disabled"
    command = [sys.executable, "-c", _ASK, address]
    try:
        # A process of its own: how Ray authenticates is fixed when it is loaded.
        asked = subprocess.run(  # noqa: S603 (this Python, and an address that was taken apart)
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=ASK_WAIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def check_same_version(version: str, contract: int = CONTRACT_VERSION) -> None:
    """Refuse to work for a driver of another version of visavis, or of the score contract.

    Raises
    ------
    SetupError
        That names both.
    """
    if version != __version__:
        raise SetupError(f"visavis {__version__} on a worker, {version} on the driver")
    if contract != CONTRACT_VERSION:
        reason = f"score contract {CONTRACT_VERSION} on a worker, {contract} on the driver"
        raise SetupError(reason)


def import_ray() -> Any:
    """Import Ray, whose own types know little of it, set up so that it keeps to itself."""
    # No word to others about what runs here, and nobody without a token speaks to it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    return ray


@contextmanager
def errors_of_ray() -> Iterator[None]:
    """Turn what befalls Ray into a SetupError; what a task raises by mistake stays as it is."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SetupError(f"Ray: {reason}") from error


def held_once(value: Any) -> Callable[[], Any]:
    """Put what many tasks read into Ray's object store; what is returned gives it back there."""
    return partial(_get, import_ray().put(value))


def _get(reference: Any) -> Any:
    return import_ray().get(reference)
