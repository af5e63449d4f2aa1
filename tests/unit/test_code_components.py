"""Components and their props are read from however models write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.workspace.code.components import Component, analyse
from corral.workspace.code.signatures import Prop


def _props(content: str, kind: str = "tsx") -> dict[str, Prop]:
    component = analyse(content, kind)
    assert component is not None
    return {prop.name: prop for prop in component.props}


def test_an_interface_with_docs_and_defaults() -> None:
    component = analyse(
        """
import React, { useState } from "react";
import "./button.css";

interface Base { disabled?: boolean; /* off */ }

interface ButtonProps extends Base {
  /** What it says. */
  label: string;
  size?: "sm" | "md" | "lg"; // how large
  /**
   * How often
   * it was pressed.
   */
  count?: number;
  backgroundColor?: string;
  onClick?: (event: React.MouseEvent) => void;
  icon?: React.ReactNode;
  tags: string[];
  style?: React.CSSProperties;
  render(item: string): JSX.Element;
  "aria-label"?: string;
  kind: number | undefined;
}

/** A button to press. @param ignored */
export default function Button({ label, size = "md", count = -1.5, backgroundColor = "#fff", tags }: ButtonProps) {
  return <button>{label}</button>;
}
""",
        "tsx",
    )
    assert component == Component(
        "Button",
        "default",
        (
            Prop("disabled", "boolean", doc="off"),
            Prop("label", "string", required=True, doc="What it says."),
            Prop("size", "enum", default="md", options=("sm", "md", "lg"), doc="how large"),
            Prop("count", "number", default=-1.5, doc="How often\nit was pressed."),
            Prop("backgroundColor", "color", default="#fff"),
            Prop("onClick", "function"),
            Prop("icon", "node"),
            Prop("tags", "array", required=True),
            Prop("style", "object"),
            Prop("render", "function", required=True),
            Prop("aria-label", "string"),
            Prop("kind", "number"),
        ),
        ("react", "./button.css"),
        "A button to press.",
    )


TYPED = "type P = { a: string; b?: 1 | 2 };\n"
FORMS = [
    ("export default function C({ a, b = 2 }: P) { return <p/>; }", "default"),
    ("export default ({ a, b = 2 }: P) => <p/>;", "default"),
    ("export const C = ({ a, b = 2 }: P) => <p/>;", "named"),
    ("const C: React.FC<P> = ({ a, b = 2 }) => <p/>;\nexport default C;", "default"),
    ("const C: FC<P> = function ({ a, b = 2 }) { return <p/>; };\nexport { C as default };", "default"),
    ("const C = ({ a, b = 2 }: P) => <p/>;\nexport { C };", "named"),
    ("function C(props: P) { const { a, b = 2 } = props; return <p>{a}</p>; }", ""),
    ("export const C = memo(({ a, b = 2 }: P) => <p/>);", "named"),
    ("export default React.memo<P>(function C({ a, b = 2 }) { return <p/>; });", "default"),
    ("export const C = React.forwardRef<HTMLDivElement, P>(({ a, b = 2 }, ref) => <p ref={ref}/>);", "named"),
    ("const C = forwardRef<E, P>(function C({ a, b = 2 }, ref) { return <p/>; });\nexport default memo(C);", "default"),
    ("function C({ a, b }: P) { return <p/>; }\nC.defaultProps = { b: 2 };\nexport default C;", "default"),
    (
        "export default class C extends Component<P> { static defaultProps = { b: 2 }; render() { return <p/>; } }",
        "default",
    ),
    ("export default function C({ a: first, b: second = 2 }: Readonly<P>) { return <p/>; }", "default"),
    (
        "export default function C({ a, b = 2, ...rest }: { a: string; b?: 1 | 2 }) { return <p {...rest}/>; }",
        "default",
    ),
    ("export default function C({ a, b = 2 }: { a: string } & Partial<Pick<P, 'b'>>) { return <p/>; }", "default"),
    ("export default function C({ a, b = 2 }: Omit<P & { z: number }, 'z'>) { return <p/>; }", "default"),
]


@pytest.mark.parametrize(("source", "exported"), FORMS)
def test_every_form_of_a_component_tells_the_same(source: str, exported: str) -> None:
    component = analyse(TYPED + source, "tsx")
    assert component is not None
    assert component.exported == exported
    assert component.props == (Prop("a", "string", required=True), Prop("b", "enum", default=2, options=(1, 2)))


@pytest.mark.parametrize(
    ("type_", "kind", "options"),
    [
        ("string", "string", ()),
        ("boolean | null", "boolean", ()),
        ("true | false", "boolean", ()),
        ("'a'", "enum", ("a",)),
        ("Size", "enum", ("s", "m")),
        ("(typeof SIZES)[number]", "enum", ("x", "y")),
        ("keyof typeof MAP", "enum", ("k", "l")),
        ("Level", "enum", ("low", 1)),
        ("string | number", "string", ()),
        ("ReadonlyArray<number>", "array", ()),
        ("[number, number]", "array", ()),
        ("Record<string, number>", "object", ()),
        ("{ a: number }", "object", ()),
        ("React.MouseEventHandler", "function", ()),
        ("React.Dispatch<string>", "function", ()),
        ("ReactNode | string", "node", ()),
        ("JSX.Element", "node", ()),
        ("Elsewhere", "unknown", ()),
        ("any", "unknown", ()),
        ("Alias", "number", ()),
        ("`a${string}`", "string", ()),
        ("Loop", "unknown", ()),
    ],
)
def test_types_of_members(type_: str, kind: str, options: tuple[object, ...]) -> None:
    source = f"""
