"""What can go wrong at a recogniser, as types, so that a step knows what to do without reading texts.

    SpeechError
    ├── RecogniserRefused       credential, right or address: nothing will succeed until a person changes the setup
    ├── RecogniserBusy          over quota, and it stayed so: nothing was started; later it may work
    ├── RecogniserUnavailable   no answer or a server fault: later it may work; what was asked may have been done
    ├── RecordingRejected       this recording will not be recognised, the others may
    ├── OperationExpired        the operation is unknown: deleted, past its five days, or another key's
    └── UnexpectedAnswer        an answer that the contract does not know

Texts hold gRPC codes and the service's own words with credentials taken out; never a token, key, name or phone.
"""

from __future__ import annotations

from dialog_assets.errors import DialogAssetsError


class SpeechError(DialogAssetsError):
    """The root of this room's errors."""


class RecogniserRefused(SpeechError):
    """The key, its rights or the address are wrong. Stop the step."""


class RecogniserBusy(SpeechError):
    """The account's concurrency quota was full after every retry. Nothing was started; try later."""


class RecogniserUnavailable(SpeechError):
    """No usable answer after every retry. The request may have been carried out: a submission must be looked for with
    `Recogniser.find` before it is sent again.
    """


class RecordingRejected(SpeechError):
    """This recording cannot be recognised; asking again gives the same.

    `reason` is a code for `call_steps`: `unsupported_audio`, `refused_by_recogniser`, `refused_by_storage`,
    `message_too_large`, and `missing_in_storage`, which an upload and a new submission may cure.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class OperationExpired(SpeechError):
    """The operation cannot be had: deleted, finished more than five days ago, or of another key. Submit it again."""


class UnexpectedAnswer(SpeechError):
    """The recogniser answered something that its contract does not have. Report it; one recording is concerned."""
