"""Ray, which places trials on the cores of one machine or of many."""

import contextlib
import os
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from modelpress.benchmarks.environment import usable_cores
from modelpress.export.errors import InputError, ModelpressError
from modelpress.toolkit.sweeps.plan import Resources
from modelpress.toolkit.sweeps.worker import Epoch, Job, Outcome, carry_out, worker_name

_KNOCK_S, _CONNECT_S = 10.0, 60.0
_ATTEMPTS = 3
_GIB = 1 << 30
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.RaySystemError,
)


@dataclass(frozen=True)
class Started:
    """A worker has taken up a trial.

    Attributes:
        number: Of the trial.
        worker: Machine and process.
    """

    number: int
    worker: str


@dataclass(frozen=True)
class Ended:
    """A trial is off the cluster.

    Attributes:
        number: Of the trial.
        outcome: What it came to; None where its worker was lost.
        error: How it was lost.
    """

    number: int
    outcome: Outcome | None
    error: str = ""


class _Mailbox:
    """Between the driver and its workers: news to the one, wishes to the others."""

    def __init__(self) -> None:
        self._news: list[Started | Epoch] = []
        self._unwanted: set[int] = set()

    def post(self, news: Started | Epoch) -> bool:
        """Keep news; returns whether their trial is to end."""
        self._news.append(news)
        return news.number in self._unwanted

    def take(self, unwanted: Sequence[int]) -> list[Started | Epoch]:
        """All news since the last time; the driver names trials that are to end."""
        self._unwanted |= set(unwanted)
        news, self._news = self._news, []
        return news


def _work(job: Job, mailbox: Any, carried: Mapping[str, Any]) -> Outcome:
    """On a worker."""
    ray.get(mailbox.post.remote(Started(job.number, worker_name())))
    here = {path: ray.get(packed) for path, packed in carried.items()}
    return carry_out(job, lambda epoch: bool(ray.get(mailbox.post.remote(epoch))), here)


class Cluster:
    """Trials in flight.

    Args:
        resources: Of each trial.
        carried: Archives of files that recipes name, by path; they travel once to each machine.
    """

    def __init__(self, resources: Resources, carried: Mapping[str, bytes]) -> None:
        self._resources = resources
        self._mailbox = ray.remote(_Mailbox).options(num_cpus=0).remote()
        self._carried = {path: ray.put(data) for path, data in carried.items()}
        self._flying: dict[Any, int] = {}
        memory = {"memory": int(resources.memory * _GIB)} if resources.memory else {}
        self._remote = ray.remote(_work).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_retries=0,  # the driver starts a trial again, with what it has of it
            name="modelpress trial",
            **memory,
        )

    def start(self, job: Job) -> None:
        """Send a trial."""
        self._flying[self._remote.remote(job, self._mailbox, self._carried)] = job.number

    @property
    def numbers(self) -> set[int]:
        """Of the trials that were sent and are not back."""
        return set(self._flying.values())

    def room(self) -> int:
        """How many trials the cluster holds as it is now; at least one, which waits for a larger machine."""
        there, wanted = ray.cluster_resources(), self._resources
        rooms = [there.get("CPU", 0) // wanted.cpus]
        if wanted.gpus:
            rooms.append(there.get("GPU", 0) // wanted.gpus)
        if wanted.memory:
            rooms.append(there.get("memory", 0) // (wanted.memory * _GIB))
        return max(int(min(rooms)), 1)

    def news(self, unwanted: Sequence[int], *, wait_s: float) -> list[Started | Epoch | Ended]:
        """What has happened, the oldest first.

        Raises:
            ModelpressError: The cluster is gone.
        """
        try:
            done, _ = (
                ray.wait(list(self._flying), num_returns=1, timeout=wait_s) if self._flying else ([], [])
            )
            told = ray.get(self._mailbox.take.remote(list(unwanted)))
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ModelpressError(
                f"the cluster is gone ({type(error).__name__}); the same command goes on where it was"
            ) from error
        return [*told, *(self._ended(reference) for reference in done)]

    def _ended(self, reference: Any) -> Ended:
        number = self._flying.pop(reference)
        try:
            return Ended(number, ray.get(reference))
        except _LOST as error:
            return Ended(number, None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        except ray.exceptions.RayTaskError as error:
            # of the worker's own doing, such as a package that is missing there
            told = str(error).strip().splitlines()[-1][:300]
            return Ended(number, Outcome("failed", error=told))


@contextmanager
def connected(address: str | None, resources: Resources) -> Iterator[None]:
    """A cluster: the one at that address, or one on this machine that ends with the context.

    Raises:
        InputError: Nobody answers at the address, or this machine is too small for a trial.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            cores = usable_cores()
            if resources.cpus > cores:
                raise InputError(f"resources.cpus is {resources.cpus}, this machine has {cores}; lower it")
            # whoever else has a cluster on this machine keeps it for himself
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            _show_token()
            _connect(address, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # a cluster that is gone
            ray.shutdown()


def _show_token() -> None:
    """Have Ray show the token that this user has, as clusters of `ray start` ask for; others do not mind it."""
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or kept.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _connect(address: str, quiet: dict[str, Any]) -> None:
    """Join a cluster within a time.

    Raises:
        InputError: It does not answer.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise InputError(
            f"--address {address}: expected HOST:PORT, or ray://HOST:PORT as in ray://head:10001"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nobody answers within {_KNOCK_S:g} s ({error}); start a cluster there with "
            "`ray start --head`, or leave --address out"
        ) from error

    for _ in range(_ATTEMPTS):
        error = _joined(address, quiet)
        if error is None:
            return
        if not isinstance(error, ConnectionAbortedError):  # a busy head gives up on its own server, too
            break
    why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    raise InputError(
        f"--address {address}: is no Ray cluster that lets us in within {_CONNECT_S:g} s: {why}; "
        "where it asks for a token, put the head's (`ray get-auth-token`) into RAY_AUTH_TOKEN"
    )


def _joined(address: str, quiet: dict[str, Any]) -> BaseException | None:
    """Join a cluster within a time; returns what went wrong."""
    found: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address=address, **quiet)
        except BaseException as error:
            found.append(error)

    # what answers may be no Ray, and then nothing ever comes back
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join(_CONNECT_S)
    if joining.is_alive():
        return TimeoutError("no answer")
    return found[0] if found else None
