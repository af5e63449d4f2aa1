"""Every error Corral raises, in one tree.

    CorralError                      code               status
    ├── InvalidRequest               invalid_request    400
    │   ├── InvalidName              invalid_name       400
    │   ├── UnknownOption            unknown_option     400
    │   ├── MethodNotAllowed         method_not_allowed 405
    │   ├── RequestTimeout           request_timeout    408
    │   ├── BodyTooLarge             body_too_large     413
    │   ├── HeadTooLarge             head_too_large     431
    │   ├── NotSupported             not_supported      400
    │   ├── ContextOverflow          context_length_exceeded 400
    │   ├── PipelineInvalid          pipeline_invalid   400
    │   └── Degraded                 degraded           422
    ├── Unauthorized                 unauthorized       401
    ├── Forbidden                    forbidden          403
    ├── BudgetExceeded               budget_exceeded    402
    ├── RateLimited                  rate_limited       429
    ├── HostRefused                  host_refused       403
    ├── NotFound                     not_found          404
    │   ├── ModelNotFound            model_not_found    404
    │   ├── SourceNotFound           source_not_found   404
    │   ├── OperationNotFound        operation_missing  404
    │   ├── UnknownPlugin            unknown_plugin     404
    │   ├── ServiceNotFound          service_missing    404
    │   ├── ContainerNotFound        container_missing  404
    │   ├── ImageNotFound            image_missing      404
    │   ├── KeyNotFound              key_missing        404
    │   ├── BudgetNotFound           budget_missing     404
    │   ├── ReceiptNotFound          receipt_missing    404
    │   └── EntryNotFound            entry_missing      404
    ├── Conflict                     conflict           409
    │   ├── ModelBusy                model_busy         409
    │   ├── ModelPinned              model_pinned       409
    │   ├── PortTaken                port_taken         409
    │   └── Stale                    stale              412
    ├── ConfigError                  config_error       500
    ├── StoreError                   store_error        500
    │   ├── DiskFull                 disk_full          507
    │   ├── QuotaExceeded            quota_exceeded     507
    │   ├── NoPermission             no_permission      500
    │   ├── DigestMismatch           digest_mismatch    502
    │   ├── UnsafeFormat             unsafe_format      422
    │   └── CorruptModel             corrupt_model      422
    ├── DatabaseError                database_error     503
    ├── SourceError                  source_error       502
    │   ├── LoginRequired            login_required     403
    │   └── AddressRefused           address_refused    403
    ├── EngineError                  engine_error       502
    │   ├── RuntimeUnavailable       runtime_missing    501
    │   ├── EngineStartFailed        engine_start       503
    │   │   └── OutOfMemory          engine_memory      507
    │   ├── EngineUnstable           engine_unstable    503
    │   ├── DoesNotFit               does_not_fit       507
    │   ├── QueueFull                queue_full         503
    │   ├── EngineDied               engine_died        502
    │   └── EngineTimeout            engine_timeout     504
    ├── UpstreamError                upstream_error     502
    │   ├── UpstreamUnreachable      upstream_refused   502
    │   ├── UpstreamTimeout          upstream_timeout   504
    │   ├── UpstreamProtocol         upstream_garbage   502
    │   ├── UpstreamLimited          upstream_limited   429
    │   ├── UpstreamOverloaded       upstream_busy      503
    │   └── CircuitOpen              circuit_open       503
    ├── ServiceError                 service_error      500
    │   └── ServiceUnavailable       service_missing_os 501
    ├── ContainerError               container_error    502
    │   ├── DockerUnavailable        docker_missing     503
    │   └── ContainerUnhealthy       container_sick     503
    ├── StepFailed                   step_failed        502
    └── ServerError                  server_error       500
        ├── AddressInUse             address_in_use     500
        ├── UnsafeBind               unsafe_bind        500
        ├── ServerRunning            server_running     409
        ├── ServerNotRunning         server_not_running 503
        └── UiMissing                ui_missing         501

An error says what happened, to which thing, what to type next (`hint`), and, where that is known, after how many
seconds to ask again (`retry_after`). Surfaces render from these values and from nothing else: the gateway writes them
in the client's dialect, the management API as JSON, the terminal as two lines.
"""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


