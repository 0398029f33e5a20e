"""Learners of finite MDPs that play two policies a round and may ask which trajectory is preferred."""
