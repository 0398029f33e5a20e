"""``pbrl bench offline-to-online``: what becomes of agents that were trained on data when they go online."""
