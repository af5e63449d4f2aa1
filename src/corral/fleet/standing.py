"""What was seen, asked and remembered → where a container stands, and what is to be done now. Pure.

`stand` is called with whatever is new: an event, the answer of a health check, a list, or nothing but that time has
passed. It gives the state, and those effects that are due; `wake` is when to ask again though nothing has happened.
Effects are by level: until one is carried out, each call gives it again.

Whoever carries one out says so before and after (`began`, `done`, `failed`), so that what Corral did itself is told
from what somebody did by hand, and a container that it stops is none that crashed. Until `done` there are no effects.

A stop by hand is a wish; but an engine that goes down stops its containers the same way, and may still say so. So:
pass the event of a stop with what an inspection showed *after* it (an engine that is going answers none), and call
`gone` when the engine does not answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corral.domain.containers import Watch
from corral.domain.standings import ContainerState as State
from corral.fleet.past import Act, Do, Effect, News, Past, Stand, ended, pause

if TYPE_CHECKING:
    from corral.domain.containers import Event, Seen, Wanted
    from corral.domain.standings import Health, Standing

__all__ = [
    "MOST_REMADE",
    "Act",
    "Do",
    "Effect",
    "News",
    "Past",
    "Stand",
    "began",
    "done",
    "ended",
    "failed",
    "gone",
    "held",
    "pause",
    "recalled",
    "shall_run",
    "stand",
    "wish",
]

MOST_REMADE = 2
"""How often a container that is on the CPU, and should not be, is made anew for it."""
_LOOKS = 2
"""Looks in a row that must find it there: while a model is being loaded one may err."""
_POLITE = frozenset({"15", "SIGTERM", "TERM"})
_DEADLY = frozenset({"9", "SIGKILL", "KILL", "3", "SIGQUIT", "QUIT", "6", "SIGABRT", "ABRT", "2", "SIGINT", "INT"})
_TIME_TO_END = 120.0
"""Seconds in which an end follows from a SIGTERM."""
_LAST_WORDS = 60.0
"""Seconds in which an engine that goes down stops its containers, before it is gone."""
_ENDS = frozenset({Do.STOP, Do.RESTART, Do.RECREATE})
_STARTS = frozenset({Do.CREATE, Do.START, Do.RESTART, Do.RECREATE})
_ENDED = frozenset({State.EXITED, State.KILLED, State.OOM_KILLED})


def stand(wanted: Wanted | None, seen: Seen | None, past: Past, now: float, news: News | None = None) -> Stand:
    """Where it stands.

    Args:
        wanted: as configured; None: it is configured no longer, and an orphan.
        seen: as the engine shows it now; None: there is none.
        now: Unix seconds, by the clock that the engine's events are stamped with.
    """
    return _Turn(wanted, seen, past, now).taken(news or News())


def began(past: Past, do: Do, now: float) -> Past:
    """Corral begins to do that. Events until `done` are its own."""
    again = do in _STARTS and bool(past.cause)
    remade = do is Do.RECREATE and past.state is State.FALLEN_BACK
    acts = (*past.acts[-3:], Act(do, now))
    return replace(past, acts=acts, restarts=past.restarts + again, remade=past.remade + remade)


def done(past: Past, now: float, id: str | None = None) -> Past:  # noqa: A002 # the engine's own word
    """It is done; `id` of the container it made, if it made one."""
    act, past = _closed(past, now)
    if act.do is Do.STOP:
        return replace(past, running=False, due=None, finished_at=now)
    if act.do in (Do.CREATE, Do.RECREATE):  # another container than the one that failed
        past = replace(_cleared(past), restarts=past.restarts)
    if id is not None and id != past.id:
        past = replace(past, id=id, exit_code=None)
    return _fresh_run(past, now)


def failed(past: Past, watch: Watch, reason: str, now: float) -> Past:
    """It could not be done: another try is due after a pause, or it is a crash loop."""
    act, past = _closed(past, now)
    if act.do is Do.STOP:
        return replace(past, due=now + watch.longest)
    return _counted(replace(past, running=False), watch, reason, now)


def wish(past: Past, up: bool, now: float) -> Past:
    """Somebody says through Corral whether it shall run. What is wanted up has a clean past."""
    said = replace(past, wish=up, wished_at=now, wish_before=up, by_hand=False)
    return replace(_cleared(said), remade=0) if up else replace(said, due=None)


def gone(past: Past, reason: str, now: float) -> Stand:
    """The engine does not answer. A wish that its own going down made is taken back."""
    if past.wish is False and past.wished_at is not None and now - past.wished_at < _LAST_WORDS:
        past = replace(past, wish=past.wish_before)
    since = past.since if past.state is State.UNKNOWN else now
    past = replace(past, state=State.UNKNOWN, reason=reason, since=since)
    return Stand(State.UNKNOWN, reason, past)


def shall_run(wanted: Wanted | None, past: Past) -> bool:
    """Whether it shall run: as somebody last said, else as it is configured."""
    return wanted is not None and (wanted.up if past.wish is None else past.wish)


def held(past: Past, watch: Watch, now: float) -> str:
    """Why it is not started now, in words; empty: nothing is in the way. For `plan.Remembered.hold`."""
    if past.looped:
        return f"a crash loop: {past.cause}"
    if _put_off(past, watch, now):
        return _waits(past)
    return f"{past.cause}; restart is false" if past.cause and not watch.restart else ""


def recalled(standing: Standing, wish: bool | None) -> Past:
    """What is remembered of a container that was written down."""
    state = standing.state
    return Past(
        state=state,
        reason=standing.reason,
        since=standing.since,
        id=standing.id,
        wish=wish,
        running=state.up,
        started_at=standing.started_at,
        finished_at=standing.finished_at,
        exit_code=standing.exit_code,
        restarts=standing.restarts,
        looped=state is State.CRASH_LOOP,
        healthy_since=standing.since if state.active else None,
        checked_at=standing.checked_at,
        cause=standing.reason if state in _ENDED or state in (State.WAITING, State.CRASH_LOOP) else "",
    )


class _Turn:
    """One container, looked at once."""

    def __init__(self, wanted: Wanted | None, seen: Seen | None, past: Past, now: float) -> None:
        self._wanted = wanted
        self._watch = Watch() if wanted is None else wanted.watch
        self._seen = seen
        self._past = past
        self._now = now
        self._started: float | None = None  # when an event says it was started

    def taken(self, news: News) -> Stand:
        """The events first, then what is there, then what its models' API says."""
        if self._seen is not None and self._seen.id != self._past.id:
            self._new_container(self._seen.id)
        if news.event is not None and news.event.id == (self._seen.id if self._seen else self._past.id):
            self._hear(news.event)
        seen = self._seen
        if seen is None:
            return self._absent()
        if self._wanted is None:
            self._past = replace(self._past, running=seen.running, due=None)
            return self._at(State.ORPHAN, "it is configured no longer")
        if seen.running or seen.paused:
            self._run(seen)
            return self._at_run(seen, news)
        return self._down(seen)

    # What happened.

    def _new_container(self, id: str) -> None:  # noqa: A002 # the engine's own word
        """Another container has its name now: what the old one did does not count."""
        known = self._past.id is not None
        past = replace(_cleared(self._past), restarts=self._past.restarts) if known else self._past
        self._past = replace(past, id=id, running=False if known else past.running, exit_code=None, oom=False)

    def _hear(self, event: Event) -> None:
        past = self._past
        if event.what == "oom":
            self._past = replace(past, oom=True)
        elif event.what == "kill" and not self._own(event, _ENDS):
            signal = event.attributes.get("signal", "")
            if signal in _POLITE:
                self._past = replace(past, stopping_at=event.at)
            elif signal in _DEADLY:
                self._past = replace(past, killed=True)
        elif event.what == "die":
            self._past = replace(past, exit_code=_code(event), finished_at=event.at)
            asked = past.stopping_at is not None and 0 <= event.at - past.stopping_at < _TIME_TO_END
            if asked and not self._own(event, _ENDS):
                self._heard_wish(False, event)
        elif event.what == "stop" and not self._own(event, _ENDS):
            self._heard_wish(False, event)
        elif event.what == "start":
            self._started = event.at
            if not self._own(event, _STARTS):
                self._heard_wish(True, event)

    def _own(self, event: Event, kinds: frozenset[Do]) -> bool:
        """Whether Corral did what the event tells."""
        return any(
            act.do in kinds and act.began_at <= event.at <= (self._now if act.done_at is None else act.done_at)
            for act in self._past.acts
        )

    def _heard_wish(self, up: bool, event: Event) -> None:
        """Somebody did this by hand; unless somebody has said otherwise since."""
        past = self._past
        if (past.wished_at is not None and event.at < past.wished_at) or (past.wish is False and not up):
            return
        past = replace(past, wish=up, wished_at=event.at, wish_before=past.wish, by_hand=True)
        self._past = _cleared(past) if up else replace(past, due=None)

    # What is there.

    def _absent(self) -> Stand:
        self._past = replace(self._past, running=False, id=None, healthy_since=None)
        if not shall_run(self._wanted, self._past):
            return self._at(State.ABSENT, "" if self._wanted is None else self._why_down())
        if self._past.acting:
            return self._at(State.ABSENT, "it is being made")
        if self._past.looped:
            return self._in_loop()
        return self._due(State.ABSENT, Do.CREATE, self._past.cause or "there is none")

    def _run(self, seen: Seen) -> None:
        """It runs: as before, or anew."""
        past = self._past
        began = seen.started_at if seen.started_at is not None else self._started
        if not past.running:
            fresh = _fresh_run(past, self._now if began is None else began)
            before = max(past.finished_at or 0.0, past.wished_at or 0.0)
            if past.wish is False and not past.acting and began is not None and began > before > 0:
                said = replace(fresh, wish=True, wished_at=began, wish_before=False, by_hand=True)
                fresh = _cleared(said)  # somebody started it, and that was not told
            self._past = fresh
        elif began is not None and began != past.started_at:
            # a moment before it was found well is the same run, told more exactly; a later one is another run
            same = past.healthy_since is None or began <= past.healthy_since
            self._past = replace(past, started_at=began) if same else _fresh_run(past, began)

    def _made(self, seen: Seen) -> Stand:
        past = self._past = replace(self._past, running=False)
        if not shall_run(self._wanted, past):
            return self._at(State.CREATED, self._why_down())
        if past.looped:
            return self._in_loop()
        return self._due(State.CREATED, Do.START, seen.error or past.cause or "it was never started")

    def _down(self, seen: Seen) -> Stand:
        if seen.created_only:
            return self._made(seen)
        past = self._past
        if seen.exit_code is not None:
            past = replace(past, exit_code=seen.exit_code)
        past = replace(past, finished_at=seen.finished_at or past.finished_at)
        was_running = past.running
        self._past = replace(past, running=False)
        if past.acting:
            return self._at(past.state or State.STOPPED, past.reason)
        if not shall_run(self._wanted, self._past):
            return self._at(State.STOPPED, self._why_down())
        if was_running:
            return self._ended(seen)
        late = self._told_late(seen)
        past = self._past
        if past.looped:
            return self._in_loop()
        if past.cause and not self._watch.restart:
            state = State.OOM_KILLED if late else past.state
            return self._at(state if state in _ENDED else State.EXITED, f"{past.cause}; restart is false")
        if late and _put_off(past, self._watch, self._now):
            return self._at(State.OOM_KILLED, _waits(past))
        return self._due(State.WAITING, Do.RECREATE if seen.dead else Do.START, past.cause or ended(past.exit_code))

    def _ended(self, seen: Seen) -> Stand:
        """It ended by itself, or was killed: neither was a wish."""
        past = self._past
        code = past.exit_code
        if seen.oom_killed or (past.oom and code == 137):
            state, why = State.OOM_KILLED, self._out_of_memory()
        elif past.killed or code == 137:
            state, why = State.KILLED, "killed by hand" if past.killed else ended(code)
        else:
            state, why = State.EXITED, ended(code)
        # What ended while the engine was away ended with it, as far as anybody can tell: that is no crash of its own.
        blameless = (past.killed and state is State.KILLED) or past.state is State.UNKNOWN
        self._past = _counted(self._settled(past), self._watch, why, self._now, blameless=blameless)
        if self._past.looped:
            return self._in_loop()
        return self._at(state, f"{why}; restart is false" if self._past.due is None else _waits(self._past))

    def _told_late(self, seen: Seen) -> bool:
        """Whether the engine tells only now, after the end, that it was the kernel's doing."""
        past = self._past
        late = past.cause == ended(137) and past.exit_code == 137 and (seen.oom_killed or past.oom)
        self._past = replace(past, cause=self._out_of_memory()) if late else past
        return late

    def _out_of_memory(self) -> str:
        limit = None if self._wanted is None else self._wanted.spec.memory
        if self._wanted is not None and self._wanted.spec.fitted and self._seen is not None:
            limit = self._seen.memory
        if limit is None:
            return "the kernel ended it: the machine had no memory left"
        return f"the kernel ended it: it took more memory than its {limit / 2**30:.3g} GiB"

    def _settled(self, past: Past) -> Past:
        """With its past forgotten, if it was well for long enough."""
        well = past.healthy_since
        if well is None:
            return past
        until = self._now if past.running or past.finished_at is None else past.finished_at
        if (until if until >= well else self._now) - well < self._watch.settled:
            return past
        return replace(past, pauses=0, crashes=0, restarts=0)

    # While it runs.

    def _at_run(self, seen: Seen, news: News) -> Stand:
        if seen.paused:
            return self._at(State.PAUSED, "paused by hand")
        past = self._settled(self._past)
        if past.fresh:
            past = replace(past, fresh=False, state=State.STARTING, since=self._now, reason="")
        self._past = past
        health = news.health
        started = past.started_at or 0.0
        if health is not None and (health.at >= started or started > self._now):  # else it is of the run before
            return self._checked(health, news.gpu_memory)
        if past.healthy_since is None and past.state is not State.UNHEALTHY and not past.looped:
            return self._starting("")
        return self._as_before()

    def _starting(self, why: str) -> Stand:
        """It runs, and was not found well so far."""
        if self._now >= self._latest(self._past):
            told = f"not healthy within {self._watch.start_timeout:g} s"
            return self._sick(f"{told}: {why}" if why else told)
        past = self._past
        return self._at(State.STARTING, why or (past.reason if past.state is State.STARTING else ""))

    def _latest(self, past: Past) -> float:
        """When it has to be well. It is given its time from when it is first seen: it may have run for long."""
        since = past.since if past.state is State.STARTING and past.since is not None else self._now
        return max(since, past.started_at or 0.0) + self._watch.start_timeout

    def _as_before(self) -> Stand:
        """No news: what was found stays, and what is due is done."""
        past = self._past
        if past.looped:
            return self._in_loop(
                *(() if _put_off(past, self._watch, self._now) else (Effect(Do.STOP, "a crash loop"),))
            )
        if past.state is State.UNHEALTHY:
            if past.due is not None:
                return self._due(State.UNHEALTHY, Do.RESTART, past.cause)
            return self._at(State.UNHEALTHY, past.reason)
        if past.state is State.FALLEN_BACK:
            return self._fallen(past.cause)
        return self._at(State.HEALTHY, past.reason if past.state is State.HEALTHY else "")

    def _checked(self, health: Health, gpu_memory: int | None) -> Stand:
        past = self._past = replace(self._past, checked_at=health.at)
        if health.healthy or health.missing:
            well = replace(past, failures=0, due=None, looped=False, healthy_since=past.healthy_since or health.at)
            if past.state is not State.FALLEN_BACK:
                well = replace(well, cause="")
            self._past = well
            if health.missing and not health.models:
                return self._at(State.UNHEALTHY, f"it has none of its models: {', '.join(health.missing)}")
            told = f"it has not {', '.join(health.missing)}" if health.missing else ""
            return self._on_gpu(health, gpu_memory, told)
        failures = past.failures + 1
        why = health.reason or "its API did not answer"
        self._past = replace(past, failures=failures)
        if past.looped or past.due is not None:
            return self._as_before()
        if past.healthy_since is None:
            return self._as_before() if past.state is State.UNHEALTHY else self._starting(why)
        if failures < self._watch.failures:
            as_it_was = (State.HEALTHY, State.FALLEN_BACK, State.UNHEALTHY)
            state = past.state if past.state in as_it_was else State.HEALTHY
            return self._at(state, f"check {failures} of {self._watch.failures} failed: {why}")
        return self._sick(f"{failures} checks in a row failed: {why}")

    def _sick(self, why: str) -> Stand:
        """It runs, and does not answer: it is started anew, at once the first time."""
        if not self._watch.restart:
            self._past = replace(self._past, healthy_since=None, cause=why, due=None)
            return self._at(State.UNHEALTHY, f"{why}; restart is false")
        at_once = self._past.pauses == 0
        past = _counted(replace(self._past, healthy_since=None), self._watch, why, self._now)
        if past.looped:
            self._past = past
            return self._in_loop(Effect(Do.STOP, "a crash loop"))
        self._past = replace(past, due=self._now if at_once else past.due)
        return self._due(State.UNHEALTHY, Do.RESTART, why)

    def _on_gpu(self, health: Health, gpu_memory: int | None, told: str) -> Stand:
        """Well; unless it is to be on a GPU, has a model loaded, and takes nothing there."""
        past = self._past
        loaded = [model for model in health.models if model.loaded]
        if not self._watch.gpu or not loaded:
            return self._fallen(past.cause) if past.state is State.FALLEN_BACK else self._at(State.HEALTHY, told)
        known = [model.in_gpu for model in loaded if model.in_gpu is not None]
        taken = sum(known) if known else gpu_memory
        if taken is None:
            return self._fallen(past.cause) if past.state is State.FALLEN_BACK else self._at(State.HEALTHY, told)
        if taken > 0:
            settled = self._now - (past.healthy_since or self._now) >= self._watch.settled
            self._past = replace(past, doubts=0, remade=0 if settled else past.remade, cause="")
            return self._at(State.HEALTHY, told)
        self._past = replace(past, doubts=past.doubts + 1)
        if self._past.doubts < _LOOKS:
            return self._at(past.state if past.state is State.FALLEN_BACK else State.HEALTHY, told)
        return self._fallen(f"{loaded[0].name} is loaded, and takes no memory of a GPU")

    def _fallen(self, why: str) -> Stand:
        self._past = past = replace(self._past, cause=why)
        if past.remade >= MOST_REMADE or not self._watch.restart:
            tail = f"; made anew {past.remade} times, and it did not help" if past.remade else ""
            return self._at(State.FALLEN_BACK, why + tail)
        return self._at(State.FALLEN_BACK, why, Effect(Do.RECREATE, why))

    # What comes of it.

    def _in_loop(self, *effects: Effect) -> Stand:
        past = self._past
        times = f"ended {past.crashes} times without having been well for {self._watch.settled:g} s"
        return self._at(State.CRASH_LOOP, f"{times}; at last: {past.cause}" if past.crashes else past.cause, *effects)

    def _why_down(self) -> str:
        if self._past.wish is None:
            return "enabled is false"
        return "stopped by hand" if self._past.by_hand else "stopped"

    def _due(self, state: State, do: Do, why: str) -> Stand:
        """The effect, when it is due; until then, how long that will be."""
        past = self._past
        if _put_off(past, self._watch, self._now):
            return self._at(State.WAITING if state is not State.UNHEALTHY else state, _waits(past))
        return self._at(state, why, Effect(do, why))

    def _at(self, state: State, reason: str, *effects: Effect) -> Stand:
        past = self._past
        since = past.since if state is past.state and past.since is not None else self._now
        well = past.healthy_since if past.running else None
        past = replace(past, state=state, reason=reason, since=since, healthy_since=well)
        wanted = shall_run(self._wanted, past)
        given = tuple(effect for effect in effects if not past.acting and (wanted or effect.do is Do.STOP))
        return Stand(state, reason, past, given, self._wake(past))

    def _wake(self, past: Past) -> float | None:
        times = [] if past.due is None else [min(past.due, self._now + self._watch.longest)]
        if past.state is State.STARTING:
            times.append(self._latest(past))
        if past.healthy_since is not None and past.pauses:
            times.append(past.healthy_since + self._watch.settled)
        return min((at for at in times if at > self._now), default=None)


