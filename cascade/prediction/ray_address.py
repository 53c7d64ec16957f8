"""Find out whether a Ray cluster answers at an address. Ray itself would wait for minutes, or end the process."""

import os
import socket

from ray._private.services import get_ray_address_from_environment

from cascade.errors import CascadeError

AUTO = "auto"

CONNECT_SECONDS = 10.0
"""For the connection, and once more for the answer."""

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
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1" and not _speaks_http2(connection):
                raise ValueError("another program than Ray answers")
    except (OSError, ValueError) as error:
        where = f"{place}, the value of RAY_ADDRESS" if place == os.environ.get("RAY_ADDRESS") else place
        raise CascadeError(
            f"--cluster {address}: no cluster answers at {where} ({error})",
            fix="give HOST:PORT as `ray start --head` prints it, or local or auto",
        ) from error


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(GREETING)
    with connection.makefile("rb") as answer:
        header = answer.read(FRAME_HEADER_BYTES)
    return len(header) == FRAME_HEADER_BYTES and header[3] == SETTINGS
