"""Limits from what models take; what a stop gives back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.domain.containers import ContainerSpec, Port, Usage, Wanted
from corral.fleet.limits import Limits, Need, Released, above, limited, limits, released, told

GIB = 2**30
WANTED = Wanted(ContainerSpec("a", "corral-a", "ollama", "ollama/ollama"))


def test_all_models_at_once_and_the_server() -> None:
    found = limits([Need(4 * GIB), Need(4 * GIB)], 64 * GIB, 16)
    assert (found.memory, found.cpus, found.reason) == (11 * GIB, 15.0, "its 2 models and the server")
    on_gpu = limits([Need(GIB, 8 * GIB)], 64 * GIB, 16)
    assert (on_gpu.memory, on_gpu.cpus, on_gpu.reason) == (3 * GIB, 8.0, "its model and the server")


def test_what_is_not_known_has_no_limit() -> None:
    assert limits([Need(GIB), None], 64 * GIB, 8) == Limits(reason="what its models take is not known yet")
    assert limits([], 64 * GIB) == Limits(reason="it has no models yet")
    assert limits([Need(GIB)], None).memory == 3 * GIB
    assert limits([Need(GIB)], None, 2).cpus is None


def test_the_machine_keeps_its_part() -> None:
    found = limits([Need(100 * GIB)], 32 * GIB)
    assert found.memory == 30 * GIB
    assert "the machine has not as much" in found.reason
    assert limits([Need(GIB)], GIB).memory == GIB


def test_a_limit_that_does_stays() -> None:
    need = [Need(4 * GIB)]
    assert limits(need, 64 * GIB).memory == 6 * GIB
    assert limits(need, 64 * GIB, had=12 * GIB).memory == 12 * GIB
    assert limits(need, 64 * GIB, had=13 * GIB).memory == 6 * GIB
    assert limits(need, 64 * GIB, had=5 * GIB).memory == 6 * GIB
    assert limits(need, 8 * GIB, had=12 * GIB).memory == 6 * GIB


@given(st.lists(st.builds(Need, st.integers(0, 10**12)), min_size=1, max_size=5), st.integers(1, 10**12))
def test_a_limit_is_kept_by_the_next_reckoning(needs: list[Need], memory: int) -> None:
    first = limits(needs, memory)
    assert first.memory is not None
    assert limits(needs, memory, had=first.memory).memory == first.memory
    assert first.memory % GIB == 0 or first.memory <= memory


def test_no_limit_ends_a_server_that_is_well() -> None:
    found = Limits(2 * GIB, reason="its model and the server")
    assert above(found, GIB) == found
    assert above(found, 3 * GIB) == Limits(4 * GIB, reason="its model and the server, who take more now")
    assert above(found, 3 * GIB, had=8 * GIB).memory == 4 * GIB
    assert above(found, 3 * GIB, had=4 * GIB).memory is None, "it has that already"
    assert above(found, None).memory is None
    assert above(Limits(), GIB).memory is None


def test_what_is_configured_is_not_touched() -> None:
    found = limited(WANTED, Limits(5, 2.0)).spec
    assert (found.memory, found.cpus) == (5, 2.0)
    again = limited(Wanted(found), Limits(9, 9.0)).spec
    assert (again.memory, again.cpus) == (5, 2.0)
    assert limited(WANTED, Limits()) == WANTED


def test_what_a_stop_gives_back() -> None:
    ports = (Port(1, 11434),)
    before = Usage(1.0, memory=500, gpu_memory=300)
    assert released(before, None, ports) == Released(500, 300, None, (11434,))
    assert released(before, Usage(2.0, memory=0, gpu_memory=100), ports) == Released(500, 200, 100, (11434,))
    assert released(None, None, ()) == Released()
    assert told(Released(500 * 2**20, 3 * GIB, None, (11434,))) == (
        "it gave back 500 MiB of memory, 3,072 MiB of GPU memory, port 11434"
    )
    assert told(Released()) == ""
    assert released(Usage(1.0), Usage(2.0, gpu_memory=0), ()) == Released(None, None, 0)
