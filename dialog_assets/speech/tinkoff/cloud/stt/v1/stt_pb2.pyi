import datetime

from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2 as _longrunning_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    LINEAR16: _ClassVar[AudioEncoding]
    MULAW: _ClassVar[AudioEncoding]
    ALAW: _ClassVar[AudioEncoding]
    RAW_OPUS: _ClassVar[AudioEncoding]
    MPEG_AUDIO: _ClassVar[AudioEncoding]
    ADTS_AAC: _ClassVar[AudioEncoding]
    RAW_AAC_LC: _ClassVar[AudioEncoding]
    RAW_ER_AAC_LD: _ClassVar[AudioEncoding]
ENCODING_UNSPECIFIED: AudioEncoding
LINEAR16: AudioEncoding
MULAW: AudioEncoding
ALAW: AudioEncoding
RAW_OPUS: AudioEncoding
MPEG_AUDIO: AudioEncoding
ADTS_AAC: AudioEncoding
RAW_AAC_LC: AudioEncoding
RAW_ER_AAC_LD: AudioEncoding

class RecognizeRequest(_message.Message):
    __slots__ = ("config", "audio")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    audio: RecognitionAudio
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., audio: _Optional[_Union[RecognitionAudio, _Mapping]] = ...) -> None: ...

class LongRunningRecognizeRequest(_message.Message):
    __slots__ = ("config", "audio", "group")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    audio: RecognitionAudio
    group: str
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., audio: _Optional[_Union[RecognitionAudio, _Mapping]] = ..., group: _Optional[str] = ...) -> None: ...

class RecognitionAudio(_message.Message):
    __slots__ = ("content", "uri")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    uri: str
    def __init__(self, content: _Optional[bytes] = ..., uri: _Optional[str] = ...) -> None: ...

class StreamingRecognizeRequest(_message.Message):
    __slots__ = ("streaming_config", "audio_content")
    STREAMING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    streaming_config: StreamingRecognitionConfig
    audio_content: bytes
    def __init__(self, streaming_config: _Optional[_Union[StreamingRecognitionConfig, _Mapping]] = ..., audio_content: _Optional[bytes] = ...) -> None: ...

class StreamingUnaryRecognizeRequest(_message.Message):
    __slots__ = ("config", "audio_content")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    audio_content: bytes
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., audio_content: _Optional[bytes] = ...) -> None: ...

class StreamingRecognitionConfig(_message.Message):
    __slots__ = ("config", "single_utterance", "interim_results_config")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SINGLE_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    INTERIM_RESULTS_CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    single_utterance: bool
    interim_results_config: InterimResultsConfig
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., single_utterance: _Optional[bool] = ..., interim_results_config: _Optional[_Union[InterimResultsConfig, _Mapping]] = ...) -> None: ...

class InterimResultsConfig(_message.Message):
    __slots__ = ("enable_interim_results", "interval")
    ENABLE_INTERIM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    enable_interim_results: bool
    interval: float
    def __init__(self, enable_interim_results: _Optional[bool] = ..., interval: _Optional[float] = ...) -> None: ...

class RecognitionConfig(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz", "language_code", "max_alternatives", "profanity_filter", "speech_contexts", "enable_automatic_punctuation", "model", "num_channels", "do_not_perform_vad", "vad_config", "enable_denormalization", "enable_sentiment_analysis", "enable_gender_identification")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    MAX_ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    PROFANITY_FILTER_FIELD_NUMBER: _ClassVar[int]
    SPEECH_CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_AUTOMATIC_PUNCTUATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUM_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DO_NOT_PERFORM_VAD_FIELD_NUMBER: _ClassVar[int]
    VAD_CONFIG_FIELD_NUMBER: _ClassVar[int]
    ENABLE_DENORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    ENABLE_SENTIMENT_ANALYSIS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_GENDER_IDENTIFICATION_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioEncoding
    sample_rate_hertz: int
    language_code: str
    max_alternatives: int
    profanity_filter: bool
    speech_contexts: _containers.RepeatedCompositeFieldContainer[SpeechContext]
    enable_automatic_punctuation: bool
    model: str
    num_channels: int
    do_not_perform_vad: bool
    vad_config: VoiceActivityDetectionConfig
    enable_denormalization: bool
    enable_sentiment_analysis: bool
    enable_gender_identification: bool
    def __init__(self, encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ..., language_code: _Optional[str] = ..., max_alternatives: _Optional[int] = ..., profanity_filter: _Optional[bool] = ..., speech_contexts: _Optional[_Iterable[_Union[SpeechContext, _Mapping]]] = ..., enable_automatic_punctuation: _Optional[bool] = ..., model: _Optional[str] = ..., num_channels: _Optional[int] = ..., do_not_perform_vad: _Optional[bool] = ..., vad_config: _Optional[_Union[VoiceActivityDetectionConfig, _Mapping]] = ..., enable_denormalization: _Optional[bool] = ..., enable_sentiment_analysis: _Optional[bool] = ..., enable_gender_identification: _Optional[bool] = ...) -> None: ...

class SpeechContext(_message.Message):
    __slots__ = ("phrases", "speech_context_dictionary_id")
    PHRASES_FIELD_NUMBER: _ClassVar[int]
    SPEECH_CONTEXT_DICTIONARY_ID_FIELD_NUMBER: _ClassVar[int]
    phrases: _containers.RepeatedCompositeFieldContainer[SpeechContextPhrase]
    speech_context_dictionary_id: str
    def __init__(self, phrases: _Optional[_Iterable[_Union[SpeechContextPhrase, _Mapping]]] = ..., speech_context_dictionary_id: _Optional[str] = ...) -> None: ...

class SpeechContextPhrase(_message.Message):
    __slots__ = ("text", "score")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    text: str
    score: float
    def __init__(self, text: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class VoiceActivityDetectionConfig(_message.Message):
    __slots__ = ("min_speech_duration", "max_speech_duration", "silence_duration_threshold", "silence_prob_threshold", "aggressiveness", "silence_max", "silence_min")
    MIN_SPEECH_DURATION_FIELD_NUMBER: _ClassVar[int]
    MAX_SPEECH_DURATION_FIELD_NUMBER: _ClassVar[int]
    SILENCE_DURATION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SILENCE_PROB_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    AGGRESSIVENESS_FIELD_NUMBER: _ClassVar[int]
    SILENCE_MAX_FIELD_NUMBER: _ClassVar[int]
    SILENCE_MIN_FIELD_NUMBER: _ClassVar[int]
    min_speech_duration: float
    max_speech_duration: float
    silence_duration_threshold: float
    silence_prob_threshold: float
    aggressiveness: float
    silence_max: float
    silence_min: float
    def __init__(self, min_speech_duration: _Optional[float] = ..., max_speech_duration: _Optional[float] = ..., silence_duration_threshold: _Optional[float] = ..., silence_prob_threshold: _Optional[float] = ..., aggressiveness: _Optional[float] = ..., silence_max: _Optional[float] = ..., silence_min: _Optional[float] = ...) -> None: ...

class RecognizeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SpeechRecognitionResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SpeechRecognitionResult, _Mapping]]] = ...) -> None: ...

