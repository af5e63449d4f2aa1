"""One piece of a run's work: a step, or one item of a step that fans out, from its templates to what it made."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from corral.config.workspace import WorkspaceSettings
from corral.domain.workspace import Made, Run, Step, StepStatus, check_path
from corral.errors import CorralError, InvalidName
from corral.routing.policies import backoff
from corral.workspace.code.languages import KINDS
from corral.workspace.pipelines.asking import Asker, Request, told
from corral.workspace.pipelines.contracts import body_of, meet
from corral.workspace.pipelines.journal import Answer
from corral.workspace.pipelines.plan import OutputKind, StepPlan
from corral.workspace.pipelines.scoping import File, Result
from corral.workspace.pipelines.templates import Templates
from corral.workspace.pipelines.tries import RETRIES, Tries

if TYPE_CHECKING:
    from corral.workspace.pipelines.contracts import Met
    from corral.workspace.pipelines.spending import Allowance

_LONG = 20_000
"""Characters of an answer that is parsed beside the loop."""
_PAUSE_WITHIN = 20.0


class Failed(Exception):
    """A step has failed, and `step` says why; what it cost is in `answers`."""

    def __init__(self, step: Step, answers: Sequence[Answer] = ()) -> None:
        super().__init__(step.key)
        self.step = step
        self.answers = answers


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A step, or an item of one, that is ready to be asked: every template of it is rendered.

    `models` are whom to ask, the first first; `names` what its files shall be called. `last`: nothing comes after it,
    so that what it says is kept as an artifact. `edition_of` is the artifact that its first file is an edition of.
    """

    plan: StepPlan
    step: Step
    models: tuple[str, ...]
    messages: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any]
    names: tuple[str | None, ...] = ()
    last: bool = False
    edition_of: str | None = None

    @property
    def model(self) -> str:
        """Whom it asks first."""
        return self.models[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a piece came to: its step as it is completed, and what that is for the steps after it."""

    step: Step
    result: Result
    made: tuple[Made, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """Does the pieces of one run."""

    run: Run
    asker: Asker
    templates: Templates
    settings: WorkspaceSettings
    told: Callable[[dict[str, Any]], None]

    async def prepare(self, plan: StepPlan, step: Step, scope: Mapping[str, Any], *, last: bool = False) -> Piece:
        """The piece that a step is with what `scope` holds.

        Raises:
            InvalidRequest: a template of it names what is not there, or takes too long.
        """
        own = self.run.models.get(plan.name) or self.run.models.get("*")
        render = self.templates.render
        if own:  # it is asked alone: an answer of another would be no answer to what was asked
            models: tuple[str, ...] = (own,)
        else:
            assert plan.model is not None  # noqa: S101 - a step that is asked names one: see `checking.py`
            models = (await render(plan.model, scope), *plan.fallback)
        messages: list[dict[str, Any]] = []
        if plan.system is not None:
            messages.append({"role": "system", "content": await render(plan.system, scope)})
        messages.extend([{"role": each.role, "content": await render(each.content, scope)} for each in plan.messages])
        if plan.prompt is not None:
            messages.append({"role": "user", "content": await render(plan.prompt, scope)})
        names = [None if name is None else await render(name, scope) for name in plan.output.names]
        return Piece(
            plan,
            step,
            models,
            tuple(messages),
            self._parameters(plan),
            tuple(names),
            last,
            self.run.environment.get("edition_of"),
        )

    async def do(self, piece: Piece, allowances: Sequence[Allowance]) -> Outcome:
        """Ask until there is an answer that can be used, or no try is left. What the journal knows is not asked again.

        Raises:
            Failed: none is left.
            StoreError: the journal cannot be written.
        """
        plan, step = piece.plan, piece.step
        tries = Tries(
            piece.models,
            RETRIES if plan.retries is None else plan.retries,
            self.settings.repairs if plan.repair is None else plan.repair,
        )
        known = self.asker.journal.answers.get(step.key, ())
        attempt = known[0].attempt - 1 if known else step.attempt
        before = [each for each in step.tries if each.get("attempt", 0) <= attempt]
        answers: list[Answer] = []
        while True:
            attempt += 1
            turn = tries.turn
            answer = self.asker.journal.find(step.key, attempt)
            if answer is None:
                if turn.again:
                    await self._pause(len(answers))
                request = self._request(piece, attempt, turn.model, turn.more)
                self._begun(piece, request, before, answers)
                answer = await self.asker.ask(request, allowances, self._heard(step.key, attempt))
            answers.append(answer)
            if answer.error is not None or answer.left:
                if tries.after_error(answer):
                    continue
                raise Failed(self._failed(piece, before, answers, answer.error or {}), answers)
            met = await self._met(piece, answer.text)
            problems = _problems(met)
            if not problems:
                return self._completed(piece, before, answers, met)
            if tries.after_breach(answer.text, problems):
                continue
            if _usable(plan, met):
                return self._completed(piece, before, answers, met)
            error = {"code": "contract", "message": _breach(step.key, problems), "hint": "See what it answered."}
            raise Failed(self._failed(piece, before, answers, error), answers)

    async def recall(self, piece_plan: StepPlan, step: Step) -> Result:
        """What a step came to that is completed, from what is kept of it."""
        if piece_plan.output.kind is not OutputKind.CODE or step.output is None:
            return Result(step.output, step.value)
        names = tuple((step.request or {}).get("files") or ())
        met = await _parsed(piece_plan, step.output, names)
        return Result(step.output, step.value, _files(met))

    # What is asked

    def _parameters(self, plan: StepPlan) -> dict[str, Any]:
        parameters = {**body_of(plan.output), **plan.parameters}
        if self.run.seed is not None and not self.asker.caller.strict:  # to whom it may not be ignored
            parameters.setdefault("seed", self.run.seed)
        return parameters

    def _request(self, piece: Piece, attempt: int, model: str, more: Sequence[Mapping[str, Any]]) -> Request:
        key, plan = piece.step.key, piece.plan
        return Request(
            key,
            attempt,
            f"{self.run.id}:{key}:{attempt}",
            model,
            (*piece.messages, *more),
            piece.parameters,
            self.settings.step_timeout if plan.timeout is None else plan.timeout,
        )

    def _begun(self, piece: Piece, request: Request, before: Sequence[Any], answers: Sequence[Answer]) -> None:
        step = replace(
            piece.step,
            status=StepStatus.RUNNING,
            attempt=request.attempt,
            model=request.model,
            request_id=request.id,
            tries=[*before, *map(_try, answers)],
        )
        self.told({"type": "begun", "step": step})

    def _heard(self, key: str, attempt: int) -> Callable[[str], None]:
        def heard(text: str) -> None:
            self.told({"type": "text", "step": key, "attempt": attempt, "text": text})

        return heard

    async def _pause(self, tries: int) -> None:
        wait = backoff(max(tries, 1), None, _PAUSE_WITHIN, 0.5)
        if wait:
            await self.asker.clock.sleep(wait)

    # What comes of it

    async def _met(self, piece: Piece, text: str) -> Met:
        return await _parsed(piece.plan, text, piece.names)

    def _completed(self, piece: Piece, before: Sequence[Any], answers: list[Answer], met: Met) -> Outcome:
        answer = answers[-1]
        files = _files(met)
        step = self._ended(piece, before, answers[:-1], answers)
        step = replace(step, status=StepStatus.COMPLETED, output=answer.text, value=met.value)
        result = Result(answer.text, met.value, files)
        return Outcome(step, result, _made(piece, result), tuple(answers))

    def _failed(self, piece: Piece, before: Sequence[Any], answers: list[Answer], error: Mapping[str, Any]) -> Step:
        step = self._ended(piece, before, answers, answers)
        return replace(step, status=StepStatus.FAILED, error=dict(error), reason=str(error.get("message", "")))

    def _ended(self, piece: Piece, before: Sequence[Any], tries: Sequence[Answer], answers: Sequence[Answer]) -> Step:
        last, step = answers[-1], piece.step
        receipt, new = last.receipt or {}, uncounted(step, answers)
        return replace(
            step,
            attempt=last.attempt,
            model=receipt.get("model") or last.model,
            request_id=last.request_id,
            request=_asked(piece, last, receipt),
            receipt=last.receipt,
            tries=[*before, *map(_try, tries)],
            started_at=step.started_at or answers[0].at - answers[0].seconds,
            ended_at=last.at,
            cost=step.cost + sum(each.cost for each in new),
            input_tokens=step.input_tokens + sum(each.input_tokens for each in new),
            output_tokens=step.output_tokens + sum(each.output_tokens for each in new),
        )


def uncounted(step: Step, answers: Sequence[Answer]) -> Sequence[Answer]:
    """Those of the answers that are not among what a step, as it was found, says that it has cost.

    It was found failed or called off where its run was killed before it was told that it had ended.
    """
    counted = step.attempt if step.status in {StepStatus.FAILED, StepStatus.CANCELLED} else 0
    return [each for each in answers if each.attempt > counted]


def failed_before(step: Step, error: CorralError, at: float) -> Step:
    """A step that failed before anybody was asked."""
    return replace(step, status=StepStatus.FAILED, error=told(error), reason=error.message, started_at=at, ended_at=at)


def assembled(plan: StepPlan, parts: Mapping[str, Result]) -> Result:
    """What an assembler without a model makes of the steps that it names."""
    chosen = [parts[name] for name in plan.assemble or () if not parts[name].skipped]
    files = tuple(file for each in chosen for file in each.files)
    return Result("\n\n".join(each.output for each in chosen if each.output), None, files)


def made_of(plan: StepPlan, step: Step, result: Result) -> tuple[Made, ...]:
    """What an assembler without a model keeps: its text, where nothing comes after it. The files are kept by theirs."""
    return (_text(plan, step, result),) if result.output else ()


async def _parsed(plan: StepPlan, text: str, names: Sequence[str | None]) -> Met:
    if len(text) < _LONG:
        return meet(plan.output, text, names=names, step=plan.name)
    return await asyncio.to_thread(meet, plan.output, text, names=names, step=plan.name)


def _files(met: Met) -> tuple[File, ...]:
    return tuple(File(each.name, each.kind, each.content, _found(each)) for each in met.files)


def _found(file: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple({"line": p.line, "column": p.column, "message": p.message} for p in file.problems)


def _made(piece: Piece, result: Result) -> tuple[Made, ...]:
    """The artifacts of a piece: the files that it wrote; or its words, where nothing comes after it."""
    made = [
        Made(_named(piece, file), file.kind, KINDS[file.kind].media_type, file.text.encode(), problems=file.problems)
        for file in result.files
    ]
    if made and piece.edition_of is not None:
        made[0] = replace(made[0], edition_of=piece.edition_of)
    if not made and piece.last and result.output:
        made.append(_text(piece.plan, piece.step, result))
    return tuple(made)


def _named(piece: Piece, file: File) -> str:
    """What a file is called; a name of a model's that cannot be one is not taken."""
    try:
        return check_path(file.name)
    except InvalidName:
        return f"{piece.plan.name}{KINDS[file.kind].suffixes[0]}"


def _text(plan: StepPlan, step: Step, result: Result) -> Made:
    name = plan.name if step.index is None else f"{plan.name}-{step.index + 1}"
    if plan.output.kind is OutputKind.JSON:
        content = orjson.dumps(result.value, option=orjson.OPT_INDENT_2)
        return Made(f"{name}.json", "json", KINDS["json"].media_type, content)
    return Made(f"{name}.md", "markdown", KINDS["markdown"].media_type, (result.output or "").encode())


def _problems(met: Met) -> list[str]:
    return [str(each) for each in met.problems]


def _usable(plan: StepPlan, met: Met) -> bool:
    """Whether an answer is kept although its parser complains: code with mistakes can be looked at, and repaired."""
    return plan.output.kind is OutputKind.CODE and met.complete


def _breach(key: str, problems: Sequence[str]) -> str:
    return f"The answer of {key} is not what was asked for: {' '.join(problems)}"[:2000]


def _try(answer: Answer) -> dict[str, Any]:
    """A try that was not the last, as the step tells of it."""
    return {
        "attempt": answer.attempt,
        "request_id": answer.request_id,
        "model": answer.model,
        "text": answer.text,
        "error": answer.error,
        "left": answer.left,
        "receipt": answer.receipt,
        "at": answer.at,
    }


def _asked(piece: Piece, answer: Answer, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, exactly, in the last try; its repairs are in the tries before it."""
    return {
        "model": answer.model,
        "messages": list(piece.messages),
        "parameters": dict(piece.parameters),
        "template": template_digest(piece.plan),
        "revision": receipt.get("revision"),
        "files": list(piece.names),
    }


def template_digest(plan: StepPlan) -> str:
    """The SHA-256 of what a step's author wrote for its model: templates and parameters."""
    words = [plan.model, plan.system, plan.prompt, [[each.role, each.content] for each in plan.messages]]
    content = orjson.dumps([words, plan.parameters], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()
