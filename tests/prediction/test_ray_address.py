"""An address at which no Ray cluster answers is an error within seconds. No cluster is started."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from cascade.errors import CascadeError

pytest.importorskip("ray", reason="pip install 'cascade-mri[cluster]'")

from cascade.prediction import cluster, ray_address
from cascade.prediction.ray_address import HeadWatch, check_address

SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def listening(answer):
    """Yield the address of a program that sends the answer to whoever connects, and waits then."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            connections.append(connection)
            connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()
    for connection in connections:
        connection.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ray_address, "CONNECT_SECONDS", 0.2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_server_that_speaks_the_protocol_of_ray_is_accepted():
    with listening(SETTINGS_FRAME) as address:
        check_address(address)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_program_that_is_silent_or_another_one_is_an_error(answer):
    """Ray tried for minutes, and its log was all that was printed."""
    with listening(answer) as address, pytest.raises(CascadeError, match=address):
        check_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "host:port"])
def test_an_address_of_nobody_is_an_error(address):
    with pytest.raises(CascadeError, match=address):
        check_address(address)


def test_auto_looks_at_the_address_in_the_environment(monkeypatch):
    with listening(b"") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(CascadeError, match=f"auto: .*{address}, the value of RAY_ADDRESS"):
            check_address("auto")


@pytest.fixture
def seconds(monkeypatch):
    """seconds.append(n): let time pass."""
    seconds = [0.0]
    monkeypatch.setattr(ray_address.time, "monotonic", lambda: sum(seconds))
    return seconds


def test_a_head_that_is_lost_ends_the_run_before_ray_ends_the_process(seconds):
    """Ray ended the process after a minute: no message, and no tables."""
    head = HeadWatch("127.0.0.1:1")
    for _ in range(5):
        seconds.append(ray_address.LOOK_SECONDS)
        head.check()
    assert not head.is_lost
    seconds.append(3 * ray_address.LOOK_SECONDS)
    with pytest.raises(CascadeError, match=r"127\.0\.0\.1:1") as raised:
        head.check()
    assert "--resume" in raised.value.fix
    assert head.is_lost


def test_whoever_needs_the_head_waits_for_it_but_not_for_ever(seconds, monkeypatch):
    monkeypatch.setattr(ray_address.time, "sleep", seconds.append)
    with pytest.raises(CascadeError, match="is lost"):
        HeadWatch("127.0.0.1:1").wait()
    assert ray_address.MAX_SECONDS_WITHOUT_HEAD < sum(seconds) < 2 * ray_address.MAX_SECONDS_WITHOUT_HEAD


def test_half_a_minute_begins_with_the_first_look_that_fails(seconds):
    """It began with the last look that succeeded: to load the models took it up."""
    head = HeadWatch("127.0.0.1:1")
    seconds.append(2 * ray_address.MAX_SECONDS_WITHOUT_HEAD)
    head.check()
    assert not head.is_lost


def test_a_head_that_answers_again_is_not_lost(seconds, monkeypatch):
    head = HeadWatch("127.0.0.1:1")
    for answers in (False, True, False):
        seconds.append(ray_address.MAX_SECONDS_WITHOUT_HEAD - 1)
        with monkeypatch.context() as patch:
            if answers:
                patch.setattr(ray_address, "_connect", lambda place: None)
            head.check()
    assert not head.is_lost


def test_a_cluster_that_wants_a_token_is_an_error_that_says_how_to_give_it(monkeypatch):
    """The fix was to install the same versions everywhere."""

    class AuthenticationError(Exception):
        pass

    def init(*arguments, **options):
        try:
            raise AuthenticationError("token is missing or incorrect")
        except AuthenticationError as error:
            raise ConnectionError("Failed to connect to Ray cluster") from error

    monkeypatch.setattr(cluster.ray, "init", init)
    with listening(SETTINGS_FRAME) as address, pytest.raises(CascadeError, match="token") as raised:
        cluster._connect(address)
    assert "RAY_AUTH_MODE=token" in raised.value.fix
