"""Lines of the log, as people and as programs read them."""

import io
import json
import logging
import sys

import pytest

from corral.config.settings import LogSettings
from corral.gateway.server import logs
from corral.observability.logs import formatter, tell, tell_prompt
from support.records import answered


@pytest.fixture
def written():
    """A logger that writes JSON, and its lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter("json"))
    logger = logging.getLogger("corral")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_line_of_an_answer(written):
    tell(answered())

    (line,) = written()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "corral.access",
        "message": "200 smollm2 request_id=req-1 caller=key-ada ms=50.0 tokens=120 cost_usd=5e-06",
        "request_id": "req-1",
        "caller": "key-ada",
        "model": "smollm2",
        "status": 200,
        "ms": 50.0,
        "tokens": 120,
        "cost_usd": 0.000005,
    }


def test_a_line_of_an_error_says_which(written):
    tell(answered(error="engine_died", usage=None, cost=None))

    (line,) = written()
    assert line["error"] == "engine_died"
    assert "tokens" not in line
    assert "cost_usd" not in line


def test_whatever_is_said_is_one_line():
    # Not by a logger: those who collect the logs of tests cannot hand on half a character.
    said = 'two\nlines, a "quote", half a \ud800'
    try:
        int("of\nours")
    except ValueError:
        failed = logging.LogRecord("corral.x", logging.ERROR, "x.py", 1, "%s", (said,), sys.exc_info())

    line = formatter("json").format(failed)

    assert "\n" not in line
    told = json.loads(line)
    assert told["message"] == said
    assert "Traceback" in told["trace"]
    assert told["level"] == "error"


def test_prompts_are_a_logger_of_their_own(written):
    tell_prompt("req-1", b"Hello\xff", b"World")

    (line,) = written()
    assert (line["logger"], line["prompt"], line["answer"]) == ("corral.prompts", "Hello\ufffd", "World")


def test_a_line_of_an_answer_holds_no_prompt_and_nothing_that_the_client_made_up(written):
    tell(answered(asked="SECRET\nforged line", message="SECRET"))

    assert "SECRET" not in json.dumps(written())


def test_for_people_a_line_is_text():
    line = formatter("text").format(logging.LogRecord("corral", logging.INFO, "", 1, "Hello %s", ("Ada",), None))

    assert line.endswith("INFO corral: Hello Ada")


def test_the_setting_decides(capsys):
    with logs(LogSettings(format="json")):
        logging.getLogger("corral.x").warning("Hello")
    with logs(LogSettings()):
        logging.getLogger("corral.x").warning("Hello")

    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "Hello"
    assert second.endswith("WARNING corral.x: Hello")
