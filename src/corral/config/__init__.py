"""One configuration: default < file < environment < flag, and where each value came from.

    home                     folder for everything Corral keeps
    server.*                 the address, who may ask, how much
    store.*                  where models lie, and how much of them
    sources.*                fetching models
    operations.*             long work: how much of it at once
    database.*               where operations are written down
    engines.*                loading, idling, stopping
    upstream.*               time-outs towards engines and vendors
    routing.*                what is done when a candidate fails
    ledger.*                 money
    usage.*                  what is written down of each answer
    auth.*                   keys
    log.*                    what is written to standard error
    runtimes.KIND.OPTION     launch options for every model of a runtime
    models.NAME.*            models by name, and what differs for them
    routes.NAME.*            names that lead to several models
    prices.NAME.*            what a model costs
    groups.NAME.*            models that may not be in memory together
    services.NAME.*          long-lived servers
    containers.NAME.*        model servers in containers

`corral.yaml` (JSON is accepted as YAML) holds the same tree; the environment variable of `server.port` is
`CORRAL_SERVER_PORT`, and so on; the maps can only be given in the file. Keys of vendors and of this server come
from the environment and are never written down. Reading blocks, once, at start.
"""

from corral.config.containers import ContainerSettings, DockerSettings
from corral.config.loading import home, load, model_settings, variable
from corral.config.settings import GroupSettings, LogSettings, ModelSettings, ServiceSettings, Settings, reference
from corral.config.traffic import PriceSettings, RouteSettings
from corral.config.values import duration, size

__all__ = [
    "ContainerSettings",
    "DockerSettings",
    "GroupSettings",
    "LogSettings",
    "ModelSettings",
    "PriceSettings",
    "RouteSettings",
    "ServiceSettings",
    "Settings",
    "duration",
    "home",
    "load",
    "model_settings",
    "reference",
    "size",
    "variable",
]
