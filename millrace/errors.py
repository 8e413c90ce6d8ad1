"""What ends a command: one line on stderr and an exit code."""


class CommandError(Exception):
    """What was asked cannot be done as it was asked: exit code 2."""

    code = 2


class PortTaken(CommandError):
    """Somebody else listens on a port that was free a moment ago."""


class CommandFailed(CommandError):
    """It could have been done, but failed: exit code 1."""

    code = 1
