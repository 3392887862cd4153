"""Helpers for tests of Triton kernels without a GPU, in Triton's interpreter."""

import dataclasses
import os


def is_interpreted() -> bool:
    """Return whether Triton interprets its kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def speed_up_interpreter() -> None:
    """Make the interpreter faster by skipping two kinds of repeated work.

    It repeats integer arithmetic in 64 bits for an overflow check that only debug mode uses (see
    `raise_on_overflow`), and patches a module of Triton's language at each call of a function that uses it.
    """
    import numpy
    from triton import language
    from triton.runtime import interpreter

    # A GPU does not warn about NaN and infinity.
    numpy.seterr(all="ignore")
    _set_options(sanitize_overflow=False)
    patched = {id(language)}  # by the launch of the kernel itself

    def call(self, *args, **kwargs):
        modules = {id(value) for value in self.fn.__globals__.values() if value is language or value is language.core}
        if not modules <= patched:
            interpreter._patch_lang(self.fn)
            patched.update(modules)
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call


def raise_on_overflow(monkeypatch) -> None:
    """Raise an error if a 32-bit integer of an interpreted kernel overflows."""
    from triton.runtime.interpreter import interpreter_builder

    monkeypatch.setattr(interpreter_builder, "options", interpreter_builder.options)
    _set_options(sanitize_overflow=True, debug=True)


def _set_options(**changes: bool) -> None:
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, **changes)
