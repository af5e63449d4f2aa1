"""The parts of the transformers engine's server that need neither the library nor torch."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from corral.runtimes._transformers.engine import answering, server
from corral.runtimes._transformers.engine.answering import Batch, Single
from corral.runtimes._transformers.engine.choosing import chance, sampling
from corral.runtimes._transformers.engine.door import Door
from corral.runtimes._transformers.engine.rehearsal import rehearse
from corral.runtimes._transformers.engine.stopping import StoppedQueue, Stops, TooLongError, room


def config(**values):
    plain = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "min_p": None}
    return SimpleNamespace(
        **{
            **plain,
            "repetition_penalty": None,
            "max_new_tokens": None,
            "stop_strings": None,
            "eos_token_id": 2,
            **values,
        }
    )


@pytest.mark.parametrize(
    ("pieces", "certain", "rest", "hit"),
    [
        (["a", "b"], ["a", "b"], "", False),
        (["one E", "ND two"], ["one ", ""], "", True),
        (["one E", "N", "X"], ["one ", "", "ENX"], "", False),
        (["E", "N"], ["", ""], "EN", False),
        (["xENDyEND"], ["x"], "", True),
        (["x##END"], ["x"], "", True),
        (["a END", "b"], ["a ", ""], "", True),
    ],
)
def test_nothing_of_what_ends_an_answer_is_let_out(pieces, certain, rest, hit):
    stops = Stops(["END", "##", ""])

    assert [stops.feed(piece) for piece in pieces] == certain
    assert (stops.rest(), stops.hit) == (rest, hit)


async def test_a_stream_ends_where_it_must_and_tells_the_engine():
    queue, ended = asyncio.Queue(), []
    stopped = StoppedQueue(queue, Stops(["END"]), lambda: ended.append(True))
    for piece in ("a E", "ND b", None):
        queue.put_nowait(piece)

    assert [await stopped.get(), await stopped.get()] == ["a ", None]
    assert ended == [True]


async def test_a_stream_that_ends_by_itself_lets_out_what_was_held():
    queue = asyncio.Queue()
    stopped = StoppedQueue(queue, Stops(["END"]), lambda: None)
    thought = type("Thought", (str,), {})("END")
    for piece in ("a E", thought, None):
        queue.put_nowait(piece)

    assert [stopped.get_nowait() for _ in range(4)] == ["a ", thought, "E", None]
    with pytest.raises(asyncio.QueueEmpty):
        stopped.get_nowait()


def test_an_answer_has_what_the_prompt_leaves():
    assert room(10, 100, None) == 90
    assert room(10, 100, 5) == 5
    assert room(99, 100, 5) == 1
    with pytest.raises(TooLongError, match="The prompt has 100 tokens, and the engine holds 100"):
        room(100, 100, 5)


def test_only_what_differs_from_the_likeliest_is_sampled():
    assert sampling(config()) == {}
    assert sampling(config(repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.0)) == {
        "repetition": 1.2,
        "presence": 0.5,
    }
    assert sampling(config(do_sample=True, temperature=0.5, top_k=3, seed=1)) == {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 1.0,
        "min_p": 0.0,
        "seed": 1,
    }


def test_chance_is_even():
    drawn = [chance() for _ in range(4000)]

    assert len(set(drawn)) == 4000
    assert all(0 <= number < 1 for number in drawn)
    for bound in (0.1, 0.5, 0.9):
        assert sum(number < bound for number in drawn) / 4000 == pytest.approx(bound, abs=0.05)


async def through(path="/v1/models", key=b"Bearer k", events=False, headers=()):
    """What a client gets, and what the app behind the door saw."""
    seen, sent = [], []

    async def app(scope, _receive, send):
        seen.append(scope)
        kind = b"text/event-stream" if events else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"authorization", key), *headers]}
    await Door(app, "k")(scope, receive, send)
    return sent, seen


async def test_the_door_is_open_to_who_has_the_key():
    sent, seen = await through(headers=[(b"x-request-id", b"mine"), (b"accept", b"*/*")])

    assert sent[0]["status"] == 200
    assert sent[-1]["body"] == b""
    assert [name for name, _ in seen[0]["headers"]] == [b"authorization", b"accept"]


@pytest.mark.parametrize(("given", "status"), [({"key": b"Bearer x"}, 401), ({"path": "/reset"}, 404)])
async def test_the_door_is_shut_to_others_and_to_other_paths(given, status):
    sent, seen = await through(**given)

    assert seen == []
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"])["error"]["message"]


async def test_a_stream_ends_as_openais_do():
    sent, _ = await through(events=True)

    assert b"".join(message.get("body", b"") for message in sent) == b"data: 1\n\ndata: [DONE]\n\n"


async def test_what_is_no_request_passes():
    seen = []

    async def app(scope, *_):
        seen.append(scope["type"])

    await Door(app, "k")({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


class Answering:
    """An app that answers each path with a status, and notes what it was asked."""

    def __init__(self, statuses, said=b"it is broken"):
        self.statuses, self.said, self.asked = statuses, said, []

    async def __call__(self, scope, receive, send):
        self.asked.append((scope["path"], json.loads((await receive())["body"])))
        staying = asyncio.ensure_future(receive())
        await asyncio.wait({staying}, timeout=0)
        assert not staying.done()
        staying.cancel()
        await send({"type": "http.response.start", "status": self.statuses[scope["path"]], "headers": []})
        await send({"type": "http.response.body", "body": self.said[:5]})
        await send({"type": "http.response.body", "body": self.said[5:]})


CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@pytest.mark.parametrize(
    ("chat", "completion", "paths"),
    [(200, 500, [CHAT]), (400, 200, [CHAT, COMPLETION]), (400, 400, [CHAT, COMPLETION])],
)
async def test_what_is_ready_has_answered_or_refused(chat, completion, paths):
    app = Answering({CHAT: chat, COMPLETION: completion})

    await rehearse(Door(app, "k"), "k", "m")
    assert [path for path, _ in app.asked] == paths
    assert app.asked[0][1]["model"] == "m"
    assert app.asked[0][1]["messages"]


@pytest.mark.parametrize(("chat", "completion"), [(500, 200), (400, 503)])
@pytest.mark.parametrize("said", [b"it is broken", b'{"error": {"message": "it is broken"}}', b'"it is broken"'])
async def test_what_cannot_answer_is_not_ready(chat, completion, said):
    app = Answering({CHAT: chat, COMPLETION: completion}, said)

    with pytest.raises(RuntimeError, match=r'the first request was not answered: "?it is broken"?$'):
        await rehearse(Door(app, "k"), "k", "m")


class Batching:
    """The library's continuous batching, driven by hand."""

    def __init__(self):
        self.asked, self.cancelled, self.heard = [], [], None
        self.background_thread_status = SimpleNamespace(fatal_error=None)
        self.output_router = SimpleNamespace(result_handlers={})

    def register_result_handler(self, name, heard):
        self.heard = self.output_router.result_handlers[name] = heard

    def add_request(self, tokens, **more):
        self.asked.append((tokens, more))

    def cancel_request(self, name):
        self.cancelled.append(name)


