"""`Client`: the methods, each done when it returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from visavis.client import jobs as of_jobs
from visavis.client import matches as of_matches
from visavis.client import plans
from visavis.client.carrying import dressed
from visavis.client.channel import ADDRESS, TIMEOUT_S, Certificates, Token
from visavis.client.errors import GatewayError, error_of_call, late
from visavis.client.frames import Window
from visavis.client.state import State, check_size
from visavis.client.steps import (
    STREAM_S,
    Call,
    Emit,
    Open,
    Plan,
    Read,
    Sleep,
    Step,
    Stream,
)

__all__ = ["Client"]

P = ParamSpec("P")
T = TypeVar("T")


class _Wire:
    """Carries out the steps of one plan."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._call: Any = None

    def done(self, step: Step) -> Any:
        """What comes of a step.

        Raises
        ------
        GatewayError, InputError
        """
        match step:
            case Call():
                return self._asked(step)
            case Open():
                return self._opened(step)
            case Read():
                return self._read(step)
            case Sleep():
                return time.sleep(step.seconds)

    def _asked(self, step: Call) -> Any:
        check_size(step.request)
        method = self._client._method(step.rpc)
        timeout_s = step.budget.left_s(self._client.timeout_s)
        with self._client._congestion(step.rpc).call():
            try:
                return method(step.request, timeout=timeout_s, metadata=self._client._metadata())
            except grpc.RpcError as failed:
                raise error_of_call(failed) from failed

    def _opened(self, step: Open) -> None:
        self.close()
        request = step.request
        if isinstance(request, Window):
            request.room = threading.Semaphore(request.open_frames)
            request = request.messages()
        method = self._client._method(step.rpc)
        self._call = method(request, timeout=STREAM_S, metadata=self._client._metadata())

    def _read(self, step: Read) -> Any:
        alarm = None if step.timeout_s is None else _Alarm(self._call, step)
        try:
            return next(self._call, None)
        except grpc.RpcError as failed:
            if alarm is not None and alarm.has_rung:
                raise late() from failed
            raise error_of_call(failed) from failed
        finally:
            if alarm is not None:
                alarm.stop()

    def close(self) -> None:
        """Give up a call with many answers, if one is open."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


class _Alarm:
    """Cancels a call whose next answer is late: gRPC waits for one without an end."""

    def __init__(self, call: Any, step: Read) -> None:
        self.has_rung = False
        self._call = call
        self._step = step
        self._start()

    def _start(self) -> None:
        self._timer = threading.Timer(self._step.timeout_s or 0.0, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        if not self._step.is_due():
            self._start()
            return
        self.has_rung = True
        self._call.cancel()

    def stop(self) -> None:
        """It has come."""
        self._timer.cancel()


def _whole(plan: Callable[Concatenate[Any, P], Plan[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method with one result."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(plan(self, *args, **kwargs))

    dressed(method, plan, "{}")
    return method


def _each(
    plan: Callable[Concatenate[Any, P], Stream[T]],
) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """A method that is iterated over."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._iterate(plan(self, *args, **kwargs))

    dressed(method, plan, "Iterator[{}]")
    return method


class Client(State):
    """A gateway, asked from threads; any number of them may share one.

    ``with Client("gateway:8420", token=…, certificates=Certificates()) as client: …``

    Parameters
    ----------
    target : str
        ``host:port``; default: where `visavis serve` listens by itself.
    token : str or callable, optional
        The bearer token, or what gives the one that holds now. Without TLS it is shown to this
        machine alone.
    certificates : Certificates, optional
        For TLS; None: without.
    timeout_s : float
        How long a method may take, unless it is told otherwise.

    Raises
    ------
    InputError
        If an argument is none, or the token would travel in the open.

    Notes
    -----
    A client does not outlive ``fork``: make one in each process.
    """

    def __init__(
        self,
        target: str = ADDRESS,
        *,
        token: Token | None = None,
        certificates: Certificates | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(target, token, certificates, timeout_s, grpc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are given up."""
        self._is_closed = True
        self._channel.close()

    def _run(self, plan: Plan[T]) -> T:
        wire = _Wire(self)
        try:
            step = next(plan)
            while True:
                try:
                    came = wire.done(step)
                except GatewayError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(came)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def _iterate(self, plan: Stream[T]) -> Iterator[T]:
        wire = _Wire(self)
        came: Any = None
        try:
            step = next(plan)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = plan.send(None)
                    continue
                try:
                    came = wire.done(step)
                except GatewayError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(came)
        except StopIteration:
            return
        finally:
            plan.close()
            wire.close()

    match = _whole(of_matches.match)
    match_many = _whole(of_matches.match_many)
    stream = _each(of_matches.stream)
    explain = _whole(of_matches.explain)
    find_audience = _each(of_matches.find_audience)
    record_facts = _whole(plans.record_facts)
    forget = _whole(plans.forget)
    serving_info = _whole(plans.serving_info)
    list_capabilities = _each(plans.list_capabilities)
    publish = _whole(plans.publish)
    create_rescore_job = _whole(of_jobs.create_rescore_job)
    job = _whole(of_jobs.job)
    jobs = _each(of_jobs.jobs)
    cancel_job = _whole(of_jobs.cancel_job)
    watch_job = _each(of_jobs.watch_job)
    read_results = _each(of_jobs.read_results)
