"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Begun in the background by a shell, tests inherit that Ctrl-C is ignored, and so would every process they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes examples slow, not wrong: no example has a time limit of its own.
settings.register_profile("p2plearn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2plearn")
