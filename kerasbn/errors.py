"""The errors that kerasbn raises. Each message names the thing at fault, the cause, and the remedy."""


class KerasBNError(Exception):
    """Base class of every error that kerasbn raises on purpose."""


class UnsupportedModelError(KerasBNError):
    """The model holds something that kerasbn cannot carry over faithfully."""


class ModelFileError(KerasBNError):
    """A model file cannot be read, or an output cannot be written."""


class VerificationError(KerasBNError):
    """A written or rewritten model does not compute what its source computes."""


class OptionError(KerasBNError):
    """An option has a value that is not valid, or that does not fit the model."""


def first_line(error: BaseException) -> str:
    """The first paragraph of another library's message as one line, to be quoted in one of ours."""
    paragraph, *_ = str(error).strip().split("\n\n")
    return " ".join(paragraph.split()).rstrip(".") or type(error).__name__
