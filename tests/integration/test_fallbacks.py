"""Who is asked when somebody fails, what the client hears of it, and what it costs: a server, vendors, fake engines."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from corral.domain.money import NANO
from tests.support.api import Client, Reply
from tests.support.servers import Server, corral_server
from tests.support.vendors.openai import OpenAI
from tests.support.vendors.vendor import played

MANAGER = "manager-key-of-the-fallbacks"
CONFIG = """
routing: {{retries: 1, retry_within: 20s, breaker_failures: 3, breaker_pause: 5s}}
usage: {{write_every: 100ms}}
models:
  gpt: {{runtime: openai, options: {{base_url: "{first}", api_key_env: KEY, upstream_model: gpt}}}}
  silent: {{runtime: openai, options: {{base_url: "{first}", api_key_env: KEY, upstream_model: gpt, stream_usage: no}}}}
  shaky: {{runtime: openai, options: {{base_url: "{second}", api_key_env: KEY, upstream_model: gpt}}}}
  robot: {{runtime: fake, options: {{reply: "I am here", prompted: true, slots: 50}}}}
  other: {{runtime: fake, options: {{reply: "So am I"}}}}
  small: {{runtime: fake, options: {{reply: "short", context: 60}}}}
  sick: {{runtime: fake, options: {{fault: "status:500"}}}}
  mute: {{runtime: fake, options: {{fault: hang}}}}
  stalling: {{runtime: fake, options: {{fault: stall, fault_after: 1, reply: "one two three"}}}}
  dripping: {{runtime: fake, options: {{fault: drip, delay_ms: 1, tokens: 60}}}}
  soon: {{runtime: fake, options: {{fault: "status:429", retry_after: 1, fault_times: 1, reply: "again"}}}}
  later: {{runtime: fake, options: {{fault: "status:429", retry_after: 60}}}}
  backed: {{runtime: fake, options: {{fault: "status:503"}}, fallback: [robot]}}
routes:
  to-local: {{models: [gpt, robot]}}
  to-cloud: {{models: [sick, gpt]}}
  later-or: {{models: [later, robot]}}
  breaking: {{models: [shaky, robot], retries: 0}}
  patient: {{models: [mute, robot], first_byte_timeout: 3s}}
  between: {{models: [stalling, robot], between_timeout: 3s}}
  in-all: {{models: [dripping, robot], total_timeout: 5s}}
  few: {{models: [gpt, robot], limits: {{gpt: 1}}}}
  holding: {{models: [small, robot]}}
  hedged: {{models: [gpt, robot], hedge: 200ms}}
  spread: {{models: [robot, other], policy: weighted}}
prices:
  gpt: {{input: 2, output: 8}}
  silent: {{input: 2, output: 8}}
  shaky: {{input: 2, output: 8}}
