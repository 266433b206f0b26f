"""The root of this project's own errors, so that a shell can tell an error meant for people from a fault in the code."""

from dialog_assets.said import printable


class DialogAssetsError(Exception):
    """An error whose text is one sentence for a person: what is wrong, where, what to do; it never holds a secret.

    Whatever a stranger's words in it hold, a terminal or a page that shows the text obeys none of it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, for people who are told one."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
