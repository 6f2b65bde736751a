"""Join XMP that is stored in two parts."""

from __future__ import annotations

import contextlib
import re
from xml.etree import ElementTree as ET

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF"


def joined(main: bytes, extension: bytes) -> bytes:
    """Put the descriptions of an extension into XMP, behind its own; all other bytes stay."""
    more = _descriptions(extension)
    for name in (rb"[\w.-]*:?RDF", rb"[\w.-]*:?xmpmeta"):
        if ends := list(re.finditer(rb"</" + name + rb"\s*>", main)):
            return main[: ends[-1].start()] + more + main[ends[-1].start() :]
        if empty := re.search(rb"<(" + name + rb")\b[^>]*?(/)>", main):
            return main[: empty.start(2)] + b">" + more + b"</" + empty[1] + b">" + main[empty.end() :]
    return main + more


def _descriptions(extension: bytes) -> bytes:
    """The descriptions in an extension of XMP, each with its own namespaces; all that is in it if there are none."""
    with contextlib.suppress(ET.ParseError):
        if b"<!DOCTYPE" not in extension:  # so it has no entities, which could expand without end
            rdf = next(ET.fromstring(extension).iter(_RDF), ())  # noqa: S314
            if len(rdf):
                return b"".join(ET.tostring(description) for description in rdf)
    inner = re.search(rb"<([\w.-]*:?(?:RDF|xmpmeta))\b[^>]*>(.*)</\1\s*>", extension, re.DOTALL)
    return inner[2] if inner else extension
