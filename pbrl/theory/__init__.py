"""Theory that runs: finite MDPs with exact solvers, regret recorders, and claims of papers as executable checks.

Everything here is numpy in float64 with an optional leading population axis P. Axis letters: P population, H horizon,
S states, A actions; a next state is written S'.
"""
