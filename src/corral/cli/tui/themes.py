"""How the menu looks: quiet greys and one accent; or black and white and no quiet at all."""

from __future__ import annotations

from dataclasses import dataclass

from textual.theme import Theme

NAMES = {"dark": "corral-dark", "light": "corral-light", "contrast": "corral-contrast"}
"""What `--theme` takes, and what Textual calls it."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a theme. `cursor` and `on_cursor` are of the line that is chosen; `selection` is a percentage."""

    accent: str
    secondary: str
    success: str
    warning: str
    error: str
    info: str
    text: str
    quiet: str
    line: str
    ground: str
    panel: str
    cursor: str
    on_cursor: str
    selection: int

    def theme(self, name: str, *, dark: bool, text_alpha: float = 0.95) -> Theme:
        """The theme called `name`; `dark` says whether its ground is."""
        return Theme(
            name=name,
            primary=self.accent,
            secondary=self.secondary,
            accent=self.accent,
            success=self.success,
            warning=self.warning,
            error=self.error,
            foreground=self.text,
            background=self.ground,
            surface=self.ground,
            panel=self.panel,
            dark=dark,
            text_alpha=text_alpha,
            variables={
                "corral-quiet": self.quiet,
                "corral-line": self.line,
                "corral-info": self.info,
                "corral-cursor": self.cursor,
                "corral-cursor-text": self.on_cursor,
                "block-cursor-background": self.cursor,
                "block-cursor-foreground": self.on_cursor,
                "border": self.accent,
                "border-blurred": self.line,
                "input-selection-background": f"{self.accent} {self.selection}%",
            },
        )


DARK = Palette(
    accent="#8fb573",
    secondary="#7d8590",
    success="#8fb573",
    warning="#d6a85c",
    error="#e5746b",
    info="#74a9c9",
    text="#d5d9de",
    quiet="#7d8590",
    line="#2c333b",
    ground="#15181c",
    panel="#1e2329",
    cursor="#2d3a2a",
    on_cursor="#f0f4ec",
    selection=30,
).theme(NAMES["dark"], dark=True)

LIGHT = Palette(
    accent="#3f6b21",
    secondary="#69727d",
    success="#3f6b21",
    warning="#8a5a00",
    error="#b3261e",
    info="#1f5f8b",
    text="#22272e",
    quiet="#626a74",
    line="#d6d6ce",
    ground="#fbfbf9",
    panel="#efefea",
    cursor="#dce8d0",
    on_cursor="#14200b",
    selection=25,
).theme(NAMES["light"], dark=False)

CONTRAST = Palette(
    accent="#ffff00",
    secondary="#ffffff",
    success="#00ff66",
    warning="#ffd000",
    error="#ff6b6b",
    info="#66e0ff",
    text="#ffffff",
    quiet="#ffffff",
    line="#ffffff",
    ground="#000000",
    panel="#000000",
    cursor="#ffff00",
    on_cursor="#000000",
    selection=40,
).theme(NAMES["contrast"], dark=True, text_alpha=1.0)

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
