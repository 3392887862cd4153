"""Read tensors from a pickle that names classes which do not exist here, without running anything of it.

PyTorch's own reader refuses a file as soon as it names a class that it does not know: pickled modules, and tensors
next to numbers of numpy or options of argparse. Here every name in the pickle becomes an inert type. An object of such
a type only stores its state; a call of such a type is answered from the tables below or refused. No function or class
that a file names is ever looked up, so there is nothing that could run.
"""

import math
import mmap
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in PyTorch's format before 1.6
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "Untyped": torch.uint8,
}  # fmt: skip
# Calls that only make a value, which stays unused.
_UNUSED_CALLS = frozenset((
    "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.frozenset", "builtins.slice",
    "collections.Counter", "collections.defaultdict", "copyreg._reconstructor", "datetime.date", "datetime.datetime",
    "datetime.timedelta", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "pathlib.Path",
    "pathlib.PosixPath", "pathlib.WindowsPath", "torch.Size", "torch.device",
    "torch.nn.backends.thnn._get_thnn_function_backend",
))  # fmt: skip
# Classes of the standard library whose objects may be next to the tensors; those of other packages all may.
_UNUSED_CLASSES = _UNUSED_CALLS | {"argparse.Namespace", "builtins.object", "types.SimpleNamespace"}
# Far above any network; a file of this many modules is meant to keep the reader busy.
_MODULES_LIMIT = 100_000


class RefusedNameError(Exception):
    """The pickle calls something other than the constructors of tensors and of plain values.

    Attributes:
        name: module and name of it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name: str = name


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str


class _TensorRecord(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __setstate__(self, state: Any) -> None:
        """Ignore flags of autograd, which old files have."""


class _InertType(type):
    """The type of a name in a pickle: its call makes a record of a tensor or an inert object, or is refused."""

    full_name: str

    def __call__(cls, *args: Any) -> Any:
        match cls.full_name:
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
                storage, offset, size, stride = args[:4]
                return _TensorRecord(storage, offset, tuple(size), tuple(stride), storage.dtype)
            case "torch._utils._rebuild_tensor_v3":
                storage, offset, size, stride = args[:4]
                dtype = vars(torch)[args[6].full_name.removeprefix("torch.")]
                return _TensorRecord(storage, offset, tuple(size), tuple(stride), dtype)
            case "builtins.set":
                return set(*args)
            case (
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state"
                | "torch.nn.parameter.Parameter"
            ):
                return args[0]
            case name if name in _UNUSED_CALLS:
                return object.__new__(cls)
            case name:
                raise RefusedNameError(name)


class _Inert(metaclass=_InertType):
    """An object of a class that is not looked up: it stores its state, and has no behavior."""

    full_name: ClassVar[str] = ""
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        if cls.full_name == "torch.nn.parameter.Parameter" and args:
            return args[0]
        if cls.full_name.split(".")[0] in sys.stdlib_module_names and cls.full_name not in _UNUSED_CLASSES:
            raise RefusedNameError(cls.full_name)
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Accept a value that stays unused."""

    extend = append


