"""Vectors in compiled kernels: sixteen neighboring values that are loaded, computed and stored as one.

LLVM vectorizes a plain loop only after proving that it does not read what it writes, and gives up when many arrays are
read at once. A loop over these vectors needs no proof. LLVM maps them to the registers of the processor: sixteen
float32 are one register with AVX-512, two with AVX2, four with SSE or NEON.

numba's disk cache looks only at the file of a kernel: after an edit of this file, touch the files of the kernels.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

# a * b + c may be one instruction; NaN, infinities and the order of sums stay as they are.
_FLAGS = ("contract",)


class Vector(types.Type):
    """numba's type of LANES values of one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), LANES))


def _vector_address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of the vector that begins at array[index]."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(array_type.dtype), LANES)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _itemsize(array_type: Any) -> int:
    return array_type.dtype.bitwidth // 8


def _load(_typing: Any, array: Any, _index: Any) -> Any:
    """Return the vector of array[_index : _index + LANES]; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _vector_address(context, builder, signature.args[0], *arguments)
        return builder.load(address, align=_itemsize(signature.args[0]))

    return Vector(array.dtype)(array, types.intp), generate


def _store(_typing: Any, array: Any, _index: Any, vector: Any) -> Any:
    """Write a vector to array[_index : _index + LANES]; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _vector_address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], address, align=_itemsize(signature.args[0]))
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)


def _register_arithmetic(symbol: Any, instruction: str) -> None:
    """Compile `symbol` between two vectors to an LLVM instruction."""

    def compute(_typing: Any, a: Any, b: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=_FLAGS)

        return a(a, b), generate

    # numba calls it with the two vectors only.
    operation: Any = intrinsic(compute)

    @overload(symbol)
    def _choose(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: operation(a, b)
        return None


for _symbol, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _register_arithmetic(_symbol, _instruction)
