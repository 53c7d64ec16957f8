"""Find out whether a Ray cluster answers at an address. Ray itself would wait for minutes, or end the process."""

import os
import socket
import time

from ray._private.services import get_ray_address_from_environment

from cascade.errors import CascadeError

AUTO = "auto"

CONNECT_SECONDS = 10.0
"""For the connection, and once more for the answer."""

LOOK_SECONDS = 5.0
"""Time between two looks at the head of the cluster."""

MAX_SECONDS_WITHOUT_HEAD = 30.0
"""The run ends if the head does not answer for this long."""

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2, which Ray speaks, sends first: the preface and empty settings (RFC 9113, section 3.4)."""

FRAME_HEADER_BYTES, SETTINGS = 9, 4
"""A server answers with its settings: byte 3 of the first frame is 4."""


def check_address(address: str) -> None:
    """Check that a cluster answers.

    Args:
        address: HOST:PORT, or "auto" for RAY_ADDRESS or else the cluster that was started on this machine.

    Raises:
        CascadeError: Nothing answers there, or something else than Ray.
        ConnectionError: With "auto", there is no address to look at.
    """
    place = get_ray_address_from_environment(AUTO, None) if address == AUTO else address
    try:
        _connect(place)
    except (OSError, ValueError) as error:
        where = f"{place}, the value of RAY_ADDRESS" if place == os.environ.get("RAY_ADDRESS") else place
        raise CascadeError(
            f"--cluster {address}: no cluster answers at {where} ({error})",
            fix="give HOST:PORT as `ray start --head` prints it, or local or auto",
        ) from error


class HeadWatch:
    """Notices that the head of the cluster is lost. Ray ends the process then, without the tables of the run.

    Attributes:
        is_lost: True after `check` has raised its error. Most calls of Ray do not return then.
    """

    def __init__(self, address: str) -> None:
        """Start with a head that answers at the address HOST:PORT."""
        self._address = address
        self.is_lost = False
        self._looked_at = time.monotonic()
        self._failed_since: float | None = None

    def check(self) -> None:
        """Look whether the head answers, unless that was done a moment ago. It may restart within half a minute.

        Raises:
            CascadeError: It has not answered for too long.
        """
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._answers()

    def wait(self) -> None:
        """Return when the head answers.

        Raises:
            CascadeError: It has not answered for too long.
        """
        while not self._answers():
            time.sleep(1.0)

    def _answers(self) -> bool:
        self._looked_at = time.monotonic()
        try:
            _connect(self._address)
        except (OSError, ValueError) as error:
            if self._failed_since is None:
                self._failed_since = self._looked_at
            if time.monotonic() - self._failed_since > MAX_SECONDS_WITHOUT_HEAD:
                self.is_lost = True
                raise CascadeError(
                    f"the head of the cluster at {self._address} is lost ({error})",
                    fix="start the cluster again, and continue with --resume",
                ) from error
            return False
        self._failed_since = None
        return True


def _connect(place: str) -> None:
    """Connect to HOST:PORT, and raise OSError or ValueError unless a server of Ray's protocol answers."""
    host, _, port = place.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "1" and not _speaks_http2(connection):
            raise ValueError("another program than Ray answers")


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(GREETING)
    with connection.makefile("rb") as answer:
        header = answer.read(FRAME_HEADER_BYTES)
    return len(header) == FRAME_HEADER_BYTES and header[3] == SETTINGS
