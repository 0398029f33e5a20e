"""``pbrl bench offline``: what offline agents make of the same data, with the same budget for all."""
