"""The committed protobuf code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dialog_assets.speech import generate
from dialog_assets.speech.tinkoff.cloud.longrunning.v1 import longrunning_pb2
from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """What is committed is what the .proto files give, no file more or less."""
    pytest.importorskip("grpc_tools")
    generate.generate(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*pb2*") if path.is_file()}
    tree = Path(generate.__file__).parent / "tinkoff"
    kept = {
        path.relative_to(generate.ROOT): path.read_bytes()
        for path in tree.rglob("*pb2*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(made) == 6
    assert made == kept


def test_names_on_the_wire() -> None:
    """Services, messages and reserved numbers are the vendor's, whatever folder the files are in."""
    stt = stt_pb2.DESCRIPTOR.services_by_name["SpeechToText"]
    operations = longrunning_pb2.DESCRIPTOR.services_by_name["Operations"]
    assert (stt.full_name, operations.full_name) == (
        "tinkoff.cloud.stt.v1.SpeechToText",
        "tinkoff.cloud.longrunning.v1.Operations",
    )
    assert len(stt.methods) == 4
    assert len(operations.methods) == 6
    fields = {field.name: field.number for field in stt_pb2.RecognitionConfig.DESCRIPTOR.fields}
    assert not {7, 9, 11, 15} & set(fields.values())
    assert (fields["num_channels"], fields["vad_config"], fields["enable_gender_identification"]) == (12, 14, 18)
    assert stt_pb2.AudioEncoding.items() == [
        ("ENCODING_UNSPECIFIED", 0),
        ("LINEAR16", 1),
        ("MULAW", 3),
        ("ALAW", 8),
        ("RAW_OPUS", 11),
        ("MPEG_AUDIO", 12),
        ("ADTS_AAC", 13),
        ("RAW_AAC_LC", 14),
        ("RAW_ER_AAC_LD", 15),
    ]


def test_no_clash_with_googleapis() -> None:
    """The process may hold any release of google/rpc/status.proto: our files register nothing of google.rpc."""
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "other = descriptor_pb2.FileDescriptorProto(name='google/rpc/status.proto', package='google.rpc')\n"
        "other.message_type.add(name='Status')\n"
        "descriptor_pool.Default().AddSerializedFile(other.SerializeToString())\n"
        "from dialog_assets.speech.tinkoff.cloud.stt.v1 import stt_pb2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
