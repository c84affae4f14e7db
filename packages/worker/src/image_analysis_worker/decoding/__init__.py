"""From an image's bytes to pixels, in a bounded process."""