_NEAR = 1000
"""Names among which the nearest is looked for; of more, only those with the same first letter."""


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The names in `known` closest to `name`, best first, ignoring case; at most `limit`."""
    by_fold = {item.casefold(): item for item in known}
    if len(by_fold) > _NEAR:
        first = name[:1].casefold()
        by_fold = dict(islice(((fold, item) for fold, item in by_fold.items() if fold[:1] == first), _NEAR))
    close = get_close_matches(name.casefold(), by_fold, n=limit, cutoff=0.5)
    return [by_fold[item] for item in close]


class CorralError(Exception):
    """What happened, to which thing, and what to type next."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, hint: str = "", *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class InvalidRequest(CorralError):
    """The request cannot be understood as it stands."""

    code = "invalid_request"
    http_status = 400


class InvalidName(InvalidRequest):
    """A model name or reference has characters or a form that is not allowed."""

    code = "invalid_name"


class UnknownOption(InvalidRequest):
    """A setting or option that nothing here knows; names the nearest known one."""

    code = "unknown_option"

    @classmethod
    def among(cls, name: str, known: Iterable[str], where: str) -> UnknownOption:
        """The error for `name`, unknown in `where`; its hint is the nearest of the `known` names, or all of them."""
        options = sorted(known)
        close = nearest(name, options, 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(options) or 'none'}."
        return cls(f"Unknown option {name!r} for {where}.", hint, param=name)


class MethodNotAllowed(InvalidRequest):
    """The path exists, and takes another method: one of `allowed`."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(
        self, message: str, hint: str = "", *, param: str | None = None, allowed: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, hint, param=param)
        self.allowed = allowed


class BodyTooLarge(InvalidRequest):
    """The request body is over the server's limit."""

    code = "body_too_large"
    http_status = 413


class HeadTooLarge(InvalidRequest):
    """The request's line and headers are over the server's limit."""

    code = "head_too_large"
    http_status = 431


class RequestTimeout(InvalidRequest):
    """The client took too long to send its request."""

    code = "request_timeout"
    http_status = 408


class NotSupported(InvalidRequest):
    """The thing asked for exists, but this source, runtime or model cannot do it."""

    code = "not_supported"


class ContextOverflow(InvalidRequest):
    """The prompt, or what may be written to it, is longer than the model's context; says both in tokens."""

    code = "context_length_exceeded"


class PipelineInvalid(InvalidRequest):
    """A pipeline cannot run as it is written; says where, and all that is wrong with it."""

    code = "pipeline_invalid"


class Degraded(InvalidRequest):
    """A strict request would be answered with less than it asks for; names what."""

    code = "degraded"
    http_status = 422


class Unauthorized(CorralError):
    """No key, or a wrong one."""

    code = "unauthorized"
    http_status = 401


class Forbidden(CorralError):
    """The key may not be used for this; says what it may be used for."""

    code = "forbidden"
    http_status = 403


class BudgetExceeded(CorralError):
    """A budget does not reach for what the answer could cost; names it, what is left and when it is renewed."""

    code = "budget_exceeded"
    http_status = 402


class RateLimited(CorralError):
    """The key asks more often than it may."""

    code = "rate_limited"
    http_status = 429


class HostRefused(CorralError):
    """The Host header is not one this server answers to (a DNS-rebinding guard)."""

    code = "host_refused"
    http_status = 403


class NotFound(CorralError):
    """Nothing has that name."""

    code = "not_found"
    http_status = 404


