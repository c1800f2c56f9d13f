"""The workbench in which the Baichuan-Omni report is taken apart, one ablation at a time."""

import sys

if "IPython" in sys.modules:
    from IPython import get_ipython

    # None in a script, and in the process that cells' kernels are forked from.
    if (_shell := get_ipython()) is not None and hasattr(_shell, "display_formatter"):
        from lab.explore.shown import register

        register(_shell)
