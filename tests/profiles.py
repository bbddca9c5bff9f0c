"""How long the properties look: a push gets an answer in seconds, a night looks further.

A push looks at the same examples each time, so that it fails for what it changed and nothing else.

``GNOMON_HYPOTHESIS_PROFILE=nightly`` for the latter. A failing example is kept by Hypothesis in
``.hypothesis/``; one that showed a fault in our code becomes a test of its own.
"""

import os

from hypothesis import HealthCheck, Phase, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "push",
    derandomize=True,
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=SLOW,
    print_blob=True,
)
settings.register_profile(
    "nightly",
    derandomize=False,
    max_examples=5_000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=SLOW,
    print_blob=True,
)
settings.register_profile("mutation", settings.get_profile("push"), phases=[Phase.generate], database=None)
settings.load_profile(os.environ.get("GNOMON_HYPOTHESIS_PROFILE", "push"))
