"""Define this project's errors. Each message is one line: what is wrong, and what to do."""


class GlesamError(Exception):
    """Base class of every error that this project raises on purpose; exit code 2."""

    exit_code = 2


class InputError(GlesamError):
    """Raised for an image, a prompt or an argument that cannot be used."""


class BundleError(GlesamError):
    """Raised for a folder that is no bundle, or a bundle that is incomplete, altered or too new."""


class BackendError(GlesamError):
    """Raised for an engine that is not installed, cannot run here or cannot load a graph."""


class BusyError(GlesamError):
    """Raised for a call of a predictor during a call of another thread, which it does not wait for.

    The call did nothing. `GleSamPredictor.share` returns a predictor for another thread.
    """


class CheckpointError(GlesamError):
    """Raised for weights that are unreadable, unsafe or do not fit the preset."""


class ParityError(GlesamError):
    """Raised for results that exceed the accuracy limits; exit code 1, as no input is wrong."""

    exit_code = 1