"""


class Setting:
    """The server and who stands behind it, asked with a key that has a budget."""

    def __init__(self, server: Server, first: str, second: str) -> None:
        self.server, self.first, self.second = server, first, second
        self._manager = Client(server, {"authorization": f"Bearer {MANAGER}"})
        made = self.manage("POST", "/api/v1/keys", {"name": "falls"})
        self.key = {"authorization": f"Bearer {made['secret']}"}
        wanted = {"name": "all", "amount": 1000, "subject": "key", "who": made["key"]["id"]}
        self.manage("POST", "/api/v1/budgets", wanted)
        self._client = Client(server, self.key)
        self.left: set[str] = set()

    def manage(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._manager.ask(method, path, body, base="")
        assert reply.status < 300, reply.body
        return reply.json

    def ask(self, model: str, text: str = "Hello", headers: dict[str, str] | None = None, **more: Any) -> Reply:
        return self.post("/v1/chat/completions", asked(model, text, **more), headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        return self._client.ask("POST", path, body, headers, base="")

    def receipt(self, reply: Reply | str) -> dict[str, Any]:
        name = reply if isinstance(reply, str) else reply.headers["x-request-id"]
        found: dict[str, Any] = self.manage("GET", f"/api/v1/receipts/{name}")["receipt"]
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Single attempts, newest first, page by page."""
        before = ""
        while before is not None:
            page = self.manage("GET", f"/api/v1/usage/requests?from=1d&limit=200{before and '&before='}{before}")
            yield from page["requests"]
            before = page["next"]

    @staticmethod
    def asked(vendor: str) -> list[dict[str, Any]]:
        """What a vendor has been asked."""
        host = "/".join(vendor.split("/")[:3])
        with urllib.request.urlopen(f"{host}/asked", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def paid(self, vendor: str) -> int:
        """How many calls a vendor would want money for."""
        return len([each for each in self.asked(vendor) if each["path"] != "/models"])

    def until(self, said: Callable[[], Any]) -> Any:
        """What `said` gives, once it is something."""
        deadline = time.monotonic() + 60
        while not (found := said()):
            assert time.monotonic() < deadline
        return found


def asked(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def words(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(reply.json["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ExitStack() as stack:
        first, second = stack.enter_context(played(OpenAI)), stack.enter_context(played(OpenAI))
        env = {"KEY": OpenAI.key, "CORRAL_API_KEY": MANAGER}
        home = tmp_path_factory.mktemp("falls")
        server = stack.enter_context(corral_server(home, CONFIG.format(first=first, second=second), env=env))
        found = Setting(server, first, second)
        for model in ("gpt", "robot", "other", "silent"):  # nobody's time counts for loading
            assert words(found.ask(model))
        yield found


def test_a_vendor_that_fails_is_asked_again_and_then_a_local_model(setting: Setting) -> None:
    before = setting.paid(setting.first)
    reply = setting.ask("to-local", "Hello #status=500")
    told = setting.receipt(reply)

    assert words(reply) == "I am here"
    assert setting.paid(setting.first) - before == 2
    assert [(each["model"], each.get("status")) for each in told["tries"]] == [
        ("gpt", 500),
        ("gpt", 500),
        ("robot", 200),
    ]
    assert [each["model"] for each in told["fallbacks"]] == ["gpt"]
    assert (told["asked"], told["model"], told["cost_nano"]) == ("to-local", "robot", 0)


def test_a_local_model_that_fails_leads_to_a_vendor_and_is_paid(setting: Setting) -> None:
    reply = setting.ask("to-cloud")
    told = setting.receipt(reply)

    assert words(reply) == "Hello from gpt."
    assert [each["model"] for each in told["tries"]] == ["sick", "sick", "gpt"]
    counted = reply.json["usage"]  # by the vendor
    assert (told["usage"]["input"], told["usage"]["output"]) == (counted["prompt_tokens"], counted["completion_tokens"])
    assert told["cost_nano"] == told["usage"]["input"] * 2000 + told["usage"]["output"] * 8000 > 0


def test_a_refusal_that_all_would_give_is_told_at_once(setting: Setting) -> None:
    before = setting.paid(setting.first)
    reply = setting.ask("to-local", "Hello #status=422")

    assert reply.status == 422
    assert setting.paid(setting.first) - before == 1
    assert [each["model"] for each in setting.receipt(reply).get("tries", [])] == ["gpt"]


def test_a_short_retry_after_is_waited_for(setting: Setting) -> None:
    started = time.monotonic()
    reply = setting.ask("soon")

    assert words(reply) == "again"
    assert time.monotonic() - started >= 1
    assert setting.receipt(reply)["attempts"] == 2


def test_a_long_retry_after_leads_to_the_next_at_once(setting: Setting) -> None:
    reply = setting.ask("later-or")

    assert words(reply) == "I am here"
    assert [each["model"] for each in setting.receipt(reply)["tries"]] == ["later", "robot"]
    alone = setting.ask("later")
    assert (alone.status, float(alone.headers["retry-after"])) == (429, 60)


def test_who_keeps_failing_is_left_alone_and_looked_after_for_free(setting: Setting) -> None:
    for _ in range(3):
        assert words(setting.ask("breaking", "Hello #status=500")) == "I am here"
    paid = setting.paid(setting.second)
    reply = setting.ask("breaking")

    assert words(reply) == "I am here"
    assert [each["code"] for each in setting.receipt(reply)["route"]] == ["circuit_open"]
    setting.until(lambda: words(setting.ask("breaking")) == "Hello from gpt.")
    assert (paid, setting.paid(setting.second)) == (3, 4)
    assert [each["path"] for each in setting.asked(setting.second)].count("/models") >= 1


def test_the_routes_own_patience_counts(setting: Setting) -> None:
    reply = setting.ask("patient")
    assert words(reply) == "I am here"
    assert [each.get("error") for each in setting.receipt(reply)["tries"]] == ["upstream_timeout", None]


@pytest.mark.parametrize(("route", "heard"), [("between", b"one"), ("in-all", b"assistant")])
def test_patience_that_ends_in_mid_stream_ends_the_stream(setting: Setting, route: str, heard: bytes) -> None:
    reply = setting.ask(route, stream=True)
    told = setting.receipt(reply)

    assert heard in reply.body
    assert b'"error"' in reply.body
    assert b"[DONE]" not in reply.body
    assert b"I am here" not in reply.body
    assert (told["status"], told["error"], told["attempts"]) == (200, "upstream_timeout", 1)


def test_a_stream_that_breaks_is_never_spliced_and_is_paid(setting: Setting) -> None:
    reply = setting.ask("to-local", "Hello #cut=3", stream=True)
    told = setting.receipt(reply)

    assert b"Hello" in reply.body
    assert b"I am here" not in reply.body
    assert json.loads(reply.body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["message"]
    assert (told["model"], told["error"], told["attempts"]) == ("gpt", "upstream_refused", 1)
    assert told["cost_nano"] == told["usage"]["input"] * 2000 + told["usage"]["output"] * 8000
    assert told["usage"]["output"] >= 2


def test_a_prompt_too_long_for_one_goes_to_the_next(setting: Setting) -> None:
    reply = setting.ask("holding", "word " * 200)
    told = setting.receipt(reply)

    assert words(reply) == "I am here"
    assert [(each["model"], each["code"]) for each in told["route"]] == [("small", "context_length_exceeded")]
    assert words(setting.ask("holding", "hi")) == "short"


def test_the_slower_of_two_is_stopped_and_paid_for_its_prompt(setting: Setting) -> None:
    reply = setting.ask("hedged", "Hello #hang=0")
    told = setting.receipt(reply)

    assert words(reply) == "I am here"
    slow, quick = told["tries"]
    assert (slow["model"], slow["error"], slow["billed"]) == ("gpt", "hedged", True)
    assert slow["usage"]["input"] > 0
    assert slow["cost_nano"] == slow["usage"]["input"] * 2000 == told["cost_nano"]
    assert quick["model"] == "robot"


def test_who_has_its_fill_is_passed_over_and_who_leaves_has_paid(setting: Setting) -> None:
    with leaving(setting, asked("few", "Hello #hang=0")):
        setting.until(lambda: setting.manage("GET", "/api/v1/runtime/models/gpt")["model"]["in_flight"])
        reply = setting.ask("few")
        assert words(reply) == "I am here"
        assert [(each["model"], each["code"]) for each in setting.receipt(reply)["route"]] == [("gpt", "upstream_busy")]
    told = gone(setting)

    assert [(each["model"], each["error"], each["billed"]) for each in told["tries"]] == [("gpt", "client_gone", True)]
    assert told["cost_nano"] == told["tries"][0]["usage"]["input"] * 2000 > 0
    setting.until(lambda: not setting.manage("GET", "/api/v1/runtime/models/gpt")["model"]["in_flight"])


def test_who_leaves_in_mid_stream_has_paid_for_what_came(setting: Setting) -> None:
    with leaving(setting, asked("gpt", "Hello #hang=3", stream=True)) as connection:
        assert connection.getresponse().readline().startswith(b"data:")
    told = gone(setting)

    assert (told["model"], told["status"], told["client_gone"]) == ("gpt", 200, True)
    assert told["usage"]["output"] >= 1
    assert told["cost_nano"] == told["usage"]["input"] * 2000 + told["usage"]["output"] * 8000


def test_a_vendor_that_does_not_tell_is_reckoned(setting: Setting) -> None:
    reply = setting.ask("silent", "Hello #say=one_two_three_four_five_six_seven", stream=True)
    told = setting.receipt(reply)

    assert b"[DONE]" in reply.body
    assert told["usage"]["input"] > 0
    assert told["usage"]["output"] >= 6
    assert told["cost_nano"] == told["usage"]["input"] * 2000 + told["usage"]["output"] * 8000


def test_a_conversation_stays_where_it_began(setting: Setting) -> None:
    for number in range(6):
        first = setting.receipt(setting.ask("spread", f"Conversation {number}"))["model"]
        for _ in range(3):
            assert setting.receipt(setting.ask("spread", f"Conversation {number}"))["model"] == first


def test_a_strict_request_names_what_it_would_lack(setting: Setting) -> None:
    strict = {"x-corral-strict": "true"}
    fallback = setting.ask("backed", headers=strict)
    cut = setting.ask("small", "word " * 30, strict, max_tokens=50)
    body = {**asked("robot", "Hello"), "max_tokens": 9, "container": "mine"}
    ignored = setting.post("/v1/messages", body, strict)

    assert fallback.status == 422
    assert "'robot'" in fallback.json["error"]["message"]
    assert cut.status == 422
    assert "stop early" in cut.json["error"]["message"]
    assert ignored.status == 422
    assert "would ignore container" in ignored.json["error"]["message"]
    assert setting.receipt(setting.post("/v1/messages", body))["ignored"] == ["container"]
    assert words(setting.ask("backed")) == "I am here"


def test_the_books_balance_after_all_that(setting: Setting) -> None:
    setting.until(lambda: not setting.manage("GET", "/api/v1/budgets/all")["budget"]["leased"])
    spent = round(setting.manage("GET", "/api/v1/budgets/all")["budget"]["spent"] * NANO)
    # Rows are written a moment after the answer.
    setting.until(lambda: setting.manage("GET", "/api/v1/usage?from=1d")["total"]["cost_nano"] == spent)
    names = {row["request_id"] for row in setting.rows()}

    assert spent == sum(setting.receipt(name).get("cost_nano", 0) for name in names) > 0


@contextmanager
def leaving(setting: Setting, body: dict[str, Any]) -> Iterator[http.client.HTTPConnection]:
    """A request whose client goes away at the end."""
    parts = urlsplit(setting.server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"content-type": "application/json", **setting.key}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    sock = connection.sock
    try:
        yield connection
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        connection.close()


def gone(setting: Setting) -> dict[str, Any]:
    """The receipt of a client that left, each once."""

    def last() -> dict[str, Any] | None:
        told = setting.receipt(next(setting.rows())["request_id"])
        return told if told.get("client_gone") and told["request_id"] not in setting.left else None

    found: dict[str, Any] = setting.until(last)
    setting.left.add(found["request_id"])
    return found
