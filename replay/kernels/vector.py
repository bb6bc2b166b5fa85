"""Operations on several words at once that LLVM does not find in a loop: compressing a vector by a mask.

`compress` moves the chosen elements of a vector to its front. LLVM can lower it for any processor, but only AVX-512
does it in one instruction (VBMI2 for bytes): `COMPRESSES` says whether kernels should use what is here. There is no
plain-Python form: whoever calls these has a portable twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.jit import can_use, cgutils, intrinsic, ir, make_array, types

_operation: Any = intrinsic  # for type checkers: its first argument is not passed by callers
COMPRESSES = can_use("avx512vl", "avx512bw", "avx512vbmi2")

_I8, _I32, _I64 = (ir.IntType(bits) for bits in (8, 32, 64))


def _vector(element: Any, numbers: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(element, len(numbers)), list(numbers))


def _splat(builder: Any, value: Any, count: int) -> Any:
    kind = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), _vector(_I32, [0] * count))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    """Where element `index` of an array is, to load or store a vector there."""
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _compress(builder: Any, values: Any, mask: Any) -> Any:
    kind = values.type
    name = f"llvm.experimental.vector.compress.v{kind.count}i{kind.element.width}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, mask.type, kind]), name)
    return builder.call(function, [values, mask, ir.Constant(kind, ir.Undefined)])


def _count(builder: Any, mask: Any, bits: int) -> Any:
    word = builder.bitcast(mask, ir.IntType(bits))
    return builder.ctpop(word if bits == 64 else builder.zext(word, _I64))


@_operation
def any_of_32(typing_context: Any, words: Any, index: Any) -> Any:
    """any_of_32(words, index): whether one of words[index : index + 32] is not zero. All of them must exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(_I64, 8)
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        loaded = [builder.load(builder.gep(place, [ir.Constant(_I64, part)]), align=8) for part in range(4)]
        either = builder.or_(builder.or_(*loaded[:2]), builder.or_(*loaded[2:]))
        mask = builder.icmp_unsigned("!=", either, _vector(_I64, [0] * 8))
        return builder.icmp_unsigned("!=", builder.bitcast(mask, _I8), ir.Constant(_I8, 0))

    return types.boolean(words, types.uint64), generate


@_operation
def list_of_8(typing_context: Any, words: Any, index: Any, listed: Any, place: Any) -> Any:
    """list_of_8(words, index, listed, place): put the indices of those of words[index : index + 8] that are not zero
    at listed[place:] (uint32); how many they are. The eight words and eight places must exist; all eight are written.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, index, listed, place = arguments
        vector, indices = ir.VectorType(_I64, 8), ir.VectorType(_I32, 8)
        loaded = builder.load(_place(context, builder, signature.args[0], words, index, vector), align=8)
        mask = builder.icmp_unsigned("!=", loaded, _vector(_I64, [0] * 8))
        numbers = builder.add(_splat(builder, builder.trunc(index, _I32), 8), _vector(_I32, range(8)))
        target = _place(context, builder, signature.args[2], listed, place, indices)
        builder.store(_compress(builder, numbers, mask), target, align=4)
        return _count(builder, mask, 8)

    return types.uint64(words, types.uint64, listed, types.uint64), generate


@_operation
def list_bits(typing_context: Any, bits: Any, first: Any, pages: Any, place: Any) -> Any:
    """list_bits(bits, first, pages, place): put `first` plus the position of each set bit at pages[place:] (uint32);
    how many they are. 64 places must exist; any of them may be written.

    Positions are compressed as bytes and widened sixteen at a time: always the first sixteen, then three times as many
    or all, which is easier to foretell than their exact number.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, first, pages, place = arguments
        sixteen = ir.VectorType(_I32, 16)
        count = builder.ctpop(bits)
        mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), 64))
        bytes_ = _compress(builder, _vector(_I8, range(64)), mask)
        base = _splat(builder, builder.trunc(first, _I32), 16)
        target = _place(context, builder, signature.args[2], pages, place, sixteen)

        def store(part: int) -> None:
            chosen = builder.shuffle_vector(bytes_, bytes_, _vector(_I32, range(16 * part, 16 * part + 16)))
            wide = builder.add(builder.zext(chosen, sixteen), base)
            builder.store(wide, builder.gep(target, [ir.Constant(_I64, part)]), align=4)

        store(0)
        with builder.if_then(builder.icmp_unsigned(">", count, ir.Constant(_I64, 16))):
            store(1)
            store(2)
            with builder.if_then(builder.icmp_unsigned(">", count, ir.Constant(_I64, 48))):
                store(3)
        return count

    return types.uint64(types.uint64, types.uint64, pages, types.uint64), generate
