"""What is found in a recording, as values: of its header, of its decoded sound, of its conversion.

Plain dataclasses without NumPy or FFmpeg behind them, so that a run can hold and read what its workers found.
Not here: how anything is found (probe, measures, convert) and what it means for the bill (gate).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FLOOR_DBFS = -120.0
"""Stands for digital silence, whose level in decibels is minus infinity."""

SILENCE_DBFS = -50.0
"""A peak below this is silence: telephone speech peaks above -30, an idle line's noise below -55."""

Encoding = Literal["mp3", "pcm_s16le", "pcm_alaw", "pcm_mulaw", "aac_adts"]

SAMPLE_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000})
"""What a recogniser takes, Hz (facts/voicekit.md 1.4)."""

TRANSCODED_RATE = 16000
"""Of what has to be decoded for a recogniser and has another rate, or a higher one: speech has nothing above."""

_AS_IS: dict[tuple[str, str], Encoding] = {("mp3", "mp3"): "mp3", ("aac", "aac"): "aac_adts"}


_COPIED: dict[str, Encoding] = {
    "mp3": "mp3",
    "pcm_s16le": "pcm_s16le",
    "pcm_alaw": "pcm_alaw",
    "pcm_mulaw": "pcm_mulaw",
    "aac": "aac_adts",
}
"""Codecs whose packets a recogniser takes without the container around them."""

_MARGIN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Form:
    """How a recording is encoded, in ffprobe's words: what decides whether a recogniser takes it."""

    container: str
    codec: str
    sample_rate: int
    channels: int

    @property
    def fits(self) -> bool:
        """Whether its rate and channels are a recogniser's, whatever its codec."""
        return self.sample_rate in SAMPLE_RATES and self.channels <= 2

    @property
    def taken_as_it_is(self) -> Encoding | None:
        """How a recogniser is told of a file that it takes without a change; None for one that has to be converted."""
        return _AS_IS.get((self.container, self.codec)) if self.fits else None

    @property
    def copied(self) -> Encoding | None:
        """How a recogniser is told of the recording's packets without their container; None where it has to be decoded."""
        return _COPIED.get(self.codec) if self.fits else None

    @property
    def decoded_rate(self) -> int:
        """The sample rate of the recording once it is decoded for a recogniser."""
        return (
            self.sample_rate
            if self.sample_rate in SAMPLE_RATES and self.sample_rate < TRANSCODED_RATE
            else TRANSCODED_RATE
        )

    @property
    def decoded_channels(self) -> int:
        """The channels of the recording once it is decoded for a recogniser."""
        return min(self.channels, 2)

    def prepared_bytes(self, size: int, duration_s: float) -> int:
        """What the conversion of a recording of `size` bytes and `duration_s` seconds takes on the disk, at most."""
        if self.taken_as_it_is:
            return 0
        if self.copied:
            return size + _MARGIN_BYTES  # ADTS has a header a packet
        return round(duration_s * self.decoded_rate) * self.decoded_channels * 2 + _MARGIN_BYTES


@dataclass(frozen=True, slots=True)
class Header(Form):
    """What a file's header says. Names and values are those of ffprobe: `format_name`, `codec_name`, bits a second."""

    bit_rate: int
    stated_duration_s: float
    """The length that the header states or that follows from size and bit rate; 0 if there is none. Not for bills."""
    bytes: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChannelMeasures:
    """One channel, measured. Levels are decibels below full scale; shares are of the recording's length, 0 to 1."""

    speech_share: float
    speech_s: float
    sound_share: float
    """What stands out of the line's noise: speech, tones, anything else."""
    tone_share: float
    """Ringing, busy signal, beeps, keys: steady tones of one or two frequencies."""
    loudness_dbfs: float
    """Root mean square of the speech in the telephone band, 200 to 3500 Hz; of everything where there is no speech."""
    noise_dbfs: float
    """Root mean square, in the same band, of the line while nobody speaks."""
    peak_dbfs: float
    """The loudest sample."""
    clipped_share: float
    """Samples at the end of the scale, of all samples."""
    longest_monologue_s: float
    """The longest talking of this channel that no pause of 3 s and no second of the other's speech parts."""


@dataclass(frozen=True, slots=True)
class Measures:
    """A recording's decoded sound, measured. Shares are of its length, 0 to 1."""

    channels: tuple[ChannelMeasures, ...]
    correlation: float | None
    """Of the first two channels, at the best shift within a few milliseconds: 1 is dual mono. None in mono."""
    crosstalk_db: float | None
    """How loud a channel's speech comes through in the other, relative to itself; None where it does not, or in mono."""
    talk_over_share: float
    """Two channels speak at once."""
    silence_share: float
    """No channel speaks."""
    longest_pause_s: float
    """The longest stretch between speech and speech in which no channel speaks."""
    longest_monologue_s: float
    tone_share: float
    """A channel carries a steady tone and none speaks."""
    missing_s: float = 0.0
    """Seconds that the header promises and the file does not hold; 0 where the difference is a rounding."""

    @property
    def speech_s(self) -> float:
        """The longest speech of a channel, in seconds."""
        return max((channel.speech_s for channel in self.channels), default=0.0)

    def as_json(self) -> dict[str, Any]:
        """As a document for the database: the same names, tuples as lists."""
        return asdict(self) | {"channels": [asdict(channel) for channel in self.channels]}


@dataclass(frozen=True, slots=True)
class AudioProbe(Form):
    """A recording's header and measures. What the header can say has ffprobe's names and values."""

    bit_rate: int
    stated_duration_s: float
    """ffprobe's duration: what the header says. `duration_s` is what counts and what is paid for."""
    duration_s: float
    """What the decoder gives, as players show it."""
    bytes: int
    sha256: str
    measures: Measures
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def peak_dbfs(self) -> tuple[float, ...]:
        """The loudest sample of each channel, decibels below full scale, -120 for digital silence."""
        return tuple(channel.peak_dbfs for channel in self.measures.channels)

    def is_silent(self, threshold_dbfs: float = SILENCE_DBFS) -> bool:
        """Whether no channel ever reaches the threshold, so that nothing can be recognised."""
        return all(peak < threshold_dbfs for peak in self.peak_dbfs)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to upload and how to describe it; `path` is the recording itself where it needs no change."""

    path: Path
    encoding: Encoding
    sample_rate: int
    channels: int
