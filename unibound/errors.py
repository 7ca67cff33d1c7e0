"""What can go wrong, and the exit code each kind ends the command line with."""


class UniboundError(Exception):
    """A run that failed; the message is one line that names the culprit and the cure."""

    exit_code = 1


class UsageError(UniboundError):
    """Bad input or configuration: an option, a file, or parts that cannot work together."""

    exit_code = 2


class PluginError(UsageError):
    """A plugin that cannot be loaded, or that clashes with another."""


class DamagedError(UsageError):
    """A file that is not what was written."""


class NonFiniteError(UniboundError):
    """A surrogate, or something that is trained, kept or moved with it, that is no longer a finite number."""

    exit_code = 3


class RunWarning(UserWarning):
    """A run is not as it was left, but can be gone on with; the message says what will differ."""
