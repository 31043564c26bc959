"""Knowledge editing of large language models in JAX: EMSEdit and its family. `README.md` shows the way in.

Nothing heavy is imported here, so that a mistake in a flag is answered at once.
"""
