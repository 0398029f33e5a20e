"""The generator behind ``pbrl data make``: behaviour policies, tiers, oracle critics."""
