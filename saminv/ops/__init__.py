"""Elementary image operations: one folder per op.

What is here: each folder holds the public op (``__init__.py``: checks, dispatch by ``impl="auto" | "reference" |
"lean" | "triton"``) and its definition in plain torch (``reference.py``), which is what the others are tested against:
the lean form in plain torch with a backward of its own (``lean.py``) and the kernel (``triton.py``), if there are such.
``using("reference")`` keeps all of them out for a while.

How to add one: write ``reference.py`` first, with float64 ``gradcheck``; then the public function that calls
:func:`saminv.ops._dispatch.choose`. A kernel is one more entry of that call's table.

What may be imported: torch and the ground floor (``saminv._errors`` and its neighbours), and other ops; Triton in
``triton.py`` and ``_tiles.py`` only.
"""

from ._dispatch import using

__all__ = ["using"]
