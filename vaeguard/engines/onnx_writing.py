"""From a PyTorch module to the bytes of a sealed `.onnx` file."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

from vaeguard.engines.sessions import METADATA
from vaeguard.errors import VaeguardError
from vaeguard.storage.files import UNSEALED, seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

OPSET = 20


def translated(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], dynamic: tuple[dict[int, Any], ...]
) -> Any:
    """`module` as an `onnx_ir.Model`, with the sizes in `dynamic`, one for each input, left open.

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
        # Whatever stops the exporter, the user can do one thing only.
        raise VaeguardError(
            f"PyTorch cannot express this model in ONNX ({type(error).__name__}); update torch and onnxscript"
        ) from error
    assert program is not None
    return program.model


def sealed(model: Any, record: dict[str, Any]) -> bytes:
    """An `onnx_ir.Model` as the bytes of a file: with `record`, with a seal, without a trace of this machine.

    Raises
    ------
    VaeguardError
        The exporter wrote another opset than was asked for.
    """
    import onnx_ir

    if model.opset_imports[""] != OPSET:
        raise VaeguardError(f"the exporter wrote opset {model.opset_imports['']} instead of {OPSET}; update onnxscript")
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            # Stack traces with the paths of the machine that exported.
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update({METADATA: json.dumps(record), "seal": UNSEALED})
    return seal(onnx_ir.to_proto(model).SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's log to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
