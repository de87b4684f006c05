"""How hypothesis runs here: no deadline on shared machines, the same examples every time in CI."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "visavis",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    # Slow drawing says something about the machine's load, not about the code.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("visavis")
