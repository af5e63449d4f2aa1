"""What is tried again, and when."""

import inspect

import pytest

from corral import errors
from corral.operations.retries import may_pass, pause

AGAIN = {
    errors.SourceError,
    errors.DatabaseError,
    errors.UpstreamError,
    errors.UpstreamUnreachable,
    errors.UpstreamTimeout,
    errors.UpstreamProtocol,
    errors.UpstreamLimited,
    errors.UpstreamOverloaded,
    errors.CircuitOpen,
}


@pytest.mark.parametrize(
    "kind", [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CorralError)]
)
def test_every_error_is_either_passing_or_lasting(kind):
    assert may_pass(kind("It happened.")) == (kind in AGAIN)


@pytest.mark.parametrize("error", [ValueError(), OSError(28, "No space"), AssertionError()])
def test_a_fault_is_not_tried_again(error):
    assert not may_pass(error)


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError()])
def test_a_lost_connection_is(error):
    assert may_pass(error)


def test_each_pause_is_longer_up_to_a_minute():
    assert [pause(tries) for tries in (1, 2, 3, 6, 10**6)] == [2, 4, 8, 60, 60]
