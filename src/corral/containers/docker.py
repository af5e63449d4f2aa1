"""A Docker engine by its API: aiodocker for what is asked and answered, its session for what goes on without end.

docker.py ── connection.py    how it is reached, and by which version of its API
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corral.containers import specs
from corral.containers.connection import Connection, version_of
from corral.containers.contexts import Places, credentials, is_of_hub
from corral.containers.failures import is_port_taken, whose_port
from corral.containers.gpus import Share, shares
from corral.containers.meters import APART, Samples
from corral.containers.meters import usage as read_usage
from corral.containers.ports import containers_with, programs_with
from corral.containers.pulling import Pulled
from corral.containers.streams import LogReader, Rest
from corral.domain.containers import (
    YARD_LABEL,
    ContainerSpec,
    EngineInfo,
    Event,
    ImageInfo,
    Line,
    Seen,
    Usage,
)
from corral.errors import Conflict, ContainerError, ContainerNotFound, DockerUnavailable, ImageNotFound, PortTaken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from corral.domain.hardware import Gpu
    from corral.domain.ports import Report

_ROOT = "/var/lib/docker"
_DELETED = 2
_ONE_SHOT = (1, 41)
"""The version since which the engine gives one sample at once, when it is asked for no more."""


class Docker:
    """The Docker engine that settings, environment and contexts name; asked for at the first call, and never before.

    `timeout` is how long an ordinary answer may take, in seconds. `gpus` tells what the GPUs are and who uses them; it
    may block for some milliseconds, and is asked on a thread.
    """

    def __init__(
        self,
        places: Places | None = None,
        *,
        timeout: float = 60.0,
        gpus: Callable[[], Sequence[Gpu] | None] | None = None,
    ) -> None:
        self._line = Connection(places or Places(env=os.environ), timeout)
        self._gpus = gpus
        self._samples = Samples()

    async def info(self) -> EngineInfo:
        """What it is and can."""
        async with self._line.asked("say what it is") as client:
            said, version = await asyncio.gather(client.system.info(), client.version())
        self._line.about = said
        options = [str(option) for option in said.get("SecurityOptions") or ()]
        return EngineInfo(
            address=self._line.where().address,
            version=str(version.get("Version", "")),
            api=client.api_version.removeprefix("v"),
            system=str(said.get("OperatingSystem", "")),
            runtimes=tuple(sorted(said.get("Runtimes") or {})),
            cdi=bool(said.get("CDISpecDirs")),
            rootless=any("name=rootless" in option for option in options),
            cgroup=str(said.get("CgroupVersion", "")),
            root=str(said.get("DockerRootDir", "")),
            cpus=said.get("NCPU"),
            memory=said.get("MemTotal"),
            warnings=tuple(said.get("Warnings") or ()),
        )

    async def list(self, yard: str | None = None) -> Sequence[Seen]:
        """Every container, running or not, in one call; with `yard` those of one Corral."""
        filters = {} if yard is None else {"filters": _json({"label": [f"{YARD_LABEL}={yard}"]})}
        entries = await self._line.fetch("containers/json", "list its containers", {"all": "1", **filters})
        return tuple(specs.seen_in_list(entry) for entry in entries)

    async def inspect(self, container: str) -> Seen:
        """One, by id or name, in detail."""
        return specs.seen_in_detail(await self._inspect(container))

    async def describe(self, container: str) -> ContainerSpec:
        """What a container that is there was made from, as a spec would have it, whoever made it."""
        found = await self._inspect(container)
        try:
            image = await self._line.fetch(f"images/{found['Image']}/json", "look at an image", image=found["Image"])
        except ImageNotFound:  # its image was removed by force: what came from it cannot be told apart
            image = None
        return specs.spec_of(found, image)

    async def written(self, container: str) -> Sequence[str]:
        """The paths that it has written in its own file system, which goes with it, and not in a volume or folder."""
        found = await self._line.fetch(f"containers/{container}/changes", f"look at what {container} has written")
        return tuple(each["Path"] for each in found or () if each.get("Kind") != _DELETED)

    async def create(self, spec: ContainerSpec, yard: str) -> str:
        """Make it, with its labels, and return its id; it is not started, and nothing is pulled."""
        await self._learn()
        self._refuse(spec)
        image = await self._image_for(spec)
        body = specs.creation(spec, yard, image, init=self._has_init())
        doing = f"make the container {spec.container}"
        try:
            async with self._line.asked(doing, spec.image) as client:
                made = await client.containers.create(body, name=spec.container)
        except Conflict as error:
            raise await self._clash(spec.container, yard, error) from error
        return str(made.id)

    async def start(self, container: str) -> bool:
        """Start it; False when it runs already."""
        from aiodocker.exceptions import DockerError

        doing = f"start the container {_short(container)}"
        try:
            async with self._line.sent("POST", f"containers/{container}/start", doing) as answer:
                return bool(answer.status != 304)
        except ContainerError as error:
            cause = error.__cause__
            if not isinstance(cause, DockerError) or not is_port_taken(cause.message):
                raise
            raise await self._port_taken(container) from cause

    async def stop(self, container: str, grace: float) -> bool:
        """End it, politely at first; False when it does not run."""
        asked = {"t": str(max(0, round(grace)))}
        doing = f"stop the container {_short(container)}"
        within = grace + self._line.timeout
        async with self._line.sent("POST", f"containers/{container}/stop", doing, asked, timeout=within) as answer:
            return bool(answer.status != 304)

    async def limit(self, container: str, *, memory: int | None = None, cpus: float | None = None) -> None:
        """Set what it may take, in bytes and processors, while it runs or not; None leaves that as it is."""
        body = specs.limits(memory, cpus)
        async with self._line.sent("POST", f"containers/{container}/update", f"limit {container}", body=body):
            pass

    async def rename(self, container: str, name: str) -> None:
        """Give it another name."""
        async with self._line.asked(f"rename the container {container} to {name}") as client:
            await client.containers.container(container).rename(name)

    async def remove(self, container: str, *, force: bool = False) -> bool:
        """Remove it; its named volumes stay. False when there is none."""
        try:
            async with self._line.asked(f"remove the container {container}") as client:
                await client.containers.container(container).delete(force=force, v=True)
        except ContainerNotFound:
            return False
        except Conflict as error:
            if "already in progress" not in error.message:
                raise
        return True

    async def logs(self, container: str, *, lines: int, follow: bool = False) -> AsyncIterator[Line]:
        """Its last `lines` lines, oldest first; and with `follow` every further one, until it ends.

        The engine keeps pieces of at most 16 KiB and counts those: what begins in the middle of a longer line is the
        end of one.
        """
        found = await self._inspect(container)
        terminal = bool((found.get("Config") or {}).get("Tty"))
        reader, rest = LogReader(terminal=terminal), Rest()
        asked = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(lines)}
        first = self._printed(found["Id"], container, reader, {**asked, "follow": str(int(follow))})
        async with aclosing(first) as printed:
            async for line in printed:
                rest.had(line)
                yield line
        if follow:  # of a container that has ended the engine may stop in the middle: it is asked for what is left
            if rest.since is not None:
                asked |= {"tail": "all", "since": f"{rest.since:.9f}"}
            again = LogReader(terminal=terminal)
            with suppress(ContainerNotFound, Conflict):  # it is removed, or about to be
                async with aclosing(self._printed(found["Id"], container, again, asked)) as printed:
                    async for line in printed:
                        for new in rest.of(line):
                            yield new
                reader = again
        for line in reader.end():
            for new in rest.of(line) if follow else (line,):
                yield new
        for new in rest.end():
            yield new

    async def _printed(
        self, identity: str, container: str, reader: LogReader, asked: Mapping[str, str]
    ) -> AsyncGenerator[Line, None]:
        doing = f"show what {container} prints"
        async with self._line.sent("GET", f"containers/{identity}/logs", doing, asked, timeout=None) as answer:
            async for data in answer.content.iter_any():
                for line in reader.feed(data):
                    yield line

    async def usage(self, container: str, *, brief: bool = False) -> Usage | None:
        """What it takes now; None while it does not run. May take a second, for the processors: `brief` is without."""
        held = asyncio.ensure_future(self._shares())
        try:
            said = await self._sampled(container, brief=brief)
            return None if said is None else await self._measured(said, await held)
        finally:
            held.cancel()

    async def usages(self, container: str) -> AsyncIterator[Usage]:
        """What it takes, about once a second, until it ends."""
        doing = f"measure {container}"
        async for said in self._line.objects(f"containers/{container}/stats", doing, {"stream": "1"}):
            found = await self._measured(said, await self._shares())
            if found is None:
                return
            yield found

    async def events(self, since: float | None = None) -> AsyncIterator[Event]:
        """What happens to containers from now on, or from `since` (Unix seconds); until the engine goes away.

        With `since` what happened at that very time is told, though it may have been told before. The engine remembers
        some 256 events, of everything, and none from before its own start.
        """
        asked = {"filters": _json({"type": ["container"]})}
        if since is not None:
            # The engine counts nanoseconds, and a float of today has some 240 of them between two values.
            asked["since"] = f"{max(0.0, since - 1e-6):.9f}"
        doing = "tell what happens"
        async for said in self._line.objects("events", doing, asked):
            yield specs.event_of(said)
        raise DockerUnavailable(
            f"The Docker engine at {self._line.where().address} went away.", "Start it: sudo systemctl start docker"
        )

    async def image(self, reference: str) -> ImageInfo | None:
        """An image that is here, by reference or id; None when it is not."""
        try:
            found = await self._line.fetch(f"images/{reference}/json", f"look at {reference}", image=reference)
        except ImageNotFound:
            return None
        return specs.image_of(found)

    async def pull(self, reference: str, report: Report) -> ImageInfo:
        """Fetch an image. With neither tag nor digest it is the tag `latest`."""
        doing = f"pull {reference}"
        known = credentials(reference, self._line.places)
        # aiodocker takes what stands before the first slash for the registry that the password is for.
        named = f"docker.io/{reference}" if known is not None and is_of_hub(reference) else reference
        pulled = Pulled(reference)
        async with self._line.asked(doing, reference) as client:
            async for said in client.images.pull(named, auth=known, stream=True):
                report(pulled.heard(said))
        found = await self.image(reference)
        if found is None:
            raise ContainerError(f"The Docker engine pulled {reference}, and does not have it now.", "Pull it again.")
        return found

    async def tag(self, image: str, reference: str) -> None:
        """Give an image that is here a further name, so that it is not lost with the next pull."""
        repository, tag = specs.parted(reference)
        async with self._line.asked(f"name the image {image} {reference}", image) as client:
            await client.images.tag(image, repository, tag=tag or "latest")

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._line.close()

    async def _inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._line.fetch(
            f"containers/{container}/json", f"look at the container {container}"
        )
        return found

    async def _learn(self) -> None:
        """What the engine can, as far as it is needed to make a container; asked once."""
        if not self._line.about:
            await self.info()

    def _has_init(self) -> bool:
        commit = self._line.about.get("InitCommit") or {}
        return bool(self._line.about.get("InitBinary")) and commit.get("ID") != "N/A"

    def _refuse(self, spec: ContainerSpec) -> None:
        """What no container gets; links in paths are followed where the engine is on this machine."""
        specs.refuse_capabilities(spec.capabilities)
        socket = self._line.where().socket
        local = socket is not None
        mounts = [
            replace(mount, source=os.path.realpath(mount.source) if local else os.path.normpath(mount.source))
            if not mount.named
            else mount
            for mount in spec.mounts
        ]
        sockets = ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"]
        if socket is not None:
            sockets += [str(socket), os.path.realpath(socket)]
        specs.refuse_mounts(mounts, sockets, str(self._line.about.get("DockerRootDir") or _ROOT))

    async def _image_for(self, spec: ContainerSpec) -> str:
        """The words by which the engine finds the image: with a digest exactly that one, whatever its tag is now."""
        if spec.digest is None:
            return spec.image
        pinned = f"{specs.parted(spec.image)[0]}@{spec.digest}"
        for reference in (pinned, spec.digest):
            found = await self.image(reference)
            if found is not None:
                tagged = await self.image(spec.image) if "@" not in spec.image else None
                return spec.image if tagged is not None and tagged.id == found.id else reference
        raise ImageNotFound(
            f"The image {spec.image} with the digest {spec.digest} is not here.",
            f"docker pull {pinned}",
            param="digest",
        )

    async def _clash(self, name: str, yard: str, error: Conflict) -> Conflict:
        """Whose the container is that has the name."""
        try:
            other = await self.inspect(name)
        except ContainerNotFound:
            return error
        if other.yard == yard:
            whose = "this Corral's own"
        elif other.yard:
            whose = f"another Corral's ({other.yard})"
        else:
            whose = "not Corral's"
        return Conflict(
            f"There is a container {name} already, {whose}, of the image {other.image}.",
            f"Take it over: corral containers adopt {name}. Or give yours another name with `container`.",
            param="container",
        )

    async def _port_taken(self, container: str) -> PortTaken:
        seen = await self.inspect(container)
        others = await self.list()
        taken: list[str] = []
        found = seen.ports[0] if seen.ports else None
        for port in seen.ports:
            holders = containers_with(port, others, seen.id) or await asyncio.to_thread(programs_with, port)
            if holders:
                found, taken = port, holders
                break
        where = "" if found is None else f"{found.host}:{found.outside}"
        return PortTaken(*whose_port(f"The container {seen.container}", where, taken), param="port")

    async def _shares(self) -> Mapping[str, Share] | None:
        if self._gpus is None:
            return None
        ask = self._gpus
        return await asyncio.to_thread(lambda: shares(ask()))

    async def _measured(self, said: Mapping[str, Any], held: Mapping[str, Share] | None) -> Usage | None:
        await self._learn()
        found = read_usage(said, self._line.about.get("MemTotal"))
        if found is None or held is None:
            return found
        share = held.get(str(said.get("id", "")), Share())
        return replace(
            found,
            gpu_memory=share.memory,
            gpu_temperature=share.temperature,
            gpu_utilization=share.utilization,
        )

    async def _sampled(self, container: str, *, brief: bool) -> Mapping[str, Any] | None:
        """A sample beside one before it, from which the processors are told; None while it does not run.

        Somebody who asks again within some seconds is told what was taken since, and waits for nothing.
        """
        path, doing = f"containers/{container}/stats", f"measure {container}"
        async with self._line.asked(doing) as client:
            older = version_of(client.api_version.removeprefix("v")) < _ONE_SHOT
        if older:  # the engine takes both samples itself, a second apart, and may take another to begin
            whole: Mapping[str, Any] = await self._line.fetch(path, doing, {"stream": "0"})
            return whole
        asked = {"stream": "0", "one-shot": "1"}
        now: Mapping[str, Any] = await self._line.fetch(path, doing, asked)
        if read_usage(now) is None:
            return None
        if brief:
            return now
        before = self._samples.before(now)
        if before is None:
            before = now
            await asyncio.sleep(APART)
            now = await self._line.fetch(path, doing, asked)
        self._samples.keep(now)
        return {**now, "preread": before.get("read"), "precpu_stats": before.get("cpu_stats")}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _short(container: str) -> str:
    """An id as Docker's own command line shows it; a name as it is."""
    return container[:12] if len(container) == 64 else container
