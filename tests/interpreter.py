"""Make Triton's interpreter faster, which tests of kernels without a GPU wait for."""

import dataclasses
import os


def interpreted() -> bool:
    """Return whether Triton interprets its kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def quicken() -> None:
    """Leave out what the interpreter does again and again to no effect.

    It adds integers once more in 64 bits, for a check of overflow that only debug mode looks at (see
    `overflow_is_an_error`), and patches a module of Triton's language at each call of a function that uses it.
    """
    import numpy
    from triton import language
    from triton.runtime import interpreter

    # No GPU warns of NaN and infinity.
    numpy.seterr(all="ignore")
    _set_options(sanitize_overflow=False)
    patched = {id(language)}  # by the launch of the kernel itself

    def call(self, *args, **kwargs):
        used = {id(value) for value in self.fn.__globals__.values() if value is language or value is language.core}
        if not used <= patched:
            interpreter._patch_lang(self.fn)
            patched.update(used)
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call


def overflow_is_an_error(monkeypatch) -> None:
    """Fail where a 32-bit integer of an interpreted kernel overflows."""
    from triton.runtime.interpreter import interpreter_builder

    monkeypatch.setattr(interpreter_builder, "options", interpreter_builder.options)
    _set_options(sanitize_overflow=True, debug=True)


def _set_options(**changes: bool) -> None:
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, **changes)
