"""JSON documents as frozen dataclasses: a document is what the annotations say, or an error with its place.

=====================================  =============================================================================
annotation                             JSON
=====================================  =============================================================================
``str``, ``bool``, ``int``, ``bytes``  a string, true or false, an integer of 64 bits, a string in base64
``X | None``                           the same, or null
``Literal["a", "b"]``                  one of these
``tuple[X, ...]``, ``tuple[X, Y]``     an array; of so many entries
``Mapping[str, X]``                    an object with any keys; of ``Mapping[int, X]`` they are numbers
a dataclass or ``NamedTuple``          an object of its fields. One with a default may be missing, or null, unless its
                                       metadata has ``required``. A key that is no field is an error
a class with ``from_json``             whatever this class method takes, and :func:`encode` calls its ``to_json``
``Annotated[X, check, ...]``           X, of which each check says what is wrong with it, or None
``Any``                                whatever there is
=====================================  =============================================================================

A ``ValueError`` that a class raises when it is made is an error of its place, too.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from itertools import repeat
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Decoder = Callable[[Any], Any]

_NAMES = {dict: "an object", list: "an array", str: "a string", int: "an integer", float: "a number with a fraction",
          bool: "true or false", NoneType: "null", bytes: "a string in base64"}  # fmt: skip
_INT64 = range(-(1 << 63), 1 << 63)
_SHOWN = 300
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DecodeError(ValueError):
    """A document that is not of its form: what was expected and found, and at which keys."""

    def __init__(self, message: str, *place: str) -> None:
        super().__init__(message, *place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        keys = [key if key.isprintable() else repr(key) for key in self.place if key]
        return f"{' '.join(keys)}: {self.message}" if keys else self.message

    def below(self, key: str) -> DecodeError:
        """The same error, of what stands at ``key`` of something larger."""
        return DecodeError(self.message, key, *self.place)


def load_json(data: bytes, origin: str) -> Any:  # noqa: ANN401  # JSON
    """What a JSON document in UTF-8 holds; it may begin with a byte order mark, as editors on Windows write it.

    Raises:
        DecodeError: it is not JSON, or a key stands twice in an object.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise DecodeError("not valid JSON: it is nested too deeply", origin) from None
    except ValueError as error:
        # Of a number of very many digits, what follows is advice for programmers.
        raise DecodeError(f"not valid JSON: {str(error).partition(';')[0]}", origin) from None


def decode(form: type[T], value: object, origin: str) -> T:
    """An object of class ``form`` from what :func:`load_json` returns; ``origin`` names the document in errors.

    Raises:
        DecodeError: it is not of this form.
    """
    try:
        made: T = _decoder(cast(Any, form))(value)
    except DecodeError as error:
        raise error.below(origin) from None
    return made


def encode(value: object) -> Any:  # noqa: ANN401  # JSON
    """A dataclass, or what stands in one, as :func:`decode` takes it."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: encode(entry) for name, entry in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [encode(entry) for entry in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


def not_a_count(value: int) -> str | None:
    """A check: what is wrong with a number that must count something."""
    return f"expected a count, found {value}" if value < 0 else None


def not_a_sha256(value: str) -> str | None:
    """A check: what is wrong with the digits of a SHA-256."""
    return None if _SHA256.fullmatch(value) else "expected 64 lower-case hexadecimal digits"


Count = Annotated[int, not_a_count]
"""An integer from 0 on."""

Sha256 = Annotated[str, not_a_sha256]
"""A SHA-256 in lower-case hexadecimal digits."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r:.{_SHOWN}} stands twice in one object")
    return result


