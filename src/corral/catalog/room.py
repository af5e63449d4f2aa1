"""Whether there is room for more: quotas and the disk, with what this process has promised to others.

An install claims the bytes that it will write before the first of them, and lets go of them when it ends. Claims are of
this process; what another one is about to write is seen as it grows on the disk, and once more when a model is
committed. A file of unknown size is not claimed: while it is written it is granted some bytes at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from corral.domain.sizes import human
from corral.errors import DiskFull, QuotaExceeded
from corral.kit.disk import free, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from corral.catalog.blobs import Blobs
    from corral.catalog.usage import Limits, Needs
    from corral.domain.models import FileEntry

_GRANT: Final = 32 << 20
"""Bytes that a file of unknown size is granted at a time: what is measured again for each is little beside them."""

_MARGIN: Final = 100 * 1000**2
"""Bytes of the disk that a file of unknown size is never granted."""


@dataclass(frozen=True, slots=True)
class _Disk:
    """Bytes of the blobs by digest, and of what lies in `partial` by name."""

    sizes: Mapping[str, int]
    held: Mapping[str, int]

    @property
    def taken(self) -> int:
        return sum(self.sizes.values()) + sum(self.held.values())

    def left(self, key: str, size: int) -> int:
        """Bytes still to be written of a file of that size, whose part has that key."""
        if self.sizes.get(key.removeprefix("sha256-")) == size:
            return 0
        return max(0, size - sum(count for name, count in self.held.items() if name.startswith(key)))


@dataclass(eq=False, slots=True)
class Claim:
    """What one install writes, for `what` of the source `scheme`: sizes by key of part, None where it is not known.

    `with` it: what is reserved within is let go of at the end.
    """

    room: Room
    scheme: str
    what: str
    files: Mapping[str, int | None]
    credit: int = 0
    taken: int = 0
    come: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.room.release(self)

    def reserve(self) -> None:
        """Promise the bytes to this install, those of unknown size excepted. Blocks.

        Raises:
            QuotaExceeded, DiskFull: there is no room for them; says the sizes.
        """
        self.room.reserve(self)

    def take(self, count: int) -> None:
        """Ask for `count` bytes of a file of unknown size, right before they are written. Blocks.

        Raises:
            QuotaExceeded, DiskFull: it may not grow further.
        """
        self.room.take(self, count)

    def arrived(self, key: str) -> None:
        """Note that the file with that key is in the store, under whatever digest."""
        self.come.add(key)

    def known(self) -> dict[str, int]:
        """The files of known size that are still on their way."""
        return {key: size for key, size in self.files.items() if size is not None and key not in self.come}

    def weight(self) -> int:
        """Bytes that the install adds to its source's share, as far as that is known."""
        return sum(size for size in self.files.values() if size is not None) + self.taken


