"""The only place that imports numba: its options, the cache rule, and the dispatch of verbs by state class.

*Kernels.* `@kernel` compiles a function on first use and keeps the machine code on disk. Options: `nogil` (threads
replay side by side), numpy error model (no zero-division branches), `_nrt=False` (no reference counting: reading an
array out of a state tuple otherwise costs 5 to 12 times the loop; a kernel that allocates then fails to compile).
`_nrt` is internal to numba, hence the pinned minor version and the test that no kernel's LLVM holds `NRT_incref`.

*Verbs.* A verb is declared once and implemented by each state class. Inside a kernel numba picks the implementation
from the type of the first argument at compile time: no pointer, no branch, and the disk cache still works, which
functions passed as arguments or closed over would defeat. Under NUMBA_DISABLE_JIT=1 the same sources run as Python.

*Cache.* numba notices an edit in the file of a kernel but not in a function it calls from another file, so the cache
folder's name holds a digest of every source that can be compiled into a kernel. Old folders are pruned. Where nothing
is writable, kernels compile without a cache instead of failing at import. Processes that need the same machine code at
once wait for the one that compiles it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import caching, cgutils, codegen, types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, overload

from replay import cache_folder

_config: Any = numba.config  # its values are made at run time


def sources_digest(extra: tuple[Path, ...] = ()) -> str:
    """A short digest of all sources that kernels are compiled from, the switches that matter, and `extra` files."""
    switches = (sys.version_info[:3], _config.BOUNDSCHECK, _config.OPT, _config.LOOP_VECTORIZE)
    return cache_folder.sources_digest(switches, extra)


def _choose_cache(extra: tuple[Path, ...] = ()) -> Path | None:
    folder = cache_folder.writable_folder("kernels-" + sources_digest(extra))
    if folder is not None and not any(folder.iterdir()):
        cache_folder.prune(folder)
    return folder


CACHE_FOLDER = _choose_cache()
COLD = CACHE_FOLDER is None or not any(CACHE_FOLDER.iterdir())
"""True when this process starts without compiled kernels: the first replay will compile them."""
if CACHE_FOLDER is not None:
    _config.CACHE_DIR = str(CACHE_FOLDER)  # not the environment: numba may have been imported before us

DISABLED = bool(_config.DISABLE_JIT)
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cfunc_wrapper": True}
NUMBA_VERSION = numba.__version__


def _features() -> frozenset[str]:
    """What the processor can do that numba compiles for: this machine's, or that of NUMBA_CPU_FEATURES or _NAME."""
    chosen = _config.CPU_FEATURES
    listed = codegen.get_host_cpu_features() if chosen is None else chosen
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))


def can_use(*features: str) -> bool:
    """Whether kernels may be chosen that are fast only with these features of the processor.

    Safe with the disk cache: numba keeps machine code by the same list, so that what was chosen on one machine, and
    whatever calls it, is not found from another.
    """
    return not DISABLED and _features().issuperset(features)


U64 = np.uint64
U0, U1, U6, U63, U64_BITS = U64(0), U64(1), U64(6), U64(63), U64(64)
NONE = U64(0xFFFF_FFFF_FFFF_FFFF)
"""No page, no word, or a time that never comes."""

wrapping = np.errstate(over="ignore")
"""Decorates what may call kernels in a thread: word arithmetic wraps, compiled or not. NumPy keeps this by thread."""
if DISABLED:
    np.seterr(over="ignore")  # in the main thread for every kernel

_kernels: list[Any] = []
_locks = cache_folder.Locks((CACHE_FOLDER or Path()) / "compiling")  # used only where there is a cache


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with the options of this package; machine code is cached on disk where possible.

    A function whose name begins with an underscore is called from other kernels only: it gets no Python wrapper, which
    saves a good part of its compile time.
    """
    return _compile(function, {})


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that becomes part of whatever kernel calls it.

    For what runs once a page or once an event and takes states: a call that LLVM does not inline copies every array of
    its arguments, seven words each, onto the stack: about 3.5 ns a page for a search; stepping an idle 96G guest took
    1.5 times C's time before and 0.9 after.
    """
    return _compile(function, {"forceinline": True})


def _compile(function: Callable[..., Any], more: dict[str, Any]) -> Callable[..., Any]:
    if DISABLED:
        return function
    inner = function.__name__.startswith("_")
    njit: Any = numba.njit
    compiled = njit(no_cpython_wrapper=inner, **OPTIONS, **more)(function)
    _kernels.append(compiled)
    if CACHE_FOLDER is not None:
        compiled._cache = _Cache(function)
        compiled.compile = _compiles_once(compiled)
    return compiled


