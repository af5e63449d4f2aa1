"""Where a container stands: a clock moved by hand, an engine of values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.domain.containers import ContainerSpec, Event, Seen, Wanted, Watch
from corral.domain.standings import ContainerState, Health, ModelInside, Standing
from corral.fleet import standing
from corral.fleet.standing import Do, News, Past, Stand

State = ContainerState
SPEC = ContainerSpec("qwen", "corral-qwen", "ollama", "ollama/ollama", memory=512 * 2**20)
WATCH = Watch(start_timeout=100.0, failures=3, first=1.0, longest=60.0, settled=60.0, crashes=5)


class Yard:
    """One container, what is remembered of it, and a clock: what `fleet` does, with values alone."""

    def __init__(self, watch: Watch = WATCH, *, up: bool = True) -> None:
        self.wanted: Wanted | None = Wanted(SPEC, watch=watch, up=up, models=("q",))
        self.watch = watch
        self.now = 1000.0
        self.seen: Seen | None = None
        self.past = Past()
        self.made = 0
        self.last: Stand | None = None

    def look(self, event: Event | None = None, health: Health | None = None, gpu: int | None = None) -> Stand:
        self.last = standing.stand(self.wanted, self.seen, self.past, self.now, News(event, health, gpu))
        self.past = self.last.past
        return self.last

    def after(self, seconds: float) -> Stand:
        self.now += seconds
        return self.look()

    def tell(self, what: str, **attributes: str) -> Stand:
        """An event, told a moment after it happened."""
        whose = self.seen.id if self.seen else self.past.id or ""
        event = Event(what, whose, "corral-qwen", self.now, attributes)
        self.now += 0.01
        return self.look(event)

    def check(self, *, ok: bool = True, gpu: int | None = None, **more: object) -> Stand:
        return self.look(health=Health(ok, self.now, **more), gpu=gpu)  # type: ignore[arg-type]

    # What the engine does.

    def run(self) -> None:
        assert self.seen is not None
        self.seen = replace(self.seen, running=True, created_only=False, started_at=self.now, exit_code=None)

    def end(self, code: int, *, oom: bool = False) -> None:
        assert self.seen is not None
        self.seen = replace(self.seen, running=False, exit_code=code, finished_at=self.now, oom_killed=oom)

    # What Corral does.

    def carry_out(self, do: Do, *, told: bool = True) -> Stand:
        self.past = standing.began(self.past, do, self.now)
        assert not self.look().effects, "while something is done nothing else is"
        if do in (Do.STOP, Do.RESTART, Do.RECREATE) and self.seen and self.seen.running:
            self.now += 0.1
            self.end(143)
            if told:
                for what in ("kill", "die", "stop"):
                    self.look(Event(what, self.seen.id, "", self.now, {"signal": "15", "exitCode": "143"}))
        if do in (Do.CREATE, Do.RECREATE):
            self.made += 1
            self.seen = Seen(f"{self.made:064x}", "corral-qwen", "ollama/ollama", created_only=True)
        if do is not Do.STOP:
            self.now += 0.1
            self.run()
            assert self.seen
            if told:
                self.look(Event("start", self.seen.id, "", self.now))
        self.now += 0.1
        self.past = standing.done(self.past, self.now, self.seen.id if self.seen else None)
        return self.look()


def up(watch: Watch = WATCH, *, well: bool = True) -> Yard:
    """A container that Corral has made and started, and that is well."""
    yard = Yard(watch)
    assert [effect.do for effect in yard.look().effects] == [Do.CREATE]
    assert yard.carry_out(Do.CREATE).state is State.STARTING
    if well:
        assert yard.check().state is State.HEALTHY
    return yard


def dos(found: Stand) -> list[Do]:
    return [effect.do for effect in found.effects]


def test_it_is_made_started_and_well() -> None:
    yard = Yard()
    found = yard.look()
    assert (found.state, found.effects[0].reason) == (State.ABSENT, "there is none")
    found = yard.carry_out(Do.CREATE)
    assert (found.state, found.wake) == (State.STARTING, found.past.since + 100.0)  # type: ignore[operator]
    assert yard.check(ok=False, reason="connection refused").reason == "connection refused"
    yard.now += 1
    assert yard.check().state is State.HEALTHY
    assert not yard.after(1000).effects
    assert yard.last is not None
    assert yard.last.state is State.HEALTHY


def test_what_is_not_enabled_stays_down() -> None:
    yard = Yard(up=False)
    assert (yard.look().state, yard.look().reason, yard.look().effects) == (State.ABSENT, "enabled is false", ())
    yard.seen = Seen("1" * 64, "corral-qwen", "x", created_only=True)
    assert (yard.look().state, yard.look().effects) == (State.CREATED, ())
    yard.past = standing.wish(yard.past, True, yard.now)
    assert dos(yard.look()) == [Do.START]


@pytest.mark.parametrize(
    ("code", "oom", "state", "words"),
    [
        (0, False, State.EXITED, "by itself"),
        (1, False, State.EXITED, "exit code 1"),
        (127, False, State.EXITED, "not found"),
        (139, False, State.EXITED, "SIGSEGV"),
        (134, False, State.EXITED, "SIGABRT"),
        (143, False, State.EXITED, "SIGTERM"),
        (137, False, State.KILLED, "SIGKILL"),
        (137, True, State.OOM_KILLED, "more memory than its 0.5 GiB"),
        (1, True, State.OOM_KILLED, "more memory"),
    ],
)
def test_how_it_ended_is_named_and_it_starts_again(code: int, oom: bool, state: State, words: str) -> None:
    yard = up()
    yard.end(code, oom=oom)
    found = yard.tell("die", exitCode=str(code))
    assert (found.state, found.effects) == (state, ())
    assert words in found.reason
    assert "starts again after 1 s" in found.reason
    assert found.wake == pytest.approx(yard.now + 1.0)
    waiting = yard.after(0.5)
    assert waiting.state is State.WAITING
    assert words in waiting.reason
    assert standing.held(yard.past, WATCH, yard.now)
    found = yard.after(0.5)
    assert dos(found) == [Do.START]
    assert not standing.held(yard.past, WATCH, yard.now)
    assert dos(yard.after(5)) == [Do.START], "until it is done it is said again"
    assert yard.carry_out(Do.START).state is State.STARTING
    assert (yard.past.restarts, yard.past.wish) == (1, None)


@pytest.mark.parametrize("shown", [False, True], ids=["told", "shown"])
@pytest.mark.parametrize("restart", [False, True])
def test_that_it_was_the_kernel_may_be_told_after_the_end(shown: bool, restart: bool) -> None:
    yard = up(replace(WATCH, restart=restart))
    yard.end(137)
    found = yard.tell("die", exitCode="137")
    assert (found.state, "SIGKILL" in found.reason) == (State.KILLED, True)
    due = found.past.due
    yard.end(137, oom=shown)
    found = yard.look() if shown else yard.tell("oom")
    assert found.past.cause == "the kernel ended it: it took more memory than its 0.5 GiB"
    assert (found.past.crashes, found.past.due) == (1, due), "one end, told twice"
    assert found.state is State.OOM_KILLED
    assert found.reason.startswith(found.past.cause)
    assert yard.look().state is (State.WAITING if restart else State.OOM_KILLED)
    if restart:
        assert dos(yard.after(1.0)) == [Do.START]


def test_somebodys_kill_stays_one_whatever_is_told_after_it() -> None:
    yard = up(replace(WATCH, restart=False))
    yard.tell("kill", signal="9")
    yard.end(137)
    yard.tell("die", exitCode="137")
    found = yard.tell("oom")
    assert (found.state, found.reason) == (State.KILLED, "killed by hand; restart is false")


def test_an_oom_event_with_a_list_that_does_not_tell() -> None:
    yard = up()
    yard.tell("oom")
    assert yard.seen
    yard.seen = replace(yard.seen, running=False)
    assert yard.tell("die", exitCode="137").state is State.OOM_KILLED


def test_pauses_double_and_a_crash_loop_stays_down() -> None:
    yard = up()
    pauses = []
    for _ in range(4):
        yard.end(1)
        found = yard.tell("die", exitCode="1")
        assert found.state is State.EXITED
        assert found.wake is not None
        pauses.append(round(found.wake - yard.now, 3))
        yard.after(found.wake - yard.now)
        yard.carry_out(Do.START)
        yard.check()
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    yard.end(1)
    found = yard.tell("die", exitCode="1")
    assert (found.state, found.effects, found.wake) == (State.CRASH_LOOP, (), None)
    assert "ended 5 times" in found.reason
    assert "exit code 1" in found.reason
    assert yard.after(1e6).state is State.CRASH_LOOP
    assert "crash loop" in standing.held(yard.past, WATCH, yard.now)
    yard.past = standing.wish(yard.past, True, yard.now)
    assert dos(yard.look()) == [Do.START]


def test_a_crash_loop_of_a_container_that_kills_itself_in_memory_says_so() -> None:
    yard = up()
    for _ in range(5):
        yard.end(137, oom=True)
        found = yard.tell("die", exitCode="137")
        if found.wake is None:
            break
        yard.after(found.wake - yard.now)
        yard.carry_out(Do.START)
    assert yard.last is not None
    assert yard.last.state is State.CRASH_LOOP
    assert "more memory" in yard.last.reason


def test_having_been_well_for_a_while_its_past_is_forgotten() -> None:
    yard = up()
    for _ in range(20):
        yard.after(60.0)
        yard.end(1)
        found = yard.tell("die", exitCode="1")
        assert found.state is State.EXITED
        assert found.wake == pytest.approx(yard.now + 1.0)
        yard.after(1.0)
        yard.carry_out(Do.START)
        yard.check()
    assert yard.last is not None
    assert yard.last.wake == pytest.approx(yard.past.healthy_since + 60.0)  # type: ignore[operator]
    assert yard.after(60.0).past.restarts == 0


def test_the_longest_pause() -> None:
    assert [standing.pause(WATCH, ends) for ends in (0, 1, 2, 7, 10_000)] == [1.0, 1.0, 2.0, 60.0, 60.0]


def test_a_stop_by_hand_is_a_wish() -> None:
    yard = up()
    assert yard.tell("kill", signal="15").state is State.HEALTHY
    yard.now += 1
    yard.end(143)
    found = yard.tell("die", exitCode="143")
    assert (found.state, found.reason, found.effects) == (State.STOPPED, "stopped by hand", ())
    assert yard.tell("stop").past.wish is False
    assert yard.after(1e6).state is State.STOPPED
    yard.run()
    found = yard.tell("start")
    assert (found.state, found.past.wish) == (State.STARTING, True)
    yard.end(1)
    assert yard.tell("die", exitCode="1").state is State.EXITED


def test_a_stop_that_took_a_kill_is_a_wish_too() -> None:
    yard = up()
    yard.tell("kill", signal="15")
    yard.now += 10
    yard.tell("kill", signal="9")
    yard.end(137)
    assert yard.tell("die", exitCode="137").state is State.STOPPED


def test_a_stop_by_hand_in_the_midst_of_pauses() -> None:
    yard = up()
    yard.end(1)
    assert yard.tell("die", exitCode="1").state is State.EXITED
    found = yard.tell("stop")
    assert (found.state, found.wake) == (State.STOPPED, None)


def test_a_kill_by_hand_is_no_wish_and_no_crash() -> None:
    yard = up()
    for number in range(1, 12):
        yard.tell("kill", signal="9")
        yard.end(137)
        found = yard.tell("die", exitCode="137")
        assert (found.state, found.past.wish) == (State.KILLED, None)
        assert "killed by hand" in found.reason
        assert found.wake == pytest.approx(yard.now + min(2.0 ** (number - 1), 60.0))
        yard.after(60.0)
        yard.carry_out(Do.START)


def test_a_signal_that_ends_nothing_is_neither() -> None:
    yard = up()
    yard.tell("kill", signal="1")
    yard.tell("kill", signal="15")
    yard.now += 1000
    yard.end(1)
    assert yard.tell("die", exitCode="1").state is State.EXITED


def test_started_by_hand_while_nobody_told() -> None:
    yard = up()
    yard.tell("stop")
    yard.end(143)
    assert yard.look().state is State.STOPPED
    yard.now += 10
    assert yard.look().past.wish is False
    yard.run()
    found = yard.look()
    assert (found.state, found.past.wish) == (State.STARTING, True)


@pytest.mark.parametrize("do", [Do.STOP, Do.RESTART, Do.RECREATE])
@pytest.mark.parametrize("told", [True, False])
def test_what_corral_does_itself_is_no_wish(do: Do, told: bool) -> None:
    yard = up()
    yard.now += 100
    if do is Do.STOP:
        yard.past = standing.wish(yard.past, False, yard.now)
    found = yard.carry_out(do, told=told)
    assert found.past.wish is (False if do is Do.STOP else None)
    assert found.state is (State.STOPPED if do is Do.STOP else State.STARTING)
    assert found.reason == ("stopped" if do is Do.STOP else "")
    assert not found.effects
    assert found.past.pauses == 0


def test_an_event_of_what_corral_did_that_comes_late() -> None:
    yard = up()
    yard.now += 10
    stopped = yard.now + 0.05
    yard.carry_out(Do.RESTART, told=False)
    yard.now += 10
    yard.check()
    assert yard.seen
    for what in ("kill", "die", "stop"):
        found = yard.look(Event(what, yard.seen.id, "", stopped, {"signal": "15", "exitCode": "143"}))
        assert (found.state, found.past.wish) == (State.HEALTHY, None)
    started = yard.seen.started_at
    assert started is not None
    assert yard.look(Event("start", yard.seen.id, "", started)).state is State.HEALTHY


def test_events_of_a_container_that_is_no_more_say_nothing() -> None:
    yard = up()
    old = yard.seen
    assert old
    yard.carry_out(Do.RECREATE, told=False)
    yard.check()
    found = yard.look(Event("stop", old.id, "", yard.now))
    assert (found.state, found.past.wish) == (State.HEALTHY, None)


def test_restarted_by_hand() -> None:
    yard = up()
    yard.now += 5
    yard.tell("kill", signal="15")
    yard.end(143)
    yard.tell("die", exitCode="143")
    yard.run()
    yard.tell("stop")
    found = yard.tell("start")
    assert (found.state, found.past.wish, found.past.pauses) == (State.STARTING, True, 0)
    assert yard.check().state is State.HEALTHY


def test_an_engine_that_goes_down_stops_its_containers_and_that_is_no_wish() -> None:
    yard = up()
    yard.tell("kill", signal="15")
    yard.end(143)
    yard.tell("die", exitCode="143")
    assert yard.tell("stop").past.wish is False
    yard.now += 5
    found = standing.gone(yard.past, "the Docker engine does not answer", yard.now)
    assert (found.state, found.past.wish) == (State.UNKNOWN, None)
    yard.past = found.past
    yard.now += 30
    assert dos(yard.look()) == [Do.START]


def test_a_stop_by_hand_long_before_the_engine_went_holds() -> None:
    yard = up()
    yard.tell("stop")
    yard.end(143)
    yard.look()
    yard.now += 100
    yard.past = standing.gone(yard.past, "away", yard.now).past
    assert yard.look().state is State.STOPPED


def test_while_the_engine_is_away_containers_may_go_on() -> None:
    yard = up()
    yard.now += 10
    gone = standing.gone(yard.past, "away", yard.now)
    assert standing.gone(gone.past, "away", yard.now + 5).past.since == yard.now
    yard.past = gone.past
    assert yard.after(500).state is State.HEALTHY


def test_a_container_that_has_run_for_long_is_given_its_time() -> None:
    yard = Yard()
    yard.seen = Seen("1" * 64, "corral-qwen", "x", running=True, started_at=10.0)
    assert yard.look().state is State.STARTING
    assert yard.after(99).state is State.STARTING
    assert dos(yard.after(1)) == [Do.RESTART]


def test_never_well_is_started_anew_and_in_the_end_left_down() -> None:
    yard = up(well=False)
    for _ in range(4):
        found = yard.after(100.0)
        if not found.effects:
            found = yard.after(60.0)
        assert (found.state, dos(found)) == (State.UNHEALTHY, [Do.RESTART])
        assert "not healthy within 100 s" in found.reason
        assert yard.carry_out(Do.RESTART).state is State.STARTING
    found = yard.after(100.0)
    assert (found.state, dos(found)) == (State.CRASH_LOOP, [Do.STOP])
    found = yard.carry_out(Do.STOP)
    assert (found.state, found.effects) == (State.CRASH_LOOP, ())
    assert found.past.wish is None


def test_so_many_failed_checks_in_a_row() -> None:
    yard = up()
    for number in (1, 2):
        yard.now += 10
        found = yard.check(ok=False, reason="timed out")
        assert (found.state, found.effects) == (State.HEALTHY, ())
        assert found.reason == f"check {number} of 3 failed: timed out"
    yard.now += 10
    assert yard.check().reason == ""
    for _ in range(2):
        yard.now += 10
        yard.check(ok=False)
    yard.now += 10
    found = yard.check(ok=False, reason="timed out")
    assert (found.state, dos(found)) == (State.UNHEALTHY, [Do.RESTART])
    assert found.reason == "3 checks in a row failed: timed out"
    assert yard.check().state is State.HEALTHY, "it came back by itself"
    assert yard.past.due is None


def test_an_answer_from_before_it_was_started_says_nothing() -> None:
    yard = up()
    old = yard.now
    yard.now += 1
    yard.carry_out(Do.RESTART)
    assert yard.look(health=Health(True, old)).state is State.STARTING


def test_a_model_that_is_missing_is_no_reason_to_start_it_anew() -> None:
    yard = up(well=False)
    found = yard.check(ok=False, missing=("q",))
    assert (found.state, found.effects) == (State.UNHEALTHY, ())
    assert "none of its models: q" in found.reason
    assert not yard.after(1e4).effects
    found = yard.check(ok=False, missing=("q",), models=(ModelInside("p"),))
    assert (found.state, found.reason) == (State.HEALTHY, "it has not q")
    for _ in range(3):
        found = yard.check(ok=False, reason="timed out")
    assert dos(found) == [Do.RESTART]


def test_restart_false() -> None:
    yard = up(replace(WATCH, restart=False))
    for _ in range(3):
        found = yard.check(ok=False, reason="timed out")
    assert (found.state, found.effects) == (State.UNHEALTHY, ())
    assert not yard.after(1e5).effects
    assert not yard.check(ok=False).effects
    yard.end(1)
    found = yard.tell("die", exitCode="1")
    assert (found.state, found.effects, found.wake) == (State.EXITED, (), None)
    found = yard.after(1e5)
    assert (found.state, found.effects) == (State.EXITED, ())
    assert "restart is false" in found.reason
    assert "restart is false" in standing.held(yard.past, yard.watch, yard.now)
    yard.past = standing.wish(yard.past, True, yard.now)
    assert dos(yard.look()) == [Do.START]


def test_paused_by_hand() -> None:
    yard = up()
    assert yard.seen
    yard.seen = replace(yard.seen, paused=True)
    assert (yard.tell("pause").state, yard.last.reason if yard.last else "") == (State.PAUSED, "paused by hand")
    assert yard.check(ok=False).state is State.PAUSED
    yard.seen = replace(yard.seen, paused=False)
    assert yard.tell("unpause").state is State.HEALTHY


def test_removed_by_hand_it_is_made_again() -> None:
    yard = up()
    yard.end(137)
    yard.tell("kill", signal="9")
    yard.tell("die", exitCode="137")
    yard.seen = None
    found = yard.after(1.0)
    assert (found.state, dos(found)) == (State.ABSENT, [Do.CREATE])
    yard.past = standing.wish(yard.past, False, yard.now)
    assert (yard.look().state, yard.look().effects) == (State.ABSENT, ())


def test_what_cannot_be_started_is_tried_again_and_in_the_end_not() -> None:
    yard = up()
    yard.past = standing.wish(yard.past, False, yard.now)
    yard.carry_out(Do.STOP)
    yard.past = standing.wish(yard.past, True, yard.now)
    for number in range(1, 5):
        assert dos(yard.look()) == [Do.START]
        yard.past = standing.began(yard.past, Do.START, yard.now)
        yard.past = standing.failed(yard.past, WATCH, "port 11434 is taken by nginx", yard.now)
        found = yard.look()
        assert found.state is State.WAITING
        assert "nginx" in found.reason
        yard.now += 2.0 ** (number - 1)
    yard.past = standing.began(yard.past, Do.START, yard.now)
    yard.past = standing.failed(yard.past, WATCH, "port 11434 is taken by nginx", yard.now)
    assert yard.look().state is State.CRASH_LOOP


def test_an_orphan() -> None:
    yard = up()
    yard.wanted = None
    found = yard.look()
    assert (found.state, found.effects) == (State.ORPHAN, ())
    yard.seen = None
    assert yard.look().state is State.ABSENT


def on_cpu(**more: object) -> dict[str, object]:
    return {"models": (ModelInside("q", loaded=True, **more),)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("in_gpu", "driver"), [(0, None), (None, 0), (0, 5)])
def test_fallen_back_to_the_cpu(in_gpu: int | None, driver: int | None) -> None:
    yard = up(replace(WATCH, gpu=True))
    assert yard.check(gpu=driver, **on_cpu(in_gpu=in_gpu)).state is State.HEALTHY, "one look may err"
    for number in (1, 2):
        found = yard.check(gpu=driver, **on_cpu(in_gpu=in_gpu))
        assert (found.state, dos(found)) == (State.FALLEN_BACK, [Do.RECREATE])
        assert found.reason == "q is loaded, and takes no memory of a GPU"
        assert yard.carry_out(Do.RECREATE).state is State.STARTING
        assert yard.past.remade == number
        assert yard.check().state is State.HEALTHY
        yard.after(100)
        yard.check(gpu=driver, **on_cpu(in_gpu=in_gpu))
    found = yard.check(gpu=driver, **on_cpu(in_gpu=in_gpu))
    assert (found.state, found.effects) == (State.FALLEN_BACK, ())
    assert "made anew 2 times" in found.reason
    assert (yard.after(5).state, yard.check(models=(ModelInside("q"),)).state) == (State.FALLEN_BACK,) * 2
    assert yard.check(**on_cpu(in_gpu=7)).state is State.HEALTHY
    yard.after(100)
    assert yard.check(**on_cpu(in_gpu=7)).past.remade == 0


@pytest.mark.parametrize(("in_gpu", "driver"), [(None, None), (1, 0), (None, 4096)])
def test_what_is_on_a_gpu_or_unknown_has_not_fallen_back(in_gpu: int | None, driver: int | None) -> None:
    yard = up(replace(WATCH, gpu=True))
    for _ in range(5):
        assert yard.check(gpu=driver, **on_cpu(in_gpu=in_gpu)).state is State.HEALTHY


def test_without_a_gpu_wanted_nothing_falls_back() -> None:
    yard = up()
    for _ in range(5):
        assert yard.check(gpu=0, **on_cpu(in_gpu=0)).state is State.HEALTHY


def test_what_was_written_down_is_remembered() -> None:
    kept = Standing("qwen", "corral-qwen", "ollama", State.CRASH_LOOP, "", "ended 5 times", since=5.0, id="1" * 64)
    yard = Yard()
    yard.past = standing.recalled(kept, None)
    yard.seen = Seen("1" * 64, "corral-qwen", "x", exit_code=1, finished_at=900.0)
    assert (yard.look().state, yard.look().reason, yard.look().effects) == (State.CRASH_LOOP, "ended 5 times", ())
    yard.past = standing.recalled(replace(kept, state=State.HEALTHY, reason="", started_at=1.0), None)
    yard.seen = replace(yard.seen, running=True, exit_code=None, started_at=1.0)
    assert yard.look().state is State.HEALTHY
    yard.past = standing.recalled(replace(kept, state=State.HEALTHY, reason=""), None)
    yard.seen = replace(yard.seen, running=False, exit_code=137)
    assert yard.look().state is State.KILLED, "it ended while nobody looked"
    yard.past = standing.recalled(replace(kept, state=State.STOPPED), False)
    assert yard.look().state is State.STOPPED


HAND = ("docker stop", "docker start", "docker kill", "docker rm", "crash", "oom", "pause", "unpause", "restart")
STEPS = st.lists(
    st.one_of(
        st.sampled_from(HAND),
        st.sampled_from(["check", "sick", "look", "wish up", "wish down", "gone"]),
        st.floats(0.1, 120.0),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens_the_state_is_the_truth(steps: list[str | float]) -> None:
    """In the end what runs is said to run; what is wanted comes up, unless it is a crash loop."""
    yard = Yard()
    for step in steps:
        yard.now += 0.5
        happen(yard, step)
        settle(yard)
        assert yard.last is not None
        assert_true(yard, yard.last)
    yard.now += 1000.0
    settle(yard)
    yard.check()
    settle(yard)
    assert yard.last is not None
    wanted = standing.shall_run(yard.wanted, yard.past)
    running = yard.seen is not None and yard.seen.running
    assert running or not wanted or yard.past.looped


def assert_true(yard: Yard, found: Stand) -> None:
    seen = yard.seen
    if found.state is State.UNKNOWN:
        return
    running = seen is not None and (seen.running or seen.paused)
    assert found.state.up == running or (found.state is State.CRASH_LOOP and running)
    assert (found.state is State.ABSENT) <= (seen is None)
    assert (found.state is State.PAUSED) == (seen is not None and seen.paused)
    if not standing.shall_run(yard.wanted, yard.past):
        assert not found.effects
    if yard.past.crashes >= WATCH.crashes:
        assert yard.past.looped


def settle(yard: Yard) -> None:
    """What Corral does, until it has nothing to do."""
    for _ in range(5):
        found = yard.look()
        if not found.effects:
            return
        yard.carry_out(found.effects[0].do)
    raise AssertionError("it has always something to do")


def happen(yard: Yard, step: str | float) -> None:
    if isinstance(step, float):
        yard.after(step)
    elif step == "gone":
        yard.past = standing.gone(yard.past, "away", yard.now).past
    elif step.startswith("wish"):
        said(yard, step == "wish up")
    elif step == "docker rm" and yard.seen is not None:
        gone, yard.seen = yard.seen, None
        yard.look(Event("destroy", gone.id, "", yard.now))
    elif yard.seen is not None and yard.seen.running:
        happen_to_what_runs(yard, yard.seen, step)
    elif step == "docker start" and yard.seen is not None:
        yard.run()
        assert yard.tell("start").past.wish is True


def said(yard: Yard, up: bool) -> None:
    yard.past = standing.wish(yard.past, up, yard.now)
    if not up and yard.seen is not None and yard.seen.running:
        yard.seen = replace(yard.seen, paused=False)
        yard.carry_out(Do.STOP)


def happen_to_what_runs(yard: Yard, seen: Seen, step: str) -> None:
    codes = {"docker stop": 143, "docker kill": 137, "crash": 1, "oom": 137}
    if step in ("pause", "unpause"):
        yard.seen = replace(seen, paused=step == "pause")
        yard.tell(step)
    elif seen.paused:
        return
    elif step in ("check", "sick"):
        yard.check(ok=step == "check")
    elif step in codes:
        if step.startswith("docker"):
            yard.tell("kill", signal="15" if step == "docker stop" else "9")
        if step == "oom":
            yard.tell("oom")
        yard.end(codes[step], oom=step == "oom")
        yard.tell("die", exitCode=str(codes[step]))
        if step == "docker stop":
            assert yard.tell("stop").past.wish is False
    elif step == "restart":
        yard.end(143)
        yard.run()
        for what in ("die", "stop", "start"):
            yard.tell(what, exitCode="143")


def test_what_cannot_even_be_started_once_is_a_crash_loop_in_the_end() -> None:
    yard = Yard()
    yard.seen = Seen("1" * 64, "corral-qwen", "x", created_only=True, error="no such device: gpu")
    for _ in range(5):
        assert dos(yard.after(60.0)) == [Do.START]
        yard.past = standing.began(yard.past, Do.START, yard.now)
        yard.past = standing.failed(yard.past, WATCH, "no such device: gpu", yard.now)
    found = yard.after(60.0)
    assert (found.state, found.effects) == (State.CRASH_LOOP, ())
    assert "no such device" in found.reason


def test_a_crash_loop_that_cannot_be_stopped_is_tried_again_later() -> None:
    yard = up(replace(WATCH, crashes=1))
    for _ in range(3):
        found = yard.check(ok=False)
    assert (found.state, dos(found)) == (State.CRASH_LOOP, [Do.STOP])
    yard.past = standing.began(yard.past, Do.STOP, yard.now)
    yard.past = standing.failed(yard.past, yard.watch, "the engine did not answer", yard.now)
    found = yard.after(59.0)
    assert (found.state, found.effects, found.wake) == (State.CRASH_LOOP, (), yard.now + 1.0)
    assert not yard.check(ok=False).effects
    assert dos(yard.after(1.0)) == [Do.STOP]
    assert yard.check().state is State.HEALTHY, "it came back by itself"


def test_out_of_memory_without_a_limit_is_the_machines() -> None:
    yard = up()
    assert yard.wanted is not None
    yard.wanted = replace(yard.wanted, spec=replace(SPEC, memory=None))
    yard.end(137, oom=True)
    assert "the machine had no memory left" in yard.tell("die", exitCode="137").reason


def test_a_restart_that_is_due_is_not_put_off_by_further_checks() -> None:
    yard = up()
    yard.end(1)
    yard.tell("die", exitCode="1")
    yard.after(1.0)
    yard.carry_out(Do.START)
    yard.check()
    for _ in range(3):
        found = yard.check(ok=False)
    assert (found.state, found.effects) == (State.UNHEALTHY, ())
    assert found.wake == yard.now + 2.0
    yard.now += 1.0
    assert (yard.check(ok=False).state, yard.past.pauses) == (State.UNHEALTHY, 2)
    assert dos(yard.after(1.0)) == [Do.RESTART]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "it ended"),
        (125, "the Docker engine could not run it (exit code 125)"),
        (140, "signal 12 (exit code 140)"),
        (135, "SIGBUS: it lost a file or memory that it had mapped (exit code 135)"),
    ],
)
def test_exit_codes_in_words(code: int | None, words: str) -> None:
    assert standing.ended(code) == words
