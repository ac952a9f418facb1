"""To the Hugging Face Hub: private, gated, resumable, and compared byte for byte after the upload.

The one room that imports ``huggingface_hub``; nothing outside it does. A push goes one way::

    verify OUT ─▶ look at the repo ─▶ create private ─▶ gate ─▶ look again ─▶ upload ─▶ read back ─▶ compare

Whatever stops it, stops it there: what is not private and gated by the Hub's own word gets no byte of data.
"""

from __future__ import annotations

from converters.hub.destination import Destination, Gating, check_endpoint, configured_endpoint
from converters.plugins import require_extra

require_extra("hf", "a push to the Hub", "datasets", "huggingface_hub", "httpx2")
# huggingface_hub reads the address when it is imported, and fails without words on what is none.
check_endpoint(configured_endpoint())

from converters.hub.changes import Changes  # noqa: E402
from converters.hub.upload import PushReport, check, push  # noqa: E402

__all__ = ["Changes", "Destination", "Gating", "PushReport", "check", "push"]
