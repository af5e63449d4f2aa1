"""A component as Framer takes it: one file, its default export annotated, its props given controls. Pure.

    Framer asks for                              what is done
    one file, one default export                 other exports are taken back; style sheets become a part of it
    a function declaration                       the component's own, or one written around it
    @framerSupportedLayoutWidth, …Height         any, any where the component takes `style`; any, auto where it does not
    addPropertyControls(Component, {…})          one control for each prop that has one in Framer

Framer lets a file import `react`, `react-dom`, `framer` and `framer-motion`; of any other package a note is made.

    prop               control                                    when nothing is given
    string             String                                     the default, else its title; optional stays unset
    number             Number, `step` by the default's decimals   the default, else 0; optional stays unset
    boolean            Boolean                                    the default, else false (Framer itself says true)
    enum               Enum                                       the default, else the first
    color              Color                                      the default, else grey; optional stays unset
    array, object      Array, Object, by what the default holds   the default; without one there is no control
    function on…       EventHandler
    node               Slot
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corral.errors import InvalidRequest
from corral.workspace.exports.exported import Exported, Material
from corral.workspace.exports.modules import (
    bound,
    completed,
    enclose,
    imports,
    package,
    resolve,
    without,
)

if TYPE_CHECKING:
    from corral.workspace.code.components import Component
    from corral.workspace.code.signatures import Prop

OFFERED = frozenset({"react", "react-dom", "framer", "framer-motion"})
"""The packages that Framer gives to a code file."""

SIZE = (400, 300)
"""Width and height in pixels that a component which fills what it is given begins with."""

_HIDDEN = frozenset({"style", "className", "key", "ref"})
_COLOR = re.compile(r"#[0-9a-fA-F]{3,8}|(?:rgba?|hsla?)\([^()]*\)")
_NAME = re.compile(r"[A-Za-z_$][\w$]*")


def code_component(material: Material, component: Component) -> Exported:
    """The component as a file for Framer's code editor.

    Raises:
        InvalidRequest: it imports files that a single file cannot hold, or exports what has no component.
    """
    source, styles = _one_file(material)
    enclosed = enclose(completed(source, material.kind), material.kind, component.name)
    shown = [prop for prop in component.props if prop.name not in _HIDDEN]
    controls = {prop.name: control for prop in shown if (control := control_of(prop))}
    left = [prop for prop in shown if prop.name not in controls]
    annotations = _annotations(any(prop.name == "style" for prop in component.props))
    names = bound(enclosed.source, material.kind)
    if "addPropertyControls" in names:
        return Exported(
            f"{material.stem}.tsx", "text/tsx", material.source.encode(), ("It is one for Framer already.",)
        )
    types = _free("ControlType", names)
    offered = "ControlType" if types == "ControlType" else f"ControlType as {types}"
    head = f'import {{ addPropertyControls, {offered} }} from "framer"\n' if controls else ""
    if enclosed.place is None or styles:
        body, name = _around(enclosed.source, enclosed.name, styles, annotations, names)
    else:
        body, name = _in_place(enclosed.source, enclosed.place, enclosed.doc, annotations), enclosed.name
    text = f"{head}{body.strip()}\n{_tail(name, controls, left, types)}"
    return Exported(f"{material.stem}.tsx", "text/tsx", text.encode(), _notes(source, material.kind, left))


def control_of(prop: Prop) -> Mapping[str, Any] | None:
    """The control that Framer's panel shows for a prop, with `type` as a `ControlType`; None where it has none."""
    made: dict[str, Any] | None
    if prop.type == "function":
        made = {"type": "EventHandler"} if re.match(r"on[A-Z]", prop.name) else None
    elif prop.type == "node":
        made = {"type": "Slot"}
    elif prop.type == "enum" and prop.options:
        first = prop.options[0]
        made = {"type": "Enum", "options": list(prop.options), "optionTitles": [title(str(o)) for o in prop.options]}
        made["defaultValue"] = prop.default if prop.default in prop.options else first
    elif prop.type in ("array", "object"):
        made = None if prop.default is None else _of_value(prop.default)
    elif prop.type in ("string", "number", "boolean", "color"):
        made = _scalar(prop)
    else:
        made = None if prop.default is None else _of_value(prop.default)
    if made is None:
        return None
    described = {"description": " ".join(prop.doc.split())} if prop.doc.strip() else {}
    return {"type": made.pop("type"), "title": title(prop.name), **described, **made}


