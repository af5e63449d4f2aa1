"""What a child leaves behind: its last lines, and the reason why it ended."""

import signal

import pytest

from corral.kit.process import Command, LogRing, _reason, child_environment, module_argv, start_failed


def test_the_ring_keeps_the_last_lines_whole():
    ring = LogRing(lines=2)
    ring.feed(b"one\ntw")
    ring.feed(b"o\nthree\nfo")
    assert ring.lines() == ("two", "three", "fo")
    ring.feed(b"ur\n")
    assert ring.lines() == ("three", "four")


def test_a_character_cut_in_two_arrives_whole():
    ring = LogRing()
    first, second = "é".encode()[:1], "é".encode()[1:]
    ring.feed(b"caf" + first)
    ring.feed(second + b"\n")
    assert ring.lines() == ("café",)


def test_bytes_that_are_no_text_are_replaced():
    ring = LogRing()
    ring.feed(b"a\xffb\n")
    assert ring.lines() == ("a\ufffdb",)


def test_an_endless_line_is_cut_and_the_next_is_not():
    ring = LogRing(width=4)
    for _ in range(1000):
        ring.feed(b"xxxxxxxx")
    assert ring.lines() == ("xxxx…",)
    ring.feed(b"\nshort\nabcd\n")
    assert ring.lines() == ("xxxx…", "shor…", "abcd")


def test_a_log_cannot_steer_the_terminal():
    ring = LogRing()
    ring.feed(b"\x1b[31mred\x1b[0m\x07 \x1b]0;title\ttab\r\n")
    assert ring.lines() == ("red ]0;title\ttab",)


def test_a_child_gets_no_credentials_it_was_not_given():
    environ = {
        "PATH": "/bin",
        "CORRAL_API_KEY": "1",
        "OPENAI_API_KEY": "2",
        "HF_TOKEN": "3",
        "AWS_SECRET_ACCESS_KEY": "4",
        "my_secret": "5",
        "DB_PASSWORD": "6",
        "PGPASSWORD": "7",
        "API_KEY": "8",
        "TOKEN": "9",
        "OPENAI_API_KEY_2": "10",
        "AWS_ACCESS_KEY_ID": "11",
        "SSH_PRIVATE_KEY": "12",
        "KEY_PASSPHRASE": "13",
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert child_environment(environ) == {"PATH": "/bin", "TOKENIZERS_PARALLELISM": "false"}


def test_the_working_folder_is_off_the_import_path_of_a_child():
    assert module_argv("some.module")[1:] == ("-P", "-m", "some.module")


@pytest.mark.parametrize(
    ("code", "sent", "reason"),
    [
        (0, None, "exited with code 0"),
        (3, None, "exited with code 3"),
        (0, signal.SIGTERM, "was stopped"),
        (3, signal.SIGTERM, "exited with code 3"),
        (-signal.SIGTERM, signal.SIGTERM, "was stopped"),
        (-signal.SIGKILL, signal.SIGKILL, "was killed, because it did not stop"),
        (-signal.SIGKILL, None, "was killed by SIGKILL, perhaps by the system for want of memory"),
        (-signal.SIGKILL, signal.SIGTERM, "was killed by SIGKILL, perhaps by the system for want of memory"),
        (-signal.SIGTERM, None, "was ended by SIGTERM"),
        (-signal.SIGSEGV, None, "was ended by SIGSEGV"),
        (-63, None, "was ended by signal 63"),
    ],
)
def test_the_reason_says_who_ended_it(code, sent, reason):
    assert _reason(code, sent) == reason


def test_a_plain_diagnosis_carries_the_end_of_the_log():
    error = start_failed("The engine of 'm'", "exited with code 3", ["a", "b", " ", "c"])
    assert error.message == "The engine of 'm' exited with code 3."
    assert error.hint == "It last said: b | c"
    assert start_failed("It", "ended", []).hint == "It printed nothing."


def test_launch_data_is_not_shown():
    command = Command("title", ("program",), {"HOME": "/home/me"}, {"key": "hidden"})
    assert "hidden" not in repr(command)
    assert "/home/me" not in repr(command)