class Letters:
    """A processor whose tokens are the letters of the alphabet."""

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(96 + token) for token in tokens)


def output(*tokens, error=None, finished=False):
    return SimpleNamespace(generated_tokens=list(tokens), error=error, is_finished=lambda: finished)


async def begun(batching, **values):
    batch = Batch(batching, context=10, last_step=0)
    answer = asyncio.ensure_future(
        batch.generate_non_streaming(None, Letters(), {"input_ids": [1, 2, 3]}, config(**values), "r")
    )
    await asyncio.wait({answer}, timeout=0)
    return answer


async def test_a_batched_answer_is_asked_for_with_its_own_parameters():
    batching = Batching()
    answer = await begun(batching, do_sample=True, temperature=0.5, max_new_tokens=50)

    tokens, more = batching.asked[0]
    assert tokens == [1, 2, 3]
    assert (more["request_id"], more["max_new_tokens"], more["streaming"]) == ("r", 7, False)
    assert more["sampling"]["temperature"] == 0.5
    batching.heard(output(1, 2))
    batching.heard(output(1, 2, 3, finished=True))
    batching.heard(output(9, finished=True))
    assert await answer == ("abc", 3, [1, 2, 3])


async def test_a_batched_answer_ends_at_a_text():
    batching = Batching()
    answer = await begun(batching, stop_strings="c")

    assert batching.asked[0][1]["streaming"]
    batching.heard(output(1, 2))
    batching.heard(output(1, 2, 3))
    assert (await answer)[0] == "ab"
    assert batching.cancelled == ["r"]


async def test_a_client_that_goes_away_ends_its_request():
    batching = Batching()
    answer = await begun(batching)
    answer.cancel()

    with pytest.raises(asyncio.CancelledError):
        await answer
    assert batching.cancelled == ["r"]
    turns = asyncio.Event()
    asyncio.get_running_loop().call_later(0, turns.set)
    await turns.wait()
    assert batching.output_router.result_handlers == {}


async def test_a_request_that_failed_says_so():
    batching = Batching()
    answer = await begun(batching)
    batching.heard(output(error="no"))

    with pytest.raises(RuntimeError, match="no"):
        await answer
    assert Batch(batching, 10).alive


async def test_one_at_a_time_the_text_ends_where_it_must():
    class Manager:
        async def generate_non_streaming(self, _model, _processor, _inputs, config, _name):
            return "one END two", 3, [config.max_new_tokens]

        def generate_streaming(self, *_, **more):
            queue = asyncio.Queue()
            for piece in ("one ", "END", None):
                queue.put_nowait(piece)
            return queue, SimpleNamespace(cancel=lambda: more["request_id"])

    inputs = {"input_ids": SimpleNamespace(shape=(1, 3))}
    single = Single(Manager(), context=10)

    assert await single.generate_non_streaming(None, None, inputs, config(stop_strings=["END"]), "r") == (
        "one ",
        3,
        [7],
    )
    assert (await single.generate_non_streaming(None, None, inputs, config(), "r"))[0] == "one END two"
    queue, _ = single.generate_streaming(None, None, inputs, config(stop_strings=["END"]), request_id="r")
    assert [await queue.get(), await queue.get()] == ["one ", None]
    plain, _ = single.generate_streaming(None, None, inputs, config(), request_id="r")
    assert plain.get_nowait() == "one "