class ModelNotFound(NotFound):
    """No installed or configured model has that name."""

    code = "model_not_found"

    @classmethod
    def among(cls, name: str, known: Iterable[str], library: Iterable[str] = ()) -> ModelNotFound:
        """The error for `name`, with the nearest `known` names, or else how to see them, and what could be installed.

        `known` are names that whoever asked may see, `library` what can be installed.
        """
        name, known, library = name[:200], list(known), list(library)
        if name in library:
            return cls(f"Model {name!r} is not installed.", f"Install it with: corral pull {name}", param="model")
        close = nearest(name, known)
        if close:
            return cls(f"Model {name!r} does not exist.", f"Did you mean {' or '.join(close)}?", param="model")
        pullable = nearest(name, library, 1) or (["smollm2"] if library and not known else [])
        hints = ["See what there is: corral list, or GET /v1/models."] if known or not pullable else []
        hints += [f"Install one with: corral pull {each}" for each in pullable]
        return cls(f"Model {name!r} does not exist.", " ".join(hints), param="model")


class SourceNotFound(NotFound):
    """A source does not have what the reference names."""

    code = "source_not_found"


class OperationNotFound(NotFound):
    """There is no operation with that identifier."""

    code = "operation_missing"


class UnknownPlugin(NotFound):
    """No runtime or source has that name."""

    code = "unknown_plugin"


class ServiceNotFound(NotFound):
    """There is no such service."""

    code = "service_missing"


class ContainerNotFound(NotFound):
    """No container of that name is in the configuration or on the Docker engine."""

    code = "container_missing"


class ImageNotFound(NotFound):
    """The image is not here, and cannot be pulled."""

    code = "image_missing"


class KeyNotFound(NotFound):
    """There is no such key."""

    code = "key_missing"


class BudgetNotFound(NotFound):
    """There is no such budget."""

    code = "budget_missing"


class ReceiptNotFound(NotFound):
    """No answer has that request id, or its receipt is no longer kept."""

    code = "receipt_missing"


class EntryNotFound(NotFound):
    """The workspace has no such project, context, run, artifact or pipeline."""

    code = "entry_missing"

    @classmethod
    def of(cls, kind: str, key: str) -> EntryNotFound:
        """The error for a `run`, a `project` and so on with that id or name: the same wherever it is not found."""
        return cls(
            f"There is no {kind} {key[:100]!r}.",
            "It may have been deleted: see those with --removed, or ?deleted=true.",
            param="id",
        )


