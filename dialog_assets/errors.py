"""The root of this project's own errors, so that a shell can tell an error meant for people from a fault in the code."""


class DialogAssetsError(Exception):
    """An error whose text is one sentence for a person: what is wrong, where, what to do; it never holds a secret."""
