"""The mocks' surroundings held to a particle box."""