def _fresh_run(past: Past, at: float) -> Past:
    """A run that has just begun."""
    return replace(
        past,
        running=True,
        fresh=True,
        started_at=at,
        exit_code=None,
        oom=False,
        killed=False,
        stopping_at=None,
        due=None,
        looped=False,
        healthy_since=None,
        failures=0,
        doubts=0,
    )


def _cleared(past: Past) -> Past:
    """With nothing held against it."""
    return replace(past, pauses=0, crashes=0, restarts=0, due=None, looped=False, failures=0, cause="")


def _counted(past: Past, watch: Watch, why: str, now: float, *, blameless: bool = False) -> Past:
    """One more end: when it is started again, or that it is a crash loop."""
    pauses, crashes = past.pauses + 1, past.crashes + (not blameless)
    past = replace(past, pauses=pauses, crashes=crashes, cause=why, due=None)
    if not watch.restart:
        return past
    if crashes >= watch.crashes:
        return replace(past, looped=True)
    wait = pause(watch, pauses)
    return replace(past, due=now + wait, paused_for=wait)


def _put_off(past: Past, watch: Watch, now: float) -> bool:
    """Whether what is due is due later. No pause is longer than the longest: then the clock was set back meanwhile."""
    return past.due is not None and now < past.due <= now + watch.longest


def _closed(past: Past, now: float) -> tuple[Act, Past]:
    """The act that was begun, and the past in which it is over."""
    act = past.acts[-1]
    return act, replace(past, acts=(*past.acts[:-1], replace(act, done_at=now)))


def _waits(past: Past) -> str:
    return f"{past.cause or 'it ended'}; starts again after {past.paused_for:g} s"


def _code(event: Event) -> int | None:
    text = event.attributes.get("exitCode", "")
    return int(text) if text.isdigit() else None
