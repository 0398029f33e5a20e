"""The one error that a user's mistake may raise."""


class InputError(ValueError):
    """Bad input, told in one sentence: which file or field, what was found, what was expected.

    The command line prints the sentence and exits with code 2; from Python it is an ordinary ValueError.
    """
