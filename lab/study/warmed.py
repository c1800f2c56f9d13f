"""Imported last by the process that cells are forked from: says whether forking it is safe, and spares its garbage.

A fork copies only the thread that calls it, with every lock that others held, and cannot use a GPU that was in use.
"""

import gc
import sys
import threading

UNSAFE = ""
"""Why a fork of this process would not be safe; empty where it is."""
if threading.active_count() > 1:
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    UNSAFE = f"an imported module started threads: {', '.join(names)}"
elif "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
    UNSAFE = "an imported module initialised CUDA"

# What was imported stays. Collecting garbage among it takes a fork 0.3 s, and writes to (so copies) the shared pages.
gc.collect()
gc.freeze()
