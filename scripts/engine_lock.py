"""What `scripts/lock.sh` does to a resolved list of an engine's packages.

    python3 scripts/engine_lock.py join NEW LOCK    write NEW to LOCK, for builds of torch with and without CUDA
    python3 scripts/engine_lock.py cuda NEW LOCK    write to LOCK only what torch needs of CUDA

`torch==2.13.0` is met by `2.13.0+cpu` too: with the hashes of both, an installer takes the small one where the machine
offers it and the public one elsewhere. Hashes of the same version that LOCK names already stay, so that whoever locks
need not have every build at hand.
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia|cuda)-")
HASH = re.compile(r"--hash=(\S+)")


def blocks(text: str) -> list[str]:
    """The requirements of a lock: each with its marker and hashes, as it stands there."""
    return [block for block in re.split(r"\n(?=\S)", text.strip()) if block and not block.startswith("#")]


def joined(new: list[str], old: list[str]) -> list[str]:
    """`new` without CUDA, and with one `torch` for all platforms whose hashes are those of every build of it."""
    torch = [block for block in new if block.startswith("torch==")]
    version = re.split(r"[+\s]", torch[0].removeprefix("torch=="))[0]
    known = [block for block in old if re.match(rf"torch=={re.escape(version)}[+\s]", block)]
    hashes = sorted({digest for block in torch + known for digest in HASH.findall(block)})
    whole = " \\\n".join([f"torch=={version}", *(f"    --hash={digest}" for digest in hashes)])
    rest = [block for block in new if block not in torch and not CUDA.match(block)]
    return sorted([*rest, whole])


def main(what: str, new: str, lock: str) -> None:
    """Write the lock."""
    resolved, target = blocks(Path(new).read_text()), Path(lock)
    old = blocks(target.read_text()) if target.exists() else []
    kept = joined(resolved, old) if what == "join" else [block for block in resolved if CUDA.match(block)]
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(kept) + "\n")


main(*sys.argv[1:])
