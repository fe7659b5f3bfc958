"""Model files, and pickles in every disguise: what runs code when somebody loads it.

Files are judged by what they hold, not by their names: a pickle is found with any ending, inside archives (PyTorch's
zip, numpy's `.npz`, gzip), behind numpy's header, behind other pickles, inside a pickle's own bytes, and in base64 in
text. A file whose name says that it is a model and that holds nothing known here is not judged.

safetensors and GGUF hold no code, but their readers trust their headers, so these must be whole: lengths and offsets
inside the file. GGUF's chat template is a program in Jinja, and is looked at too.
"""

import ast
import base64
import binascii
import posixpath
import re
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeGuard

import msgspec

from chimera.delivery.scanning import pickles
from chimera.delivery.scanning.gguf import read_gguf
from chimera.delivery.scanning.model import Place, Result, Severity, Unjudged, found
from chimera.delivery.scanning.pickle_globals import is_harmful
from chimera.delivery.scanning.unpacking import Budget, Inner, Shut, unpack

NUMPY, HDF5, SAFETENSORS_MOST = b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", 100 * 1024**2
PICKLES = frozenset(
    [".pkl", ".pickle", ".p", ".pk", ".dill", ".joblib", ".sav", ".pt", ".pth", ".ckpt", ".npy", ".npz"]
)
MODELS = PICKLES | frozenset(
    [".bin", ".model", ".onnx", ".pb", ".tflite", ".safetensors", ".gguf", ".h5", ".hdf5", ".keras", ".mar", ".skops"]
)
_OPAQUE = frozenset([".onnx", ".pb", ".tflite", ".mar", ".skops", ".bin", ".model"])
MOST_FINDINGS = 100
MOST_DEPTH = 4
_HEADER_MOST = 64 * 1024

_LAMBDA = re.compile(rb"[\"']class_name[\"']\s*:\s*[\"'](?:Lambda|TFOpLambda)[\"']")
_BASE64_PICKLE = re.compile(
    rb"(?<![A-Za-z0-9+/_-])(?:gA[JKLMNOPQRSTUVWXYZabcdefghijklmno]|gA[IMQU])[A-Za-z0-9+/_=-]{12,200000}"
)
_TEMPLATE = re.compile(
    r"__\w+__|\battr\b\s*\(|\|\s*attr|\bmro\b|\bsubclasses\b|\bglobals\b|\bbuiltins\b|\bimport\b|\bpopen\b|\blipsum\b|\bcycler\b"
)
_SAFETENSORS_SIZES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8},
}


def scan_files(files: Iterable[tuple[str, bytes]], allowed: Collection[str] = ()) -> Iterator[Result]:
    """Every file, and what is inside it."""
    budget = Budget()
    for path, data in files:
        for inner in unpack(path, data, budget):
            if isinstance(inner, Shut):
                yield _unjudged(inner.path, inner.reason)
            else:
                yield from scan_file(inner, allowed)


def scan_file(file: Inner, allowed: Collection[str] = ()) -> Iterator[Result]:
    """One file, as it lies there."""
    path, data = file.path, file.data
    ending = posixpath.splitext(path.rstrip("!"))[1].lower()
    if file.packed:
        if re.search(r"(?:^|[!/])code/.*\.py$", path) is None and pickles.looks_like_pickle(data):
            yield from _pickle(path, data, allowed)  # a zip may have a pickle before it
        return
    if re.search(r"!(?:[^/]+/)?code/[^!]+\.py$", path) and ".ts" not in ending:
        yield _found("torchscript", "medium", path, "code of TorchScript, which runs when the model is called", path)
    keras = data.startswith(HDF5) or re.split(r"[/!]", path)[-1] == "config.json"
    if keras and _LAMBDA.search(data):
        yield _found("keras-lambda", "critical", path, "a layer of Keras that holds code (Lambda)", "Lambda")
    if data.startswith(NUMPY):
        yield from _numpy(path, data, allowed)
    elif data.startswith(b"GGUF"):
        yield from _gguf(path, data)
    elif data.startswith(HDF5):
        return
    elif pickles.looks_like_pickle(data) or (ending in PICKLES and data) or pickles.is_text_pickle(data):
        yield from _pickle(path, data, allowed)
    elif ending == ".safetensors":
        yield from _safetensors(path, data)
    elif ending in MODELS and ending not in _OPAQUE:
        yield _unjudged(path, f"its name says that it is a model ({ending}), and it is none that is known here")
    else:
        yield from _inside_text(path, data, allowed)


def _pickle(path: str, data: bytes, allowed: Collection[str], depth: int = 0) -> Iterator[Result]:
    seen: set[str] = set()
    readings = list(pickles.read_all(data))
    for reading in readings:
        for one in pickles.forbidden(reading, allowed):
            if one.full in seen or len(seen) >= MOST_FINDINGS:
                continue
            seen.add(one.full)
            severity: Severity = "critical" if is_harmful(one.module) else "high"
            yield _found(
                "pickle", severity, path, f"a pickle that names {one.full[:200]}, which it may call", one.full[:200]
            )
        for odd in reading.odd:
            if odd not in seen:
                seen.add(odd)
                yield _found("pickle-odd", "high", path, f"a pickle, and {odd}", odd)
        for inner in reading.nested:
            if not (pickles.looks_like_pickle(inner) or pickles.is_text_pickle(inner)):
                continue
            if depth < MOST_DEPTH:
                yield from _pickle(f"{path}!bytes", inner, allowed, depth + 1)
            else:
                yield _unjudged(path, f"pickles are nested deeper than {MOST_DEPTH}")
    # A file that joblib reads to its end is read; that plain pickle.load stops in its arrays is no fault of it.
    if readings and readings[-1].fault:
        yield _unjudged(path, f"the pickle {readings[-1].fault}")


