"""Workflows whose output may be the URL of a place in a bucket."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from vaeguard.storage import places
from vaeguard.storage.published import published

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.workflows.outcome import Outcome, Reporter

_Workflow = TypeVar("_Workflow", bound="Callable[..., Outcome]")


def publishing(
    parameter: str, beside: Callable[[str], Callable[[str], bool]] | None = None
) -> Callable[[_Workflow], _Workflow]:
    """Have a workflow write into a local copy of its output `parameter` if that is a URL, see `published`.

    `beside` makes of the name of an output that is a file what tells which other files belong to it.
    """

    def decorate(workflow: _Workflow) -> _Workflow:
        signature = inspect.signature(workflow)

        @wraps(workflow)
        def run(*args: Any, **kwargs: Any) -> Outcome:
            given = signature.bind(*args, **kwargs)
            url: Any = given.arguments.get(parameter)
            if not places.is_url(url):
                return workflow(*args, **kwargs)
            given.arguments["reporter"] = naming(given.arguments["reporter"])
            with published(url, beside and beside(places.name_of(url))) as output:
                given.arguments[parameter] = output
                done = workflow(*given.args, **given.kwargs)
            return named(done)  # type: ignore[no-any-return]

        return run  # type: ignore[return-value]

    return decorate


def naming(reporter: Reporter) -> Reporter:
    """A reporter whose messages name URLs in place of the copies."""
    return replace(reporter, say=lambda text: reporter.say(places.as_urls(text)))


def named(done: Any) -> Any:
    """A result, or a dataclass in it, with URLs in place of the copies."""
    if not is_dataclass(done) or isinstance(done, type):
        return places.as_urls(done)
    values = {item.name: getattr(done, item.name) for item in fields(done) if item.init}
    return replace(done, **{name: named(value) for name, value in values.items()})
