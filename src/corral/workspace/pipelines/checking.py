"""A pipeline looked at as a whole, before anything runs: what names what, in which order, and whether it can. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from corral.domain.workspace import check_path
from corral.errors import InvalidRequest, nearest
from corral.workspace.pipelines import shapes
from corral.workspace.pipelines.located import Located
from corral.workspace.pipelines.plan import Definition, Input, OutputKind, StepPlan
from corral.workspace.pipelines.schemas import fault_of
from corral.workspace.pipelines.shapes import Fault, Shape, follow
from corral.workspace.pipelines.syntax import Reference, Syntax, expression_of, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ONLY_MODELS: Final = (
    *("system", "prompt", "messages", "parameters", "for_each", "width", "retries", "fallback", "repair", "timeout"),
    "budget",
)
_BEFORE: Final = frozenset({"inputs", "item", "index"})
"""What the name of a model or a file may depend on: it must be known before anything has run."""


def check(definition: Definition, located: Located, known: Callable[[str], str | None] | None = None) -> Definition:
    """The definition with the needs that its templates imply, and its steps in an order in which they can be run.

    What is wrong goes to `located`. `known` says of a model why it cannot be asked by that name; None when it can.
    """
    found = [_Step(step, definition, located, known).checked() for step in definition.steps]
    steps = [replace(step, needs=_in_order(needs, definition)) for step, needs in found]
    _check_circles(steps, located)
    return replace(definition, steps=tuple(_sorted(steps)))


def knows_models(definition: Definition, known: Callable[[str], str | None]) -> bool:
    """Whether every model can be asked that a definition is known to ask; `known` as in `check`. Reads no source."""
    nowhere = Located("")
    for step in definition.steps:
        _Step(step, definition, nowhere, known).check_model()
    return not nowhere.issues


def _in_order(needs: set[str], definition: Definition) -> tuple[str, ...]:
    return tuple(step.name for step in definition.steps if step.name in needs)


@dataclass(slots=True)
class _Step:
    """One step while it is checked. `needs` grows as names are found."""

    step: StepPlan
    definition: Definition
    located: Located
    known: Callable[[str], str | None] | None
    needs: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        """Where the step stands."""
        return f"steps.{self.step.name}"

    def checked(self) -> tuple[StepPlan, set[str]]:
        """The step and the names of those it needs."""
        self._check_form()
        for key, names in (("needs", self.step.needs), ("assemble", self.step.assemble or ())):
            for at, name in enumerate(names):
                self._need(name, f"{self.place}.{key}[{at}]")
        item = self._check_for_each()
        for place, template, roots in self._templates():
            self._check_template(place, template, roots, item)
        self.check_model()
        self._check_when(item)
        self._check_schema()
        self._check_names()
        return self.step, self.needs

    def _check_form(self) -> None:
        """Whether what is said belongs together."""
        step, add = self.step, self.located.add
        if step.model is None:
            if step.assemble is None and self.located.told(f"{self.place}.model"):
                return
            if step.assemble is None:
                add(self.place, "The step names no model.", "Add `model:`, or `assemble:`.", at_key=True)
                return
            given = [key for key in _ONLY_MODELS if getattr(step, key) not in (None, (), {})]
            given += ["output"] if step.output.kind is not OutputKind.TEXT else []
            for key in given:
                message = f"`{key}` does nothing: the step has no model."
                add(f"{self.place}.{key}", message, "Name one, or leave it out.", at_key=True)
        elif step.prompt is None and not step.messages and not self._meant_words():
            add(self.place, "The step asks its model nothing.", "Add `prompt:` or `messages:`.", at_key=True)
        if step.prompt is not None and step.messages:
            add(f"{self.place}.messages", "Both `prompt` and `messages` are given.", "Keep one.", at_key=True)
        if step.assemble is not None and not step.assemble:
            add(f"{self.place}.assemble", "There is nothing to assemble.", "Name some steps.", at_key=True)
        if step.width is not None and step.for_each is None:
            add(f"{self.place}.width", "`width` does nothing without `for_each`.", "Leave it out.", at_key=True)
        if step.repair and step.model is not None and step.output.kind is OutputKind.TEXT:
            add(f"{self.place}.repair", "`repair` does nothing: any text will do.", "Leave it out.", at_key=True)

    def _meant_words(self) -> bool:
        """Whether what the model shall be asked is there, and cannot be read."""
        return any(self.located.told(f"{self.place}.{key}") for key in ("prompt", "messages"))

    def _templates(self) -> Iterator[tuple[str, str, frozenset[str] | None]]:
        """The templates of the step by their places, and what they may name; None is all there is."""
        step = self.step
        for key, template in (("system", step.system), ("prompt", step.prompt)):
            if template is not None:
                yield f"{self.place}.{key}", template, None
        for at, message in enumerate(step.messages):
            yield f"{self.place}.messages[{at}].content", message.content, None
        if step.model is not None:
            yield f"{self.place}.model", step.model, _BEFORE
        for language, name in zip(step.output.languages, step.output.names, strict=True):
            if name is not None:
                yield f"{self.place}.output.code.{language}", name, _BEFORE | {"run"}

    def _check_template(self, place: str, template: str, roots: frozenset[str] | None, item: Shape | None) -> None:
        self._check_syntax(place, parse(template), roots, item)

    def _check_syntax(self, place: str, syntax: Syntax, roots: frozenset[str] | None, item: Shape | None) -> None:
        for problem in syntax.problems:
            message = f"{problem.message[:1].upper()}{problem.message[1:]}."
            self.located.within(place, message, problem.hint, line=problem.line, words=(problem.word,))
        for reference in syntax.references:
            root = str(reference.path[0])
            if roots is not None and root not in roots:
                hint = f"It may name: {', '.join(sorted(roots))}."
                self._fault(place, reference, Fault(0, f"{root!r} is not known yet when this is read.", hint))
            else:
                self._check_reference(place, reference, item)

    def _check_reference(self, place: str, reference: Reference, item: Shape | None) -> None:
        found = self._shape_of(reference.path, item)
        if isinstance(found, Fault):
            self._fault(place, reference, found)

    def _fault(self, place: str, reference: Reference, fault: Fault) -> None:
        words = tuple(str(part) for part in reference.path[: fault.at + 1])
        self.located.within(place, fault.message, fault.hint, line=reference.line, words=words)

    def _shape_of(self, path: tuple[str | int, ...], item: Shape | None) -> Shape | Fault:
        """What a path leads to; a step that it names is needed."""
        root, rest = str(path[0]), path[1:]
        match root:
            case "steps":
                return self._step_shape(rest)
            case "inputs":
                shape = shapes.of_inputs(self.definition.inputs)
            case "context":
                shape = shapes.CONTEXT
            case "run":
                shape = shapes.RUN
            case "parts":
                if self.step.assemble is None:
                    return Fault(0, "'parts' is of a step that assembles.", "Add `assemble:` with names of steps.")
                shape = shapes.PARTS
            case _:
                if item is None:
                    return Fault(0, f"{root!r} is of a step with `for_each`.", "Add `for_each:`.")
                shape = {"type": "integer"} if root == "index" else item
        return _moved(follow(shape, rest, lambda at: f"`{_dotted(path[: at + 1])}`"), 1)

    def _step_shape(self, rest: tuple[str | int, ...]) -> Shape | Fault:
        if not rest:
            return Fault(0, "'steps' alone is not known: each step is named.", "Write steps.NAME.output.")
        name = str(rest[0])
        step = next((one for one in self.definition.steps if one.name == name), None)
        if step is None:
            return Fault(1, f"There is no step {name!r}.", self._nearest(name))
        self.needs.add(name)
        whole = ("steps", *rest)
        if len(rest) == 1:
            return shapes.of_step(step)
        return _moved(follow(shapes.of_step(step), rest[1:], lambda at: f"`{_dotted(whole[: at + 2])}`"), 2)

    def _need(self, name: str, place: str) -> None:
        if not any(step.name == name for step in self.definition.steps):
            self.located.add(place, f"There is no step {name[:60]!r}.", self._nearest(name))
        else:
            self.needs.add(name)

    def _nearest(self, name: str) -> str:
        names = [step.name for step in self.definition.steps]
        close = nearest(name, names, 1)
        return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}."

    def _check_for_each(self) -> Shape | None:
        """What an `item` is; None where there is none."""
        given, place = self.step.for_each, f"{self.place}.for_each"
        if given is None:
            return None
        if isinstance(given, tuple):
            if not given:
                self.located.add(place, "The list is empty: the step never runs.", "Leave the step out.")
            same = {type(one) for one in given}
            return shapes.TEXT if same == {str} else True
        syntax = parse(expression_of(given), is_expression=True)
        self._check_syntax(place, syntax, frozenset({"inputs", "context", "steps"}), None)
        if syntax.constant:
            self.located.add(place, "`for_each` takes a list.", "Write [a, b], or an expression that comes to a list.")
        if syntax.lone is None or syntax.problems or syntax.lone[0] not in {"inputs", "context", "steps"}:
            return True
        shape = self._shape_of(syntax.lone, None)
        if isinstance(shape, Fault):
            return True
        kind = shapes.type_of(shape)
        if kind not in {None, "array"}:
            message = f"`{_dotted(syntax.lone)}` is {shapes.in_words(str(kind))}; `for_each` takes a list."
            self.located.within(place, message, words=tuple(map(str, syntax.lone)))
        items = shape.get("items", True) if not isinstance(shape, bool) and kind == "array" else True
        return items if isinstance(items, dict | bool) else True

    def _check_when(self, item: Shape | None) -> None:
        given, place = self.step.when, f"{self.place}.when"
        if given is None or given is True:
            return
        constant: tuple[Any, ...] = (given,)
        if isinstance(given, str):
            syntax = parse(expression_of(given), is_expression=True)
            self._check_syntax(place, syntax, frozenset({"inputs", "context", "steps", "run"}), item)
            constant = syntax.constant
        if constant and not constant[0]:
            self.located.add(place, "The step never runs.", "Leave it out, or change `when`.")

    def check_model(self) -> None:
        """See whether each model can be asked that is known by now."""
        if self.known is None:
            return
        step = self.step
        for at, name in enumerate(step.fallback):
            self._ask(name, f"{self.place}.fallback[{at}]")
        if step.model is None:
            return
        place = f"{self.place}.model"
        if "{" not in step.model:
            self._ask(step.model, place)
            return
        path = parse(expression_of(step.model), is_expression=True).lone
        for name in self._named_by(path):
            self._ask(name, place)

    def _named_by(self, path: tuple[str | int, ...] | None) -> list[str]:
        """The models that a template is known to come to."""
        if path == ("item",):
            given = self.step.for_each
            if isinstance(given, str):
                given = self._default(parse(expression_of(given), is_expression=True).lone).default
            return [one for one in given if isinstance(one, str)] if isinstance(given, list | tuple) else []
        given_one = self._default(path)
        return [one for one in dict.fromkeys((*given_one.enum, given_one.default)) if isinstance(one, str)]

    def _default(self, path: tuple[str | int, ...] | None) -> Input:
        """The input that a path is; one that nothing is known of where it is none."""
        name = str(path[1]) if path is not None and len(path) == 2 and path[0] == "inputs" else ""
        return self.definition.inputs.get(name, Input(name))

    def _ask(self, name: str, place: str) -> None:
        why = self.known(name) if self.known is not None else None
        if why is not None:
            self.located.add(place, why)

    def _check_schema(self) -> None:
        schema = self.step.output.schema
        if schema is None:
            return
        place = f"{self.place}.output.json"
        why = fault_of(schema)
        if why:
            self.located.add(place, f"The schema cannot be used: {why}.")

    def _check_names(self) -> None:
        """Whether files can have the names that are known by now."""
        for language, name in zip(self.step.output.languages, self.step.output.names, strict=True):
            if name is None or "{" in name:
                continue
            try:
                check_path(name)
            except InvalidRequest as error:
                self.located.add(f"{self.place}.output.code.{language}", error.message, error.hint or "")


def _check_circles(steps: list[StepPlan], located: Located) -> None:
    """Say each circle once, at the first step of it, and of the others that wait behind one that they never run."""
    by_name = {step.name: step for step in steps}
    done = _reachable(steps)
    stuck = [step for step in steps if step.name not in done]
    told: set[str] = set()
    for step in stuck:
        circle = _circle_from(step.name, by_name)
        if not circle:
            waits = next(name for name in step.needs if name not in done)
            message = f"The step is never reached: it waits for {waits!r}, which waits for itself."
            located.add(f"steps.{step.name}", message, "Mend the circle.", at_key=True)
        elif not told & set(circle):
            told |= set(circle)
            if len(circle) == 1:
                message, hint = "The step waits for itself.", "A step sees what came before it."
            else:
                message, hint = f"Steps wait for each other: {' → '.join([*circle, circle[0]])}.", "Break the circle."
            located.add(f"steps.{step.name}", message, hint, at_key=True)


def _reachable(steps: list[StepPlan]) -> set[str]:
    done: set[str] = set()
    while more := {step.name for step in steps if step.name not in done and done.issuperset(step.needs)}:
        done |= more
    return done


def _circle_from(name: str, by_name: Mapping[str, StepPlan]) -> list[str]:
    """The shortest way from a step back to itself, in the order in which they would run; empty when there is none."""
    came: dict[str, str] = {}
    left = [name]
    while left:
        here = left.pop(0)
        for need in by_name[here].needs:
            if need == name:
                way = [here]
                while way[-1] != name:
                    way.append(came[way[-1]])
                return [name, *way[:-1]]
            if need not in came:
                came[need] = here
                left.append(need)
    return []


def _sorted(steps: list[StepPlan]) -> Iterator[StepPlan]:
    """The steps as they are written, but each after those it needs; those of circles come last."""
    left, done = list(steps), set[str]()
    while left:
        step = next((one for one in left if done.issuperset(one.needs)), left[0])
        left.remove(step)
        done.add(step.name)
        yield step


def _moved(found: Shape | Fault, by: int) -> Shape | Fault:
    return replace(found, at=found.at + by) if isinstance(found, Fault) else found


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
