"""Learners of finite episodic MDPs, with stacks of counts instead of networks; ``pbrl regret`` runs them."""
