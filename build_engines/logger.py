"""The logger of TensorRT, one for all builds of a process."""

from functools import cache
from typing import Any


@cache
def shared_logger(tensorrt: Any) -> Any:
    """Return the logger of all builds of this process.

    TensorRT keeps the logger of the first builder or runtime for as long as one exists, and does not notice when Python
    frees that logger. The traceback of a failed build keeps its builder until the next garbage collection. If each
    build had a logger of its own, TensorRT could call one that is freed.

    Args:
        tensorrt: Module tensorrt or tensorrt_rtx.

    Returns:
        An ILogger that prints nothing. Its attribute `errors` lists the messages of errors.
    """

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()
