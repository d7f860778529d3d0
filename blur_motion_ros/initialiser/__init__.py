"""From a frame to a body: person, landmarks, registration, VIBE."""
