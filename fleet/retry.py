"""How long to wait before trying again: full jitter, so that a crowd does not return as one."""

import random


def full_jitter_s(chance: random.Random, tries: int, base_s: float, cap_s: float) -> float:
    """Return a wait before the next try, after ``tries`` failed ones: random(0, min(cap, base * 2^n))."""
    doublings = min(tries, 30)  # 2^30 s is beyond every cap; a larger power would not be a float
    return chance.uniform(0, min(cap_s, base_s * 2.0**doublings))
