"""A verb and its report in one call, for the command line.

A name is loaded on first use; `__init__.pyi` lists the names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
