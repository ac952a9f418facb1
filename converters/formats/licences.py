"""Licences by the identifiers that the Hugging Face Hub has for them."""

from __future__ import annotations

import re

# https://huggingface.co/docs/hub/repositories-licenses; the Hub refuses a card that states any other.
# `unknown` and `other` are left out: what is not known is told by name and text.
_IDENTIFIERS = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda
    cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++
    osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma
"""
HUB_LICENCES = frozenset(_IDENTIFIERS.split())

# Other names of the same, in the form of :func:`slug`: words that add nothing, words of Creative Commons', and SPDX
# identifiers (https://spdx.org/licenses) that the Hub has without a version.
_SAME = (
    (r"(^|-)(the|licen[cs]e|international|unported|generic|universal|only|or-later)(?=-|$)", ""),
    (r"creative-commons", "cc"),
    (r"attribution", "by"),
    (r"non-?commercial", "nc"),
    (r"share-?alike", "sa"),
    (r"no-?deriv(ative)?s", "nd"),
    (r"^(odbl|odc-by|pddl|c-uda)-1\.0$", r"\1"),
    (r"^cc0$", "cc0-1.0"),
)


def slug(name: str) -> str:
    """A licence name in the characters that the Hub takes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "unknown"


def hub_licence(name: str) -> str | None:
    """The Hub's identifier of a licence, by its name or identifier elsewhere; None where it has none."""
    text = re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-")
    for pattern, replacement in ((r"$^", ""), *_SAME):
        text = re.sub(pattern, replacement, text).strip("-")
        if text in HUB_LICENCES:
            return text
    return None
