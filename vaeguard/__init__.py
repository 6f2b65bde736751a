"""Anomaly detection and denoising of images with variational autoencoders, fitted on normal images only.

>>> import vaeguard
>>> detector = vaeguard.fit(vaeguard.open_images("digits"), normal_classes="0-8")  # doctest: +SKIP
>>> detector.inspect(batch).score  # doctest: +SKIP

Names load what they need on first use, so that `import vaeguard` costs next to nothing; `__init__.pyi` lists them. The
import sets `ORT_DISABLE_TELEMETRY=1` in the environment, unless it is set, so that ONNX Runtime sends nothing.
"""

import os

import lazy_loader

# ONNX Runtime reads this variable when it is imported. Without it, newer versions report their use to their maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from vaeguard.packages import own_version

        return own_version()
    return _public(name)
