"""The processes of one fit: started here on one machine, or by torchrun on one or several.

Every process computes its share of each batch (`vaeguard.models.shares`). The first one alone speaks, writes and, after
the training, calibrates; the others then end.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as processes
from torch.distributed.rendezvous import rendezvous

from vaeguard.errors import LostError, UsageError, VaeguardError
from vaeguard.models.shares import TOGETHER, add_up, are_together, from_first, is_first
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.settings.model import ModelSpec

PLACE = "VAEGUARD_PROCESSES"
"""The variable that tells a process that was started here where the others are."""
GIVEN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun and schedulers give to each process of a job."""
JOIN = timedelta(minutes=10)
"""The processes of a job find each other within this time."""
WAIT = timedelta(days=7)
"""The longest wait of a process for the others: the first one may decode millions of images. A dead one is noticed
at once, since its connections are closed."""
GRACE = 5.0
"""Seconds that the first process has to end by itself once another is dead."""
_LEFT = threading.Event()
"""Set when the first process needs the others no more."""


@contextlib.contextmanager
def joined(count: int = 1) -> Iterator[None]:
    """Join the processes of a fit: those of torchrun, or `count` on this machine, which are then started.

    In all processes but the first one, the block ends in silence if the first one fails.

    Raises
    ------
    UsageError
        `count` is given to processes of torchrun.
    LostError
        Another process ended before its time.
    """
    if PLACE in os.environ:
        if int(os.environ["RANK"]):
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        group: contextlib.AbstractContextManager[None] = _group(os.environ[PLACE])
    elif all(name in os.environ for name in GIVEN) and int(os.environ["WORLD_SIZE"]) > 1:
        if count > 1:
            raise UsageError(
                f"`processes` is {count}, but this is already one of {os.environ['WORLD_SIZE']} processes of a job;"
                " remove `processes`"
            )
        group = _group("env://")
    else:
        group = _started(count) if count > 1 else contextlib.nullcontext()
    with group:
        yield


@contextlib.contextmanager
def one_a_machine() -> Iterator[None]:
    """A block that one process of each machine runs first: it decodes images that the others find in the cache."""
    several, later = are_together(), int(os.environ.get("LOCAL_RANK", "0")) > 0
    if several and later:
        add_up(torch.zeros(1))
    yield
    if several and not later:
        add_up(torch.zeros(1))


@contextlib.contextmanager
def file_of_first(path: Path | None) -> Iterator[Path | None]:
    """In all processes but the first one, a copy of its file `path`; None where there is none."""
    content = b""
    if are_together():
        content = from_first(lambda: path.read_bytes() if path and path.exists() else b"")
    if is_first() or not content:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="vaeguard-") as folder:
        copy = Path(folder) / "file"
        copy.write_bytes(content)
        yield copy


def check_fit(model: ModelSpec, device: str) -> None:
    """Refuse a fit that several processes, if there are several, would make otherwise than one.

    Raises
    ------
    UsageError
        The model has dropout, or there are fewer CUDA devices than processes on this machine.
    """
    if not are_together():
        return
    if model.dropout:
        raise UsageError(
            f"`model.dropout` is {model.dropout}, which works in one process only; remove `model.dropout`, or fit"
            " in one process"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and here > torch.cuda.device_count():
        raise UsageError(
            f"{here} processes on this machine share {counted(torch.cuda.device_count(), 'CUDA device')}, but each"
            " needs its own; start fewer, or set `device` to 'cpu'"
        )


def agreed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the fit in the first process.

    Raises
    ------
    UsageError
        This process would fit other data or settings.
    """
    if not are_together():
        return settings
    first: dict[str, Any] = json.loads(from_first(lambda: json.dumps(settings).encode()))
    own = json.loads(json.dumps(settings))
    differ = [
        f"{name} ({value!r} there, {own[group][name]!r} here)"
        for group, values in first.items()
        for name, value in values.items()
        if value != own[group][name] and name != "threads"
    ]
    if differ:
        raise UsageError(
            f"process {processes.get_rank()} differs from the first process in {'; '.join(differ)}; use the same"
            " command, data and kind of machine for all processes"
        )
    return first


def leave() -> None:
    """End every process but the first one, which goes on alone."""
    if are_together():
        first = is_first()
        _LEFT.set()
        from_first(lambda: b"done")  # nobody hangs up while others still listen
        _part()
        if not first:
            raise SystemExit(0)


def _part() -> None:
    """Leave the process group, if this process has joined one."""
    if are_together():
        TOGETHER.clear()
        processes.destroy_process_group()


@contextlib.contextmanager
def _group(place: str) -> Iterator[None]:
    """The process group at `place`; all processes but the first one are silent unless the fault is their own."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl" if processes.is_nccl_available() else "gloo"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        store, rank, count = next(rendezvous(place, rank, count, timeout=JOIN))
        processes.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=WAIT)
        TOGETHER.set()
    except (RuntimeError, ValueError) as error:
        raise VaeguardError(
            f"the {count} processes of this fit cannot reach each other ({str(error).splitlines()[0]})"
        ) from error
    try:
        with warnings.catch_warnings():
            if rank:
                warnings.simplefilter("ignore")  # the first process says it
            yield
    except (LostError, KeyboardInterrupt):
        if rank:
            raise SystemExit(1) from None
        raise
    finally:
        _part()


@contextlib.contextmanager
def _started(count: int) -> Iterator[None]:
    """Start the other processes by the command line of this one, and join them; no port is open to other machines."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    before, others = dict(os.environ), []
    _LEFT.clear()
    with tempfile.TemporaryDirectory(prefix="vaeguard-") as folder:
        os.environ |= {PLACE: f"file://{folder}/store", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
        try:
            for rank in reversed(range(count)):
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                if rank:
                    others.append(_start())
            with _group(os.environ[PLACE]):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            _LEFT.set()  # what happens to the others from here on ends nobody
            for other in others:
                other.terminate()
                other.wait()


def _start() -> subprocess.Popen[bytes]:
    """Start another process, in a session of its own: an interruption reaches the first process, which ends it."""
    command = [sys.executable, *sys.orig_argv[1:]]
    other = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 -- our own command
    threading.Thread(target=_watch, args=(other,), daemon=True).start()
    return other


def _end_with(first: int) -> None:
    """End this process once the first one was killed, which a process that waits for it in CUDA does not notice."""
    while os.getppid() == first:
        time.sleep(1)
    os._exit(1)


def _watch(other: subprocess.Popen[bytes]) -> None:
    """End this process if another one died and this one still waits for it, in code that no exception reaches."""
    if other.wait() and not _LEFT.wait(GRACE):
        os.write(
            2, b"error: another process of this fit has ended; to continue from the last checkpoint, resume the fit\n"
        )
        os._exit(1)
