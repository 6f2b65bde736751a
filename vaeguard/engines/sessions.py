"""ONNX Runtime sessions, which run on the requested device or raise an error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.devices import check_device, cores, instead, is_out_of_memory
from vaeguard.engines.onnx_checking import check_graph
from vaeguard.engines.onnx_cutting import cut
from vaeguard.engines.record import parse_record
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.storage.files import read_sealed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

METADATA = "vaeguard"
"""Key of the JSON record among the metadata of an `.onnx` file."""
FORMAT = 1
PROVIDERS = {"cpu": [], "cuda": ["CUDAExecutionProvider"], "tensorrt": ["TensorrtExecutionProvider"]}
GPU_OPTIONS: dict[str, dict[str, Any]] = {
    # The exhaustive search takes most of a second for each new shape; TF32 has only ten bits of fraction.
    "CUDAExecutionProvider": {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": 0,
    },
    # A cache of engines would not distinguish the weights of two models.
    "TensorrtExecutionProvider": {"trt_fp16_enable": False},
}


class Session:
    """One open `.onnx` file of vaeguard.

    Attributes
    ----------
    device : str
        The device that it runs on: `cpu`, `cuda` or `tensorrt`.
    name : str
        Name of the file in messages.
    threads : int or None
        CPU threads, as given.
    record : dict
        The JSON record of the file.

    Parameters
    ----------
    content : bytes
        Content of the file.
    name : str
        Name of the file in messages.
    device : str
        `auto` takes `cuda` if it can be used.
    threads : int or None
        CPU threads; None takes all cores that the process may use.

    Raises
    ------
    RefusedError
        The file is no model of vaeguard.
    UsageError
        `device` cannot be used.
    """

    def __init__(self, content: bytes, name: str, device: str = "auto", threads: int | None = None) -> None:
        self._content, self.name, self.threads = content, name, threads
        self.device = _resolved(device)
        self._process = os.getpid()
        check_graph(content, name)
        try:
            self._opened = _open(content, name, self.device, threads)
        except UsageError:
            if device != "auto":
                raise
            self.device = "cpu"
            self._opened = _open(content, name, self.device, threads)
        self.record = _record(self._opened, name)

    def __reduce__(self) -> tuple[type[Session], tuple[bytes, str, str, int | None]]:
        """Open the file anew for a copy, such as one in another process."""
        return Session, (self._content, self.name, self.device, self.threads)

    @property
    def _session(self) -> Any:
        """The session of ONNX Runtime; a forked process opens its own, since a fork copies no threads."""
        if self._process != os.getpid():
            # Deleting the inherited session would wait for its threads for ever, so it is never deleted.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))
            self._opened = _open(self._content, self.name, self.device, self.threads)
            self._process = os.getpid()
        return self._opened

    @functools.cached_property
    def fingerprint(self) -> str:
        """Text that differs whenever the bits of a result may differ: engine, device and the digest of the file."""
        return f"onnx {self.device} {hashlib.sha256(self._content).hexdigest()}"

    @property
    def kind(self) -> str:
        """What the file holds: a `detector`, a `part` of one, or a `denoiser`."""
        return next((kind for kind in ("part", "denoiser") if kind in self.record), "detector")

    def part(self, inputs: Sequence[str], outputs: Sequence[str]) -> Session:
        """A session of only the nodes between `inputs` and `outputs`.

        A session computes every output of a file, whichever are requested.
        """
        return Session(cut(self._content, inputs, outputs), self.name, self.device, self.threads)

    def check_values(self, inputs: Mapping[str, tuple[str, int]], outputs: Mapping[str, str]) -> None:
        """Check that the file takes exactly `inputs`, a type and a number of channels each, and gives `outputs`.

        Types are those of NumPy. An input of floats or pixels has four dimensions, one of whole numbers two. Further
        outputs are allowed.

        Raises
        ------
        RefusedError
            It takes or gives something else.
        """
        taken = {
            value.name: (_dtype(value), len(value.shape), value.shape[1:2]) for value in self._session.get_inputs()
        }
        given = {value.name: _dtype(value) for value in self._session.get_outputs()}
        wrong = [name for name, kind in outputs.items() if given.get(name) != kind]
        if taken != {name: (kind, 2 if kind == "int64" else 4, [size]) for name, (kind, size) in inputs.items()}:
            wrong = [*inputs]
        if wrong:
            raise RefusedError(
                f"{self.name!r} does not have the inputs and outputs that its record lists ({', '.join(wrong)}); export"
                " the model again"
            )

    def run(
        self,
        wanted: Sequence[str],
        feeds: Mapping[str, npt.NDArray[Any]],
        shapes: Sequence[tuple[int, ...]] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """The outputs named in `wanted`, of these `shapes`; ONNX Runtime computes the others as well, see `part`.

        Raises
        ------
        MemoryError
            Memory does not suffice.
        RefusedError
            The file cannot be computed, or its outputs have other shapes.
        VaeguardError
            The device failed.
        """
        results = self._computed(wanted, feeds)
        if shapes and [result.shape for result in results] != list(shapes):
            given = ", ".join(f"{name} {result.shape}" for name, result in zip(wanted, results, strict=True))
            raise RefusedError(f"{self.name!r} returns results of the wrong shape ({given}); export the model again")
        return results

    def _computed(self, wanted: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        session = self._session
        try:
            if self.device == "cpu":
                results: list[npt.NDArray[Any]] = session.run(wanted, feeds)
                return results
            binding = session.io_binding()
            for name, values in feeds.items():
                binding.bind_cpu_input(name, values)
            for name in wanted:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
            results = binding.copy_outputs_to_cpu()
        except Exception as error:
            # The type of the exception differs by version and provider; its text names the lack of memory.
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            if self.device == "cpu":  # a CPU does not fail, so the model is at fault
                raise RefusedError(
                    f"ONNX Runtime cannot run {self.name!r} ({str(error).splitlines()[0]}); export the model again"
                ) from error
            raise VaeguardError(
                f"ONNX Runtime failed on {self.device} ({str(error).splitlines()[0]}); run `vaeguard doctor`"
                f"{instead(self.device)}"
            ) from error
        return results


def open_session(path: str | Path, device: str = "auto", threads: int | None = None) -> Session:
    """Open an `.onnx` file of vaeguard after checking its digest; see `Session`.

    Raises
    ------
    RefusedError
        The file is damaged, or no model of vaeguard.
    UsageError
        There is no such file, or `device` cannot be used.
    """
    return Session(read_sealed(path), str(path), device, threads)


def _resolved(device: str) -> str:
    """Resolve `auto` to `cuda` if there is an NVIDIA device; the look-up loads no library."""
    check_device(device)
    if device != "auto":
        return device
    return "cuda" if _has_gpu() else "cpu"


def _has_gpu() -> bool:
    if platform.system() == "Windows":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def _open(content: bytes, name: str, device: str, threads: int | None) -> Any:
    """A session on `device`.

    ONNX Runtime falls back to the CPU with only a line in a log; here that is an error.
    """
    import onnxruntime

    wanted = PROVIDERS[device]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    # Spinning idle threads would take the cores from the threads that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if wanted:
        # If a GPU cannot be used, the log fills a screen; the error below is one sentence.
        onnxruntime.set_default_logger_severity(4)
    if wanted and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    missing = set(wanted) - set(onnxruntime.get_available_providers())
    if missing:
        raise UsageError(
            f"`device` is {device!r}, but the installed onnxruntime has no {missing.pop()}; install"
            " onnxruntime-gpu, or set `device` to 'cpu'"
        )
    providers = [(provider, GPU_OPTIONS[provider]) for provider in wanted]
    try:
        # A session from bytes refuses a file that refers to data in other files.
        session = onnxruntime.InferenceSession(
            content, options, providers=[*providers, "CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        if wanted:
            raise UsageError(
                f"`device` is {device!r}, but ONNX Runtime cannot use it ({str(error).splitlines()[0]}); run `vaeguard"
                " doctor`, or set `device` to 'cpu'"
            ) from error
        # The exceptions of ONNX Runtime share no base class but Exception.
        raise RefusedError(
            f"ONNX Runtime cannot open {name!r} ({str(error).splitlines()[0]}); export the model again"
        ) from error
    if wanted and not _runs_on(session, device):
        raise UsageError(
            f"`device` is {device!r}, but ONNX Runtime fell back to {session.get_providers()[0]}; run `vaeguard"
            " doctor`, or set `device` to 'cpu'"
        )
    return session


def _runs_on(session: Any, device: str) -> bool:
    return bool(session.get_providers()[0] in PROVIDERS[device])


def _dtype(value: Any) -> str:
    """The type of an input or output by its name in NumPy."""
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "float16": "float16", "double": "float64"}.get(kind, kind)


def _record(session: Any, name: str) -> dict[str, Any]:
    record = parse_record(session.get_modelmeta().custom_metadata_map.get(METADATA, ""), name)
    if record.get("format") != FORMAT:
        raise RefusedError(
            f"{name!r} has format {record.get('format')!r:.20}, but this version of vaeguard reads only format"
            f" {FORMAT}; update vaeguard, or export the model again"
        )
    return record
