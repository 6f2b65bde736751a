"""What runs on the nodes of a cluster: one call, made by the same vaeguard as that of the driver or not at all."""

from __future__ import annotations

import importlib
import platform
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.packages import PACKAGES, installed

if TYPE_CHECKING:
    from collections.abc import Mapping


def call(versions: Mapping[str, str], function: str, job: Any, item: Any) -> tuple[str, Any, str]:
    """Call a function, named by its module and name, and return `done` and its result, or what is wrong, and the node.

    `versions` are the packages of the driver.
    """
    node = platform.node()
    if (own := installed(PACKAGES)) != versions:
        name = next(name for name in (*versions, *own) if own.get(name) != versions.get(name))
        there, here = own.get(name, "not installed"), versions.get(name, "not installed")
        reason = f"{name} is {there}, but {here} on the machine that started the job"
        return "refused", f"{reason}; install the same packages on every node", node
    module, _, name = function.partition(":")
    try:
        return "done", getattr(importlib.import_module(module), name)(job, item), node
    except UsageError as error:
        return "usage", str(error), node
    except RefusedError as error:
        return "refused", str(error), node
    except VaeguardError as error:
        return "failed", str(error), node
    except OSError as error:  # such as a folder that is only on some nodes
        return "failed", f"{error}; use paths under which all nodes find the same files", node