def title(name: str) -> str:
    """A name of code as words: `maxCount` is `Max Count`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-]+", " ", name).strip()
    return " ".join(word[:1].upper() + word[1:] for word in spaced.split()) or name


def _scalar(prop: Prop) -> dict[str, Any] | None:
    kinds: dict[str, tuple[str, type | tuple[type, ...], Any]] = {
        "string": ("String", str, ""),
        "number": ("Number", (int, float), 0),
        "boolean": ("Boolean", bool, False),
        "color": ("Color", str, "#888888"),
    }
    kind, holds, empty = kinds[prop.type]
    if isinstance(prop.default, holds) and (prop.type == "boolean" or not isinstance(prop.default, bool)):
        return _of_value(prop.default, kind)
    if prop.type == "boolean" or prop.required:
        # What is drawn from no text at all cannot be seen, nor found on the canvas.
        return {"type": kind, "defaultValue": title(prop.name) if kind == "String" else empty}
    return {"type": kind, "optional": True}


def _of_value(value: Any, kind: str = "") -> dict[str, Any] | None:
    """The control for what a default holds; None for what no control can edit, such as lists of lists."""
    if isinstance(value, bool):
        return {"type": "Boolean", "defaultValue": value}
    if isinstance(value, int | float):
        # Framer's controls go by whole numbers unless they are told.
        decimals = len(f"{value:.6f}".rstrip("0").partition(".")[2])
        return {"type": "Number", "defaultValue": value} | ({"step": float(f"1e-{decimals}")} if decimals else {})
    if isinstance(value, str):
        color = kind == "Color" or (not kind and _COLOR.fullmatch(value))
        more = {"displayTextArea": True} if "\n" in value and not color else {}
        return {"type": "Color" if color else "String", "defaultValue": value, **more}
    if isinstance(value, Mapping):
        controls = {str(key): _titled(str(key), made) for key, item in value.items() if (made := _of_value(item))}
        return {"type": "Object", "controls": controls, "defaultValue": dict(value)} if controls else None
    if isinstance(value, Sequence) and value:
        return _of_list(value)
    return None


def _of_list(value: Sequence[Any]) -> dict[str, Any] | None:
    """The control for a list: by its first item, when all are of that kind."""
    made = [_of_value(item) for item in value]
    first = made[0]
    if first is None or first["type"] == "Array" or any(m is None or m["type"] != first["type"] for m in made):
        return None
    first.pop("defaultValue", None)
    return {"type": "Array", "control": first, "defaultValue": list(value)}


def _titled(name: str, made: dict[str, Any]) -> dict[str, Any]:
    return {"type": made.pop("type"), "title": title(name), **made}


def _one_file(material: Material) -> tuple[str, str]:
    """The component's source without its style sheets, and those."""
    sheets, drop = [material.files[path] for path in material.sheets], []
    for item in imports(material.source, material.kind):
        if not item.relative:
            continue
        there = resolve(item.specifier, material.path, material.files)
        if item.specifier.endswith(".css") and not item.names and there:
            sheets.append(material.files[there])
            drop.append(item)
        else:
            why = "" if there else ", which is not among the run's artifacts"
            raise InvalidRequest(
                f"{material.path} imports {item.specifier}{why}: a code component of Framer is one file.",
                "Put both into one file, or export it as a Vite project.",
            )
    return without(material.source, drop), "\n".join(sheets)


def _annotations(fills: bool) -> list[str]:
    lines = ["@framerSupportedLayoutWidth any", f"@framerSupportedLayoutHeight {'any' if fills else 'auto'}"]
    return [*lines, f"@framerIntrinsicWidth {SIZE[0]}", f"@framerIntrinsicHeight {SIZE[1]}"] if fills else lines


