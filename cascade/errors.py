"""The one exception a user is meant to read."""


class CascadeError(Exception):
    """A problem the user can solve. `fix` is required, so no error leaves without one."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem}\n  fix: {fix}")
        self.problem = problem
        self.fix = fix