def torch(*, cuda=False, bf16=False, mps=False):
    def is_bf16_supported(including_emulation):
        assert not including_emulation
        return bf16

    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: cuda, is_bf16_supported=is_bf16_supported),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


def test_the_best_device_is_taken_where_none_is_named():
    assert server.chosen_device(torch(cuda=True, mps=True), "auto") == "cuda:0"
    assert server.chosen_device(torch(mps=True), "auto") == "mps"
    assert server.chosen_device(torch(), "auto") == "cpu"
    assert server.chosen_device(torch(), "cuda") == "cuda:0"
    assert server.chosen_device(torch(cuda=True), "cpu") == "cpu"


def test_the_number_format_is_what_the_device_is_best_at():
    assert server.chosen_dtype(torch(bf16=True), "auto", "cuda:0") == "bfloat16"
    assert server.chosen_dtype(torch(), "auto", "cuda:0") == "float16"
    assert server.chosen_dtype(torch(), "auto", "mps") == "float16"
    assert server.chosen_dtype(torch(), "auto", "cpu") in {"bfloat16", "float32"}
    assert server.chosen_dtype(torch(), "float32", "cuda:0") == "float32"


@pytest.mark.parametrize(
    ("text", "reckons"),
    [
        ("processor: 0\nflags : fpu avx512_bf16\n", True),
        ("flags : fpu avx2\nflags: amx_bf16\n", False),
        ("Features : fp bf16\n", True),
        ("", False),
    ],
)
def test_a_processor_reckons_in_bf16_when_it_says_so(tmp_path, text, reckons):
    (tmp_path / "cpuinfo").write_text(text)

    assert server.reckons_bf16(tmp_path / "cpuinfo") is reckons
    assert not server.reckons_bf16(tmp_path / "none")


@pytest.mark.parametrize(("trained", "context"), [(2048, 2048), (8192, 4096), (None, 4096)])
def test_the_context_is_no_longer_than_what_was_trained(trained, context):
    text = SimpleNamespace(max_position_embeddings=trained)

    assert server.fitted(SimpleNamespace(get_text_config=lambda: text), 4096) == context


def test_what_the_library_notes_about_itself_is_no_setting():
    noted = {"_from_model_config": True, "transformers_version": "5.23.0", "eos_token_id": 2, "do_sample": True}

    assert server.settings(json.dumps(noted)) == {"eos_token_id": 2, "do_sample": True}


class Weight:
    def __init__(self, device="cpu"):
        self.device = SimpleNamespace(type=device)
        self.data = SimpleNamespace(clone=lambda: "a copy")


class Packed(Weight):
    """A weight that was quantised."""


def test_of_a_file_that_was_quantised_nothing_is_read_any_more():
    plain, packed, buffer, distant = Weight(), Packed(), Weight(), Weight("cuda")
    packed.data = distant.data = "its own"
    model = SimpleNamespace(parameters=lambda: [plain, packed], buffers=lambda: [buffer, distant])

    server.let_go(SimpleNamespace(nn=SimpleNamespace(Parameter=Weight), Tensor=Weight), model)
    assert [weight.data for weight in (plain, packed, buffer, distant)] == ["a copy", "its own", "a copy", "its own"]


def test_the_model_is_served_under_its_own_name_whatever_a_request_calls_it():
    class Library:
        def load_model_and_processor(self, name):
            assert name == ".@main"
            return "model", "processor"

        def get_model_modality(self, model, processor):
            return model, processor

    class Handler:
        def __init__(self, model_manager, generation_state):
            self.model_manager, self.generation_state = model_manager, generation_state

        def answer(self, body):
            return self._resolve_model(body)

    loaded = answering.Loaded(Library(), "smollm2")
    turns = answering.Turns(Single(None, 10), compiled=False)
    found = answering.handler(Handler, loaded, turns)
    assert found.answer({}) == found.answer({"model": "x@y:z"}) == ("smollm2", "model", "processor")
    assert found.generation_state is turns
    assert loaded.get_model_modality("m", processor="p") == ("m", "p")
    assert [item["id"] for item in loaded.get_gen_models()] == ["smollm2"]
    loaded.shutdown()


def test_the_handlers_get_the_one_who_generates():
    batch, single = Batch(Batching(), 10), Single(None, 10)
    batch.init_cb(None, None)
    single.init_cb(None, None)

    together, alone = answering.Turns(batch, compiled=False), answering.Turns(single, compiled=True)
    assert together.use_continuous_batching(None, None)
    assert together.get_manager("m", use_cb=True) is batch
    assert not alone.use_continuous_batching(None, None)
    assert alone.get_manager("m") is single
    assert together.is_cb_alive()
    assert alone.is_cb_alive()
