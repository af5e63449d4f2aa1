"""What is worth another try, and how long to wait for it. Pure."""

from __future__ import annotations

from corral.errors import AddressRefused, DatabaseError, LoginRequired, SourceError, UpstreamError

PASSING = (SourceError, DatabaseError, UpstreamError, ConnectionError, TimeoutError)
"""What may be over by the next time: the other side, or the way there."""

LASTING = (LoginRequired, AddressRefused)
"""What stays as it is until somebody does something about it. (`SourceNotFound` is none of the above, too.)"""

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0


def may_pass(error: BaseException) -> bool:
    """Whether the same work may well succeed a little later."""
    return isinstance(error, PASSING) and not isinstance(error, LASTING)


def pause(attempts: int) -> float:
    """Seconds to wait after `attempts` tries, the first being 1: 2, 4, 8, … up to 60."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 10))
