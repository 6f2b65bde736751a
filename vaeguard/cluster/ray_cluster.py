"""A Ray cluster, and functions that are called on it: plain tasks, which are tried again wherever they are lost.

Ray only says where a task runs. What it makes lies in the store of the job, and a task that is done twice makes the
same bytes, so that lost workers, nodes and drivers cost time alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from vaeguard.cluster.worker import call
from vaeguard.devices import cores
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.packages import PACKAGES, install_line, installed
from vaeguard.storage.store import TOKEN_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from vaeguard.settings.cluster import ClusterSettings

LOCAL, AUTO = "local", "auto"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports to its makers unless told not to
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, each worker would install an environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",  # it would end the process without a word of this one
}
"""Variables of Ray."""
WAITING = 2
"""Tasks that wait for each that runs: a worker always finds its next one, and the driver holds few."""
LOOK_SECONDS = 2.0
"""How often the nodes are looked at."""
REACH_SECONDS = 10.0
"""How long a head node has to answer."""
SEEN_SECONDS = 60
"""How long a network file system may take to show the file of another node."""
STORE_BYTES = 80 * 2**20
"""Memory for objects on a node that this process starts; results are a few hundred bytes."""
_T = TypeVar("_T")


@dataclass
class Cluster:
    """A cluster that this process is connected to."""

    ray: Any
    head: str
    settings: ClusterSettings
    gpus: float
    _looked: float = 0.0
    _slots: int = 1
    _able: float = field(default_factory=time.monotonic)

    def each(self, function: str, job: Any, items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Call `function(job, item)` for every item on some node; yield its number and the result, in any order.

        Parameters
        ----------
        function : str
            The module and the name of a function, separated by a colon.
        job, items
            Its arguments, which are pickled.

        Raises
        ------
        VaeguardError
            The function raised it; or no node has been able to take a task for `patience` seconds.
        """
        options = {"num_cpus": self.settings.cpus, "num_gpus": self.gpus, "max_retries": -1, "max_calls": 0}
        task = self.ray.remote(**options)(call)
        common, versions = self.ray.put(job), installed(PACKAGES)
        pending: dict[Any, int] = {}
        rest = enumerate(items)
        try:
            while True:
                for number, item in islice(rest, max(0, WAITING * self._look() - len(pending))):
                    pending[task.remote(versions, function, common, item)] = number
                if not pending:
                    return
                ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=LOOK_SECONDS)
                for reference in ready:
                    yield pending.pop(reference), self._result(reference)
        except self.ray.exceptions.RayError as error:
            raise VaeguardError(
                f"the cluster failed ({_first_line(error)}); to continue, run the same command again"
            ) from error
        finally:
            for reference in pending:
                with contextlib.suppress(Exception):
                    self.ray.cancel(reference, force=False)

    def _result(self, reference: Any) -> Any:
        try:
            kind, value, node = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise VaeguardError(
                f"a task failed on the cluster ({_first_line(error.cause or error)}); install the same version of"
                " vaeguard on every node, and run the same command again"
            ) from error
        if kind != "done":
            error_class = {"refused": RefusedError, "usage": UsageError}.get(kind, VaeguardError)
            raise error_class(f"on node {node}: {value}")
        return value

    def _look(self) -> int:
        """The number of tasks that the nodes run at a time, looked at now and then.

        Raises
        ------
        VaeguardError
            No node has been able to take a task for `patience` seconds.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return self._slots
        self._looked = now
        # If nobody answers there, Ray waits for a minute, and then ends the process.
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]] if _answers(self.head) else []
        slots = sum(map(self._tasks_on, nodes))
        if slots:
            self._able = now
        elif now - self._able > self.settings.patience:
            wanted = f"{self.settings.cpus} CPU cores" + (f" and {self.gpus:g} GPU" if self.gpus else "")
            has = f"none of its nodes ({len(nodes)}) is large enough" if nodes else "it has no nodes left"
            raise VaeguardError(
                f"the cluster cannot run a task that needs {wanted}: {has}, and no such node was added within"
                f" {self.settings.patience:g} s; start a node that is large enough, or lower `cluster.cpus` and"
                " `cluster.gpus`; to continue, run the same command again"
            )
        self._slots = max(1, slots)
        return self._slots

    def _tasks_on(self, node: Mapping[str, float]) -> int:
        tasks = node.get("CPU", 0.0) // self.settings.cpus
        return int(min(tasks, node.get("GPU", 0.0) / self.gpus + 1e-6) if self.gpus else tasks)


@contextlib.contextmanager
def open_cluster(address: str, settings: ClusterSettings, device: str, folder: Path) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine for `local`, and leave or end it afterwards.

    Parameters
    ----------
    address : str
        `local`; `auto`, the cluster that Ray finds; or HOST:PORT of the head node.
    settings : ClusterSettings
        What a task takes.
    device : str
        Where tasks compute.
    folder : Path
        The folder of the job. There lies the token without which nobody takes part in a cluster of this machine.

    Raises
    ------
    UsageError
        Ray is not installed, or the address is none.
    VaeguardError
        There is no such cluster, or Ray does not start.
    """
    check_address(address)
    gpus = settings.gpus if settings.gpus is not None else float(device != "cpu")
    local = address == LOCAL
    with contextlib.ExitStack() as stack:
        variables = dict(QUIET)
        options: dict[str, Any] = {"address": address}
        if local:
            token = folder / TOKEN_NAME
            stack.callback(token.unlink, missing_ok=True)
            _write_secret(token)
            variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token.resolve())}
            variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its name for "no socket beyond loopback"
            # Ray makes sockets there, whose paths must be short; those of other temporary folders often are not.
            place = tempfile.mkdtemp(prefix="vaeguard-", dir="/tmp" if os.name == "posix" else None)  # noqa: S108
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            options |= {"num_cpus": cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
            options |= {"_temp_dir": place, "_node_ip_address": "127.0.0.1"}
        elif ":" in (head := os.environ.get("RAY_ADDRESS", "") if address == AUTO else address):
            _check_reachable(head)
        stack.enter_context(_variables(variables))
        ray = stack.enter_context(_connected(options))
        yield Cluster(ray, ray.get_runtime_context().gcs_address, settings, gpus)


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster, and a Python without Ray.

    Raises
    ------
    UsageError
        Ray is not installed, or the address is none.
    """
    from importlib.util import find_spec

    host, _, port = address.rpartition(":")
    if address not in (LOCAL, AUTO) and not (host and port.isascii() and port.isdigit()):
        raise UsageError(
            f"`cluster` is {address!r}; it must be local, auto, or the address of the cluster's head node as HOST:PORT"
        )
    if find_spec("ray") is None:
        raise UsageError(f"`cluster` needs Ray, which is not installed; run: {install_line('cluster')}")


def _answers(address: str) -> bool:
    """Whether somebody listens at an address."""
    with contextlib.suppress(OSError, OverflowError, ValueError), _connection(address):
        return True
    return False


def _connection(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS)


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody listens, which Ray would try for many minutes."""
    try:
        with _connection(address):
            pass
    except (OSError, OverflowError, ValueError) as error:
        raise VaeguardError(
            f"there is no Ray cluster at {address!r} ({error}); use the address (HOST:PORT) that `ray start --head`"
            " prints, or use local"
        ) from error


def seen(look: Callable[[], _T | None], node: str, folder: Path) -> _T:
    """What `look` finds of a part that `node` wrote into `folder`; network file systems show it to others late.

    Raises
    ------
    VaeguardError
        Nothing is to be seen after `SEEN_SECONDS`.
    """
    for _ in range(SEEN_SECONDS):
        if part := look():
            return part
        os.listdir(folder)  # noqa: PTH208  (it has the system forget that there was no such file)
        if part := look():
            return part
        time.sleep(1.0)
    raise VaeguardError(
        f"node {node} wrote a part to {str(folder)!r}, which this machine does not see; choose an output on storage"
        " that all nodes share"
    )


@contextlib.contextmanager
def _connected(options: Mapping[str, Any]) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        if ray.is_initialized():
            raise UsageError(
                "this process is already connected to a Ray cluster; disconnect from it (ray.shutdown()), or"
                " remove `cluster`"
            )
        try:
            ray.init(log_to_driver=False, logging_level="error", **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if options["address"] == LOCAL:
                problem = (
                    f"Ray did not start on this machine ({_first_line(error)}); run the command again, or remove"
                    " `cluster`"
                )
            else:
                problem = (
                    f"there is no Ray cluster at {options['address']!r} ({_first_line(error)}); start one, or use local"
                )
            raise VaeguardError(problem) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _write_secret(path: Path) -> None:
    """Write a new token that no other user reads."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode())
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which the processes of Ray take over, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
