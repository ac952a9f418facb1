"""Makes a mutant of the package in this process, and takes it back."""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """The text of a function with a piece replaced, which must stand in it exactly once.

    Attributes:
        where: the module below ``converters`` and the function in it, as in ``dataset.leaves:record_leaves``.
        old: the piece.
        new: what stands in its place.
    """

    where: str
    old: str
    new: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        function, namespace = _find(self.where)
        text = textwrap.dedent(inspect.getsource(function))
        text = text[text.index("def ") :] if text.startswith("@") else text
        assert text.count(self.old) == 1, (
            f"{self.where} has {text.count(self.old)} times {self.old!r}: write it anew"
        )
        made: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + text.replace(self.old, self.new), self.where, "exec"),
             namespace, made)  # fmt: skip
        mutant = made[function.__name__]
        with _exchanged(function, mutant):
            yield


@dataclass(frozen=True)
class Constant:
    """Another value of a constant, in its module and in all that have imported it.

    Attributes:
        where: the module and the constant, as in ``formats.webdataset.files:JSON``; or an attribute of a class.
        new: the value.
    """

    where: str
    new: object

    @contextmanager
    def applied(self) -> Iterator[None]:
        name, _, path = self.where.partition(":")
        owner: Any = import_module(f"converters.{name}")
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        old = getattr(owner, name)
        modules = [module for key, module in sys.modules.items() if key.startswith("converters.")]
        owners = [owner] if classes else [module for module in modules if vars(module).get(name) is old]
        for each in owners:
            setattr(each, name, self.new)
        try:
            yield
        finally:
            for each in owners:
                setattr(each, name, old)


@dataclass(frozen=True)
class Wrap:
    """A function whose result is changed: ``change`` takes it, and the arguments."""

    where: str
    change: Callable[..., Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        function, _ = _find(self.where)
        assert function.__closure__ is None
        original = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__
        )
        original.__kwdefaults__ = function.__kwdefaults__
        key = f"mutant of {self.where}"
        _MUTANTS[key] = lambda *given, **named: self.change(original(*given, **named), *given, **named)
        made: dict[str, Any] = {}
        exec(
            f"def mutant(*given, **named):\n    import mutate\n    return mutate._MUTANTS[{key!r}](*given, **named)",
            made,
        )
        with _exchanged(function, made["mutant"]):
            yield


_MUTANTS: dict[str, Callable[..., Any]] = {}


@contextmanager
def applied(changes: tuple[Edit | Constant | Wrap, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change.applied())
        yield


@contextmanager
def _exchanged(function: FunctionType, mutant: FunctionType) -> Iterator[None]:
    """By its code, so that whoever has imported the function has the mutant."""
    code, defaults, named = function.__code__, function.__defaults__, function.__kwdefaults__
    function.__code__ = mutant.__code__
    try:
        yield
    finally:
        function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, named


def _find(where: str) -> tuple[FunctionType, dict[str, Any]]:
    name, _, path = where.partition(":")
    found: Any = import_module(f"converters.{name}")
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, cached_property):
        found = found.func
    elif isinstance(found, (classmethod, staticmethod)):
        found = found.__func__
    assert isinstance(found, FunctionType), where
    return found, vars(sys.modules[found.__module__])