@cache
def _decoder(form: Any) -> Decoder:  # noqa: ANN401  # an annotation
    """The function that decodes values of an annotation."""
    origin, arguments = get_origin(form), get_args(form)
    if form is Any:
        return lambda value: value
    if hasattr(form, "from_json"):
        return form.from_json
    if origin is Annotated:
        return partial(_checked, _decoder(arguments[0]), arguments[1:])
    if origin is Literal:
        return partial(_literal, arguments)
    if origin is tuple:
        every = arguments[-1] is ...
        return partial(_array, every, [_decoder(each) for each in arguments if each is not ...])
    if origin is Mapping:
        key, entry = arguments
        return partial(_mapping, _number if key is int else _decoder(key), _decoder(entry))
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not NoneType]
        decoder = _decoder(kinds[0]) if len(kinds) == 1 else partial(_scalar, kinds)
        return (lambda value: None if value is None else decoder(value)) if NoneType in arguments else decoder
    if is_dataclass(form):
        required = [
            field.name
            for field in fields(form)
            if field.metadata.get("required") or field.default is field.default_factory is MISSING
        ]
    elif hasattr(form, "_fields"):
        required = [name for name in form._fields if name not in form._field_defaults]
    else:
        return _base64 if form is bytes else partial(_scalar, [form])
    hints = get_type_hints(form, include_extras=True)
    return partial(_object, form, {name: _decoder(hint) for name, hint in hints.items()}, set(required))


def _scalar(kinds: Sequence[type], value: Any) -> Any:  # noqa: ANN401  # JSON
    if type(value) not in kinds:
        expected = " or ".join(_NAMES[kind] for kind in kinds)
        raise DecodeError(f"expected {expected}, found {_NAMES.get(type(value), type(value).__name__)}")
    if type(value) is int and value not in _INT64:
        raise DecodeError("expected an integer of 64 bits, found a larger one")
    return value


def _base64(value: Any) -> bytes:  # noqa: ANN401  # JSON
    text = _scalar([str], value)
    try:
        return b64decode(text, validate=True)
    except ValueError as error:  # of what is not ASCII, no binascii.Error
        raise DecodeError(f"not base64: {error}") from None


def _number(key: str) -> int:
    if not _NUMBER.fullmatch(key):
        raise DecodeError(f"expected a number as the key, found {key!r:.{_SHOWN}}")
    return int(key)


def _literal(allowed: Sequence[object], value: object) -> Any:  # noqa: ANN401  # JSON
    if not any(type(value) is type(known) and value == known for known in allowed):
        raise DecodeError(f"expected {' or '.join(map(repr, allowed))}, found {value!r:.{_SHOWN}}")
    return value


def _checked(decoder: Decoder, checks: Sequence[Callable[[Any], str | None]], value: object) -> Any:  # noqa: ANN401
    made = decoder(value)
    if problem := next(filter(None, (check(made) for check in checks)), None):
        raise DecodeError(problem)
    return made


def _at(key: str | int, decoder: Decoder, value: object) -> Any:  # noqa: ANN401  # what the annotation says
    try:
        return decoder(value)
    except DecodeError as error:
        raise error.below(str(key)[:_SHOWN]) from None


def _array(every: bool, decoders: Sequence[Decoder], value: object) -> tuple[Any, ...]:
    entries = _scalar([list], value)
    if not every and len(entries) != len(decoders):
        raise DecodeError(f"expected {len(decoders)} entries, found {len(entries)}")
    return tuple(map(_at, range(len(entries)), repeat(decoders[0]) if every else decoders, entries))


def _mapping(decode_key: Decoder, decoder: Decoder, value: object) -> dict[Any, Any]:
    entries = _scalar([dict], value).items()
    return {_at(key, decode_key, key): _at(key, decoder, entry) for key, entry in entries}


def _object(form: Any, decoders: Mapping[str, Decoder], required: Set[str], value: object) -> Any:  # noqa: ANN401
    found = _scalar([dict], value)
    if unknown := found.keys() - decoders.keys():
        raise DecodeError(f"unknown key {min(unknown)!r:.{_SHOWN}}")
    if missing := required - found.keys():
        raise DecodeError("is missing", min(missing))
    stated = {key: entry for key, entry in found.items() if entry is not None or key in required}
    made = {key: _at(key, decoders[key], entry) for key, entry in stated.items()}
    try:
        return form(**made)
    except ValueError as error:
        raise error if isinstance(error, DecodeError) else DecodeError(str(error)) from None
