"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine makes examples slow, not wrong: no example has a time limit of its own.
settings.register_profile("p2plearn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2plearn")