class Conflict(CorralError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"
    http_status = 409


class ModelBusy(Conflict):
    """The model is loaded or answering, and the call would pull it from under its users."""

    code = "model_busy"


class ModelPinned(Conflict):
    """The model is held at its revision, or against removal."""

    code = "model_pinned"


class PortTaken(Conflict):
    """Somebody else has the port; says who."""

    code = "port_taken"


class Stale(Conflict):
    """Somebody else has changed it since it was read."""

    code = "stale"
    http_status = 412


class ConfigError(CorralError):
    """A setting has a value that cannot be used; says where it came from."""

    code = "config_error"


class StoreError(CorralError):
    """The model store could not be read or written."""

    code = "store_error"


class DiskFull(StoreError):
    """There is not enough room on the disk; says how much is needed and how much there is."""

    code = "disk_full"
    http_status = 507


class QuotaExceeded(StoreError):
    """The store may not grow as far as this would need."""

    code = "quota_exceeded"
    http_status = 507


class NoPermission(StoreError):
    """The operating system refused access to a file or folder of the store."""

    code = "no_permission"


class DigestMismatch(StoreError):
    """Bytes arrived whole and are not the bytes that were promised."""

    code = "digest_mismatch"
    http_status = 502


class UnsafeFormat(StoreError):
    """A file that can run code when it is opened, such as a pickle."""

    code = "unsafe_format"
    http_status = 422


class CorruptModel(StoreError):
    """A model file is truncated or not what its format says."""

    code = "corrupt_model"
    http_status = 422


class DatabaseError(CorralError):
    """The database cannot be reached, read or written."""

    code = "database_error"
    http_status = 503


class SourceError(CorralError):
    """A source could not be reached or answered nonsense."""

    code = "source_error"
    http_status = 502


class LoginRequired(SourceError):
    """The source wants to know who asks: a gated or private model."""

    code = "login_required"
    http_status = 403


class AddressRefused(SourceError):
    """An address that nothing is fetched from: private, or not encrypted."""

    code = "address_refused"
    http_status = 403


class EngineError(CorralError):
    """An engine failed."""

    code = "engine_error"
    http_status = 502


class RuntimeUnavailable(EngineError):
    """No runtime here can run the model; says what to install."""

    code = "runtime_missing"
    http_status = 501


class EngineStartFailed(EngineError):
    """An engine did not become ready; carries the end of its log."""

    code = "engine_start"
    http_status = 503


class OutOfMemory(EngineStartFailed):
    """The engine needs more memory than it was given or found."""

    code = "engine_memory"
    http_status = 507


class EngineUnstable(EngineError):
    """The model's engines keep ending; the next one is started after a while."""

    code = "engine_unstable"
    http_status = 503


class DoesNotFit(EngineError):
    """The model would not fit even if nothing else were in memory."""

    code = "does_not_fit"
    http_status = 507


class QueueFull(EngineError):
    """More requests wait for models than may wait."""

    code = "queue_full"
    http_status = 503


class EngineDied(EngineError):
    """An engine's process ended while it was answering."""

    code = "engine_died"


class EngineTimeout(EngineError):
    """An engine was not ready in the time allowed."""

    code = "engine_timeout"
    http_status = 504


class UpstreamError(CorralError):
    """An HTTP call to an engine or vendor failed."""

    code = "upstream_error"
    http_status = 502


class UpstreamUnreachable(UpstreamError):
    """No connection could be made, or it was lost."""

    code = "upstream_refused"


class UpstreamTimeout(UpstreamError):
    """A time-out passed: connect, first byte, or between two chunks."""

    code = "upstream_timeout"
    http_status = 504


class UpstreamProtocol(UpstreamError):
    """The other side does not speak HTTP as it should."""

    code = "upstream_garbage"


class UpstreamLimited(UpstreamError):
    """A vendor or engine refuses for now because too much is asked of it."""

    code = "upstream_limited"
    http_status = 429


class UpstreamOverloaded(UpstreamError):
    """A vendor or engine has no room at the moment."""

    code = "upstream_busy"
    http_status = 503


class CircuitOpen(UpstreamError):
    """The vendor or engine has failed so often that it is left alone for a while."""

    code = "circuit_open"
    http_status = 503


class ServiceError(CorralError):
    """A long-lived server could not be started, stopped or asked."""

    code = "service_error"


class ServiceUnavailable(ServiceError):
    """Services cannot be run in that way on this machine."""

    code = "service_missing_os"
    http_status = 501


class ContainerError(CorralError):
    """The Docker engine refused, or a container did not do what it should."""

    code = "container_error"
    http_status = 502


class DockerUnavailable(ContainerError):
    """No Docker engine answers, or it may not be asked."""

    code = "docker_missing"
    http_status = 503


class ContainerUnhealthy(ContainerError):
    """The container runs, and the model's API in it does not answer as it should."""

    code = "container_sick"
    http_status = 503


class StepFailed(CorralError):
    """A step of a pipeline's run came to nothing, and with it the run."""

    code = "step_failed"
    http_status = 502


class ServerError(CorralError):
    """Corral's own server cannot run as asked."""

    code = "server_error"


class AddressInUse(ServerError):
    """Another program listens on the address."""

    code = "address_in_use"


class UnsafeBind(ServerError):
    """Listening beyond loopback without a key is refused."""

    code = "unsafe_bind"


class ServerRunning(ServerError):
    """A Corral server already serves this home."""

    code = "server_running"
    http_status = 409


class ServerNotRunning(ServerError):
    """No Corral server answers where one is needed."""

    code = "server_not_running"
    http_status = 503


class UiMissing(ServerError):
    """The pages for browsers were not built."""

    code = "ui_missing"
    http_status = 501
