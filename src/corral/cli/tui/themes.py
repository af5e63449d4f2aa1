"""How the menu looks: quiet greys and one accent; or black and white and no quiet at all."""

from __future__ import annotations

from textual.theme import Theme

NAMES = {"dark": "corral-dark", "light": "corral-light", "contrast": "corral-contrast"}
"""What `--theme` takes, and what Textual calls it."""

DARK = Theme(
    name="corral-dark",
    primary="#8fb573",
    secondary="#7d8590",
    accent="#8fb573",
    success="#8fb573",
    warning="#d6a85c",
    error="#e5746b",
    foreground="#d5d9de",
    background="#15181c",
    surface="#15181c",
    panel="#1e2329",
    dark=True,
    variables={
        "corral-quiet": "#7d8590",
        "corral-line": "#2c333b",
        "corral-info": "#74a9c9",
        "corral-cursor": "#2d3a2a",
        "corral-cursor-text": "#f0f4ec",
        "block-cursor-background": "#2d3a2a",
        "block-cursor-foreground": "#f0f4ec",
        "border": "#8fb573",
        "border-blurred": "#2c333b",
        "input-selection-background": "#8fb573 30%",
    },
)

LIGHT = Theme(
    name="corral-light",
    primary="#3f6b21",
    secondary="#69727d",
    accent="#3f6b21",
    success="#3f6b21",
    warning="#8a5a00",
    error="#b3261e",
    foreground="#22272e",
    background="#fbfbf9",
    surface="#fbfbf9",
    panel="#efefea",
    dark=False,
    variables={
        "corral-quiet": "#626a74",
        "corral-line": "#d6d6ce",
        "corral-info": "#1f5f8b",
        "corral-cursor": "#dce8d0",
        "corral-cursor-text": "#14200b",
        "block-cursor-background": "#dce8d0",
        "block-cursor-foreground": "#14200b",
        "border": "#3f6b21",
        "border-blurred": "#d6d6ce",
        "input-selection-background": "#3f6b21 25%",
    },
)

CONTRAST = Theme(
    name="corral-contrast",
    primary="#ffff00",
    secondary="#ffffff",
    accent="#ffff00",
    success="#00ff66",
    warning="#ffd000",
    error="#ff6b6b",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    dark=True,
    text_alpha=1.0,
    variables={
        "corral-quiet": "#ffffff",
        "corral-line": "#ffffff",
        "corral-info": "#66e0ff",
        "corral-cursor": "#ffff00",
        "corral-cursor-text": "#000000",
        "block-cursor-background": "#ffff00",
        "block-cursor-foreground": "#000000",
        "border": "#ffff00",
        "border-blurred": "#ffffff",
        "input-selection-background": "#ffff00 40%",
    },
)

THEMES = (DARK, LIGHT, CONTRAST)

VARIABLES = {name: value for name, value in DARK.variables.items() if name.startswith("corral-")}
"""What the style sheet names, for themes of Textual's own that do not have it."""

TONES = {
    "green": "$success",
    "yellow": "$warning",
    "red": "$error",
    "cyan": "$corral-info",
    "dim": "$corral-quiet",
    "bold": "bold",
    "accent": "$accent",
    "title": "bold $accent",
}
"""A tone as Textual writes a style."""