class SpeechRecognitionResult(_message.Message):
    __slots__ = ("alternatives", "channel", "start_time", "end_time", "sentiment_analysis_result", "gender_identification_result")
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SENTIMENT_ANALYSIS_RESULT_FIELD_NUMBER: _ClassVar[int]
    GENDER_IDENTIFICATION_RESULT_FIELD_NUMBER: _ClassVar[int]
    alternatives: _containers.RepeatedCompositeFieldContainer[SpeechRecognitionAlternative]
    channel: int
    start_time: _duration_pb2.Duration
    end_time: _duration_pb2.Duration
    sentiment_analysis_result: SpeechSentimentAnalysisResult
    gender_identification_result: SpeechGenderIdentificationResult
    def __init__(self, alternatives: _Optional[_Iterable[_Union[SpeechRecognitionAlternative, _Mapping]]] = ..., channel: _Optional[int] = ..., start_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sentiment_analysis_result: _Optional[_Union[SpeechSentimentAnalysisResult, _Mapping]] = ..., gender_identification_result: _Optional[_Union[SpeechGenderIdentificationResult, _Mapping]] = ...) -> None: ...

class SpeechRecognitionAlternative(_message.Message):
    __slots__ = ("transcript", "confidence", "words")
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    transcript: str
    confidence: float
    words: _containers.RepeatedCompositeFieldContainer[WordInfo]
    def __init__(self, transcript: _Optional[str] = ..., confidence: _Optional[float] = ..., words: _Optional[_Iterable[_Union[WordInfo, _Mapping]]] = ...) -> None: ...

class WordInfo(_message.Message):
    __slots__ = ("start_time", "end_time", "word", "confidence")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    start_time: _duration_pb2.Duration
    end_time: _duration_pb2.Duration
    word: str
    confidence: float
    def __init__(self, start_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., word: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class SpeechSentimentAnalysisResult(_message.Message):
    __slots__ = ("negative_prob_audio", "negative_prob_audio_text")
    NEGATIVE_PROB_AUDIO_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROB_AUDIO_TEXT_FIELD_NUMBER: _ClassVar[int]
    negative_prob_audio: float
    negative_prob_audio_text: float
    def __init__(self, negative_prob_audio: _Optional[float] = ..., negative_prob_audio_text: _Optional[float] = ...) -> None: ...

class SpeechGenderIdentificationResult(_message.Message):
    __slots__ = ("male_proba", "female_proba")
    MALE_PROBA_FIELD_NUMBER: _ClassVar[int]
    FEMALE_PROBA_FIELD_NUMBER: _ClassVar[int]
    male_proba: float
    female_proba: float
    def __init__(self, male_proba: _Optional[float] = ..., female_proba: _Optional[float] = ...) -> None: ...

class StreamingRecognizeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StreamingRecognitionResult]
    def __init__(self, results: _Optional[_Iterable[_Union[StreamingRecognitionResult, _Mapping]]] = ...) -> None: ...

class StreamingRecognitionResult(_message.Message):
    __slots__ = ("recognition_result", "is_final", "stability")
    RECOGNITION_RESULT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    STABILITY_FIELD_NUMBER: _ClassVar[int]
    recognition_result: SpeechRecognitionResult
    is_final: bool
    stability: float
    def __init__(self, recognition_result: _Optional[_Union[SpeechRecognitionResult, _Mapping]] = ..., is_final: _Optional[bool] = ..., stability: _Optional[float] = ...) -> None: ...
