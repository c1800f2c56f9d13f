"""The workbench in which the Baichuan-Omni report is taken apart, one ablation at a time."""
