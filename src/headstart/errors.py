"""Errors that speak to the user: what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

# ESC and its kin would be obeyed by a terminal, the marks of direction turn what is read around, and the separators of
# lines and paragraphs are ends of lines to some.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with control characters written out, as ``\\x1b``; ends of lines and tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class UserError(Exception):
    """Something that the user can put right.

    Args:
        what: What is wrong, one sentence.
        where: The option, file or place that it concerns, e.g. ``"data"`` or a path.
        hint: What to do next.

    Attributes:
        parts: The problems that it lists, each by itself.
        told: Whether another process of the run says it.
        at_once: Whether the command is to end without more ado: threads of torch still wait for what is lost.
    """

    told = at_once = False

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        self.parts: tuple[UserError, ...] = (self,)
        super().__init__(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost when a loader process hands the error to its parent.
        return (_rebuild, (type(self), self.what, self.where, self.hint))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return printable(f"{text}\n  -> {self.hint}" if self.hint else text)

    def moved(self, where: str, to: str) -> UserError:
        """The same, told of the option `to` where it is told of the option `where`."""
        if where == to:
            return self
        return UserError.several(
            [type(one)(one.what, where=to if one.where == where else one.where, hint=one.hint) for one in self.parts]
        )

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the words, without the lines of code that led to them (IPython's protocol)."""
        return [f"headstart: {self}"]

    @staticmethod
    def several(problems: Sequence[UserError]) -> UserError:
        """One error that lists all `problems`, so that a user mends them in one go."""
        if len(problems) == 1:
            return problems[0]
        lines = [f"{number}. {problem}" for number, problem in enumerate(problems, start=1)]
        error = UserError(f"{len(problems)} problems:\n" + "\n".join(lines))
        error.parts = tuple(problems)
        return error


class RunError(UserError):
    """What ends work that was asked for rightly: memory, storage or the system gave out, or weights are beyond use.

    The exit status is 1.
    """


def forget(stream: IO[str]) -> None:
    """Let an output that takes no more take all, so that what is still on its way to it raises nothing at the end."""
    with suppress(OSError, ValueError):  # what is not of the system has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def arriving() -> Iterator[None]:
    """See to it that what a command was asked for, and is printed within, arrives on the standard output.

    Raises:
        BrokenPipeError: Its reader has gone.
        RunError: It does not arrive: the disk of a file is full, say.
    """
    try:
        yield
        if sys.stdout is not None:  # it is where it was closed
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget(sys.stdout)
        raise RunError(f"the output cannot be written: {error.strerror or error}") from error


def _rebuild(kind: type[UserError], what: str, where: str | None, hint: str | None) -> UserError:
    return kind(what, where=where, hint=hint)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """``"did you mean 'epochs'?"`` for a misspelt `word`, or None where nothing in `known` is near."""
    near = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(repr(word) for word in near)}?" if near else None


_RAN_OUT = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "Insufficient memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""In what torch (on Linux, on Windows), C++, OpenCV and CUDA's libraries say."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that the memory of the machine or of a device ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, by any of its names
        return True
    kind = f"{type(error).__module__}.{type(error).__name__}"
    return (isinstance(error, RuntimeError) or kind == "cv2.error") and any(word in str(error) for word in _RAN_OUT)


GAVE_OUT = (
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE
)  # fmt: skip
"""What is no mistake of who asked: storage or the system gave out."""
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_UNREAD = ("unable to mmap", "unable to open file", "nable to allocate memory", "annot allocate memory")
"""In what torch says where a file that is whole cannot be read."""


def gave_out(error: BaseException) -> bool:
    """Whether storage, the system or memory kept a file from being read: whether it is whole is not known then.

    Not where there is no such file, nor where its own table names a place that it does not have. An error that speaks
    to the user is looked at by its cause.
    """
    if isinstance(error, UserError):
        return error.__cause__ is not None and gave_out(error.__cause__)
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL, *_NO_FILE)
    unread = isinstance(error, RuntimeError) and any(word in str(error) for word in _UNREAD)
    return unread or is_out_of_memory(error)


_UNSAID = ("could not create a primitive", "could not execute a primitive")
"""What oneDNN says, on a CPU, where memory runs out in its own steps; and of other causes: it names none."""


def may_be_out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out, or says no cause and is often raised where it did."""
    unsaid = isinstance(error, RuntimeError) and any(word in str(error) for word in _UNSAID)
    return unsaid or is_out_of_memory(error)


_FEW = 3


def few(told: Sequence[str]) -> str:
    """``a; b; c; and 4 more``: as many as one can read."""
    more = f"; and {len(told) - _FEW:,} more" if len(told) > _FEW else ""
    return "; ".join(told[:_FEW]) + more


def enumerated(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
