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
