"""The paper's tables and figures, as independent jobs: what it printed, and ours under its protocol and under an honest one."""
