"""Networks of P members as one batched program, and the policies, rewards and models that are made of them."""
