"""The containers of a Corral: what is wanted, what is there, and what makes the second like the first.

kinds.py      what can serve in a container: one row each         pure
desired.py    the configuration as specs; checks.py its values    pure
plan.py       wanted and seen → steps with reasons                pure
standing.py   what was seen, asked and remembered → one state     pure
past.py       what is remembered, what is new, what comes of it   pure
limits.py     limits from what models take                        pure
compose/      docker-compose files, read and written              pure, but for opening them
rows.py       what is written down: containers, models, versions, history
observing.py  the one way by which anything becomes known of a container
probing.py    who is asked when how it is
reconcile.py  steps carried out; images.py the image of each, aside.py who makes room for a successor
gathering.py  several things at once
keeper.py     the engine's events, what is due, and what changed while nobody listened
works.py      all of these put together, and when they run
asking.py     the model servers in them, asked by their own APIs
rollout.py    images brought to what their registries have, and back
editions.py   the same for the models in them
migration.py  containers of a compose project taken over
"""
