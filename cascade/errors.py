"""CascadeError, the exception for every problem that the user can fix."""


class CascadeError(Exception):
    """A problem that the user can fix.

    Attributes:
        problem: What is wrong; begins with the path or option concerned.
        fix: What the user can do about it.
    """

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem}\n  fix: {fix}")
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the error; the default would pass the whole message as the problem, and no fix."""
        return _restore, (self.problem, self.fix)


def _restore(problem: str, fix: str) -> CascadeError:
    return CascadeError(problem, fix=fix)
