"""The detector that ONNX Runtime runs: the same graph behind the same NumPy contract, without torch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.blocks import BlockDetector, block_rows, filled, is_out_of_memory
from vaeguard.devices import cores
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.files import read_sealed

if TYPE_CHECKING:
    from vaeguard.inspection import DetectorInfo, Floats, Images

IMAGE = "image"
"""Name of the input."""
METADATA = "vaeguard"
"""Key of the JSON record among the metadata of an `.onnx` file."""
FORMAT = 1
ROWS = 16
"""Batches are filled up to a multiple of this: the last few elements that do not fill a vector register may otherwise
be rounded differently, and an image's bits would depend on the batch around it."""
BLOCK_ROWS = 256
PROVIDERS = {"cpu": [], "cuda": ["CUDAExecutionProvider"], "tensorrt": ["TensorrtExecutionProvider"]}
GPU_OPTIONS: dict[str, dict[str, Any]] = {
    # The exhaustive search costs most of a second at each new shape; TF32 has ten bits of fraction only.
    "CUDAExecutionProvider": {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": 0,
    },
    # No cache of engines: it does not tell one model's weights from another's.
    "TensorrtExecutionProvider": {"trt_fp16_enable": False},
}


class OnnxDetector(BlockDetector):
    """A model exported with `vaeguard export`; `vaeguard.load` makes one.

    On the CPU an image gives the same bits whatever the batch around it and the number of threads. On a GPU every batch
    has one shape, so that nothing is searched or compiled twice.

    Parameters
    ----------
    content : bytes
        The `.onnx` file.
    name : str
        What messages call it.
    device : str
        `auto`, `cpu`, `cuda` or `tensorrt`.
    threads : int or None
        Threads of the CPU; None takes all cores that the process may use.

    Raises
    ------
    RefusedError
        The file is no model of vaeguard.
    UsageError
        `device` cannot be used.
    """

    def __init__(self, content: bytes, name: str, device: str = "auto", threads: int | None = None) -> None:
        wanted, device = device, _settled(device)
        try:
            self._session = _open(content, name, device, threads)
        except UsageError:
            if wanted != "auto":
                raise
            device = "cpu"
            self._session = _open(content, name, device, threads)
        record = _record(self._session, name)
        super().__init__(record, tuple(record["terms"]), device)
        self._fingerprint = f"onnx {device} {hashlib.sha256(content).hexdigest()}"
        self._pixels = np.dtype(record["onnx"]["pixels"])
        # The many patches of one image are a block already.
        self.least = 1 if record["model"]["patch"] else ROWS
        # Whole batches side by side keep cores busier than the halves of one.
        self.parallel = cores() if threads == 1 and device == "cpu" else 1
        self.block = -(-block_rows(self.info.image_shape, BLOCK_ROWS) // ROWS) * ROWS if self.least > 1 else 1

    @property
    def fingerprint(self) -> str:
        """Digest of the file, and the device."""
        return self._fingerprint

    def prepared(self, images: Images) -> Images:
        """Checked images as pixels of the type that the file takes.

        Raises
        ------
        UsageError
            The file takes uint8, and the images are floats that no uint8 stands for.
        """
        if images.dtype == self._pixels:
            return images
        if self._pixels == np.float32:
            return images.astype(np.float32) / np.float32(255)
        levels = np.round(images * np.float32(255))
        if not np.array_equal(levels / np.float32(255), images):
            raise UsageError(
                "this model takes uint8 pixels, and the images are floats between its 256 steps; round them to uint8, "
                "or export it anew with --pixels float32"
            )
        return levels.astype(np.uint8)

    def run(self, images: Images, wanted: tuple[str, ...]) -> dict[str, Floats]:
        """The results called `wanted` for 1 to `block` images."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        rows = self.block if self.device != "cpu" else -(-len(images) // self.least) * self.least
        batch = images if len(images) == rows else filled(images, rows)
        try:
            if self.device == "cpu":
                results = self._session.run(wanted, {IMAGE: batch}, options)
            else:
                binding = self._session.io_binding()
                binding.bind_cpu_input(IMAGE, batch)
                for name in wanted:
                    binding.bind_output(name)
                self._session.run_with_iobinding(binding, options)
                results = binding.copy_outputs_to_cpu()
        except Exception as error:
            # Which exception it is differs by version and provider; all say so when memory ran out.
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise VaeguardError(
                f"ONNX Runtime failed on {self.device} ({str(error).splitlines()[0]}); run `vaeguard doctor`, or use "
                "--device cpu"
            ) from error
        return {name: values[: len(images)] for name, values in zip(wanted, results, strict=True)}


def output_names(info: DetectorInfo) -> tuple[str, ...]:
    """Names of the outputs of an exported model, in order."""
    return ("score", "p_value", "anomaly", *info.term_names, "restored", "heatmap")


def read_onnx(path: str | Path, device: str = "auto", threads: int | None = None) -> OnnxDetector:
    """Read a detector from an `.onnx` file that `vaeguard export` wrote, after checking every bit of it.

    Raises
    ------
    RefusedError
        The file is missing, damaged, or no model of vaeguard.
    UsageError
        `device` cannot be used.
    """
    return OnnxDetector(read_sealed(path), str(path), device, threads)


def _settled(device: str) -> str:
    """`auto` settled to `cuda` where there is an NVIDIA device, told without loading any library."""
    if device != "auto":
        return device
    return "cuda" if _has_gpu() else "cpu"


def _has_gpu() -> bool:
    if platform.system() == "Windows":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def _open(content: bytes, name: str, device: str, threads: int | None) -> Any:
    """A session on `device`.

    ONNX Runtime falls back to the CPU with a line in a log; here it is an error.
    """
    import onnxruntime

    wanted = PROVIDERS[device]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    # Idle threads that spin take the core from the threads that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if wanted:
        # Why a GPU cannot be used fills a screen; below it is one sentence.
        onnxruntime.set_default_logger_severity(4)
    if wanted and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    missing = set(wanted) - set(onnxruntime.get_available_providers())
    if missing:
        raise UsageError(
            f"--device {device}: this onnxruntime has no {missing.pop()}; install onnxruntime-gpu, or use --device cpu"
        )
    providers = [(each, GPU_OPTIONS[each]) for each in wanted]
    try:
        # From bytes: a file that refers to data outside itself is refused.
        session = onnxruntime.InferenceSession(
            content, options, providers=[*providers, "CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:
        if wanted:
            raise UsageError(
                f"--device {device}: ONNX Runtime cannot use it ({str(error).splitlines()[0]}); run `vaeguard doctor`, "
                "or use --device cpu"
            ) from error
        # The binding's exceptions share no base class but Exception.
        raise RefusedError(
            f"ONNX Runtime cannot open {name!r} ({str(error).splitlines()[0]}); export the model anew"
        ) from error
    if wanted and not _runs_on(session, device):
        raise UsageError(
            f"--device {device}: ONNX Runtime fell back to {session.get_providers()[0]}; run `vaeguard doctor`, "
            "or use --device cpu"
        )
    return session


def _runs_on(session: Any, device: str) -> bool:
    return bool(session.get_providers()[0] in PROVIDERS[device])


def _record(session: Any, name: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        found = record["format"]
    except (KeyError, ValueError, TypeError) as error:
        raise RefusedError(f"{name!r} is no model of vaeguard; give one that `vaeguard export` wrote") from error
    if found != FORMAT:
        raise RefusedError(f"{name!r} has format {found}, this vaeguard reads {FORMAT}; update it or export anew")
    return record
