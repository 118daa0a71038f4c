from __future__ import annotations

import os

from hypothesis import settings

# Two busy cores make any deadline a lottery; in CI the same inputs are tried each time, elsewhere new ones.
settings.register_profile("gateway", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gateway")
