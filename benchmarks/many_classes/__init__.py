"""Memory and time of the whole chain for a thousand classes at 224 pixels."""
