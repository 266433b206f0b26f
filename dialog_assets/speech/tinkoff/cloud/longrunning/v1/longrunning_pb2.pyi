import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OperationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENQUEUED: _ClassVar[OperationState]
    PROCESSING: _ClassVar[OperationState]
    DONE: _ClassVar[OperationState]
    FAILED: _ClassVar[OperationState]
ENQUEUED: OperationState
PROCESSING: OperationState
DONE: OperationState
FAILED: OperationState

class Status(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("id", "group", "metadata", "state", "error", "response", "x_client_request_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    X_CLIENT_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    group: str
    metadata: _any_pb2.Any
    state: OperationState
    error: Status
    response: _any_pb2.Any
    x_client_request_id: str
    def __init__(self, id: _Optional[str] = ..., group: _Optional[str] = ..., metadata: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., state: _Optional[_Union[OperationState, str]] = ..., error: _Optional[_Union[Status, _Mapping]] = ..., response: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., x_client_request_id: _Optional[str] = ...) -> None: ...

class OperationFilter(_message.Message):
    __slots__ = ("exact_service_id", "any_service_id", "exact_id", "any_id", "exact_group", "any_group", "state")
    EXACT_SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    EXACT_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_ID_FIELD_NUMBER: _ClassVar[int]
    EXACT_GROUP_FIELD_NUMBER: _ClassVar[int]
    ANY_GROUP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    exact_service_id: str
    any_service_id: _empty_pb2.Empty
    exact_id: str
    any_id: _empty_pb2.Empty
    exact_group: str
    any_group: _empty_pb2.Empty
    state: _containers.RepeatedScalarFieldContainer[OperationState]
    def __init__(self, exact_service_id: _Optional[str] = ..., any_service_id: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., exact_id: _Optional[str] = ..., any_id: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., exact_group: _Optional[str] = ..., any_group: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., state: _Optional[_Iterable[_Union[OperationState, str]]] = ...) -> None: ...

class GetOperationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WaitOperationRequest(_message.Message):
    __slots__ = ("id", "timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListOperationsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: OperationFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[OperationFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListOperationsResponse(_message.Message):
    __slots__ = ("operations", "next_page_token")
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    next_page_token: str
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchOperationsRequest(_message.Message):
    __slots__ = ("filter", "listen_for_updates")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FOR_UPDATES_FIELD_NUMBER: _ClassVar[int]
    filter: OperationFilter
    listen_for_updates: bool
    def __init__(self, filter: _Optional[_Union[OperationFilter, _Mapping]] = ..., listen_for_updates: _Optional[bool] = ...) -> None: ...

class WatchOperationsResponse(_message.Message):
    __slots__ = ("initial_state", "init_finished", "update")
    INITIAL_STATE_FIELD_NUMBER: _ClassVar[int]
    INIT_FINISHED_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    initial_state: OperationsInitialState
    init_finished: _empty_pb2.Empty
    update: OperationsUpdate
    def __init__(self, initial_state: _Optional[_Union[OperationsInitialState, _Mapping]] = ..., init_finished: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., update: _Optional[_Union[OperationsUpdate, _Mapping]] = ...) -> None: ...

class OperationsInitialState(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class OperationsUpdate(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class DeleteOperationRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: OperationFilter
    def __init__(self, filter: _Optional[_Union[OperationFilter, _Mapping]] = ...) -> None: ...

class CancelOperationRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: OperationFilter
    def __init__(self, filter: _Optional[_Union[OperationFilter, _Mapping]] = ...) -> None: ...
