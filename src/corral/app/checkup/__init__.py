"""What works on this machine, what does not, and the command that mends it. `examine` looks at everything.

- checks.py: one check: what was found, why it matters, what mends it
- machine.py: Python, processor, memory, home, disk, clock
- network.py: proxies, the package index, the clocks of others
- graphics.py: NVIDIA's driver, CUDA, and its toolkit for containers
- docker.py: the Docker engine, who may ask it, the containers of the configuration and their ports
- models.py: the store, the runtimes, the keys of vendors
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from corral.app.checkup import docker, graphics, machine, models, network
from corral.app.checkup.checks import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.app.corral import Corral

__all__ = ["Check", "Verdict", "examine"]


async def examine(corral: Corral, *, online: bool = False) -> AsyncIterator[Check]:
    """Every check of a machine whose configuration can be read, as each is done; `online` asks the package index, too.

    Looks only; nothing is changed. Blocks the loop for some 0.1 s where there is an NVIDIA driver.
    """
    settings = corral.settings
    yield machine.home(settings.home)
    yield machine.disk(settings.models_dir)
    yield machine.clock(corral.clock.wall(), settings.home)
    yield network.proxies(corral.env)
    driver = graphics.driver(Path("/proc/driver/nvidia/version"), corral.env.get("PATH", os.defpath))
    yield driver
    if driver.found:
        yield graphics.cuda()
    engine, found = await docker.engine(corral)
    yield found
    if engine is not None:
        if driver.found:
            yield graphics.toolkit(engine)
        async for check in docker.containers(corral):
            yield check
    yield models.store(corral)
    yield models.keys(corral)
    async for check in models.runtimes(corral):
        yield check
    if online:
        yield await network.index(corral)