class _Cache:
    """numba's disk cache of one kernel, opened when the kernel is first called.

    numba opens it at once, which writes a file for each of a hundred kernels, of which a replay calls a dozen; and it
    makes all that a compiler needs before it looks, 0.2 s that machine code on disk does not need.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._disk: Any = None

    def load_overload(self, kinds: Any, target: Any) -> Any:
        """The compiled kernel for these argument types, None where it is not there."""
        return self._opened()._load_overload(kinds, target)

    def save_overload(self, kinds: Any, compiled: Any) -> None:
        """Keep a compiled kernel, if there is room for it."""
        with contextlib.suppress(OSError):
            self._opened().save_overload(kinds, compiled)

    def _opened(self) -> Any:
        if self._disk is None:
            try:
                self._disk = caching.FunctionCache(self._function)
            except RuntimeError:  # the folder is gone, or was made read-only meanwhile
                self._disk = _NoCache()
        return self._disk

    @property
    def cache_path(self) -> str | None:
        """Where it is."""
        path: str | None = self._opened().cache_path
        return path


class _NoCache(caching.NullCache):
    def _load_overload(self, kinds: Any, target: Any) -> None:
        return None


def _compiles_once(kernel: Any) -> Callable[..., Any]:
    """The kernel's `compile`, but of several processes one compiles and the others load what it made.

    A thread waits for another process while it holds numba's lock, in whose order kernels call one another: no circle.
    """
    compile_now, own = kernel.compile, f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}"

    def compile_once(kinds: Any) -> Any:
        with global_compiler_lock, _locks.held(f"{own}{kinds}"):
            return compile_now(kinds)

    return compile_once


def kernels() -> tuple[Any, ...]:
    """Every kernel decorated so far (numba dispatchers), for tests and `warm`."""
    return tuple(_kernels)


class Calls:
    """Calls of kernels whose arguments keep their types from call to call: these are looked up once.

    numba's own look-up takes about 5 us for a guest, a log and a design, which is most of a call that has little to do.
    The types are not checked again: `forget` must be called when an argument of another type may come.
    """

    def __init__(self) -> None:
        self._entries: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the kernel `function`."""
        entry = self._entries.get(function)
        if entry is None:
            entry = self._entries[function] = _entry(function, arguments)
        return entry(*arguments)

    def forget(self) -> None:
        """Look the types up again at the next calls."""
        self._entries.clear()


def _entry(function: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    if DISABLED:
        return function
    kinds = tuple(numba.typeof(argument) for argument in arguments)
    function.compile(kinds)
    return function.overloads[kinds].entry_point


def add_sources(paths: tuple[Path, ...]) -> None:
    """Use a cache folder that also depends on `paths` (a user's plug-in), so that its compiled code is never stale.

    Kernels that are already compiled in this process stay: their specialisations are keyed by state class, and a
    plug-in file that was edited is loaded as a new module with new classes.
    """
    folder = _choose_cache(paths)
    if DISABLED or folder is None:
        return
    _config.CACHE_DIR = str(folder)
    for compiled in _kernels:
        compiled._cache = _Cache(compiled.py_func)


def make_array(kind: Any) -> Any:
    """numba's; what defines it takes 25 ms to import, and only a compiler needs it."""
    from numba.np import arrayobj

    return arrayobj.make_array(kind)


@intrinsic
def _touched8(typing_context: Any, words: Any, index: Any) -> Any:
    """One vector load and compare. LLVM does not find this by itself: its loops over short ranges stay scalar."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        vector = ir.VectorType(ir.IntType(64), 8)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        touched = builder.icmp_unsigned("!=", builder.load(place, align=8), ir.Constant(vector, [0] * 8))
        return builder.zext(builder.bitcast(touched, ir.IntType(8)), ir.IntType(64))

    return types.uint64(words, types.uint64), generate


def _touched8_in_python(words: np.ndarray, index: Any) -> Any:
    return U64(sum(1 << bit for bit in range(8) if words[int(index) + bit]))


@intrinsic
def _dot4(typing_context: Any, left: Any, right: Any, index: Any) -> Any:
    """Four products at once; LLVM unrolls loops of a few products into scalar ones before it looks for vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), 4)
        loaded = []
        for kind, value in zip(signature.args[:2], arguments, strict=False):
            data = make_array(kind)(context, builder, value).data
            place = builder.bitcast(builder.gep(data, [arguments[2]]), vector.as_pointer())
            loaded.append(builder.load(place, align=8))
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(64), [vector]), "llvm.vector.reduce.add.v4i64"
        )
        return builder.call(add, [builder.mul(*loaded)])

    return types.uint64(left, right, types.uint64), generate


