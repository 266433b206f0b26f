"""The process that reads recordings for a run: `python -m dialog_assets.audio.worker`, started and spoken to by `workers`.

One JSON line in, one out, until the input ends. It may be brought down by what it reads: it is given no secrets, takes no
more memory than allowed, leaves no core behind, and ends with the process that started it.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from dialog_assets.audio.convert import prepare
from dialog_assets.audio.errors import AudioError
from dialog_assets.audio.lines import Answer, Request
from dialog_assets.audio.probe import probe
from dialog_assets.audio.trial import TrialFailed, read_trial

if sys.platform != "win32":
    import resource

_MEGABYTE = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_STATM = Path("/proc/self/statm")


def main(memory_megabytes: int, file_megabytes: int) -> None:
    """Serve until the input ends."""
    answers = _apart_from_libraries()
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    fault = _trial()
    _limit(memory_megabytes, file_megabytes)
    _say(answers, f"unable: {fault}".encode() if fault else b"ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # until here errors are the installation's, and worth reading
    while True:
        _say(answers, _answer(Request.model_validate_json(requests.get())).model_dump_json().encode())


def _trial() -> str | None:
    """What keeps this installation from reading recordings, on one line."""
    try:
        with tempfile.TemporaryDirectory(prefix="dialog_assets-trial-") as folder:
            read_trial(Path(folder))
    except TrialFailed as error:
        return str(error)
    except OSError as error:
        return None if error.errno in _NO_ROOM else _place(error)  # a full disk is told by who needs it
    except Exception as error:  # noqa: BLE001 -- whatever it is, it would befall every recording
        return _place(error)
    return None


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def _apart_from_libraries() -> BinaryIO:
    """The output, out of reach of a library that prints."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _listen(source: BinaryIO, requests: SimpleQueue[bytes]) -> None:
    """Hand lines on; the end of the input ends the process in the middle of its work: nobody waits for it."""
    for line in source:
        requests.put(line)
    os._exit(0)


def _limit(memory_megabytes: int, file_megabytes: int) -> None:
    if sys.platform == "win32":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_megabytes * _MEGABYTE,) * 2)
    if _STATM.exists():  # elsewhere the limit is not kept, or counts what is only reserved
        taken = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_megabytes * _MEGABYTE,) * 2)


def _say(answers: BinaryIO, line: bytes) -> None:
    answers.write(line + b"\n")
    answers.flush()


def _answer(request: Request) -> Answer:
    try:
        if request.form is None or request.target is None:
            return Answer(found=probe(request.path))
        return Answer(prepared=prepare(request.path, request.form, request.target))
    except AudioError as error:
        return Answer(refused=(error.reason, error.detail))
    except MemoryError:
        return Answer(refused=("too_large", "out of memory"))
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Answer(refused=("too_large", "its conversion"))
        return Answer(errno=error.errno or 0)
    except Exception as error:  # noqa: BLE001 -- a fault in what reads foreign bytes is this file's, not the run's
        return Answer(refused=("parser_crashed", _place(error)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
