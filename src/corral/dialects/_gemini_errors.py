"""Google's errors, to and from what Corral and its other dialects make of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from corral.dialects.form import Fault
from corral.errors import ContextOverflow

if TYPE_CHECKING:
    from corral.errors import CorralError

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
    529: "UNAVAILABLE",
}
_RPC = "type.googleapis.com/google.rpc."
_TOO_LONG = re.compile(r"input token count.{0,40}exceeds|exceeds the maximum number of tokens", re.IGNORECASE)
_UNSAID = "It does not say why."
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def write_error(error: CorralError) -> dict[str, Any]:
    """The body of a refusal of Corral's own."""
    return _body(error.http_status, str(error), None, error.code.upper(), error.param, error.retry_after)


def write_fault(fault: Fault, status: int) -> dict[str, Any]:
    """The body of a vendor's refusal, whichever its dialect."""
    name = fault.code if fault.code in _NAMES else None
    reason = fault.kind if name is not None else fault.code or fault.kind
    return _body(status, fault.message, name, reason, fault.param, fault.retry_after)


_NAMES = frozenset(_STATUSES.values()) | {"INTERNAL", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNKNOWN", "DATA_LOSS"}


def _body(
    status: int, message: str, name: str | None, reason: str | None, param: str | None, retry_after: float | None
) -> dict[str, Any]:
    error: dict[str, Any] = {"code": status, "message": message}
    error["status"] = name or _STATUSES.get(status) or ("INTERNAL" if status >= 500 else "FAILED_PRECONDITION")
    details: list[dict[str, Any]] = []
    if reason is not None:
        details.append({"@type": f"{_RPC}ErrorInfo", "reason": reason, "domain": "corral"})
    if param is not None:
        violation = {"field": param, "description": message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})
    if retry_after is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{retry_after:g}s"})
    if details:
        error["details"] = details
    return {"error": error}


def read_error(status: int, document: Any) -> Fault:
    """A refusal as it was said. A prompt that is too long has the code that Corral's own refusal of it has."""
    if type(document) is list and document:
        document = document[0]  # so it comes where a stream was asked for as an array
    error = document.get("error") if type(document) is dict else None
    if type(error) is not dict:
        return Fault(error if type(error) is str and error else _UNSAID)
    message = error.get("message")
    words = message if type(message) is str and message else _UNSAID
    code = error.get("status")
    name = code if type(code) is str else None
    kind: str | None = None
    param: str | None = None
    after: float | None = None
    details = error.get("details")
    for detail in details if type(details) is list else ():
        if type(detail) is not dict:
            continue
        kind = kind or _text(detail.get("reason"))
        violations = detail.get("fieldViolations")
        if param is None and type(violations) is list and violations and type(violations[0]) is dict:
            param = _text(violations[0].get("field"))
        after = _seconds(detail.get("retryDelay")) if after is None else after
    if _TOO_LONG.search(words):
        name, kind = ContextOverflow.code, kind or name
    return Fault(words, name, kind, param, after)


def _text(value: Any) -> str | None:
    return value if type(value) is str and value else None


def _seconds(value: Any) -> float | None:
    found = _DURATION.fullmatch(value) if type(value) is str else None
    return None if found is None else float(found[1])
