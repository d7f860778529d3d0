"""Training of everything that is learned."""
