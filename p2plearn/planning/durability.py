"""What loss to expect of a course kept in r copies while nodes come and go. Sans-IO: numbers in, numbers out.

The model, which the simulator of ``tests/sim`` is held against:

- Nodes leave for good as a Poisson process: each with rate mu, whatever its age; they arrive with rate lambda. So the
  network has N(t) = N0 e^((lambda - mu) t) nodes, each keeping C r / N courses. Of those who leave, some hand over
  first and so lose nothing; ``leave_rate`` in what follows is the rate of the others.
- A lost copy is made again ``window`` seconds after its node left: grace, detection, transfer. A copy is then a thing
  that is there for 1 / mu and away for the window: there for lambda / (lambda + mu) of the time, lambda = 1 / window.
- A course is lost when all r are away at once. Each copy is an alternating renewal process, away for U = mu T / (1 +
  mu T) of the time (T the window), so all-away begins r * mu / (1 + mu T) * U^(r-1) times a second in the long run,
  however long the single absences are. (Ramabhadran and Pasquale 2006 and Carbonite, Chun et al. 2006, have a
  birth-death chain instead, with exponential repair times; ours are nearly constant, and that chain would promise up to
  a tenth less loss.)
- When k of N nodes vanish at once, those keep all r copies of a course with chance C(N-r, k-r) / C(N, k): places are
  hashes, so every set of r nodes is as likely as any other.

Rates are per second, times in seconds, chances in 0..1. Small chances keep their relative precision: nothing here is
the difference of two nearly equal numbers.

Imports nothing of ours.
"""

from __future__ import annotations

import math
from typing import Final

DAY: Final = 86400.0


def population(nodes: float, join_rate: float, leave_rate: float, after: float) -> float:
    """Nodes to be expected ``after`` so many seconds, of ``nodes`` now; both rates are a node's."""
    return nodes * math.exp(min((join_rate - leave_rate) * after, 700.0))


def there(leave_rate: float, window: float) -> float:
    """The share of time for which a copy is there: lambda / (lambda + mu), with lambda = 1 / window."""
    return 1.0 / (1.0 + leave_rate * window)


def loss(copies: int, leave_rate: float, window: float, period: float) -> float:
    """The chance that a course with ``copies`` copies, all there at first, is lost within ``period``.

    In the first window nothing is repaired, and the chance is that all nodes leave: exact. After it the long-run rate
    above holds, for the time in which the course isn't lost, less the share of times that are the same loss once more:
    a copy comes back, and its node is gone before the next is back, window / (copies + 1) later in the mean. Within 3 %
    of the truth while mu T is below 0.5.
    """
    if leave_rate <= 0.0 or period <= 0.0:
        return 0.0
    first: float = (-math.expm1(-leave_rate * min(window, period))) ** copies
    if period <= window or first >= 1.0:
        return first
    away = leave_rate * window
    share = away / (1.0 + away)
    rate = copies * leave_rate / (1.0 + away) * share ** (copies - 1) / (1.0 - share**copies)
    if copies > 1:
        rate /= 1.0 + away / (copies + 1)
    return -math.expm1(math.log1p(-first) - rate * (period - window))


def mass_loss(nodes: int, copies: int, vanish: int) -> float:
    """The chance that a course is lost when ``vanish`` of ``nodes`` vanish at once."""
    return math.prod(max(vanish - copy, 0) / (nodes - copy) for copy in range(copies))


def none_lost(courses: float, chance: float) -> float:
    """The chance that none of ``courses`` is lost, each with ``chance``."""
    return 0.0 if chance >= 1.0 else math.exp(courses * math.log1p(-chance))


def reachable(copies: int, online: float) -> float:
    """The chance that one of ``copies`` at least is there now, their nodes being on for ``online`` of the time."""
    return -math.expm1(copies * math.log1p(-online)) if online < 1.0 else 1.0


def repair_window(grace: float, online: float, detection: float, transfer: float) -> float:
    """Seconds until a copy whose node left for good is made again.

    A node counts the silence of others only while it is on itself, so among nodes that are on for ``online`` of the
    time a grace takes 1 / ``online`` as long.
    """
    return (grace + detection) / online + transfer


def enough_copies(goal: float, most: int, *, leave_rate: float, window: float, period: float) -> int | None:
    """The fewest copies with which a course is lost within ``period`` with chance ``goal`` at most; None if none do."""
    low, high = 1, most
    if loss(high, leave_rate, window, period) > goal:
        return None
    while low < high:
        middle = (low + high) // 2
        if loss(middle, leave_rate, window, period) <= goal:
            high = middle
        else:
            low = middle + 1
    return low
