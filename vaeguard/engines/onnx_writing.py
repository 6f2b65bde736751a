"""From a PyTorch module to the sealed bytes of an `.onnx` file, and to a file that agrees with PyTorch."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from vaeguard.engines.sessions import METADATA
from vaeguard.errors import VaeguardError
from vaeguard.storage.files import UNSEALED, read_sealed, seal, sweep, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

_T = TypeVar("_T")
OPSET = 20


def translated(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], dynamic: tuple[dict[int, Any], ...]
) -> Any:
    """`module` as an `onnx_ir.Model`; `dynamic` names the open sizes of each input.

    Raises
    ------
    VaeguardError
        The module cannot be expressed in ONNX.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:
        # The exporter raises many types of exceptions, and the remedy is always the same.
        raise VaeguardError(
            f"PyTorch cannot express this model in ONNX ({type(error).__name__}); update torch and onnxscript"
        ) from error
    assert program is not None
    return program.model


def sealed(model: Any, record: dict[str, Any]) -> bytes:
    """An `onnx_ir.Model` as the bytes of a sealed file with `record`, without paths of this machine.

    Raises
    ------
    VaeguardError
        The exporter wrote another opset than `OPSET`.
    """
    import onnx_ir

    if model.opset_imports[""] != OPSET:
        raise VaeguardError(f"the exporter wrote opset {model.opset_imports['']} instead of {OPSET}; update onnxscript")
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            # The metadata hold stack traces with paths of this machine.
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update({METADATA: json.dumps(record), "seal": UNSEALED})
    return seal(onnx_ir.to_proto(model).SerializeToString(deterministic=True))


def publish(files: Mapping[Path, bytes], compare: Callable[[Mapping[Path, bytes]], _T]) -> _T:
    """Write sealed files, read them back, and give them their names once `compare` accepts them.

    Parameters
    ----------
    files : mapping of Path to bytes
        Contents as `sealed` returns them; the first file takes its name last.
    compare : callable
        Takes the files as they were read back, and raises an error if they do not agree with PyTorch. Then no file
        appears.

    Returns
    -------
    What `compare` returns.
    """
    with contextlib.ExitStack() as stack:
        written = {}
        for path, content in files.items():
            sweep(path.parent)
            temporary = stack.enter_context(writing(path))
            temporary.write_bytes(content)
            written[path] = read_sealed(temporary)
        return compare(written)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's log."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