def _comment(lines: Sequence[str]) -> str:
    return "/**\n" + "".join(f" * {line}\n" for line in lines) + " */\n"


def _in_place(source: str, place: int, doc: int | None, annotations: Sequence[str]) -> str:
    """The source, whose function declaration at `place` becomes its annotated default export.

    Framer reads the one comment right above, so that a comment which is there takes the annotations in.
    """
    data = source.encode()
    if doc is None:
        before, between = data[:place].decode(), _comment(annotations)
    else:
        said = re.sub(r"/\*\*[ \t]*(?=\S[^\n]*\Z)", "/**\n * ", data[:doc].decode().rstrip())
        before = said + "".join(f"\n * {line}" for line in annotations) + "\n "
        between = data[doc:place].decode()
    return f"{before}{between}export default {data[place:].decode()}"


def _around(source: str, name: str, styles: str, annotations: Sequence[str], names: frozenset[str]) -> tuple[str, str]:
    """The source and a function declaration around its component, with the styles; and that function's name."""
    outer, sheet = _free(f"Framer{name[:1].upper()}{name[1:]}", names), _free("framerStyles", names)
    if styles:
        # `</` would end the element when a site is rendered on a server.
        written = json.dumps(styles.replace("</", "<\\/"), ensure_ascii=False)
        drawn = (
            "(\n        <>\n"
            f"            <style dangerouslySetInnerHTML={{{{ __html: {sheet} }}}} />\n"
            f"            <{name} {{...props}} />\n"
            "        </>\n    )"
        )
        source = f"{source.rstrip()}\n\nconst {sheet} = {written}\n"
    else:
        drawn = f"<{name} {{...props}} />"
    props = _free("FramerProps", names)
    return (
        f'import type {{ ComponentProps as {props} }} from "react"\n{source.rstrip()}\n\n{_comment(annotations)}'
        f"export default function {outer}(props: {props}<typeof {name}>) {{\n    return {drawn}\n}}\n\n"
        f"{outer}.displayName = {json.dumps(name)}\n"
    ), outer


def _tail(name: str, controls: Mapping[str, Any], left: Sequence[Prop], types: str) -> str:
    """The call that gives the component its controls, and what has none."""
    missing = ", ".join(f"{prop.name} ({prop.type})" for prop in left)
    said = f"\n// Without a control, since Framer has none for it: {missing}\n" if missing else "\n"
    if not controls:
        return said if missing else ""
    written = _braced({key: _written(control, types, 1) for key, control in controls.items()}, 0)
    return f"{said}addPropertyControls({name}, {written})\n"


def _written(control: Mapping[str, Any], types: str, depth: int) -> str:
    """A control as JavaScript; `types` is what the enumeration of their types is called in the file."""
    parts = {}
    for key, item in control.items():
        if key == "type":
            parts[key] = f"{types}.{item}"
        elif key == "control":
            parts[key] = _written(item, types, depth + 1)
        elif key == "controls":
            inner = {name: _written(one, types, depth + 2) for name, one in item.items()}
            parts[key] = _braced(inner, depth + 1)
        else:
            text = json.dumps(item, ensure_ascii=False)
            if len(text) > 80:
                text = json.dumps(item, ensure_ascii=False, indent=4).replace("\n", "\n" + "    " * (depth + 1))
            parts[key] = text
    return _braced(parts, depth)


def _braced(parts: Mapping[str, str], depth: int) -> str:
    inner = "    " * (depth + 1)
    lines = (f"{inner}{key if _NAME.fullmatch(key) else json.dumps(key)}: {text},\n" for key, text in parts.items())
    return "{\n" + "".join(lines) + "    " * depth + "}"


def _notes(source: str, kind: str, left: Sequence[Prop]) -> tuple[str, ...]:
    others = sorted({package(item.specifier) for item in imports(source, kind) if not item.relative} - OFFERED)
    notes = [f"Framer itself does not offer the package {name}." for name in others]
    return (*notes, *(f"The prop {prop.name} has no control in Framer." for prop in left))


def _free(name: str, names: frozenset[str]) -> str:
    while name in names:
        name += "_"
    return name
