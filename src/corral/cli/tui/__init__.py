"""The terminal menu, `corral ui`. It talks to a Corral server over HTTP, and to nothing else.

    command.py    `corral ui` itself; quick to import
    plain.py      the same menu in lines, for screen readers and terminals that cannot move a cursor
    link.py       what it asks of the server, beyond what the commands ask
    yard.py       what it knows of the server: messages in, topics that changed out. Pure
    texts.py      models, engines, containers and work as tables and fields. Pure
    figures.py    the machine, money and receipts likewise. Pure
    marks.py      bars, sparklines and the tones of words. Pure
    ring.py       lines of a log: as many as fit, the oldest go first. Pure
    app.py        the application: frame, screens, what happened
    live.py       keeps `yard` true: the server's events, with reconnection
    frame.py      head, tabs, message and hints around every screen
    themes.py     dark, light, high contrast
    listing.py    a table that fits its width        tape.py   a log that a flood does not freeze
    dialogs.py    questions, choices, help, texts
    panes/        one file a screen

Textual is imported by `app` and what it draws with, and only once the menu is opened.
"""