const SIZES = ["x", "y"] as const;
const MAP = {{ k: compute(), l: 2 }} as const;
type Size = "s" | "m";
type Alias = number;
type Loop = Loop | Loop;
enum Level {{ Low = "low", High = 1 }}
export default function C({{ value }}: {{ value: {type_} }}) {{ return <p/>; }}
"""
    prop = _props(source)["value"]
    assert (prop.type, prop.options) == (kind, options)


def test_prop_types_and_what_defaults_suggest() -> None:
    props = _props(
        """
import PropTypes from 'prop-types';
/**
 * A card.
 * @param {Object} props
 * @param {string} props.heading - What is on top
 * @param {number[]} [props.points=[]] - Where
 */
const Card = ({
  heading, points, title, count = 3, isOpen, onClose = () => {}, tags = ["a"], accentColor, data = {a: 1},
}) => {
  return <div>{title}</div>;
};
Card.propTypes = {
  title: PropTypes.string.isRequired, tone: PropTypes.oneOf(["a", "b"]), accentColor: PropTypes.string,
};
export default Card;
""",
        "jsx",
    )
    assert props["heading"] == Prop("heading", "string", doc="What is on top")
    assert props["points"] == Prop("points", "array", doc="Where")
    assert props["title"] == Prop("title", "string", required=True)
    assert props["tone"] == Prop("tone", "enum", options=("a", "b"))
    assert props["count"] == Prop("count", "number", default=3)
    assert props["isOpen"].type == "boolean"
    assert props["onClose"].type == "function"
    assert props["tags"] == Prop("tags", "array", default=["a"])
    assert props["accentColor"].type == "color"
    assert props["data"] == Prop("data", "object", default={"a": 1})


def test_what_is_used_of_props_without_types() -> None:
    props = _props(
        "export default function C(props) { return <a onClick={props.onPress}>{props.children}</a>; }", "jsx"
    )
    assert {name: prop.type for name, prop in props.items()} == {"onPress": "function", "children": "node"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("const a = 1;", "ts"),
        ("export default 5", "tsx"),
        ("def f(): pass", "python"),
        ("", "tsx"),
        ("function lower() { return <p/>; }", "jsx"),
    ],
)
def test_what_is_no_component(content: str, kind: str) -> None:
    assert analyse(content, kind) is None


def test_the_default_export_is_chosen_before_others() -> None:
    source = (
        "export const A = () => <p/>;\nexport const B = () => <p/>;\nfunction c() { return 1; }\nexport default B;\n"
    )
    component = analyse(source, "tsx")
    assert component is not None
    assert (component.name, component.exported) == ("B", "default")
    named = analyse(source.replace("export default B;", ""), "tsx")
    assert named is not None
    assert (named.name, named.exported) == ("A", "named")


def test_a_component_without_a_name() -> None:
    component = analyse("export default () => <p/>;", "tsx")
    assert component == Component("Component", "default")


@given(
    st.lists(
        st.sampled_from(
            [
                "export ",
                "default ",
                "function ",
                "C",
                "(",
                ")",
                "{",
                "}",
                "<p/>",
                "return ",
                "const ",
                "=",
                "=>",
                ":",
                "P",
                "type ",
                "a",
                "?",
                "interface ",
                "|",
                "&",
                "'x'",
                "memo",
                "forwardRef",
                "<",
                ">",
                ",",
                ";",
                "\n",
                "...",
                "C.propTypes",
                "[",
                "]",
                "extends ",
                "é",
                "/** d */",
                "enum ",
                "typeof ",
                "keyof ",
                "class ",
                "import ",
                "from ",
                "as const",
                "1",
                "\x00",
                "`",
                "C.defaultProps",
            ]
        ),
        max_size=40,
    ).map("".join)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_looked_at(content: str) -> None:
    component = analyse(content, "tsx")
    if component is not None:
        assert component.name
        assert len({prop.name for prop in component.props}) == len(component.props)


WORDS = frozenset(
    ["key", "ref", "default", "class", "in", "of", "if", "do", "for", "new", "var", "let", "const", "case"]
)
NAMES = st.from_regex(r"[a-z][a-zA-Z]{1,8}", fullmatch=True).filter(lambda name: name not in WORDS)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-1000, 1000),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("Cs",)), max_size=20),
    st.lists(st.integers(0, 9), max_size=3),
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_defaults_come_back_as_they_were_written(given_: dict[str, object]) -> None:
    import json

    written = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given_.items())
    props = _props(f"export default function C({{ {written} }}) {{ return <p/>; }}", "jsx")
    assert {name: prop.default for name, prop in props.items()} == given_
