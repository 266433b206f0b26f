"""Python code from the .proto files under `tinkoff/`: `python -m dialog_assets.speech.generate`.

Needs grpcio-tools (the `dev` extra). The result is committed beside the .proto files, so users need no compiler; a test
proves that it is what this module makes. Protobuf files are named by their path from the project's root, so that the
generated imports are those of this package.
"""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def proto_files() -> list[Path]:
    """The .proto files, relative to the project's root."""
    return sorted(path.relative_to(ROOT) for path in Path(__file__).parent.joinpath("tinkoff").rglob("*.proto"))


def generate(target: Path) -> None:
    """Write `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` of every .proto file below `target`, which stands for the root.

    Raises RuntimeError if the compiler refuses a file; it prints the reason to stderr.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]

    well_known = importlib.resources.files("grpc_tools") / "_proto"
    options = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    paths = [f"-I{ROOT}", f"-I{well_known}"]
    failed = protoc.main(["protoc", *paths, *options, *(path.as_posix() for path in proto_files())])
    if failed:
        raise RuntimeError("protoc refused a .proto file; its reason is on stderr")


if __name__ == "__main__":
    generate(ROOT)
    sys.stdout.write(f"generated code of {len(proto_files())} .proto files\n")
