"""`ModelRegistry` as its document uses it: without a server, in a running loop, two at once, and over a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import corral
from corral import ModelCapabilities, ModelMetadata, ModelProvider, ModelRegistry, OperationStatus
from corral.errors import (
    Conflict,
    InvalidName,
    InvalidRequest,
    ModelNotFound,
    ModelPinned,
    NotSupported,
    OperationNotFound,
    SourceError,
)
from support.models import gguf
from support.origin import Origin


def registry(folder: Path, **more: str) -> ModelRegistry:
    env = {
        "HOME": str(folder),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "CORRAL_SOURCES_ALLOW_PRIVATE": "127.0.0.1",
        **more,
    }
    return ModelRegistry(models_dir=folder / "data" / "models", env=env)


def model(folder: Path, size: int = 1000, seed: int = 0) -> str:
    file = folder / "tiny.gguf"
    file.write_bytes(gguf(size, seed=seed))
    return f"file:{file}"


async def install(catalog: ModelRegistry, name: str, source: str) -> str:
    operation_id = await catalog.install_model(name, source=source)
    ended = await catalog.wait(operation_id)
    assert ended.status is OperationStatus.COMPLETED, ended.error
    return operation_id


async def test_the_documents_own_lines(tmp_path: Path) -> None:
    async with registry(tmp_path) as catalog:
        assert await catalog.list_available_models(provider=ModelProvider.OLLAMA) == []
        operation_id = await catalog.install_model(
            model_name="llama3:latest", provider=ModelProvider.FILE, runtime="ollama", source=model(tmp_path)
        )
        operation = catalog.get_operation_status(operation_id)
        assert (operation.operation_id, operation.model_name, operation.operation_type) == (
            operation_id,
            "llama3:latest",
            "install",
        )
        while catalog.get_operation_status(operation_id).status not in [
            OperationStatus.COMPLETED,
            OperationStatus.FAILED,
        ]:
            await catalog.wait(operation_id)
        operation = catalog.get_operation_status(operation_id)
        assert (operation.progress, operation.error) == (100.0, None)
        assert catalog.get_model_capabilities("llama3:latest").supports_system_role is True
        assert catalog.check_storage_quota(additional_size_gb=5.0) is True
        assert catalog.check_storage_quota(additional_size_gb=50.1) is False
        (listed,) = await catalog.list_available_models(provider=ModelProvider.FILE)
        assert isinstance(listed, ModelMetadata)
        assert (listed.name, listed.provider, listed.status) == ("llama3:latest", "file", "installed")
        removed = await catalog.wait(await catalog.remove_model("llama3:latest"))
        assert (removed.operation_type, removed.status) == ("remove", OperationStatus.COMPLETED)
        assert catalog.manifest == {}
        assert [item.operation_type for item in await catalog.list_operations()] == ["remove", "install"]


async def test_all_is_listed_without_asking_anybody(tmp_path: Path) -> None:
    async with registry(tmp_path) as catalog:
        await install(catalog, "mine", model(tmp_path))
        statuses = {item.name: item.status for item in await catalog.list_available_models()}
    assert statuses["mine"] == "installed"
    assert statuses["smollm2"] == "available"


async def test_a_failure_is_told_in_words(tmp_path: Path) -> None:
    async with registry(tmp_path) as catalog:
        ended = await catalog.wait(await catalog.install_model("gone", source=f"file:{tmp_path}/none.gguf"))
        assert ended.status is OperationStatus.FAILED
        assert ended.error is not None
        assert "none.gguf" in ended.error


async def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    async with registry(tmp_path) as catalog:
        with pytest.raises(InvalidRequest, match="no provider"):
            await catalog.install_model("x", provider="nowhere")
        with pytest.raises(InvalidName):
            await catalog.install_model("../x", source=model(tmp_path))
        with pytest.raises(InvalidName):
            catalog.get_model_capabilities("a\nb")
        with pytest.raises(ModelNotFound):
            await catalog.install_model("no-such-thing")
        with pytest.raises(ModelNotFound):
            await catalog.remove_model("no-such-thing")
        with pytest.raises(ModelNotFound):
            await catalog.activate_model("no-such-thing", "ollama")
        with pytest.raises(OperationNotFound):
            catalog.get_operation_status("op-none")
        with pytest.raises(NotSupported):
            await catalog.search("x", provider="ollama")
        with pytest.raises(SourceError):
            await catalog.search("x")
        assert catalog.check_storage_quota(0.0, provider="huggingface") is True


async def test_revisions_updates_and_what_is_said_by_hand(tmp_path: Path) -> None:
    async with registry(tmp_path) as catalog:
        await install(catalog, "m", model(tmp_path))
        first = catalog.history("m")[0].revision.id
        model(tmp_path, seed=1)
        assert (await catalog.check_update("m")).changed
        await catalog.pin("m")
        with pytest.raises(ModelPinned):
            await catalog.update_model("m")
        with pytest.raises(ModelPinned):
            await catalog.rollback("m")
        await catalog.unpin("m")
        assert (await catalog.wait(await catalog.update_model("m"))).status is OperationStatus.COMPLETED
        assert [past.revision.id for past in catalog.history("m")][1:] == [first]
        await catalog.rollback("m")
        assert catalog.history("m")[1].current
        said = await catalog.set_model_capabilities("m", {"supports_system_role": False})
        assert isinstance(said, ModelCapabilities)
        assert (said.supports_system_role, "system" in said.allowed_roles) == (False, False)
        assert (await catalog.set_model_capabilities("m", None)).supports_system_role is True
        fit = await catalog.fit("m")
        assert fit is not None
        assert fit.verdict == "yes"
        assert (await catalog.wait(await catalog.verify_model("m"))).status is OperationStatus.COMPLETED
        assert (await catalog.wait(await catalog.verify_model())).status is OperationStatus.COMPLETED
        assert (await catalog.wait(await catalog.collect_garbage(dry_run=True))).status is OperationStatus.COMPLETED


async def test_two_at_once_on_one_folder(tmp_path: Path) -> None:
    source = model(tmp_path, 20_000)
    async with registry(tmp_path) as one, registry(tmp_path) as two:
        ids = await asyncio.gather(one.install_model("m", source=source), two.install_model("m", source=source))
        ended = await asyncio.gather(one.wait(ids[0]), two.wait(ids[1]))
        assert {item.status for item in ended} == {OperationStatus.COMPLETED}
        assert one.get_model("m") == two.get_model("m")
        assert one.get_operation_status(ids[0]).status is OperationStatus.COMPLETED
        assert two.get_operation_status(ids[1]).status is OperationStatus.COMPLETED


async def test_paused_resumed_cancelled_and_gone_on_with_by_the_next(tmp_path: Path) -> None:
    data = gguf(50_000)
    go = asyncio.Event()
    async with Origin({"/m.gguf": data, "/n.gguf": gguf(40_000, seed=3)}) as origin:
        halfway = asyncio.Event()

        def tamper(asked):
            honest = origin.serve(asked)
            if go.is_set() or not isinstance(honest.body, bytes) or len(honest.body) < 1000:
                return None

            async def half(body=honest.body):
                yield body[: len(body) // 2]
                halfway.set()
                await go.wait()
                yield body[len(body) // 2 :]

            honest.body = half()
            return honest

        origin.tamper = tamper
        async with registry(tmp_path) as catalog:
            operation_id = await catalog.install_model("m", source=f"{origin.url}/m.gguf")
            await halfway.wait()
            await catalog.pause_operation(operation_id)
            assert (await catalog.wait(operation_id)).status is OperationStatus.PAUSED
            with pytest.raises(Conflict):
                await catalog.pause_operation(operation_id)
            halfway.clear()
            await catalog.resume_operation(operation_id)
            await halfway.wait()
        with pytest.raises(Conflict, match="closed"):
            await catalog.install_model("m")
        go.set()
        async with registry(tmp_path) as catalog:
            ended = await catalog.wait(operation_id)
            assert (ended.status, ended.error) == (OperationStatus.COMPLETED, None)
            go.clear()
            halfway.clear()
            other = await catalog.install_model("n", source=f"{origin.url}/n.gguf")
            await halfway.wait()
            await catalog.cancel_operation(other)
            assert (await catalog.wait(other)).status is OperationStatus.CANCELLED
            with pytest.raises(Conflict):
                await catalog.cancel_operation(other)


def test_it_belongs_to_one_loop(tmp_path: Path) -> None:
    catalog = registry(tmp_path)

    async def use() -> None:
        await catalog.list_operations()

    async def end() -> None:
        await catalog.close()
        await catalog.close()

    async def both() -> None:
        await use()
        await asyncio.to_thread(elsewhere)
        await end()

    def elsewhere() -> None:
        with pytest.raises(Conflict, match="another event loop"):
            asyncio.run(use())

    asyncio.run(both())


def test_its_own_folder_keeps_its_own_operations(tmp_path: Path) -> None:
    catalog = registry(tmp_path)
    assert catalog.corral.settings.home == tmp_path / "data" / "models" / ".corral"
    shared = ModelRegistry(env={"HOME": str(tmp_path)})
    assert shared.corral.settings.home == tmp_path / ".corral"
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / ".corral").exists()


def test_public_names_are_there() -> None:
    for name in ("ModelRegistry", "ModelProvider", "OperationStatus", "ModelCapabilities", "ModelMetadata"):
        assert hasattr(corral, name)


async def test_it_activates_what_it_has(tmp_path: Path, smollm2: Path) -> None:
    async with registry(tmp_path) as catalog:
        await install(catalog, "real", f"file:{smollm2}")
        assert await catalog.activate_model("real", "ollama") is True
        assert [status.model for status in catalog.corral.supervisor.statuses()] == ["real"]
