"""Ask for a cache line before it is needed.

A processor looks ahead by itself only until a branch that it guesses wrongly, and one that depends on a word far from
the caches is guessed wrongly late. O(1), some 1 ns. Bad where everything is in the cache anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.jit import DISABLED, cgutils, intrinsic, ir, make_array, types


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """To write, into all caches, data."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, *(ir.Constant(number, chosen) for chosen in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _not_in_python(array: np.ndarray, index: Any) -> None:
    """There is nothing to gain."""


prefetch: Any = _not_in_python if DISABLED else _prefetch
"""prefetch(array, index): have the element's cache line ready to be written."""