def _dot4_in_python(left: np.ndarray, right: np.ndarray, index: Any) -> Any:
    place = slice(int(index), int(index) + 4)
    return (left[place] * right[place]).sum()


dot4: Any = _dot4_in_python if DISABLED else _dot4
"""dot4(left, right, index): the sum of four products, modulo 2^64. The four must exist in both."""


@intrinsic
def _call_apart(typing_context: Any, function: Any, arguments: Any) -> Any:
    """A private copy of `function` in the caller's module, which LLVM may strip of what it does not use."""
    inner = function.get_call_type(typing_context, arguments.types, {})

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        convention, module = context.call_conv, builder.module
        callee = context.get_function(function, inner)
        context.add_linking_libs(getattr(callee, "libs", ()))
        name = context.mangler(f"apart.{function.dispatcher.py_func.__qualname__}", inner.args)
        apart = module.globals.get(name)
        if apart is None:
            apart = ir.Function(module, convention.get_function_type(inner.return_type, inner.args), name)
            apart.linkage = "internal"
            apart.attributes.add("noinline")
            body = ir.IRBuilder(apart.append_basic_block())
            answer = callee(body, convention.decode_arguments(body, inner.args, apart))
            convention.return_value(body, context.get_return_value(body, inner.return_type, answer))
        values = cgutils.unpack_tuple(builder, given[1])
        status, result = convention.call_function(builder, apart, inner.return_type, inner.args, values)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return inner.return_type(function, arguments), generate


def _call_in_python(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


call_apart: Any = _call_in_python if DISABLED else _call_apart
"""call_apart(inlined_kernel, arguments): call it, but keep its code out of the caller's loop.

A kernel that is not inlined takes every array of its arguments as seven words, all of them copied for each call: 178
words and about 50 ns for a whole guest. This call copies only those words that the kernel uses.
"""

touched8: Any = _touched8_in_python if DISABLED else _touched8
"""touched8(words, index): which of words[index : index + 8] are not zero, as 8 bits. The eight must exist."""


class Verb:
    """An operation on states: declared once, implemented by each state class, chosen by the first argument's class."""

    def __init__(self, declaration: Callable[..., Any]):
        self.name = declaration.__name__
        self.__doc__ = declaration.__doc__
        self.implementations: dict[type, Callable[..., Any]] = {}
        self.default: Callable[..., Any] | None = None

    def find(self, state_class: type) -> Callable[..., Any] | None:
        """The implementation for `state_class`, the default one, or None."""
        return self.implementations.get(state_class, self.default)


_verbs: dict[str, Verb] = {}


def verb(declaration: Callable[..., Any]) -> Any:
    """Declare a verb. The result is called like a function from kernels; `.implement(StateClass)` adds a way to do it.

    A declaration that returns `NotImplemented` has no default: a state class without an implementation cannot be
    used where the verb is called. Any other body is the default implementation.
    """
    table = Verb(declaration)
    if not _returns_not_implemented(declaration):
        table.default = declaration
    _verbs[table.name] = table

    def operation(state: Any, *arguments: Any) -> Any:
        implementation = table.find(type(state))
        if implementation is None:
            raise TypeError(f"{type(state).__module__}.{type(state).__name__} has no verb {table.name!r}")
        return implementation(state, *arguments)

    operation.__name__ = operation.__qualname__ = table.name
    operation.__doc__ = declaration.__doc__
    operation.__module__ = declaration.__module__

    def choose(state: Any, *arguments: Any) -> Any:
        return table.find(getattr(state, "instance_class", type(None)))

    if not DISABLED:
        overload(operation, jit_options=OPTIONS | {"forceinline": True}, strict=False)(choose)

    def implement(state_class: type) -> Callable[..., Any]:
        # numba names machine code after the class's bare name and its fields' types: two plug-ins whose `State` have
        # fields of the same types would share symbols, and one would run the other's code out of the disk cache
        state_class.__name__ = f"{state_class.__module__}.{state_class.__qualname__}"

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            table.implementations[state_class] = function
            return function

        return register

    operation.implement = implement  # type: ignore[attr-defined]
    operation.table = table  # type: ignore[attr-defined]
    return operation


def implements(state_class: type, name: str) -> bool:
    """Whether `state_class` itself implements the verb `name` (a default does not count)."""
    return state_class in _verbs[name].implementations


def _returns_not_implemented(function: Callable[..., Any]) -> bool:
    names = function.__code__.co_names
    return names == ("NotImplemented",) and len(function.__code__.co_code) < 32
