"""The keys of a compose file's services: those that are taken over, and why the others are not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OFF = "disabled"
"""The profile that we write for a container that shall not run."""

OTHER_KEYS: Mapping[str, str] = {
    "annotations": "Corral gives none.",
    "attach": "Corral never attaches: see its logs with `corral containers logs`.",
    "build": "Corral builds no images: build it, and give its name as `image`.",
    "blkio_config": "Corral does not limit disks.",
    "cgroup": "Corral leaves it to the engine.",
    "cgroup_parent": "Corral leaves it to the engine.",
    "configs": "Mount a folder instead, with `volumes`.",
    "cpu_shares": "Corral limits processors with `cpus`, and has no weights.",
    "cpu_quota": "Write `cpus` instead.",
    "cpu_period": "Write `cpus` instead.",
    "cpuset": "Write `cpus` instead: Corral does not choose which.",
    "credential_spec": "It is for Windows.",
    "depends_on": "It is not needed: Corral asks each container's API before it counts as up, and starts them at once.",
    "device_cgroup_rules": "Corral gives no devices but GPUs.",
    "dns": "Corral leaves name service to the engine.",
    "dns_opt": "Corral leaves name service to the engine.",
    "dns_search": "Corral leaves name service to the engine.",
    "domainname": "Corral leaves it to the engine.",
    "expose": "It is not needed: it opens nothing.",
    "extends": "Corral does not read what it extends: write that into the entry.",
    "external_links": "Clients ask through a port of this machine.",
    "extra_hosts": "Corral leaves name service to the engine.",
    "group_add": "Write `user: UID:GID` instead.",
    "hostname": "Corral leaves it to the engine.",
    "init": "Corral always has an init in a container.",
    "ipc": "Give it shared memory of its own, with `shm`.",
    "isolation": "It is for Windows.",
    "links": "Clients ask through a port of this machine.",
    "logging": "Corral reads logs through the engine, whose own settings hold.",
    "mac_address": "Corral leaves it to the engine.",
    "mem_reservation": "Corral limits memory with `memory`, and reserves none.",
    "mem_swappiness": "Containers of Corral do not swap.",
    "memswap_limit": "Containers of Corral do not swap: `memory` is all they get.",
    "oom_kill_disable": "It would let one container stop the machine.",
    "oom_score_adj": "Corral leaves it to the engine.",
    "pid": "Corral's containers see only their own processes.",
    "platform": "The engine takes the image for its own processor.",
    "privileged": "Corral never gives a container the machine.",
    "pull_policy": "Corral pulls an image that is not here; `corral containers update` gets a newer one.",
    "scale": "An entry is one container: write another entry.",
    "secrets": "Write `environment: {NAME: $NAME}`, and set NAME for Corral.",
    "security_opt": "Corral's containers always have no-new-privileges, and the engine's own profiles.",
    "stdin_open": "A model server reads no terminal.",
    "stop_signal": "Corral stops with the image's own signal.",
    "storage_opt": "Corral leaves it to the engine.",
    "sysctls": "Corral leaves the kernel's settings alone.",
    "tty": "A model server has no terminal.",
    "ulimits": "Corral leaves them to the engine.",
    "userns_mode": "Corral leaves it to the engine.",
    "uts": "Corral leaves it to the engine.",
    "volumes_from": "Write the volumes themselves.",
}
"""Keys of a service that Corral does not take over, and why."""
TAKEN = frozenset(
    {"image", "container_name", "ports", "volumes", "environment", "env_file", "command", "entrypoint", "deploy"}
    | {"gpus", "runtime", "mem_limit", "cpus", "shm_size", "pids_limit", "healthcheck", "restart", "profiles", "user"}
    | {"read_only", "tmpfs", "cap_add", "cap_drop", "network_mode", "networks", "labels", "working_dir"}
    | {"stop_grace_period", "devices", "x-corral"}
)
DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "init": (True,),
    "privileged": (False,),
    "security_opt": (["no-new-privileges:true"], ["no-new-privileges"], ["no-new-privileges=true"]),
    "depends_on": ([], {}),
    "scale": (1,),
    "stdin_open": (False,),
    "tty": (False,),
    "pull_policy": ("missing", "if_not_present"),
}
"""Values that mean here what they mean there, so that nothing is lost."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A key of a compose file that is not taken over, or not whole, and why. `service` is empty for the file's own."""

    service: str
    key: str
    reason: str
