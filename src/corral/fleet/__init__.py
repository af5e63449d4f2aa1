"""The containers of a Corral: what is wanted, what is there, and what makes the second like the first.

desired.py    the configuration as specs                          pure
plan.py       wanted and seen → steps with reasons                pure
standing.py   what was seen, asked and remembered → one state     pure
compose.py    docker-compose files, read and written              pure
rows.py       what is written down: containers, models, versions, history
…             see each file
"""
