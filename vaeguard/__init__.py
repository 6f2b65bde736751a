"""Anomaly detection and denoising of images with variational autoencoders, fitted on normal images only.

>>> import vaeguard
>>> detector = vaeguard.fit(vaeguard.open_images("digits"), normal_classes="0-8")  # doctest: +SKIP
>>> detector.inspect(batch).score  # doctest: +SKIP

Names load what they need on first use, so that `import vaeguard` costs next to nothing; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
