"""To the Hugging Face Hub: private, gated, resumable, and compared byte for byte after the upload.

The one room that imports ``huggingface_hub``; nothing outside it does. A push goes one way::

    verify OUT ─▶ look at the repo ─▶ create private ─▶ gate ─▶ look again ─▶ upload ─▶ read back ─▶ compare

Whatever stops it, stops it there: what is not private and gated by the Hub's own word gets no byte of data.
"""

from __future__ import annotations

from converters.hub.destination import Destination, Gating
from converters.hub.plan import Plan
from converters.hub.upload import PushReport, check, push

__all__ = ["Destination", "Gating", "Plan", "PushReport", "check", "push"]