# In Python, because the one in C reserves memory for any number of objects that a file claims to have.
class _InertUnpickler(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.proto = 0
        self.inert_types: dict[str, type] = {}
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # such pickles have the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full_name = f"{module}.{name}"
        if full_name in ("collections.OrderedDict", "typing.OrderedDict"):
            return OrderedDict
        if full_name not in self.inert_types:
            self.inert_types[full_name] = _InertType(name, (_Inert,), {"full_name": full_name})
        return self.inert_types[full_name]

    def persistent_load(self, pid: Any) -> Any:
        kind = pid[0].decode() if isinstance(pid[0], bytes) else pid[0]
        if kind == "module":  # a class and its source code, which stays unused
            return pid[1]
        if kind != "storage":
            raise pickle.UnpicklingError(f"a reference to a {kind}")
        type_name = pid[1].full_name.rpartition(".")[2].removesuffix("Storage")
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("a view of a storage, as before PyTorch 0.4")
        key = str(pid[2])
        return self.storages.setdefault(key, _Storage(_DTYPES[type_name], key))


def read_pickle_inertly(path: Path) -> Any:
    """Return the content of a file of `torch.save`: dicts and tensors; the tensors of a module as a dict by name.

    Everything else is an object without behavior. A damaged file raises the error that its first contradiction causes.

    Args:
        path: a zip archive, or the format before PyTorch 1.6, of any pickle protocol.

    Raises:
        RefusedNameError: the pickle calls something that would have to run.
    """
    with path.open("rb") as file:
        return _read_zip(file) if zipfile.is_zipfile(file) else _read_old_format(file)


def _read_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("numbers in big-endian order")
        with archive.open(f"{root}data.pkl") as member:
            content = _InertUnpickler(member).load()
        return _Resolver(lambda storage: archive.read(f"{root}data/{storage.key}")).resolve(content)


def _read_old_format(file: IO[bytes]) -> Any:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        if (first := _InertUnpickler(view).load()) != _MAGIC:
            raise ValueError(f"a pickle of a {type(first).__name__}, which torch.save did not write")
        for _ in ("version of the format", "byte order and sizes"):
            _InertUnpickler(view).load()
        unpickler = _InertUnpickler(view)
        content = unpickler.load()
        places = {}
        for key in _InertUnpickler(view).load():
            (count,) = struct.unpack("<q", view.read(8))
            places[str(key)] = (view.tell(), count)
            # Only the pickle has the type of a storage, and every storage is in it.
            view.seek(count * unpickler.storages[str(key)].dtype.itemsize, 1)

        def read(storage: _Storage) -> bytes:
            start, count = places[storage.key]
            return view[start : start + count * storage.dtype.itemsize]

        return _Resolver(read).resolve(content)


class _Resolver:
    """Turn the records in the content of a pickle into tensors, and modules into dicts of tensors."""

    def __init__(self, read: Callable[[_Storage], bytes]) -> None:
        self.read: Callable[[_Storage], bytes] = cache(read)
        self.done: dict[int, Any] = {}
        self.modules = 0

    def resolve(self, value: Any) -> Any:
        if isinstance(value, _TensorRecord):
            return self._build_tensor(value)
        if id(value) in self.done:
            return self.done[id(value)]
        if _is_module(value):
            self.done[id(value)] = tensors = {}
            self._collect(value, "", tensors)
            return tensors
        if isinstance(value, dict):
            self.done[id(value)] = entries = {}
            entries.update((key, self.resolve(entry)) for key, entry in value.items())
            return entries
        return value

    def _collect(self, module: _Inert, prefix: str, tensors: dict[str, Tensor]) -> None:
        self.modules += 1
        if self.modules > _MODULES_LIMIT:
            raise ValueError(f"more than {_MODULES_LIMIT:,} modules")
        unsaved = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                if isinstance(value, _TensorRecord) and not (isinstance(unsaved, set) and name in unsaved):
                    tensors[f"{prefix}{name}"] = self._build_tensor(value)
        for name, child in (module.state.get("_modules") or {}).items():
            if _is_module(child):
                self._collect(child, f"{prefix}{name}.", tensors)

    def _build_tensor(self, record: _TensorRecord) -> Tensor:
        storage, offset, size, stride, dtype = record
        if not isinstance(dtype, torch.dtype):
            raise TypeError("a tensor of a type that is none")
        if math.prod(size) == 0:
            return torch.empty(size, dtype=dtype)
        numbers = torch.frombuffer(bytearray(self.read(storage)), dtype=dtype)
        if math.prod(size) > len(numbers):
            raise ValueError(f"{math.prod(size)} numbers expected, {len(numbers)} in the file")
        return numbers.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


def _is_module(value: Any) -> bool:
    return isinstance(value, _Inert) and isinstance(value.state, Mapping) and "_modules" in value.state
