"""The errors a user meets: one line that says what is wrong, where, and what to do about it."""


class GlesamError(Exception):
    """Base of every error this project raises on purpose; a command line ends with exit code 2."""

    exit_code = 2


class InputError(GlesamError):
    """An image, a prompt or an argument that cannot be used as it is."""


class BundleError(GlesamError):
    """A bundle folder that is incomplete, altered, too new, or not a bundle."""


class BackendError(GlesamError):
    """An inference engine that is missing, cannot run here, or cannot load a graph."""


class CheckpointError(GlesamError):
    """Weights that are unreadable, unsafe, or do not fit the preset."""


class ParityError(GlesamError):
    """A bundle or a machine whose numbers lie outside the gates; exit code 1: no input is bad."""

    exit_code = 1