def _numpy(path: str, data: bytes, allowed: Collection[str]) -> Iterator[Result]:
    """The format of numpy; an array of objects is a pickle behind the header."""
    try:
        width = 2 if data[6] == 1 else 4
        (length,) = struct.unpack_from("<H" if width == 2 else "<I", data, 8)
        start = 8 + width + length
        if length > _HEADER_MOST or start > len(data):
            yield _unjudged(path, f"numpy's header claims {length:,} bytes")
            return
        header = ast.literal_eval(data[8 + width : start].decode("latin-1").strip())
        objects = _has_objects(header["descr"])
    except (
        ValueError,
        SyntaxError,
        KeyError,
        TypeError,
        IndexError,
        struct.error,
        RecursionError,
        MemoryError,
    ) as error:
        yield _unjudged(path, f"numpy's header can't be read: {str(error)[:100] or type(error).__name__}")
        return
    if objects:
        yield from _pickle(path, data[start:], allowed)


def _has_objects(description: Any, depth: int = 0) -> bool:
    if isinstance(description, str):
        return "O" in description
    if depth > 20 or not isinstance(description, (list, tuple)):
        raise ValueError("its type is not one of numpy's")
    return any(
        _has_objects(one, depth + 1) for field in description for one in field[1:2] if isinstance(field, (list, tuple))
    )


def _safetensors(path: str, data: bytes) -> Iterator[Result]:
    fault = safetensors_fault(data)
    if fault is not None:
        yield _unjudged(path, f"it is no whole safetensors file: {fault}")


def safetensors_fault(data: bytes) -> str | None:
    """Why a file isn't safetensors as the format says; None where it is."""
    if len(data) < 8:
        return "it is too short"
    (length,) = struct.unpack_from("<Q", data)
    if length > SAFETENSORS_MOST or length > len(data) - 8:
        return f"its header claims {length:,} bytes"
    raw = data[8 : 8 + length]
    try:
        header = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return f"its header is no JSON: {str(error)[:100]}"
    if not raw.startswith(b"{") or not isinstance(header, dict):
        return "its header is no JSON object"
    spans: list[tuple[int, int]] = []
    for name, tensor in header.items():
        if name == "__metadata__":
            if not isinstance(tensor, dict) or not all(isinstance(value, str) for value in tensor.values()):
                return "its metadata is more than text"
            continue
        span = _tensor_span(tensor)
        if isinstance(span, str):
            return f"{str(name)[:80]!r}: {span}"
        spans.append(span)
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            return "its tensors leave gaps or lie over each other"
        at = end
    return None if at == len(data) - 8 - length else "its tensors don't fill it"


def _tensor_span(tensor: Any) -> tuple[int, int] | str:
    if not isinstance(tensor, dict):
        return "no tensor"
    kind, shape, offsets = tensor.get("dtype"), tensor.get("shape"), tensor.get("data_offsets")
    if kind not in _SAFETENSORS_SIZES or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        return "its type, shape or offsets are not whole"
    size = _SAFETENSORS_SIZES[kind]
    for one in shape:
        size *= one
        if size > 1 << 62:
            return "its shape is too large"
    return (offsets[0], offsets[1]) if offsets[1] - offsets[0] == size else "its offsets don't fit its shape"


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _gguf(path: str, data: bytes) -> Iterator[Result]:
    try:
        templates = read_gguf(data)
    except ValueError as error:
        yield _unjudged(path, f"it is no whole GGUF file: {error}")
        return
    for name, text in templates.items():
        if match := _TEMPLATE.search(text):
            yield _found(
                "gguf-template",
                "high",
                path,
                f"a chat template ({name}) that reaches for {match[0].strip()!r}, which templates of chats don't need",
                f"{name} {match[0].strip()}",
            )


def _inside_text(path: str, data: bytes, allowed: Collection[str]) -> Iterator[Result]:
    """Pickles that stand as base64 in code or data."""
    for count, match in enumerate(_BASE64_PICKLE.finditer(data)):
        if count >= MOST_FINDINGS:
            return
        body = match[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        try:
            inner = base64.b64decode(
                body[: len(body) // 4 * 4] if len(body) % 4 == 1 else body + b"=" * (-len(body) % 4)
            )
        except (ValueError, binascii.Error):
            continue
        if pickles.looks_like_pickle(inner):
            reading = pickles.read(inner)
            for one in pickles.forbidden(reading, allowed):
                yield _found(
                    "pickle",
                    "critical" if is_harmful(one.module) else "high",
                    f"{path}!base64",
                    f"a pickle that names {one.full[:200]}, which it may call",
                    one.full[:200],
                )


def _found(rule: str, severity: Severity, path: str, message: str, subject: str) -> Result:
    return found(
        "models",
        rule,
        severity,
        message,
        next_step="keep weights as safetensors, or allow by name what the operator trusts (`scanning.pickle_globals`)",
        place=Place(file=path),
        subject=subject,
    )


def _unjudged(path: str, reason: str) -> Unjudged:
    return Unjudged(
        scanner="models",
        message=reason,
        next_step="take it out of the source folder, or bring it whole and in a format that is read",
        place=Place(file=path),
    )