class Room:
    """The room in a store. `needs` tells what each of its models needs."""

    def __init__(self, blobs: Blobs, limits: Limits, needs: Callable[[], list[Needs]]) -> None:
        self._blobs = blobs
        self._limits = limits
        self._needs = needs
        self._mutex = threading.Lock()
        self._claims: set[Claim] = set()

    def require(self, size: int | None, scheme: str, what: str) -> None:
        """Check that `size` bytes more may be written for `what`; unknown is the default size. Blocks.

        Raises:
            QuotaExceeded, DiskFull: they may not; says the sizes.
        """
        needed = self._limits.default_model_size if size is None else size
        claim = Claim(self, scheme, what, {})
        with self._mutex:
            self._check(claim, needed, needed, self._disk())

    def reserve(self, claim: Claim) -> None:
        """As `Claim.reserve`."""
        if not claim.files:
            return
        with self._mutex:
            disk, unknown = self._disk(), None in claim.files.values()
            usual = self._limits.default_model_size
            needed = usual if unknown else sum(disk.left(key, size) for key, size in claim.known().items())
            self._check(claim, needed, usual if unknown else claim.weight(), disk)
            self._claims.add(claim)

    def release(self, claim: Claim) -> None:
        """Let go of what was promised."""
        with self._mutex:
            self._claims.discard(claim)

    def take(self, claim: Claim, count: int) -> None:
        """As `Claim.take`."""
        with self._mutex:
            if count > claim.credit:
                claim.credit = 0
                # Not all that is left: others may have begun, too.
                claim.credit = max(count, min(self._grantable(claim, count) // 2, _GRANT))
            claim.credit -= count
            claim.taken += count

    def committed(self, files: Collection[FileEntry], scheme: str, what: str) -> None:
        """Check that a model of these files, which are all here, may stay. Call it with the store locked. Blocks.

        What no model needs counts nothing: of two processes that each had room for theirs, the first one stays.

        Raises:
            QuotaExceeded: there was no room for what it brought.
        """
        quota, share = self._limits.quota, self._limits.quotas.get(scheme)
        if quota is None and share is None:
            return
        sizes = self._blobs.sizes()
        if share is None and quota is not None and sum(sizes.values()) <= quota:
            return
        needs = self._needs()
        needed = {digest for need in needs for digest in need.here(sizes)}
        fresh = sum({file.sha256: file.size for file in files if file.sha256 not in needed}.values())
        if not fresh:
            return
        taken = sum(sizes[digest] for digest in needed)
        if quota is not None and fresh > quota - taken:
            raise _over(what, fresh, taken, quota)
        taken = _share(needs, scheme, sizes)
        if share is not None and fresh > share - taken:
            raise _over_share(what, fresh, taken, share, scheme)

    def _disk(self) -> _Disk:
        return _Disk(self._blobs.sizes(), self._blobs.held())

    def _others(self, claim: Claim) -> list[Claim]:
        return [other for other in self._claims if other is not claim]

    def _promised(self, claim: Claim, disk: _Disk) -> int:
        """Bytes that others have been promised and have not written; bytes that both want are fetched once."""
        files = {key: size for other in self._others(claim) for key, size in other.known().items()}
        left = sum(disk.left(key, size) for key, size in files.items() if key not in claim.files)
        return left + sum(other.credit for other in self._others(claim))

    def _share_left(self, claim: Claim, disk: _Disk) -> tuple[int, int]:
        """What models of the claim's source take, with what others will add; and the quota."""
        taken = _share(self._needs(), claim.scheme, disk.sizes)
        taken += sum(other.weight() + other.credit for other in self._others(claim) if other.scheme == claim.scheme)
        return taken, self._limits.quotas[claim.scheme]

    def _check(self, claim: Claim, needed: int, weight: int, disk: _Disk) -> None:
        if needed <= 0:
            return
        promised, quota, root = self._promised(claim, disk), self._limits.quota, self._blobs.root
        if quota is not None and needed > quota - disk.taken - promised:
            raise _over(claim.what, needed, disk.taken, quota, promised)
        if claim.scheme in self._limits.quotas:
            taken, share = self._share_left(claim, disk)
            if weight > share - taken:
                raise _over_share(claim.what, weight, taken, share, claim.scheme)
        with translated("measuring", root):
            left = max(0, free(root) - promised)
        if needed > left:
            raise DiskFull(
                f"{claim.what} needs {human(needed)} more in {root}, where {human(left)} are free.",
                f"Free {human(needed - left)}, for example with: corral rm NAME",
            )

    def _grantable(self, claim: Claim, count: int) -> int:
        """Bytes that may be written of a file of unknown size, `count` or more."""
        disk, root, quota = self._disk(), self._blobs.root, self._limits.quota
        # The rest of this install's own files is promised as well.
        own = sum(disk.left(key, size) for key, size in claim.known().items())
        promised = self._promised(claim, disk) + own
        with translated("measuring", root):
            left = free(root) - promised - _MARGIN
        if count > left:
            raise DiskFull(
                f"{claim.what} does not fit on the disk of {root}: its size was not known beforehand.",
                "Free some space, for example with: corral rm NAME",
            )
        if quota is not None:
            left = min(left, quota - disk.taken - promised)
            if count > left:
                raise _endless(claim, f"the store's quota, {human(quota)}", "store.quota")
        if claim.scheme in self._limits.quotas:
            taken, share = self._share_left(claim, disk)
            left = min(left, share - taken - claim.weight())
            if count > left:
                raise _endless(claim, f"the quota of {claim.scheme!r}, {human(share)}", f"store.quotas.{claim.scheme}")
        return left


def _share(needs: list[Needs], scheme: str, sizes: Mapping[str, int]) -> int:
    of_source = set().union(*(need.here(sizes) for need in needs if need.scheme == scheme))
    return sum(sizes[digest] for digest in of_source)


def _over(what: str, size: int, taken: int, quota: int, promised: int = 0) -> QuotaExceeded:
    others = f", and others on their way {human(promised)}" if promised else ""
    return QuotaExceeded(
        f"{what} needs {human(size)} more; the store takes {human(taken)} of its quota of {human(quota)}{others}.",
        f"Free {human(size + taken + promised - quota)} with corral gc or corral rm NAME, or raise store.quota.",
    )


def _over_share(what: str, size: int, taken: int, quota: int, scheme: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"{what} needs {human(size)} more; models of {scheme!r} take {human(taken)} of their quota of {human(quota)}.",
        f"Free {human(size + taken - quota)} with corral gc or corral rm NAME, or raise store.quotas.{scheme}.",
    )


def _endless(claim: Claim, quota: str, setting: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"{claim.what} would exceed {quota}: its size was not known beforehand.",
        f"What arrived goes with corral gc. To install it, free room with corral rm NAME, or raise {setting}.",
    )
